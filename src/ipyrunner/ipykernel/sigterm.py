"""The end of a kernel: code that is stuck is interrupted, so that the clean-up can run, also on SIGTERM.

A kernel manager sends a shutdown message, after half of its deadline (five seconds by default) SIGTERM, and then kills.
The message is handled on the control thread, and by default SIGTERM ends the process at once: with a cell that is stuck
no ``finally`` block of any task would run.
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

# Seconds (PATIENCE) that the kernel's loop has to answer SIGTERM before the code that blocks it is interrupted, and
# between all interrupts after the second; (CLEAN_UP) that this code has to clean up before the second interrupt.
# Managers interrupt before they send the shutdown message.
PATIENCE = 0.1
CLEAN_UP = 0.6
# Seconds after SIGTERM and the runner's own timeout in which the process has to end, even if it catches interrupts.
_LEFT = 2.0
# Seconds until SIGTERM is sent once more: an interrupt may have been raised while the process was ending.
_AGAIN = 0.5


def interrupt_until_idle(host: asyncio.AbstractEventLoop, *, after: float) -> None:
    """Send SIGINT to the main thread until *host*, its loop, runs callbacks again; for the first time *after* seconds.

    Returns at once. From any thread. None arrives after the answer: it would end the clean-up that comes next.
    """
    answered = False
    # Held from the question whether it is needed to the sending: the loop's thread may go on in between.
    sending = threading.Lock()

    def answer() -> None:
        nonlocal answered
        while not answered:
            with suppress(KeyboardInterrupt), sending:
                answered = True
                if hasattr(signal, "pthread_sigmask"):
                    signal.pthread_sigmask(signal.SIG_BLOCK, ())  # a system call: what was sent arrives in it

    try:
        host.call_soon_threadsafe(answer)
    except RuntimeError:  # it is closed
        return
    pauses = itertools.chain([CLEAN_UP], itertools.repeat(PATIENCE))

    def watch() -> float | None:
        with sending:
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
    # Python drops signals that a child process gets right after the fork: with a handler in place, a child that is
    # terminated at once (multiprocessing) would lose SIGTERM. Blocked, the signal waits until the default is restored.
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _after_fork() -> None:
    for termination in tuple(_terminations):
        termination.restore()
    _unblock()


class Termination:
    """Let SIGTERM stop the kernel's loop instead of killing the process; :meth:`finish` ends it then.

    Only in a kernel, on the main thread, and if the default is in place: other handlers stay. A second SIGTERM kills
    the process, and so does the first one if the kernel's loop does not run.

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
        """Put the handler in place again if somebody has restored the default.

        ``loop.remove_signal_handler`` does so whatever was there before ``add_signal_handler`` (aiohttp's
        ``web.run_app``, ``anyio.open_signal_receiver``). From then on SIGTERM would kill without any ``finally``.
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
        """Let SIGTERM wait for the end of the block; yield the seconds since it came, 0 if it has not."""
        self._finishing = True
        try:
            yield 0.0 if self._came is None else time.monotonic() - self._came
        finally:
            self._finishing = False

    def finish(self) -> None:
        """After the clean-up: if SIGTERM came, end the process by it, so that no thread keeps the process alive."""
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
            return  # the manager has sent it during the clean-up, which goes on
        if not first or host is None or not host.is_running():
            self._die()
        else:
            # Ends also a process that does more than run the kernel, or that catches every interrupt.
            watchdog.call_later(self._timeout() + _LEFT, _send_again)
            interrupt_until_idle(host, after=PATIENCE)
            host.call_soon_threadsafe(host.stop)


def _send_again() -> float:
    os.kill(os.getpid(), signal.SIGTERM)
    return _AGAIN
