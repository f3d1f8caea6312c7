"""Hold SIGINT back during a few instructions that must not be interrupted.

The kernel has Python's default handler in place around a plain cell: KeyboardInterrupt may be raised between any two
instructions. Raised after the thread's running loop was put aside and before it is put back, it would leave the kernel
without its loop.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from .handlers import interrupts_at_once, on_main_thread

__all__ = ["Held"]

# Not signal's functions of the same names: in Python 3.11 they call repr() of the present handler. That of
# asyncio.run() holds a task and its exception, so repr() may run user code. ``_signal``: since Python 3.3.

_T = TypeVar("_T")


class Held:
    """Hold SIGINT back inside the block, except inside :meth:`let_through`; on the main thread only.

    A SIGINT held before ``let_through`` is raised as KeyboardInterrupt there. One held after it is dropped, because
    what it was meant for has ended; with *then_raise* it is raised at the end of the block.
    """

    def __init__(self, *, then_raise: bool = False) -> None:
        self._then_raise = then_raise
        self._previous: Any = None
        self._signalled = False

    def __enter__(self) -> Held:
        # Only a handler that raises anywhere does harm: not ours, not SIG_IGN.
        if on_main_thread() and interrupts_at_once():
            _signal.signal(signal.SIGINT, self._hold)
            self._previous = signal.default_int_handler
        return self

    def __exit__(self, *exc: object) -> None:
        if self._previous is not None:
            _signal.signal(signal.SIGINT, self._previous)
            if self._then_raise and self._signalled:
                raise KeyboardInterrupt

    def let_through(self, function: Callable[[], _T]) -> _T:
        """Call *function* with the previous handler in place; keep the handler that it leaves."""
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
