"""A call on a loop after a while, without a timer of the loop.

The problem: a loop that has a timer compares it with the clock in each iteration, and each time that it waits for a
socket the operating system has to set a timer, too. With one an echo over a socket takes up to a tenth longer. A thread
that waits instead takes the GIL from a busy loop, which costs more.

The solution: a file descriptor that becomes readable after a while, among those that the loop watches. Only Linux has
such a thing (timerfd). Elsewhere, and on loops that do not say what they wait in (uvloop, where timers cost next to
nothing), it is a timer of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from ..introspection.frames import uninterruptible
from ..introspection.private_api import selector_fd

__all__ = ["Alarm"]


class Alarm:
    """Call *function* on *loop*, in an empty Context, after the seconds of :meth:`set`; until :meth:`close`.

    On the loop's thread. A call that does not come, because somebody has replaced what the loop waits in, may be asked
    for again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
        self._loop, self._function = loop, function
        self._call_later = loop.call_later  # a test of the user's may replace the loop's timers
        self._context = contextvars.Context()
        self._fd: int | None = None

    def set(self, seconds: float, *, again: bool = False) -> None:
        """Call the function after *seconds*, more than 0; *again*: the last call has not come."""
        if again:
            self.close()
        if self._fd is None and selector_fd(self._loop) is not None:
            self._watch()
        if self._fd is None:
            self._call_later(seconds, self._function, context=self._context)
        else:
            _set(self._fd, seconds)

    def close(self) -> None:
        """Watch nothing any more. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(Exception):  # the loop is closed, and may be the user's
                self._loop.remove_reader(fd)
            os.close(fd)

    def _watch(self) -> None:
        fd = _create()
        if fd is None:
            return
        try:
            self._context.run(self._loop.add_reader, fd, self._ring)
        except Exception:  # the user's loop may do anything
            os.close(fd)
        else:
            self._fd = fd

    @uninterruptible
    def _ring(self) -> None:
        try:
            if self._fd is not None:
                with suppress(BlockingIOError):  # set again since
                    os.read(self._fd, 8)
        finally:  # also if a user's signal handler raises
            self._function()


if sys.platform != "linux":

    def _create() -> int | None:
        return None

    def _set(fd: int, seconds: float) -> None: ...

elif sys.version_info >= (3, 13):

    def _create() -> int | None:
        try:
            return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        except OSError:  # too many files are open
            return None

    def _set(fd: int, seconds: float) -> None:
        os.timerfd_settime(fd, initial=seconds)

else:

    def _create() -> int | None:
        with suppress(Exception):  # this Python has no ctypes, or this libc no such function
            import ctypes

            fd = ctypes.CDLL(None).timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            return fd if fd >= 0 else None  # too many files are open
        return None

    def _set(fd: int, seconds: float) -> None:
        import ctypes

        # No interval, and then the time until the first end: seconds and nanoseconds of each.
        times = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1 * 1e9))
        ctypes.CDLL(None).timerfd_settime(fd, 0, times, None)
