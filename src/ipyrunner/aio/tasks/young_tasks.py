"""Tasks that have started a moment ago: each costs one weak reference, and is safe from the garbage collector.

The problem: asyncio keeps weak references to tasks, and a task that nobody holds may be collected before it has ended.
Holding all tasks would keep their results, and any work at the end of each makes a short task much slower.

The solution: ``create_task`` stores a weak reference, and for a task that soon ends this is all. A task that has not
ended and the future that it waits for hold each other, so only the garbage collector can free them. When a collection
begins (``gc.callbacks``), the tasks that it looks at are held until it ends: those of its generation and of the younger
ones, which are known by their numbers. From time to time, while there are any, the new tasks are sorted, and a few of
the oldest that have not ended are handed on, to be watched to their end: so few that it takes no noticeable time,
however many there are. The start of a task is known only as exactly as this.

A task may end, and be freed, before anybody has looked at it. Then asyncio itself reports its failure.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, repeat
from operator import call, is_not
from typing import Any

from ..introspection.frames import uninterruptible
from ..introspection.private_api import has_begun, unseen_of
from ..introspection.task_state import is_done
from .alarm import Alarm
from .task_records import Started

__all__ = ["FEW", "YoungTasks"]

# Seconds until the first look, and between two of them at most, when many follow one another.
_PAUSE = 0.02
_LONGEST_PAUSE = 0.16
# Seconds after which a look that has not come is asked for again.
_LOST = 1.0
# How many tasks are handed on in a second; if there are very many, one of _PART in each look.
_HANDED_ON = 5000
_PART = 200
# How many new tasks may wait to be sorted. More dead references would leave the processor's cache, and cause garbage
# collections.
FEW = 128
# How many sorted batches are not checked again until their last task is gone.
_UNCHECKED = 20
# How many tasks that have ended are remembered at each look.
_RECENT = 50
# How many references are looked at in one go, to pass over those that are gone.
_STRIDE = 100
# Among how many of the newest tasks one is searched for.
_SEARCHED = 500
# Python 3.14.0 to 3.14.4 collect all generations a little at a time.
_IS_INCREMENTAL = sys.version_info[:2] == (3, 14) and gc.get_threshold()[2] == 0

_Ref = Callable[[], "asyncio.Task[Any] | None"]


class _Batch:
    """Weak references to tasks started one after the other, of which those before *begin* were handed on.

    *number* is that of the first one, *at* when it was started (``time.monotonic``), about.
    """

    __slots__ = ("at", "begin", "number", "refs")

    def __init__(self, refs: list[_Ref], number: int, at: float) -> None:
        self.refs, self.number, self.at = refs, number, at
        self.begin = 0

    def seems_gone(self) -> bool:
        """Return whether the last of the tasks is gone: most likely all are."""
        return not self.refs or self.refs[-1]() is None


def _gone() -> None:
    """Stand for the reference to a task that is gone or was handed on."""


class YoungTasks:
    """The young tasks of *loop*, until :meth:`close`. On the loop's thread, except for the collector's callback.

    *hand_on* is called with each task that is to be watched, or has ended meanwhile; before that, *failed* is called
    with each task that has ended with an exception which nobody has retrieved.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        hand_on: Callable[[asyncio.Task[Any], int, float], None],
        failed: Callable[[asyncio.Task[Any]], None],
    ) -> None:
        # create_task() appends each task of asyncio's own class here. When the list is empty, and when it has FEW, it
        # calls begin() first: so the garbage collector is watched before the task runs.
        self.new: list[_Ref] = []
        # Called before the list is emptied, and when the garbage collector is no longer watched.
        self.emptied: Callable[[], None] = _gone
        # How many tasks have been sorted; when the new ones were started, about.
        self._count, self._since = 0, 0.0
        self._loop = loop
        self._hand_on, self._failed = hand_on, failed
        # The tasks that were not handed on; and how many there are.
        self._batches: deque[_Batch] = deque()
        self._left = 0
        # The last batches: nobody has checked yet which of their tasks are gone.
        self._unchecked: deque[_Batch] = deque()
        # The tasks that have failed, until the next look.
        self._failures: list[_Ref] = []
        # The numbers of the last tasks that have survived one collection, and two.
        self._once = self._twice = 0
        self._spared: list[asyncio.Task[Any] | None] = []
        self._context = contextvars.Context()
        self._thread = threading.get_ident()
        # Whether the alarm is set for a look; whether it has a look in its queue; whether sort() runs;
        # whether the garbage collector is watched; whether a cell without await runs.
        self._asked = self._queued = self._sorting = self._watching = self._resting = False
        self._pause, self._looked = _PAUSE, 0.0
        # When it is due: it may be lost, with a test of the user's that has replaced the loop's selector or timers.
        self._due = 0.0
        self._alarm = Alarm(loop, self._look_again)
        # How many tasks were sorted at the last look. Later ones may be about to end, and to watch a task takes longer
        # than to run a short one.
        self._seen = 0

    def close(self) -> None:
        """Let go of all tasks."""
        self._unwatch()
        self._alarm.close()
        self._spared = []
        self.new.clear()
        self._batches.clear()
        self._unchecked.clear()

    def next_number(self) -> int:
        """Return the next number, for a task that others watch from the beginning."""
        self.sort()
        self._count += 1
        return self._count

    def alive(self) -> list[Started]:
        """Return the tasks that are not gone, in the order of starting."""
        self.sort()
        # Only one new object for each: there may be 100,000, and the garbage collector goes through all new objects.
        return [
            Started(task, number, batch.at)
            for batch in tuple(self._batches)
            for number, ref in enumerate(batch.refs[batch.begin :], batch.number + batch.begin)
            if (task := ref()) is not None
        ]

    def find(self, task: asyncio.Task[Any]) -> Started | None:
        """Return what is known of *task*, which is about to be freed; None if it is not found quickly."""
        self.sort()
        return next((young for _, _, young in islice(self._newest(), _SEARCHED) if young.task is task), None)

    def refs(self) -> list[_Ref]:
        """Return weak references to the tasks."""
        return [*self.new[:], *(ref for batch in tuple(self._batches) for ref in batch.refs)]

    def _newest(self) -> Iterator[tuple[_Batch, int, Started]]:
        """Yield each task and where it is, the newest first."""
        for batch in reversed(self._batches):
            for n in range(len(batch.refs) - 1, batch.begin - 1, -1):
                if (task := batch.refs[n]()) is not None:
                    yield batch, n, Started(task, batch.number + n, batch.at)

    def sort(self, *, everything: bool = False) -> None:
        """Number the new tasks. Drop references to older ones that are gone: most of these, or all (*everything*)."""
        if self._sorting:
            return
        self._sorting = True
        try:
            unchecked = self._unchecked
            while unchecked and (everything or len(unchecked) > _UNCHECKED or unchecked[0].seems_gone()):
                self._check(unchecked[0])
                unchecked.popleft()
            if self.new:
                self.emptied()
                refs = self.new[:]
                batch = _Batch(refs, self._count + 1, self._since)
                # In this order: if a user's signal handler raises in between, all of it is done again.
                self._batches.append(batch)
                unchecked.append(batch)
                self._left += len(refs)
                self._count += len(refs)
                del self.new[: len(refs)]
                self._since = time.monotonic()
        finally:
            self._sorting = False

    def _check(self, batch: _Batch) -> None:
        refs = batch.refs
        for ref in refs:  # most batches are gone; and not by the truth of a task, whose class may be the user's
            if ref() is not None:
                self._thin(refs)
                return
        self._left -= len(refs)
        refs.clear()
        while self._batches and not self._batches[-1].refs:
            self._batches.pop()

    def _thin(self, refs: list[_Ref]) -> None:
        tasks = list(map(call, refs))
        self._failures += unseen_of(refs, tasks)
        # Each reference that is kept is one more object for the garbage collector to go through.
        if not all(map(is_not, tasks, repeat(None))):
            refs[:] = [_gone if task is None else ref for ref, task in zip(refs, tasks, strict=True)]

    def settle(self, at_most: int = _RECENT) -> None:
        """Report those that have failed; hand on those of the last *at_most* tasks that have ended."""
        if not (self.new or self._batches or self._unchecked or self._failures):
            return
        self.sort()
        self.sort(everything=True)
        while self._failures:
            if (task := self._failures[-1]()) is not None:
                self._failed(task)
            self._failures.pop()
        found = list(islice(self._newest(), at_most))
        for batch, n, young in reversed(found):
            if is_done(young.task):
                self._hand_on(*young)
                batch.refs[n] = _gone

    # -- looking

    def begin(self) -> None:
        """Arrange the next look at the tasks, and watch the garbage collector. Sort the new tasks."""
        if self.new:
            with suppress(RecursionError):  # the code that starts tasks is deep in a recursion
                self.sort()
        if self._loop.is_closed():
            return
        self._since = time.monotonic()
        if not self._loop.is_running():
            # No task runs meanwhile. An interrupt of a cell without await, raised in the collector's callback, is lost.
            self._queue_look()
            return
        if not self._watching:
            self._watching, self._spared = True, []
            gc.callbacks.append(self._on_collection)
        if self._resting:  # it runs the loop itself, which may end at any moment
            self._queue_look()
        elif not self._asked or self._since > self._due + _LOST:
            is_lost, self._asked = self._asked, True
            follows = self._since - self._looked < 2 * self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE) if follows else _PAUSE
            self._due = self._since + self._pause
            with suppress(Exception):  # as above; create_task() is not to fail for it
                self._alarm.set(self._pause, again=is_lost)

    def _queue_look(self) -> None:
        if not self._queued:
            self._queued = True
            self._loop.call_soon(self._look, context=self._context)

    @uninterruptible
    def _look_again(self) -> None:
        self._asked = False
        self._look()

    @uninterruptible
    def _look(self) -> None:
        try:
            self._queued, self._spared = False, []
            self.settle()
            if self._resting:
                self._hand_some_on(self._left)
            else:
                some = max(int(_HANDED_ON * self._pause), self._left // _PART)
                self._hand_some_on(some, up_to=self._seen)
            self._seen, self._looked = self._count, time.monotonic()
        finally:  # also if a user's signal handler has raised in the middle
            if self.new or self._batches:
                self.begin()
            else:
                self._unwatch()

    def _hand_some_on(self, number: int, *, up_to: float = math.inf) -> None:
        """Hand the oldest on, with numbers to *up_to*, and before the first task that has not begun.

        The loop holds that and all later ones.
        """
        while self._batches:
            batch = self._batches[0]
            refs = batch.refs
            if batch.number > up_to:
                break
            while batch.begin < len(refs) and number:
                start, end = batch.begin, min(batch.begin + _STRIDE, len(refs))
                alive = [(n, task) for n in range(start, end) if (task := refs[n]()) is not None][:number]
                for n, task in alive:
                    batch.begin = n
                    if not is_done(task) and not has_begun(task):
                        return
                    self._hand_on(task, batch.number + n, batch.at)
                number -= len(alive)
                batch.begin = end if number else alive[-1][0] + 1
            if batch.begin < len(refs):
                break
            self._batches.popleft()
            self._left -= len(refs)

    # -- the garbage collector

    def rest(self) -> None:
        """Before a cell without await: leave the garbage collector: an interrupt raised in its callback is lost."""
        self._resting = True
        if self._watching:
            self.sort()
            self._unwatch()
        if self._batches and not self._loop.is_closed():
            self._spared = [task for batch in self._batches for task in map(call, batch.refs)]
            self._queue_look()

    def resume(self) -> None:
        """After a cell without await."""
        self._resting = False

    def _unwatch(self) -> None:
        self.emptied()
        self._watching = False
        with suppress(ValueError):
            while True:
                gc.callbacks.remove(self._on_collection)

    @uninterruptible
    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            self._spared = []
            return
        if self._sorting or threading.get_ident() != self._thread:  # the batches may be in the middle of a change
            self._spared = list(map(call, self.refs()))
            return
        generation = info["generation"]
        if generation == 1 and _IS_INCREMENTAL:
            generation = 2
        since = (self._once, self._twice, 0)[generation]
        spared = list(map(call, self.new[:] if since <= self._count else self.new[since - self._count :]))
        for batch in reversed(tuple(self._batches)):
            if batch.number + len(batch.refs) <= since:
                break
            spared += map(call, batch.refs[max(batch.begin, since - batch.number) :])
        self._spared = spared
        self._once = self._count + len(self.new)
        if generation:
            self._twice = self._once
