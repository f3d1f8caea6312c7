"""Let other threads run beside a loop that never rests, when a message has come for them.

The problem: ipykernel reads requests and sends output on threads of its own. A loop that always has callbacks ready
releases the GIL in each iteration, to look at its sockets, and takes it back before a waiting thread has woken up. Such
a thread takes it by force only if it was not released at all for ``sys.getswitchinterval()``, 5 ms (``take_gil`` in
CPython's ceval_gil.c). So beside twenty tasks that compute a little a trivial cell was answered after seconds.

The solution: the loop watches the fds that these threads wait for. When a request has come, it sleeps in its next few
iterations, each time for as short a moment as the system can, so that whoever waits for the GIL gets it. The fds are
watched for edges: each message counts once, whenever it is read.

Output is left to the switch interval: to sleep after each message of a cell that displays much doubled its time, and to
do so from time to time for a while cost as much as a short task in each iteration, after the start of each cell.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Collection
from time import sleep  # what the user puts in its place is not for us
from typing import Any

from ..introspection.frames import uninterruptible
from ..introspection.private_api import ready_callbacks

__all__ = ["OtherThreads"]

# Seconds. Linux adds 50 µs to it; a thread that waits for the GIL has woken up by then.
_MOMENT = 2e-5
# How often the loop sleeps after a request: a thread takes the GIL several times to handle it.
_TIMES = 20


class OtherThreads:
    """Let the threads run that wait for *fds*, while *loop* is busy. On the loop's thread.

    Raises OSError and ValueError if the fds cannot be watched. Nothing happens where there is neither epoll nor kqueue.
    The fds may be closed at any time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fds: Collection[int]) -> None:
        self._loop = loop
        self._edges = _Edges(fds) if fds and _Edges.is_possible else None
        self._watching = False
        # How often the loop is still to sleep, and when it does so next.
        self._times = 0
        self._next: asyncio.Handle | None = None

    def watch(self) -> None:
        """The loop is about to run."""
        if self._edges is not None and not self._watching:
            self._edges.clear()
            self._loop.add_reader(self._edges.fd, self._on_message, self._edges)
            self._watching = True

    def rest(self) -> None:
        """The loop is about to sleep for long: a message does not wake it."""
        if self._watching:
            self._watching = False
            if self._edges is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._edges.fd)

    def close(self) -> None:
        """Watch nothing from now on. Idempotent."""
        self.rest()
        if self._edges is not None:
            self._edges.close()
            self._edges = None

    @uninterruptible
    def _on_message(self, edges: _Edges) -> None:
        edges.clear()
        self._times = _TIMES
        if self._next is not None:  # it may be lost, if a signal handler has raised
            self._next.cancel()
        self._go_on()

    def _go_on(self) -> None:
        # Others that are ready have had their turn before this.
        ready = ready_callbacks(self._loop)
        is_busy = self._times > 0 and (ready is None or len(ready) > 0)
        self._next = self._loop.call_soon(self._sleep) if is_busy else None

    @uninterruptible
    def _sleep(self) -> None:
        self._times -= 1
        self._go_on()
        sleep(_MOMENT)


class _Edges:
    """One fd that is readable when an event has come for one of *fds*, until :meth:`clear`."""

    is_possible = hasattr(select, "epoll") or hasattr(select, "kqueue")

    def __init__(self, fds: Collection[int]) -> None:
        self._queue: Any
        if sys.platform == "linux":
            self._queue = select.epoll(len(fds))
            for fd in fds:
                self._queue.register(fd, select.EPOLLIN | select.EPOLLET)
        else:
            self._queue = select.kqueue()  # type: ignore[attr-defined,unused-ignore]
            add = select.KQ_EV_ADD | select.KQ_EV_CLEAR  # type: ignore[attr-defined,unused-ignore]
            self._queue.control([select.kevent(fd, select.KQ_FILTER_READ, add) for fd in fds], 0)  # type: ignore[attr-defined,unused-ignore]
        self.fd: int = self._queue.fileno()

    def clear(self) -> None:
        if sys.platform == "linux":
            self._queue.poll(0)
        else:
            self._queue.control(None, 100, 0)

    def close(self) -> None:
        self._queue.close()
