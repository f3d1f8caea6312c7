"""Which callbacks hold a loop for long, so that nothing else runs: seen from a thread, told where they belong.

The problem: asyncio's debug mode measures each callback, which costs every one of them, names the callback and not the
line that it was at, and logs. uvloop's does no more.

The solution: a thread looks at the frames of the loop's thread, four times in each *limit*, and the loop pays nothing.
On asyncio's own loops each call of a callback has a frame, so one frame seen twice is one callback all the time. Other
loops (uvloop) have no such frames, and a coroutine shows the same frame in each of its steps. There the loop is asked
as well: its answer, given between two callbacks, says that the callback has ended. It is asked only when it has been
found in a callback: a loop at rest stays at rest.

What holds the loop for less than *limit* is never told, what holds it for one and a quarter of that always is, except:
C code that keeps the GIL keeps the thread from looking, and what does nothing else is not seen; a C function that is a
callback itself has no frame to show; a process that is stopped (SIGSTOP), and a prompt of pdb, count as held. A front
end's debugger (debugpy) stops this thread too: its stops do not count.
"""

from __future__ import annotations

import asyncio
import contextvars
import linecache
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType

from .interrupt import is_callback, is_driver, uninterruptible
from .peeking import handle_context, task_context

__all__ = ["SlowCallbacks"]

_LOOKS = 4
_SHORTEST = 0.001  # second between two of them
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_NOT_THE_USERS = (os.path.dirname(os.__file__) + os.sep, _OURS, "<frozen ")
_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))

_Place = tuple[CodeType, int]


class _Held:
    """One callback, from the first look at it on."""

    __slots__ = ("first", "frame", "last", "places", "told")

    def __init__(self, frame: FrameType) -> None:
        # Held only while the callback runs: a frame keeps the variables of its function.
        self.frame: FrameType | None = frame
        self.first = self.last = time.monotonic()
        self.places: Counter[_Place | None] = Counter()
        self.told = False

    @uninterruptible
    def let_go(self) -> None:  # in the loop: the callback has ended
        self.frame = None


class SlowCallbacks:
    """Tell of callbacks that hold *loop* for *limit* seconds or more, once for each function, until :meth:`stop`.

    On stderr, in the Context of the callback, and by the loop, when the callback has ended. Only where a function that
    ``drives_loop`` runs the loop. Made on the loop's thread; the looking ends also when the loop is closed, and goes on
    in no child process. *name_file* returns what the user calls a file.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, *, name_file: Callable[[str], str]) -> None:
        self._loop = loop
        self._limit = limit
        self._name_file = name_file
        self._has_frames = isinstance(loop, asyncio.BaseEventLoop)
        self._ident = threading.get_ident()
        self._held: _Held | None = None
        self._told: set[tuple[str, int]] = set()
        self._over = False
        # Not an Event: its inner lock may be taken at the moment of a fork, for ever.
        self._gate = threading.Lock()
        self._gate.acquire()
        with suppress(RuntimeError):  # an interpreter that exits starts no threads
            threading.Thread(target=self._watch, name="ipyrunner: slow callbacks", daemon=True).start()

    def stop(self) -> None:
        """End the looking, and tell of nothing any more. Idempotent."""
        if not self._over:
            self._over = True
            self._gate.release()

    def _watch(self) -> None:
        """In the thread: look, until the end."""
        pause = min(max(self._limit / _LOOKS, _SHORTEST), threading.TIMEOUT_MAX)
        while not self._gate.acquire(timeout=pause) and not self._loop.is_closed():
            with suppress(RuntimeError):  # closed since
                self._look()
        self._held = None

    def _look(self) -> None:
        # The one before and the other after: the thread may wait for the GIL in between, and time is never added.
        now = time.monotonic()
        frame, place = self._running()
        held = self._held
        if frame is None:
            self._held = None
            return
        if held is None or held.frame is not frame:
            held = self._held = _Held(frame)
            if not self._has_frames:
                self._loop.call_soon_threadsafe(held.let_go)
        else:
            held.last = now
        held.places[place] += 1
        if held.last - held.first >= self._limit and not held.told:
            held.told = True
            self._loop.call_soon_threadsafe(self._tell, held, context=self._context_of(frame))

    def _running(self) -> tuple[FrameType | None, _Place | None]:
        """Return the frame of the callback that the loop runs, if any, and where that is, if that says something."""
        frame = sys._current_frames().get(self._ident)
        innermost, callback, outermost, place, ours = frame, None, None, None, False
        while frame is not None and not is_driver(frame):
            filename = frame.f_code.co_filename
            if is_callback(frame):
                callback = frame
            if place is None and _is_users(filename):
                place = frame.f_code, frame.f_lineno
            ours = ours or filename.startswith(_OURS)
            outermost, frame = frame, frame.f_back
        found = callback if self._has_frames else outermost
        if frame is None or found is None or innermost is None:
            return None, None
        # What we do in the loop, or around a cell, is nothing of the user's; nor is the frame around a C function.
        if place is None and not ours and not is_callback(innermost):
            place = innermost.f_code, innermost.f_lineno
        return found, place

    def _context_of(self, frame: FrameType) -> contextvars.Context | None:
        context = None
        if self._has_frames:
            context = handle_context(frame.f_locals["self"])  # None when it has just ended
        else:
            task = asyncio.current_task(self._loop)
            if task is not None and getattr(task.get_coro(), "cr_frame", None) is frame:
                context = task_context(task)
        return None if context is None else context.copy()  # it may be entered at this moment

    @uninterruptible
    def _tell(self, held: _Held) -> None:
        """In the loop, when the callback has ended."""
        held.let_go()
        place = held.places.most_common(1)[0][0]
        if self._over or place is None:
            return
        code, line = place
        if (function := (code.co_filename, code.co_firstlineno)) in self._told:
            return
        self._told.add(function)
        name = "the cell" if code.co_name.startswith(("<module>", "<cell")) else f"{code.co_qualname}()"
        print(
            f"ipyrunner: {name} held the event loop for {held.last - held.first:.2f} s, and nothing else ran: "
            f"{linecache.getline(code.co_filename, line).strip()}  ({self._name_file(code.co_filename)}, line {line}; "
            f"NotebookRunner.slow_callback: {self._limit:g} s)",
            file=sys.stderr,
        )


def _is_users(filename: str) -> bool:
    return not filename.startswith(_NOT_THE_USERS) and not any(package in filename for package in _PACKAGES)
