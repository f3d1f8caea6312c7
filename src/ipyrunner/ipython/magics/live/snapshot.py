"""The content of the live view as plain data: cells and tasks, each below the one that started it or waits for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from ....aio.tasks.safe_names import label, short
from ....aio.tasks.task_records import Started
from ....aio.tasks.waits.deadlocks import Waits
from ....cells.deadlock_notes import deadlock_lines
from ..tasks_table import TaskInfo, quick_state

__all__ = ["Row", "Snapshot", "snapshot"]

# How many tasks are looked at closely, how many rows are shown, and how many similar ones below one task.
_CLOSELY = 300
_MOST = 1000  # including the tasks that they wait for
_ROWS = 60
_ALIKE = 5

Parents = Callable[[asyncio.Task[Any]], "asyncio.Task[Any] | None"]


class Row(TypedDict):
    """A task, a cell that awaits, or one that has ended and whose tasks go on (``past``). *age*: seconds, if known."""

    kind: str
    key: str
    depth: int
    number: int
    name: str
    state: str
    age: float | None
    where: str


class Snapshot(TypedDict):
    """The rows, the total number of tasks, a text on those left out, and a line for each circle of waiting tasks."""

    rows: list[Row]
    total: int
    rest: str
    deadlocks: list[str]


def snapshot(
    entries: Sequence[Started],
    *,
    cells: Iterable[asyncio.Task[Any]],
    parent_of: Parents,
    name_file: Callable[[str], str],
) -> Snapshot:
    """Return *entries* as a tree: below each cell its tasks, each below the task that started it or waits for it.

    *cells* are the tasks of cells that await at the moment. *parent_of* returns the task that has started another one,
    where that is known. If there are many tasks, the interesting ones are shown and the others are counted.
    """
    mains = [id(task) for task in cells]
    chosen, left = _choose(entries, mains)
    now = time.monotonic()
    waits = Waits([entry.task for entry in chosen], most=_MOST)
    tree = _Tree([TaskInfo(entry, name_file, now) for entry in chosen], mains, parent_of, waits)
    left += tree.left
    rest = ", ".join(f"{number:,} {state}" for state, number in left.most_common())
    return Snapshot(
        rows=tree.rows,
        total=len(entries),
        rest=f"and {left.total():,} more: {rest}" if rest else "",
        deadlocks=deadlock_lines(waits.deadlocks(), name_file),
    )


def _choose(entries: Sequence[Started], mains: list[int]) -> tuple[list[Started], Counter[str]]:
    if len(entries) <= _CLOSELY:
        return list(entries), Counter()
    by_state: defaultdict[str, list[Started]] = defaultdict(list)
    for entry in entries:
        by_state["running" if id(entry.task) in mains else quick_state(entry.task)].append(entry)
    chosen: list[Started] = []
    for state in ("running", "cancelling", "ready", "waiting"):
        chosen += by_state[state][: _CLOSELY // 3]
    left = Counter({state: len(those) for state, those in by_state.items()})
    left.subtract("running" if id(entry.task) in mains else quick_state(entry.task) for entry in chosen)
    return sorted(chosen, key=lambda entry: entry.number), +left


class _Tree:
    """The rows, depth first."""

    def __init__(self, infos: list[TaskInfo], mains: list[int], parent_of: Parents, waits: Waits) -> None:
        self.rows: list[Row] = []
        self.left: Counter[str] = Counter()
        self._mains = mains
        self._seen: set[int] = set()
        self._below = self._nest(infos, parent_of, waits)
        cells: defaultdict[str | None, list[TaskInfo]] = defaultdict(list)
        for info in infos:
            cells[info.cell].append(info)
        for cell, those in cells.items():
            # Tasks of the cell that are below no other one; and then all, since tasks in a circle have no root.
            roots = [info for info in those if not self._is_below(info)] + those
            # The cell itself, which awaits, or goes on in the background under its name: it has begun before its tasks.
            itself = [info for info in roots if id(info.task) in mains][:1]
            itself = itself or [info for info in roots[:1] if info.name == cell]
            if itself:
                self._put(itself, 0)
            else:
                self._add("past", f"cell {cell}", 0, name=cell or "no cell")
            self._put(roots, 1)

    def _nest(self, infos: list[TaskInfo], parent_of: Parents, waits: Waits) -> dict[int, list[TaskInfo]]:
        known = {id(info.task): info for info in infos}
        waiters: dict[int, TaskInfo] = {}
        for info in infos:
            if info.task is not None and (wait := waits.of(info.task)) is not None:
                for other in wait.tasks:
                    waiters.setdefault(id(other), info)
        below: defaultdict[int, list[TaskInfo]] = defaultdict(list)
        self._above: dict[int, TaskInfo] = {}
        for info in infos:
            if info.task is None or id(info.task) in self._mains:
                continue
            started_by = known.get(id(parent_of(info.task)))
            # All cells run in one task: only tasks that the present cell has started are below it.
            above = started_by if started_by is not None and started_by.cell == info.cell else None
            above = above or waiters.get(id(info.task))
            if above is not None and above is not info and above.cell == info.cell:
                below[id(above.task)].append(info)
                self._above[id(info.task)] = above
        return below

    def _is_below(self, info: TaskInfo) -> bool:
        return id(info.task) in self._above

    def _put(self, infos: list[TaskInfo], depth: int) -> None:
        pending = [(info, depth) for info in reversed(infos)]
        kinds: Counter[tuple[Any, ...]] = Counter()
        while pending:
            info, depth = pending.pop()
            if id(info.task) in self._seen:
                continue
            self._seen.add(id(info.task))
            above = self._above.get(id(info.task))
            kind = (None if above is None else id(above.task), info.function, info.state)
            kinds[kind] += 1
            if kinds[kind] > _ALIKE or len(self.rows) >= _ROWS:
                self.left[info.state] += 1
            else:
                self._add_task(info, depth)
            pending += [(child, depth + 1) for child in reversed(self._below.get(id(info.task), []))]

    def _add_task(self, info: TaskInfo, depth: int) -> None:
        kind = "cell" if id(info.task) in self._mains else "task"
        self._add(
            kind,
            f"task {info.number}",
            depth,
            number=info.number,
            name=label(info.name),
            state=info.state,
            age=info.age,
            where=short(info.waits_for, 120),
        )

    def _add(self, kind: str, key: str, depth: int, **cells: Any) -> None:
        empty = Row(kind=kind, key=key, depth=depth, number=0, name="", state="", age=None, where="")
        self.rows.append({**empty, **cells})  # type: ignore[typeddict-item]
