"""Hold SIGINT back for a few instructions that must not be torn apart.

The kernel has Python's default handler in place around a plain cell: KeyboardInterrupt may be raised between any two
instructions. Between those that put the thread's running loop aside and those that put it back, that would leave the
kernel without its loop.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from .handlers import handler_of, on_main_thread

__all__ = ["Held"]

# Not signal's functions of the same names: Python 3.11's call repr() of the handler that is there, which may be one of
# asyncio.run() that holds a task, its exception, and so code of the user's. ``_signal``: since Python 3.3.

_T = TypeVar("_T")


class Held:
    """Hold SIGINT back inside the block, except inside :meth:`let_through`; on the main thread alone.

    A signal held before ``let_through`` is raised as KeyboardInterrupt there. One held after it came for something
    that has ended, and is dropped; *then_raise*: it is raised when the block has ended.
    """

    def __init__(self, *, then_raise: bool = False) -> None:
        self._then_raise = then_raise
        self._previous: Any = None
        self._signalled = False

    def __enter__(self) -> Held:
        if on_main_thread():
            previous = handler_of(signal.SIGINT)
            # Only a handler that raises can tear anything apart: not ours, not "ignore".
            if previous is signal.default_int_handler:
                _signal.signal(signal.SIGINT, self._hold)
                self._previous = previous
        return self

    def __exit__(self, *exc: object) -> None:
        if self._previous is not None:
            _signal.signal(signal.SIGINT, self._previous)
            if self._then_raise and self._signalled:
                raise KeyboardInterrupt

    def let_through(self, function: Callable[[], _T]) -> _T:
        """Call *function* with the handler that was there; keep the handler that it leaves."""
        if self._previous is None:
            return function()
        if self._signalled:
            raise KeyboardInterrupt
        try:
            _signal.signal(signal.SIGINT, self._previous)
            return function()
        finally:
            self._previous = _signal.signal(signal.SIGINT, self._hold)

    def _hold(self, signum: int, frame: FrameType | None) -> None:
        self._signalled = True
