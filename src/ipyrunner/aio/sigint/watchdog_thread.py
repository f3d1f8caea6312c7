"""A thread that calls functions when their time has come: it does what signal handlers cannot do.

The problem: a signal handler can neither wait nor, at any moment, start a thread. Starting one fails where a container
limits their number, and an exception in a handler is raised in whatever code it has interrupted.

The solution: one thread for the process, started before it is needed, which sleeps in ``queue.SimpleQueue.get``.
``put`` is documented as reentrant: a handler may call it while it has interrupted another ``put``. Where the thread
cannot be started nothing is called, and it is tried again at the next :meth:`Watchdog.start`.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable

from ..exit_and_fork import in_forked_children

__all__ = ["Call", "Watchdog", "watchdog"]

# Returns the seconds until it is to be called again; None: never.
Call = Callable[[], float | None]
_Request = tuple[float, Call] | None


class Watchdog:
    """Call functions later, in a thread of its own that lasts from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        in_forked_children(self)

    def start(self) -> bool:
        """Start the thread if it does not run; return whether it does. Not in signal handlers. From any thread."""
        if self._thread is not None:  # asked several times in each cell
            return True
        with self._lock:
            if self._thread is not None:
                return True
            thread = threading.Thread(
                target=self._serve, args=(self._requests,), name="ipyrunner: watchdog", daemon=True
            )
            # A front end's debugger stops all other threads at a breakpoint; ipykernel marks its own threads like this.
            thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
            try:
                thread.start()
            except RuntimeError:  # no more threads, or an interpreter that exits
                return False
            self._thread = thread
            return True

    def call_later(self, seconds: float, call: Call) -> None:
        """Call *call* in *seconds*, and again after the seconds it returns. From any thread and signal handlers."""
        self._requests.put((time.monotonic() + seconds, call))

    @property
    def put(self) -> Callable[[_Request], None]:
        """As :meth:`call_later`, for a time of ``time.monotonic``. A C function: it needs no Python frame."""
        return self._requests.put

    def stop(self) -> None:
        """Let the thread end; calls that are due are dropped. Idempotent; :meth:`start` starts a new thread."""
        with self._lock:
            if self._thread is not None:
                self._thread = None
                self._requests.put(None)
                self._requests = queue.SimpleQueue()

    def _serve(self, requests: queue.SimpleQueue[_Request]) -> None:
        try:
            _watch(requests)
        finally:
            if self._requests is requests:  # not stopped: what it has called has ended it
                self._thread = None

    def after_fork(self) -> None:
        """In a child process: forget the thread, which only the parent has."""
        self._thread, self._lock, self._requests = None, threading.Lock(), queue.SimpleQueue()


def _watch(requests: queue.SimpleQueue[_Request]) -> None:
    due: list[tuple[float, int, Call]] = []
    numbers = itertools.count()  # calls cannot be compared
    while True:
        try:
            request = requests.get(timeout=max(0.0, due[0][0] - time.monotonic()) if due else None)
        except queue.Empty:
            _, _, call = heapq.heappop(due)
            seconds = _call(call)
            if seconds is not None:
                heapq.heappush(due, (time.monotonic() + seconds, next(numbers), call))
            del call  # it may hold a cell, and that its error; the next request may never come
            continue
        if request is None:
            return
        heapq.heappush(due, (request[0], next(numbers), request[1]))
        del request


def _call(call: Call) -> float | None:
    try:
        return call()
    except Exception:  # one that fails must not keep the others from being called
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
        return None


watchdog = Watchdog()
