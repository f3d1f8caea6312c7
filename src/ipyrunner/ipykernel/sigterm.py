"""The end of a kernel: what is stuck is interrupted, so that the clean-up gets its turn; SIGTERM is a clean end.

A kernel manager asks by a message, sends SIGTERM after half of its deadline (five seconds by default), and kills. The
message is handled on the control thread, and SIGTERM's default is to die on the spot: a cell that is stuck would keep
``finally`` blocks of all tasks from running.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..aio.sigint.handlers import handler_of, on_main_thread, signal_main_thread
from ..aio.sigint.watchdog_thread import watchdog

__all__ = ["CLEAN_UP", "Termination", "interrupt_until_idle"]

# Seconds that the kernel's loop has to answer SIGTERM before what it is stuck in is interrupted; that this has to clean
# up before it is interrupted again; and between all further interrupts. Managers interrupt before they ask by message.
PATIENCE = 0.1
CLEAN_UP = 0.6
# Seconds after SIGTERM and the runner's own time in which the process has to end, whatever catches the interrupts.
_LEFT = 2.0
# Seconds after which it is told once more: an interrupt may have been raised in the middle of its end.
_AGAIN = 0.5


def interrupt_until_idle(host: asyncio.AbstractEventLoop, *, after: float) -> None:
    """Send SIGINT to the main thread until *host*, its loop, comes to run callbacks; the first one *after* seconds.

    Returns at once. From any thread.
    """
    answered: list[bool] = []
    try:
        host.call_soon_threadsafe(answered.append, True)
    except RuntimeError:  # it is closed
        return
    pauses = itertools.chain([CLEAN_UP], itertools.repeat(PATIENCE))

    def watch() -> float | None:
        if answered or not host.is_running():
            return None
        signal_main_thread()
        return next(pauses)

    watchdog.call_later(after, watch)


_terminations: weakref.WeakSet[Termination] = weakref.WeakSet()
_masks = threading.local()


@functools.cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_unblock, after_in_child=_after_fork)


def _before_fork() -> None:
    # Python drops what comes in a child process before it has settled: with a handler in place, SIGTERM would be lost
    # to a child that is terminated right away (multiprocessing). Blocked, it waits for the default.
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _after_fork() -> None:
    for termination in tuple(_terminations):
        termination.restore()
    _unblock()


class Termination:
    """Let SIGTERM stop the kernel's loop instead of killing the process; :meth:`finish` ends it then.

    In a kernel, on the main thread, and only in the place of the default; a handler of somebody else's stays. A second
    SIGTERM kills, and so does the first one where the kernel's loop does not run.

    Parameters
    ----------
    host : returns the kernel's loop.
    timeout : returns the seconds that the clean-up may take.
    """

    def __init__(
        self,
        host: Callable[[], asyncio.AbstractEventLoop | None],
        *,
        timeout: Callable[[], float],
        in_kernel: bool,
    ) -> None:
        self._host = host
        self._timeout = timeout
        self._came: float | None = None
        self._finishing = False
        self._active = in_kernel and on_main_thread() and handler_of(signal.SIGTERM) is signal.SIG_DFL
        if self._active:
            _register()
            watchdog.start()
            _terminations.add(self)
            self.renew()

    def renew(self) -> None:
        """Put the handler in place again where somebody has left the default.

        ``loop.remove_signal_handler`` does, whatever was there before ``add_signal_handler`` (aiohttp's
        ``web.run_app``, ``anyio.open_signal_receiver``); SIGTERM would kill without any ``finally`` from then on.
        """
        if self._active and on_main_thread() and handler_of(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def restore(self) -> None:
        """Restore the default, unless somebody has replaced our handler."""
        if self._active and handler_of(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._active = False

    @contextmanager
    def cleaning_up(self) -> Iterator[float]:
        """Let SIGTERM wait for the end of the block; give the seconds since it came, 0 if it has not."""
        self._finishing = True
        try:
            yield 0.0 if self._came is None else time.monotonic() - self._came
        finally:
            self._finishing = False

    def finish(self) -> None:
        """When all is cleaned up: if SIGTERM came, die of it. A thread that does not end cannot keep the process."""
        self.restore()
        if self._came is not None:
            self._die()

    def _die(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # whatever it is, the process is to end
                stream.flush()
        self.restore()
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        host = self._host()
        first, self._came = self._came is None, self._came or time.monotonic()
        if self._finishing and first:
            return  # the manager has lost its patience in the middle of the clean-up
        if not first or host is None or not host.is_running():
            self._die()
        else:
            # A process that is not the kernel's alone, or catches every interrupt, ends all the same.
            watchdog.call_later(self._timeout() + _LEFT, _send_again)
            interrupt_until_idle(host, after=PATIENCE)
            host.call_soon_threadsafe(host.stop)


def _send_again() -> float:
    os.kill(os.getpid(), signal.SIGTERM)
    return _AGAIN
