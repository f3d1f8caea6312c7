"""Give a call to a loop's thread, and take it back if the loop does not come to it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

__all__ = ["hand_over"]


def hand_over(loop: asyncio.AbstractEventLoop, call: Callable[[], object], *, patience: float) -> bool:
    """Have *loop* call, in a copy of the present Context, and wait for the end of it. From another thread.

    False if the loop is closed or has not begun with it within *patience* seconds; then it never will. What the call
    raises is the loop's affair, as with any callback.
    """
    claim = threading.Lock()  # never released: whoever gets it calls
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        if claim.acquire(blocking=False):
            try:
                begun.set()
                call()
            finally:
                ended.set()

    try:
        loop.call_soon_threadsafe(run, context=contextvars.copy_context())
    except RuntimeError:
        return False
    if not begun.wait(patience) and claim.acquire(blocking=False):
        return False
    ended.wait()
    return True
