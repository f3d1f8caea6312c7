"""``%atasks tree``: which cell has started which task, which task waits for which, and what else they wait for."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from ...aio.introspection.private_api import task_context
from ...aio.introspection.task_origin import origin_of
from ...aio.introspection.wait_graph import Wait, awaits, innermost
from ...aio.tasks.safe_names import function_of, label_of, short
from ...aio.tasks.task_records import Started
from ...aio.tasks.waits.deadlocks import Waits
from ...cells.deadlock_notes import deadlock_lines
from .tasks_table import age, asyncios, place, state_now

__all__ = ["Drawing", "TaskTree"]

# How many lines are shown; how many branches of one kind, if there are more than _FEW branches; how deep the tree is.
_LINES = 60
_ALIKE = 5
_FEW = 20
_DEEPEST = 20
# How many kinds of branches are counted; how many names of tasks that one waits for are listed.
_KINDS = 3
_NAMES = 3
# Characters of a line of code.
_CODE = 80
_NO_CELL = "no cell"


class _Place(NamedTuple):
    """Where a line of the tree is: the text before it, the text before the lines below it, and its depth."""

    before: str = ""
    below: str = ""
    depth: int = 0

    def branches(self, number: int, *, more: bool) -> list[_Place]:
        """Return the places of *number* lines below; *more*: others follow them."""
        ends = [(" ├─ ", " │  ")] * (number if more else number - 1) + [(" └─ ", "    ")]
        return [_Place(self.below + at, self.below + below, self.depth + 1) for at, below in ends[:number]]


class TaskTree:
    """The tasks of a loop as they were when it was drawn: the lines of a :class:`Drawing`, which keep none of them."""

    def __init__(self, lines: list[str]) -> None:
        self._text = "\n".join(lines) or "no tasks"

    def __repr__(self) -> str:
        return self._text


class Drawing:
    """Draw the tasks of a loop as they are now, as text that stays short: :attr:`lines`.

    *mains*: those that run the cells that somebody waits for.
    """

    def __init__(
        self,
        entries: Collection[Started],
        mains: Collection[asyncio.Task[Any]],
        name_file: Callable[[str], str],
    ) -> None:
        self._name_file = name_file
        self._now = time.monotonic()
        self._entries = {id(entry.task): entry for entry in entries}
        self._mains = set(map(id, mains))
        self._waits = Waits([entry.task for entry in entries])
        # The tasks below each task; and those that it waits for too, but that are shown elsewhere.
        self._below: dict[int, list[int]] = {}
        self._again: dict[int, list[int]] = {}
        # The tasks of each Wait, sorted: all that await a gather share one Wait.
        self._sorted: dict[int, list[asyncio.Task[Any]]] = {}
        cells = self._cells(self._plant())
        self._shown = 0
        self.lines: list[str] = []
        for label, roots in cells.items():
            self._show_cell(label, roots)
        if (rest := len(self._entries) - self._shown) > 0:
            self.lines.append(f"and {rest:,} more task{'s' if rest > 1 else ''}")
        self.lines += deadlock_lines(self._waits.deadlocks(), name_file)

    # -- its form

    def _plant(self) -> list[int]:
        """Put each task below the first one that waits for it; return those that are below none, in their order."""
        waits = {
            id(others): (entry.task, others) for entry in self._entries.values() if (others := self._others(entry.task))
        }
        waited_for = {id(other) for task, others in waits.values() for other in others if other is not task}
        # By the list of tasks that a Wait is for: those that are placed below the first waiter.
        planted: dict[int, list[int]] = {}
        roots: list[int] = []
        placed: set[int] = set()
        # In a circle each task is waited for: the one that has started first is the root.
        for start in (*(task for task in self._entries if task not in waited_for), *self._entries):
            if start in placed:
                continue
            roots.append(start)
            placed.add(start)
            pending = [start]
            while pending:
                task = pending.pop()
                below = self._below[task] = []
                others = self._others(self._entries[task].task)
                if id(others) in planted:
                    self._again[task] = planted[id(others)]
                    continue
                known = [id(other) for other in others if id(other) in self._entries]
                if others:
                    planted[id(others)] = known
                again = [other for other in known if other in placed]
                if again:
                    self._again[task] = again
                below += [other for other in known if other not in placed]
                placed.update(below)
                pending += below
        return roots

    def _others(self, task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
        """Return the tasks that *task* waits for, sorted, since a group's are a set."""
        wait = self._waits.of(task)
        if wait is None:
            return []
        if id(wait) not in self._sorted:
            self._sorted[id(wait)] = sorted(wait.tasks, key=self._number)
        return self._sorted[id(wait)]

    def _number(self, task: asyncio.Task[Any]) -> float:
        entry = self._entries.get(id(task))
        return math.inf if entry is None else entry.number

    def _cells(self, roots: list[int]) -> dict[str, list[int]]:
        """Return the roots by the cells that have started them; those of no cell come last."""
        cells: dict[str, list[int]] = {}
        for root in sorted(roots, key=lambda root: self._entries[root].number):
            origin = origin_of(task_context(self._entries[root].task))
            cells.setdefault(_NO_CELL if origin is None else origin.label, []).append(root)
        if _NO_CELL in cells:
            cells[_NO_CELL] = cells.pop(_NO_CELL)
        return cells

    # -- its lines

    def _show_cell(self, label: str, roots: list[int]) -> None:
        if len(self.lines) >= _LINES:
            return
        title = short(label)
        # The cell itself, which awaits, or goes on in the background under its name: it has begun before its tasks.
        mains = [root for root in roots if root in self._mains]
        mains = mains or [root for root in roots[:1] if label_of(self._entries[root].task) == title]
        if len(mains) == 1:
            main = mains[0]
            name = label_of(self._entries[main].task)
            title = self._line(main, title if name == title else f"{title} ({name})")
            self._shown += 1
            self.lines.append(title)
            self._show_below(main, _Place(), [root for root in roots if root != main])
        else:
            self.lines.append(title)
            self._show_branches(roots, _Place(), [])

    def _show_below(self, task: int, place: _Place, others: Collection[int] = ()) -> None:
        elsewhere = self._again.get(task, [])
        again = [f"{label_of(self._entries[each].task)} (shown elsewhere)" for each in elsewhere[:_ALIKE]]
        if len(elsewhere) > _ALIKE:
            again.append(f"and {len(elsewhere) - _ALIKE:,} more that are shown elsewhere")
        self._show_branches([*self._below[task], *others], place, again)

    def _show_branches(self, tasks: list[int], place: _Place, again: list[str]) -> None:
        shown, counted = self._selected(tasks)
        if place.depth >= _DEEPEST:
            return
        rest = again + list(self._counts(counted))
        places = place.branches(len(shown) + len(rest), more=False)
        for task, at in zip(shown, places, strict=False):
            if len(self.lines) >= _LINES:
                return
            self._shown += 1
            self.lines.append(at.before + self._line(task, label_of(self._entries[task].task)))
            self._show_below(task, at)
        self.lines += [at.before + line for line, at in zip(rest, places[len(shown) :], strict=True)]
        self._shown += counted.total()

    def _selected(self, tasks: list[int]) -> tuple[list[int], Counter[tuple[str, str]]]:
        """Return the tasks that are shown, and how many of each kind are not."""
        if len(tasks) <= _FEW:
            return tasks, Counter()
        kinds: Counter[tuple[str, str]] = Counter()
        shown: list[int] = []
        left: Counter[tuple[str, str]] = Counter()
        for each in tasks:
            task = self._entries[each].task
            kind = state_now(task), function_of(task)
            kinds[kind] += 1
            if kinds[kind] > _ALIKE or len(shown) == _FEW:
                left[kind] += 1
            else:
                shown.append(each)
        return shown, left

    @staticmethod
    def _counts(left: Counter[tuple[str, str]]) -> Iterator[str]:
        common = left.most_common(_KINDS)
        for (state, function), number in common:
            yield f"and {number:,} more: {state}, {short(function)}"
        if len(left) > _KINDS:
            rest = left.total() - sum(number for _, number in common)
            yield f"and {rest:,} more of {len(left) - _KINDS} kinds"

    def _line(self, task: int, title: str) -> str:
        entry = self._entries[task]
        state = state_now(entry.task)
        parts = [f"{title}: {state}"]
        if entry.at is not None:
            parts.append(age(self._now - entry.at))
        if state != "running":
            if state != "ready" and (what := self._waits_for(entry.task)):
                parts.append(f"waits for {what}")
            if (step := innermost(awaits(entry.task))) is not None:
                parts.append(place(step, self._name_file, width=_CODE))
        return ", ".join(parts)

    def _waits_for(self, task: asyncio.Task[Any]) -> str:
        wait = self._waits.of(task)
        if wait is None:
            return asyncios(task)
        if wait.lock is not None:
            holder = self._waits.holder(wait.lock)
            if holder is None:
                return "a Lock"
            return f"the Lock that {'it holds itself' if holder is task else f'{label_of(holder)} holds'}"
        return _names(self._others(task), wait)


def _names(tasks: list[asyncio.Task[Any]], wait: Wait) -> str:
    names = [label_of(other) for other in tasks[:_NAMES]]
    if len(tasks) > _NAMES:
        names.append(f"{len(tasks) - _NAMES:,} more")
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "futures"
    return text if wait.all else f"the first of {text}{' and other futures' if wait.others and names else ''}"
