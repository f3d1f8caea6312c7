"""Wake a loop from its select() whenever a signal arrives.

The problem: Python runs a signal handler between two instructions of the main thread. A signal that arrives just before
the thread enters ``epoll_wait``, or on another thread, leaves it waiting there: measured in a terminal, one Ctrl-C in
four that came right after the cell's first output was lost until something else woke the loop.

The solution is the documented one, ``signal.set_wakeup_fd``: the C handler writes to a socket that the loop watches.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress

from ..introspection.private_api import can_watch, signal_fd
from .handlers import on_main_thread

__all__ = ["Wakeup"]

# How many signals are remembered.
_SIGNALS = 1000


class _OnSignals:
    """The block of :meth:`Wakeup.on_signals`. A generator would take several calls more, in each cell."""

    __slots__ = ("_before", "_ours", "_wakeup")

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._ours: int | None = None

    def __enter__(self) -> None:
        wakeup = self._wakeup
        # A proactor sets the wakeup fd once, when it is made; the next proactor that is closed unsets it.
        ours = signal_fd(wakeup._loop) if wakeup._sockets is None else wakeup._sockets[1].fileno()
        if ours is None or not on_main_thread():
            return
        before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        if before != ours:  # else a nested run, or the end of the process while another run has not ended
            self._ours, self._before = ours, before
            wakeup._forward, wakeup.passed_on, wakeup._drained = before, False, b""

    def __exit__(self, *_: object) -> None:
        if self._ours is None:
            return
        self._wakeup._forward = -1
        now = signal.set_wakeup_fd(-1)
        if (again := self._before if now == self._ours else now) != -1:
            with suppress(OSError, ValueError):  # whoever had it before has closed it
                signal.set_wakeup_fd(again)


class Wakeup:
    """A socket that *loop* watches, until :meth:`close`; if it cannot, its own socket (Windows' proactor has one)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._forward = -1
        # Whether, in the present block or the last one, SIGINT has gone to another loop, too.
        self.passed_on = False
        # The signals that the loop has read in that block.
        self._drained = b""
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        if can_watch(loop):
            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)
            loop.add_reader(self._sockets[0].fileno(), self._drain)

    def on_signals(self) -> _OnSignals:
        """Wake the loop on signals for the length of a block. Does nothing on threads other than the main one.

        A wakeup fd that somebody sets meanwhile (``loop.add_signal_handler`` does) stays; the signals are passed on to
        one that was there before.
        """
        return _OnSignals(self)

    def take(self, number: signal.Signals) -> bool:
        """Return whether this signal has come since :meth:`on_signals` has begun last, and forget it."""
        signals = self._read()
        self._pass_on(signals.replace(bytes([number]), b""))
        return number in signals or number in self._drained

    def forget(self, number: signal.Signals) -> None:
        """Forget this signal if it has come and was not read yet."""
        self._pass_on(self._read().replace(bytes([number]), b""))

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._sockets is None:
            return
        reader, writer = self._sockets
        self._sockets = None
        if not self._loop.is_closed():
            self._loop.remove_reader(reader.fileno())
        reader.close()
        writer.close()

    def _drain(self) -> None:
        signals = self._read()
        self._drained = (self._drained + signals)[-_SIGNALS:]
        self.passed_on = self.passed_on or (
            signal.SIGINT in signals and self._forward not in (-1, signal_fd(self._loop))
        )
        self._pass_on(signals)

    def _pass_on(self, signals: bytes) -> None:
        # To the previous wakeup fd: another loop with signal handlers (a prompt's). And to our loop's own signal
        # handlers, whose wakeup fd may have been replaced since (by that prompt's).
        for fd in {self._forward, signal_fd(self._loop)}:
            if signals and fd not in (-1, None):
                with suppress(OSError):
                    os.write(fd, signals)

    def _read(self) -> bytes:
        signals = b""
        if self._sockets is not None:
            with suppress(BlockingIOError, InterruptedError):
                while more := self._sockets[0].recv(4096):
                    signals += more
        return signals
