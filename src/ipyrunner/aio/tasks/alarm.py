"""A call on a loop after a while, without a timer of the loop.

The problem: a loop that has a timer compares it with the clock in each iteration, and each time that it waits for a
socket the operating system has to set a timer, too. With one an echo over a socket takes up to a tenth longer. A thread
that waits instead takes the GIL from a busy loop, which costs more.

The solution: a file descriptor that becomes readable after a while, among those that the loop watches. Only Linux has
such a thing (timerfd). Elsewhere, and on loops that do not say what they wait in (uvloop, where timers cost next to
nothing), it is a timer of the loop.

A selector that has the number of a closed file descriptor does not watch the next one with that number. So ours is
closed only when no selector has it, and not if somebody has closed it, since then the number may be another's.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from ..introspection.frames import uninterruptible
from ..introspection.private_api import selector_fd, selector_of

__all__ = ["Alarm"]


class Alarm:
    """Call *function* on *loop*, in an empty Context, after the seconds of :meth:`set`; until :meth:`close`.

    On the loop's thread. In a child process that was forked, which shares what the parent's loop waits in, it is a
    timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
        self._loop, self._function = loop, function
        self._call_later = loop.call_later  # a test of the user's may replace the loop's timers
        self._context = contextvars.Context()
        self._fd: int | None = None
        # What the loop waited in when it was asked to watch the fd; whether it is to be asked again.
        self._watcher: Any = None
        self._is_lost = False
        self._process = os.getpid()

    def set(self, seconds: float, *, again: bool = False) -> None:
        """Call the function after *seconds*, more than 0.

        *again*: the last call has not come, since the loop was blocked, or somebody has removed the fd. It may still
        come as well.
        """
        if again:
            self._is_lost = True
        elif self._watches():
            _set(self._fd, seconds)  # type: ignore[arg-type]
            return
        self._call_later(seconds, self._function, context=self._context)

    def close(self) -> None:
        """Watch nothing any more. Idempotent."""
        if (fd := self._fd) is None:
            return
        if os.getpid() == self._process:
            self._unwatch(fd)
        if _is_timer(fd):
            os.close(fd)
        self._fd = None  # last: if a signal handler raises before, it is done again

    def _watches(self) -> bool:
        """Let the loop watch the fd, if it does not yet; return whether it does."""
        is_same = not self._is_lost and self._watcher is selector_of(self._loop)
        if self._fd is not None and is_same and _is_timer(self._fd):
            return os.getpid() == self._process
        self.close()
        if selector_fd(self._loop) is None or os.getpid() != self._process or (fd := _create()) is None:
            return False
        self._fd, self._watcher, self._is_lost = fd, selector_of(self._loop), False
        try:
            self._context.run(self._loop.add_reader, fd, self._ring, fd)
        except BaseException as error:  # the user's loop may do anything, and a signal handler may raise
            self.close()
            if not isinstance(error, Exception):
                raise
            return False
        return True

    def _unwatch(self, fd: int) -> None:
        with suppress(Exception):  # the loop is closed, and may be the user's
            self._loop.remove_reader(fd)
        with suppress(Exception):  # somebody has replaced the loop's selector since
            if self._watcher is not selector_of(self._loop):
                self._watcher.unregister(fd)

    @uninterruptible
    def _ring(self, fd: int) -> None:
        try:
            if fd != self._fd or not _is_timer(fd):
                self._loop.remove_reader(fd)
            else:
                with suppress(BlockingIOError):  # set again since
                    os.read(fd, 8)
        finally:  # also if a user's signal handler raises
            self._function()


def _is_timer(fd: int) -> bool:
    """Return whether *fd* is open, and a timer: somebody may have closed it, and then it may be anything."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[timerfd]"
    except OSError:
        return False


def _create() -> int | None:
    fd = _new() if sys.platform == "linux" else None
    if fd is None or _is_timer(fd):
        return fd
    os.close(fd)  # /proc is not there
    return None


if sys.version_info >= (3, 13):

    def _new() -> int | None:
        with suppress(AttributeError, OSError):  # this libc has no such function; too many files are open
            return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        return None

    def _set(fd: int, seconds: float) -> None:
        os.timerfd_settime(fd, initial=seconds)

else:

    @cache
    def _libc() -> Any:
        import ctypes

        return ctypes.CDLL(None)

    def _new() -> int | None:
        with suppress(Exception):  # this Python has no ctypes, or this libc no such function
            fd: int = _libc().timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            return fd if fd >= 0 else None  # too many files are open
        return None

    def _set(fd: int, seconds: float) -> None:
        import ctypes

        # No interval, and then the time until the first end: seconds and nanoseconds of each.
        times = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1 * 1e9))
        _libc().timerfd_settime(fd, 0, times, None)
