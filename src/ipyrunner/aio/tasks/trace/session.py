"""One session: the last runs, and totals of all runs since its beginning."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from types import CodeType
from typing import Any, NamedTuple

from .lanes import Lane, Pending, Run

__all__ = ["BLOCK", "MOST", "Block", "Session"]

# How many runs are kept, the last ones.
MOST = 100_000
# Nanoseconds: a run that holds the loop for this long is marked.
BLOCK = 50_000_000


class Block(NamedTuple):
    """The longest run: its length in nanoseconds, its task or callback, and where it was most of the time."""

    length: int
    lane: Lane | None
    name: str
    place: tuple[CodeType, int] | str | None


class Session:
    """What a loop did during the session: its tasks with *key*, and *own*, or all of them (None)."""

    def __init__(self, *, key: object | None = None, own: Lane | None = None, sees_callbacks: bool = True) -> None:
        self.key = key
        self.own = own
        # Whether these are seen: callbacks that are no steps of tasks, and when a task is made ready.
        self.sees_callbacks = sees_callbacks
        self.began = self.ended = time.perf_counter_ns()
        self.is_over = False
        # Why something is missing, if it is.
        self.incomplete = ""
        self.pending: list[Pending] = []
        self.busy = self._longest = self._count = 0
        self.longest: Block | None = None
        # The longest time that a task was ready and did not run.
        self.starved = 0
        # Tasks: how many, how many of them at the same time, and how they have ended.
        self.started = self.most = 0
        self._alive: set[int] = set()
        self.endings: dict[str, int] = {}
        self._runs: deque[Any] = deque(maxlen=MOST)

    def covers(self, lane: Lane | None) -> bool:
        """Return whether the session is about the lane; if not, it is "other work"."""
        return lane is not None and (self.key is None or lane is self.own or self.key in lane.keys)

    def _counts(self, lane: Lane) -> bool:
        return lane is not self.own and not lane.is_cells and self.covers(lane)

    @property
    def dropped(self) -> int:
        """The number of runs that are not kept any more."""
        return self._count - len(self._runs)

    def runs(self) -> list[Run]:
        """Return what is kept, in the order of ending."""
        runs = None
        while runs is None:
            with suppress(RuntimeError):  # the loop runs on, and this may be another thread
                runs = list(self._runs)
        return [Run._make(each) for each in runs]

    # -- what the tracer calls, for each run

    def add(self, run: Any) -> None:
        """Add a run, a tuple of the fields of ``Run``."""
        lane, name, _, _, _, ready, _, _, begin, end, place, inside, depth = run
        if end < self.began:  # found out only now
            return
        self._count += 1
        self._runs.append(run)
        if begin < self.began:
            begin = self.began
        length = end - begin
        if not depth:
            self.busy += length
        if length > self._longest and not inside:
            self._longest = length
            self.longest = Block(length, lane, name, place)
        if ready is not None and begin - ready > self.starved and self.covers(lane):
            self.starved = begin - max(ready, self.began)

    def appeared(self, lane: Lane) -> None:
        """Count a task that has not ended."""
        if self._counts(lane):
            self.started += 1
            self._alive.add(lane.number)
            self.most = max(self.most, len(self._alive))

    def vanished(self, lane: Lane) -> None:
        """Count a task that has ended, unless that was before the session began."""
        if lane.number in self._alive:
            self._alive.remove(lane.number)
            self.endings[lane.state] = self.endings.get(lane.state, 0) + 1
