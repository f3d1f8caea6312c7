"""Errors in user code that the kernel calls around a cell: event hooks, input transformers, user expressions, comms.

The problem: IPython and ipykernel only catch ``Exception`` there. SystemExit, or another BaseException, passes through
all of them: the cell gets no reply, and the kernel handles no further messages.

The solution: raised before the cell's code, it ends the cell, as an Exception of the same name. Raised after that, it
is shown as IPython shows exceptions of hooks, and the outcome of the cell stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..aio.introspection.exceptions import set_traceback, traceback_of
from ..aio.sigint.forced_interrupt import is_forced
from ..ipykernel.contained_calls import contained
from .exception_groups import format_exception, text_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Calling", "contained", "namesake"]


def namesake(exc: BaseException) -> Exception:
    """Return an Exception of the same name as *exc*, with its traceback, and with a message that does not raise."""
    other: Exception = type(type(exc).__name__, (Exception,), {})(text_of(exc))
    set_traceback(other, traceback_of(exc))
    return other


class Calling:
    """The replacements of the methods by which *shell* calls such code."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        # Set while the failure of a cell is shown: its hooks have been called already.
        self.is_over = False

    def trigger(self, original: Callable[..., None]) -> Callable[..., None]:
        """Return the replacement of the method that calls event hooks."""

        def trigger(event: str, *args: Any, **kwargs: Any) -> None:
            before = event.startswith("pre_")
            if self.is_over and before:
                return
            try:
                original(event, *args, **kwargs)
            except BaseException as exc:
                if is_forced(exc):
                    raise
                if before:
                    raise namesake(exc) from None
                with suppress(BaseException):
                    print(f"Error in a callback for {event}:")
                    self._shell.showtraceback((type(exc), exc, traceback_of(exc)))  # type: ignore[no-untyped-call]

        return trigger

    @staticmethod
    def transform(original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the replacement of the method that transforms a cell's source, or its AST."""

        def transform(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            except Exception:
                raise
            except BaseException as exc:
                if is_forced(exc):
                    raise
                raise namesake(exc) from None

        return transform

    def user_obj_error(self, original: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        """Return the replacement of the method that describes the error of a user expression, the present one."""

        def user_obj_error() -> dict[str, Any]:
            exc = sys.exc_info()[1]
            try:
                return original()
            except BaseException:
                assert exc is not None
                lines = format_exception(self._shell, exc, None)
                return {"status": "error", "traceback": lines, "ename": type(exc).__name__, "evalue": text_of(exc)}

        return user_obj_error
