"""``%debug`` and ``%pdb`` after an ExceptionGroup: stop where one of its exceptions was raised.

The problem: IPython stops in the innermost frame of the group's own traceback, which is asyncio's (``TaskGroup``'s
``__aexit__``). The frames of the task that failed hang on the inner exception, and pdb has no way there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..aio.tasks import describe

__all__ = ["debugger"]


def debugger(original: Callable[..., None]) -> Callable[..., None]:
    """Return the replacement of ``InteractiveShell.debugger``, which ``%debug`` and ``%pdb on`` call."""

    def debugger(force: bool = False) -> None:
        last = getattr(sys, "last_value", None)
        raised = [exc for exc in _leaves(last) if exc.__traceback__ is not None]
        if not isinstance(last, BaseExceptionGroup) or not raised:
            original(force=force)
            return
        if len(raised) > 1:
            print(
                f"ipyrunner: this is where the first of {len(raised)} exceptions was raised, {describe(raised[0])}. "
                "For another one: `raise sys.last_value.exceptions[1]` in a cell of its own, then %debug"
            )
        with _last(raised[0]):
            original(force=force)

    return debugger


def _leaves(exc: BaseException | None) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    elif exc is not None:
        yield exc


@contextmanager
def _last(exc: BaseException) -> Iterator[None]:
    """For the length of the block *exc* is what ``sys`` has as the last exception: IPython debugs that one."""
    names = ("last_type", "last_value", "last_traceback", "last_exc")  # the last one since Python 3.12
    before = {name: getattr(sys, name) for name in names if hasattr(sys, name)}
    values = (type(exc), exc, exc.__traceback__, exc)
    for name, value in zip(names, values, strict=True):
        if name in before:
            setattr(sys, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(sys, name, value)
