"""Let other threads run beside a loop that never rests, when a message has come for them.

The problem: ipykernel reads requests and sends output on threads of its own. A loop that always has callbacks ready
releases the GIL in each iteration, to look at its sockets, and takes it back before a waiting thread has woken up. Such
a thread takes it by force only if it was not released at all for ``sys.getswitchinterval()``, 5 ms (``take_gil`` in
CPython's ceval_gil.c). So beside twenty tasks that compute a little a trivial cell was answered after seconds.

The solution: the loop watches the fds that these threads wait for. When a request has come, it sleeps in its next few
iterations, each time for as short a moment as the system can, so that whoever waits for the GIL gets it. After output,
which a thread collects for a while, it does so from time to time only: to sleep after each message of a cell that
displays much would double the time. The fds are watched for edges: each message counts once, whenever it is read.

A shorter switch interval helped only if an iteration took longer than that, and it slowed threads that compute.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable, Collection
from time import monotonic, sleep  # what the user puts in their place is not for us
from typing import Any, NamedTuple

from ..introspection.frames import uninterruptible
from ..introspection.private_api import ready_callbacks

__all__ = ["NO_FDS", "OtherThreads", "ThreadFds"]

# Seconds. Linux adds 50 µs to it; a thread that waits for the GIL has woken up by then.
_MOMENT = 2e-5
# How often the loop sleeps after a request: a thread takes the GIL several times to handle it.
_TIMES = 20
# Seconds for which the loop sleeps from time to time after output, which ipykernel sends after 0.2; and in between.
_WHILE = 0.5
_BETWEEN = 0.01


class ThreadFds(NamedTuple):
    """What is readable when something has come for other threads: requests, and output."""

    requests: Collection[int] = ()
    output: Collection[int] = ()


NO_FDS = ThreadFds()


class OtherThreads:
    """Let the threads run that wait for *fds*, while *loop* is busy. On the loop's thread.

    Raises OSError and ValueError if the fds cannot be watched. Nothing happens where there is neither epoll nor kqueue.
    The fds may be closed at any time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fds: ThreadFds) -> None:
        self._loop = loop
        # Two, since one could not say for which fd it is readable if that was read meanwhile.
        self._watched: list[tuple[_Edges, Callable[[], None]]] = [
            (_Edges(some), call)
            for some, call in ((fds.requests, self._on_request), (fds.output, self._on_output))
            if some and _Edges.is_possible
        ]
        self._watching = False
        # How often it is still to sleep for a request; until when for output, and not before when.
        self._times = 0
        self._until = self._due = 0.0
        self._next: asyncio.Handle | None = None

    def watch(self) -> None:
        """The loop is about to run."""
        if not self._watching:
            for edges, call in self._watched:
                edges.clear()
                self._loop.add_reader(edges.fd, self._on_message, edges, call)
            self._watching = True

    def rest(self) -> None:
        """The loop is about to sleep for long: a message does not wake it."""
        if self._watching:
            self._watching = False
            if not self._loop.is_closed():
                for edges, _ in self._watched:
                    self._loop.remove_reader(edges.fd)

    def close(self) -> None:
        """Watch nothing from now on. Idempotent."""
        self.rest()
        while self._watched:
            self._watched.pop()[0].close()

    @uninterruptible
    def _on_message(self, edges: _Edges, call: Callable[[], None]) -> None:
        edges.clear()
        call()
        if self._next is not None:  # it may be lost, if a signal handler has raised
            self._next.cancel()
        self._go_on()

    def _on_request(self) -> None:
        self._times = _TIMES

    def _on_output(self) -> None:
        self._until = monotonic() + _WHILE

    def _go_on(self) -> None:
        # Others that are ready have had their turn before this.
        ready = ready_callbacks(self._loop)
        if ready is not None and not ready:
            self._times = 0
        busy = (ready is None or ready) and (self._times or monotonic() < self._until)
        self._next = self._loop.call_soon(self._sleep) if busy else None

    @uninterruptible
    def _sleep(self) -> None:
        is_due = self._times or monotonic() >= self._due
        self._times = max(0, self._times - 1)
        self._go_on()
        if is_due:
            sleep(_MOMENT)
            self._due = monotonic() + _BETWEEN


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
