"""Which callbacks hold a loop for long, so that nothing else runs: noticed by a thread, shown where they belong.

The problem: asyncio's debug mode measures each callback, which slows all of them down; it names the callback but not
the line, and only logs. uvloop's does no more.

The solution: a thread looks at the frames of the loop's thread, four times in each *limit*, and the loop does not get
slower. ``Holder`` says that it is one callback all the time, and not many.

A callback that holds the loop for less than *limit* is never reported, one that holds it for 1.25 times *limit* always
is, except: C code that keeps the GIL keeps the thread from looking, so a callback that does nothing else goes
unnoticed; a callback that is itself a C function has no frame to show. A process that is stopped (SIGSTOP) and a prompt
of pdb count as holding the loop. A front end's debugger (debugpy) stops this thread too, so its stops do not count.
"""

from __future__ import annotations

import asyncio
import contextvars
import linecache
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType
from typing import NamedTuple

from ..introspection.frames import OURS, function_name, line_of, uninterruptible
from ..introspection.private_api import handle_context, is_task, task_context
from ..introspection.running_callback import CallbackCall, Holder, is_callback, is_driver
from ..introspection.stacks import frames_of, local_of

__all__ = ["Slow", "SlowCallbacks", "place_of"]

_LOOKS = 4
_SHORTEST = 0.001  # second between two of them
_NOT_THE_USERS = (os.path.dirname(os.__file__) + os.sep, OURS, "<frozen ")
_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))

_Place = tuple[CodeType, int]


class Slow(NamedTuple):
    """A callback that has held the loop for *seconds*, the place where it was most of the time, and the limit."""

    function: str | None
    filename: str
    number: int
    line: str
    seconds: float
    limit: float


class SlowCallbacks:
    """Call *show* with each callback that holds *loop* for *limit* seconds or more, until :meth:`stop`.

    Once for each function; by the loop, in the Context of the callback, when the callback has ended. Only where the
    loop is run by a function marked by ``drives_loop``. To be made on the loop's thread. The looking ends also when the
    loop is closed, and does not go on in child processes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, show: Callable[[Slow], object]) -> None:
        self._loop = loop
        self._limit = limit
        self._show = show
        self._ident = threading.get_ident()
        self._holder = Holder(loop)
        # The callback of the last look; where it was seen; whether it was reported.
        self._held: CallbackCall | None = None
        self._places: Counter[_Place] = Counter()
        self._is_told = False
        self._told: set[tuple[str, int]] = set()
        self._over = False
        # Not an Event: its inner lock may be taken at the moment of a fork, for ever.
        self._gate = threading.Lock()
        self._gate.acquire()
        with suppress(RuntimeError):  # an interpreter that exits starts no threads
            threading.Thread(target=self._watch, name="ipyrunner: slow callbacks", daemon=True).start()

    def stop(self) -> None:
        """Stop looking and reporting. Idempotent."""
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
        self._holder.forget()

    def _look(self) -> None:
        frames = frames_of(self._ident)
        held = self._holder.look(frames)
        if held is not self._held:
            self._held, self._places, self._is_told = held, Counter(), False
        place = place_of(frames)
        if held is None or held.callback is None:
            return
        if place is not None:
            self._places[place] += 1
        if held.seconds >= self._limit and not self._is_told:
            self._is_told = True
            context = self._context_of(held.callback)
            self._loop.call_soon_threadsafe(self._tell, held, self._places, context=context)

    def _context_of(self, callback: object) -> contextvars.Context | None:
        context = None
        if is_task(callback):
            context = task_context(callback)
        elif isinstance(callback, FrameType) and is_callback(callback):
            context = handle_context(local_of(callback, "self"))  # None when it has just ended
        return None if context is None else context.copy()  # it may be entered at this moment

    @uninterruptible
    def _tell(self, held: CallbackCall, places: Counter[_Place]) -> None:
        """In the loop, when the callback has ended."""
        held.let_go()
        if self._over or not places:
            return
        code, line = places.most_common(1)[0][0]
        if (function := (code.co_filename, code.co_firstlineno)) in self._told:
            return
        self._told.add(function)
        text = linecache.getline(code.co_filename, line).strip()
        self._show(Slow(function_name(code), code.co_filename, line, text, held.seconds, self._limit))


def place_of(frames: list[FrameType]) -> _Place | None:
    """Return where the callback is that runs in this stack; None if no frame of its code can be seen."""
    ours = False
    for frame in frames:
        if is_driver(frame):
            break
        filename = frame.f_code.co_filename
        if _is_users(filename):
            return frame.f_code, line_of(frame)
        ours = ours or filename.startswith(OURS)
    # Our own work in the loop or around a cell does not count; nor does the frame around a C function.
    if not frames or ours or is_driver(frames[0]) or is_callback(frames[0]):
        return None
    return frames[0].f_code, line_of(frames[0])


def _is_users(filename: str) -> bool:
    return not filename.startswith(_NOT_THE_USERS) and not any(package in filename for package in _PACKAGES)
