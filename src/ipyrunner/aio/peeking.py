"""What a loop that is at rest has to do.

asyncio has no public way to ask. These private names of ``asyncio.BaseEventLoop`` are used here alone, all present
from 3.4 to 3.14: ``_selector`` (its ``fileno`` is public), ``_ready``, ``_scheduled`` and ``_stopping``. On a loop
that lacks them (uvloop, Windows' proactor and ``select``) the answer is "cannot tell", and the caller polls.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["can_watch", "has_ready", "is_stopping", "next_timer", "selector_fd"]


def selector_fd(loop: asyncio.AbstractEventLoop) -> int | None:
    """Return the fd that is readable when one of the loop's fds is (epoll, kqueue, devpoll), or None."""
    fileno: Any = getattr(getattr(loop, "_selector", None), "fileno", None)
    fd = fileno() if callable(fileno) else None
    return fd if isinstance(fd, int) and fd >= 0 else None


def has_ready(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether callbacks are waiting for the loop's next iteration; False if there is no telling."""
    return bool(getattr(loop, "_ready", ()))


def next_timer(loop: asyncio.AbstractEventLoop) -> float | None:
    """Return when the loop's next timer is due, in the loop's time; None without timers, or if there is no telling."""
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    return scheduled[0].when() if scheduled else None


def is_stopping(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop was told to stop in this iteration; False if there is no telling."""
    return bool(getattr(loop, "_stopping", False))


def can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop can watch a fd (``add_reader``): all but Windows' proactor."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader
