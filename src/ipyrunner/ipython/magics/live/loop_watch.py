"""Ask a loop again and again; measure how long it takes to answer, and find the code that blocks it.

The problem: while code blocks the loop's thread, nothing on that thread can report it.

The solution: a thread asks the loop by ``call_soon_threadsafe``. The time until the answer is the loop's lag. While
there is no answer, the thread itself looks at the frames of the loop's thread, and says where it is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ....aio.introspection.frames import function_name, uninterruptible
from ....aio.introspection.stacks import frames_of
from ....aio.tasks.slow_callbacks import place_of

__all__ = ["SHARE", "Blocked", "LoopWatch"]

# Seconds between two questions, and until a loop that does not answer is reported as blocked.
PERIOD = 0.5
BLOCKED = 1.0
# The next *answer* comes after this many times as long as the last one took, so that they take little of the loop's
# time. Questions go on: a loop that is blocked soon after an answer has to be noticed.
SHARE = 20
# How many answers are remembered: those of a minute.
_MINUTE = int(60 / PERIOD)


class Blocked(NamedTuple):
    """A loop that has not answered for *seconds*, and the place in the user's code where its thread is, if known."""

    seconds: float
    function: str | None
    filename: str | None
    line: int


class LoopWatch:
    """Call *answer* in the loop twice a second at most, and *blocked* in a thread while the loop does not answer.

    *get_loop* returns the loop to ask, or None; then *gone* is called in the thread. From :meth:`start` to
    :meth:`stop`, which may be called in each of these functions. To be made on the loop's thread.
    """

    def __init__(
        self,
        get_loop: Callable[[], asyncio.AbstractEventLoop | None],
        *,
        answer: Callable[[], object],
        blocked: Callable[[Blocked], object],
        gone: Callable[[], object],
    ) -> None:
        self._get_loop = get_loop
        self._answer = answer
        self._blocked = blocked
        self._gone = gone
        self._ident = threading.get_ident()
        self._thread: threading.Thread | None = None
        self._gate = threading.Event()
        # The question that is not answered yet: the loop, and when it was asked.
        self._asked: tuple[asyncio.AbstractEventLoop, float] | None = None
        self._rest = 0.0
        # Seconds from question to answer, of the last minute.
        self.lags: deque[float] = deque(maxlen=_MINUTE)

    @property
    def is_running(self) -> bool:
        """Whether the thread runs. False in a child process, which has no threads of its parent."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, unless it has begun. Does nothing if no thread can be started."""
        if self.is_running and not self._gate.is_set():
            return
        self._gate, self._asked = threading.Event(), None
        self._thread = threading.Thread(
            target=self._watch, args=(self._gate,), name="ipyrunner: live view", daemon=True
        )
        # A front end's debugger stops all other threads at a breakpoint; ipykernel marks its own threads like this.
        self._thread.pydev_do_not_trace = self._thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        with suppress(RuntimeError):  # no more threads, or an interpreter that exits
            self._thread.start()

    def stop(self) -> None:
        """End. Idempotent."""
        self._gate.set()

    def _watch(self, gate: threading.Event) -> None:
        self._ask()
        while not gate.wait(PERIOD):
            self._ask()

    def _ask(self) -> None:
        loop, now = self._get_loop(), time.monotonic()
        asked = self._asked  # the loop may answer at any moment
        if loop is None or loop.is_closed():
            self._asked = None
            self._gone()
        elif asked is None or asked[0] is not loop:
            self._asked = loop, now
            with suppress(RuntimeError):  # closed since
                loop.call_soon_threadsafe(self._reply, loop, now)
        elif (seconds := now - asked[1]) >= BLOCKED:
            self._blocked(self._look(seconds))

    def _look(self, seconds: float) -> Blocked:
        place = place_of(frames_of(self._ident))
        if place is None:
            return Blocked(seconds, None, None, 0)
        code, line = place
        return Blocked(seconds, function_name(code), code.co_filename, line)

    @uninterruptible
    def _reply(self, loop: asyncio.AbstractEventLoop, asked: float) -> None:
        """In the loop."""
        if self._gate.is_set() or self._asked != (loop, asked):
            return
        begin = time.monotonic()
        self.lags.append(begin - asked)
        self._asked = None
        if begin < self._rest:
            return
        try:
            self._answer()
        except BaseException:
            self.stop()  # otherwise the exception would be raised twice a second
            raise
        end = time.monotonic()
        self._rest = end + SHARE * (end - begin)
