"""Run a call on a loop's thread, or withdraw it if the loop does not get to it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

__all__ = ["hand_over"]


def hand_over(loop: asyncio.AbstractEventLoop, call: Callable[[], object], *, patience: float) -> bool:
    """Run *call* on *loop*, in a copy of the present Context, and wait until it has ended. From another thread.

    False if the loop is closed or has not begun the call within *patience* seconds; then the call never runs. The loop
    handles what *call* raises, as it does for any callback.
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
