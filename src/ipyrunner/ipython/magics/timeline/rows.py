"""A tracing session as rows of segments: a task is waiting, ready and running in turn."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import NamedTuple

from ....aio.tasks.trace.lanes import Lane, Pending, Place, Run
from ....aio.tasks.trace.session import BLOCK, Block, Session
from .words import Words, label

__all__ = ["BLOCK", "Mark", "Row", "Segment", "Timeline"]


class Segment(NamedTuple):
    """*kind*: wait, ready or run. *place*: where the task waits; *blocked_at*: where it was when it held the loop."""

    kind: str
    begin: int
    end: int
    name: str = ""
    place: Place | None = None
    waits_for: int | str | None = None
    woken_by: int | str | None = None
    blocked_at: tuple[CodeType, int] | str | None = None
    blocks: bool = False


class Mark(NamedTuple):
    """When the future that a task waited for was cancelled, and by what."""

    at: int
    by: int | str | None


class Row:
    """The segments of one task; without a *lane*, those of all other callbacks."""

    def __init__(self, name: str, lane: Lane | None) -> None:
        self.name = name
        self.lane = lane
        self.segments: list[Segment] = []
        self.marks: list[Mark] = []
        self.busy = 0
        self.longest = 0

    def add(self, segment: Segment) -> None:
        """Append a segment, unless it is empty."""
        if segment.end > segment.begin:
            self.segments.append(segment)
            if segment.kind == "run":
                length = segment.end - segment.begin
                self.busy += length
                self.longest = max(self.longest, length if segment.blocks else 0)


class Timeline:
    """One session up to this moment, in nanoseconds from its beginning."""

    def __init__(
        self, session: Session, pending: list[Pending], now: int, title: str, name_file: Callable[[str], str]
    ) -> None:
        self.title = title
        self.began = session.began
        self.length = max((session.ended if session.is_over else now) - session.began, 1)
        self.is_over = session.is_over
        self.sees_callbacks = session.sees_callbacks
        self.dropped = session.dropped
        self.incomplete = session.incomplete
        self.busy = session.busy
        self.longest: Block | None = session.longest
        self.starved = session.starved
        self.started, self.most, self.endings = session.started, session.most, dict(session.endings)
        self._session = session
        self._rows: dict[int, Row] = {}
        self.other = Row("other work" if session.key is not None else "callbacks", None)
        names: dict[int, str] = {}
        self.words = Words(name_file, names)
        if session.own is not None:
            self._row(session.own)
        runs = session.runs()
        self.kept = len(runs)
        for run in runs:
            self._add_run(run)
        for each in pending:
            row = self._row(each.lane)
            self._add_wait(row, each.since, each.ready, self.began + self.length, each.place, each.waits_for, None)
        for number, row in self._rows.items():
            names[number] = row.name
        self.rows = sorted(self._rows.values(), key=lambda row: (not self.is_own(row), row.lane and row.lane.number))

    def is_own(self, row: Row) -> bool:
        """Return whether *row* is that of the cell itself."""
        return row.lane is not None and self.is_own_lane(row.lane)

    def is_own_lane(self, lane: Lane) -> bool:
        """Return whether *lane* is the task of the cell itself."""
        return lane is self._session.own

    def blocks(self) -> int:
        """Return how many runs have blocked the loop, of those that are kept."""
        return sum(segment.blocks for row in (*self.rows, self.other) for segment in row.segments)

    def _row(self, lane: Lane) -> Row:
        row = self._rows.get(lane.number)
        if row is None:
            name = self.title if lane is self._session.own else label(lane)
            row = self._rows[lane.number] = Row(name, lane)
        return row

    def _at(self, time: int) -> int:
        return min(max(time - self.began, 0), self.length)

    def _add_run(self, run: Run) -> None:
        begin, end = self._at(run.begin), self._at(run.end)
        blocks = not run.inside and end - begin >= BLOCK
        if run.lane is None or not self._session.covers(run.lane):
            name = run.name if run.lane is None else label(run.lane)
            self.other.add(Segment("run", begin, end, name, blocked_at=run.blocked_at, blocks=blocks))
            return
        row = self._row(run.lane)
        self._add_wait(row, run.since, run.ready, run.begin, run.place, run.waits_for, run.woken_by)
        if run.cancelled_by is not None:
            row.marks.append(Mark(self._at(run.ready or run.begin), run.cancelled_by))
        name = run.lane.function or row.name
        row.add(Segment("run", begin, end, name, blocked_at=run.blocked_at, blocks=blocks, woken_by=run.woken_by))

    def _add_wait(
        self,
        row: Row,
        since: int,
        ready: int | None,
        end: int,
        place: Place | None,
        waits_for: int | str | None,
        woken_by: int | str | None,
    ) -> None:
        turn = end if ready is None else max(since, ready)
        row.add(Segment("wait", self._at(since), self._at(turn), "", place, waits_for, woken_by))
        row.add(Segment("ready", self._at(turn), self._at(end), woken_by=woken_by))
