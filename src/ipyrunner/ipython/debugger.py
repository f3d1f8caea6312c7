"""The debuggers stop in the user's frames: pdb after an ExceptionGroup, a front end's (debugpy) in steps.

IPython's ``%debug`` stops in the innermost frame of a group's own traceback, which is asyncio's (``TaskGroup``'s
``__aexit__``). The frames of the failed task belong to the inner exception, which pdb cannot get to.

ipykernel tells debugpy, when a front end attaches, to leave out every file that was imported when the kernel started.
Ours are imported later: they would be shown below the user's frames, and stepped into at the end of each coroutine.

pdb takes SIGINT over at ``continue``, to stop the program again. A run that begins after that takes it over from pdb.
"""

from __future__ import annotations

import bdb
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..aio.introspection.exceptions import inner_of, is_a, traceback_from, traceback_of
from ..aio.introspection.frames import OURS, leave_alone
from ..aio.tasks.safe_names import describe
from ..installation import Installation

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["install"]


def install(extension: Installation) -> None:
    """Put the part in place."""
    shell, outside = extension.shell, extension.runner.outside
    extension.replace(shell, "debugger", lambda original: _debugger(shell, original))
    for name in ("replaces", "rests"):
        extension.replace(outside, name, _from_pdb_too)
    extension.undo(_leave_out_ours(shell))


def _from_pdb_too(original: Callable[[object], bool]) -> Callable[[object], bool]:
    """Return the replacement of a method of ``Outside`` that says whether SIGINT is taken over from a handler."""

    def takes_over(handler: object) -> bool:
        taken = isinstance(getattr(handler, "__self__", None), bdb.Bdb) or original(handler)
        if taken:
            _forget_before_pdb()
        return taken

    return takes_over


def _forget_before_pdb() -> None:
    """Let pdb forget the handler that it has replaced at ``continue``, so that it does not restore it.

    It would do so at its next prompt, which may be in another cell, with another handler in place. Private: since
    Python 3.2; without it an interrupt at the prompt would do nothing after a `continue` in an earlier cell.
    """
    debugger = getattr(sys.modules.get("pdb"), "Pdb", None)
    if getattr(debugger, "_previous_sigint_handler", None) is not None:
        debugger._previous_sigint_handler = None  # type: ignore[union-attr]


def _leave_out_ours(shell: InteractiveShell) -> Callable[[], None]:
    """Let the front end's debugger step over our code when it attaches next; return a function that undoes this."""
    # At a breakpoint of debugpy: after a KeyboardInterrupt in its code neither debugpy nor the kernel answers any more,
    # as a test with ipykernel's own kernel showed. Instead the cell is cancelled when it goes on.
    leave_alone("pydevd", "_pydevd")
    # Public in newer versions of ipykernel 6, and in 7; 6.17 shows its own frames too. Without debugpy: no debugger.
    kernel_modules = getattr(getattr(getattr(shell, "kernel", None), "debugger", None), "kernel_modules", None)
    files: list[str] = [] if kernel_modules is None else kernel_modules
    ours = [str(path) for path in Path(OURS).rglob("*.py") if str(path) not in files]
    files += ours

    def undo() -> None:
        files[:] = [path for path in files if path not in ours]

    return undo


def _debugger(shell: InteractiveShell, original: Callable[..., None]) -> Callable[..., None]:
    """Return the replacement of ``shell.debugger``, which ``%debug`` and ``%pdb on`` call."""

    def debugger(force: bool = False) -> None:
        last = getattr(sys, "last_value", None)
        raised = [exc for exc in _leaves(last) if traceback_of(exc) is not None]
        if last is not None and getattr(sys, "last_traceback", None) is None:
            print(f"ipyrunner: there is nothing to debug: {describe(last)} has no traceback, as after an interrupt")
            return
        if not is_a(last, BaseExceptionGroup) or not raised:
            original(force=force)
            return
        if len(raised) > 1:
            print(
                f"ipyrunner: this is the first of {len(raised)} exceptions, {describe(raised[0])}. To debug another "
                "one, run `raise sys.last_value.exceptions[1]` in a cell, then %debug"
            )
        tb = traceback_of(raised[0])
        # IPython drops the first entry, which is its own.
        tb = traceback_from([tb], tb) if tb is not None else None
        shell.InteractiveTB.tb = tb  # before IPython 9 this goes before what sys has
        with _last(raised[0], tb):
            original(force=force)

    return debugger


def _leaves(exc: BaseException | None) -> Iterator[BaseException]:
    if exc is not None and (inner := inner_of(exc)):
        for each in inner:
            yield from _leaves(each)
    elif exc is not None:
        yield exc


@contextmanager
def _last(exc: BaseException, tb: TracebackType | None) -> Iterator[None]:
    """For the length of the block make *exc* the last exception in ``sys``, which IPython debugs."""
    names = ("last_type", "last_value", "last_traceback", "last_exc")  # the last one since Python 3.12
    before = {name: getattr(sys, name) for name in names if hasattr(sys, name)}
    values = (type(exc), exc, tb, exc)
    for name, value in zip(names, values, strict=True):
        if name in before:
            setattr(sys, name, value)
    try:
        yield
    finally:
        for name, value in zip(names, values, strict=True):
            if name in before and getattr(sys, name, None) is value:  # debugged code may have set another one
                setattr(sys, name, before[name])
