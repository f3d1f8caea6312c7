"""The notebook's tasks as a table: ``%atasks`` and ``ipyrunner.tasks()``."""

from __future__ import annotations

import asyncio
import html
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, overload

from IPython.core.interactiveshell import ExecutionResult

from ...aio.introspection.private_api import exception_of, task_context, waits_for
from ...aio.introspection.task_origin import origin_of
from ...aio.introspection.task_state import cancelling, is_done
from ...aio.introspection.wait_graph import Step, awaits, calls_asyncio, innermost
from ...aio.tasks.safe_names import describe, function_of, label, label_of, name_of, short
from ...aio.tasks.task_records import Ended, Started, state_of
from ...notebook import NotebookRunner

__all__ = [
    "TaskInfo",
    "TaskTable",
    "age",
    "asyncios",
    "cancelled",
    "ending",
    "few",
    "place",
    "quick_state",
    "state_now",
    "states",
    "to_cancel",
]

# How many rows are shown, and how many of one kind: further tasks are only counted.
_ROWS = 20
_ALIKE = 5
# Characters of a line of code.
_LINE = 200
# States in the order of the table, the interesting ones first.
_ORDER = ("failed", "cancelling", "running", "ready", "waiting", "cancelled", "done")
_ENDINGS = {"done": "ended without an error", "cancelled": "was cancelled"}
# What asyncio's functions wait for, in words; for others their names are shown.
_WORDS = {
    "Lock.acquire": "a Lock",
    "Event.wait": "an Event",
    "Semaphore.acquire": "a Semaphore",
    "Condition.wait": "a Condition",
    "Barrier.wait": "a Barrier",
}
_HEADS = ("no.", "name", "state", "cell", "age", "waits for, or error")
# Those whose text is short and stays on one line, however narrow the page is.
_ON_ONE_LINE = {"no.", "state", "cell", "age"}


class TaskInfo:
    """A task of the notebook's loop, as it was when ``ipyrunner.tasks()`` or ``%atasks`` looked at it.

    ``number``: in the order of starting. ``name``. ``state``: waiting, ready, running or cancelling; done, failed or
    cancelled once it has ended. ``cell``: the cell that started it, such as "In[3]", or None. ``age``: in seconds;
    None for a task made by ``asyncio.Task(...)``, which nobody knows the start of. ``function``: the function that it
    runs. ``waits_for``: the line of your code where it waits, or its error. ``task``: the task itself, or None if it
    had already ended.
    """

    def __init__(self, entry: Started | Ended, name_file: Callable[[str], str], now: float) -> None:
        self._name_file = name_file
        self.number = entry.number
        self.task: asyncio.Task[Any] | None = None
        self._error = ""
        self._ended = now
        self._now = now
        if isinstance(entry, Ended):
            self.name, self.state, self.cell, self.function = entry.name, entry.state, entry.origin, entry.function
            started = entry.started
            self._error, self._ended = entry.error, entry.ended
        else:
            task = self.task = entry.task
            origin = origin_of(task_context(task))
            self.name, self.state, self.function = name_of(task), state_now(task), function_of(task)
            self.cell = None if origin is None else origin.label
            started = entry.at
        self.age = None if started is None else self._ended - started

    @property
    def waits_for(self) -> str:
        """Where the task is at this moment: cell or file, line, function, text of the line; or what asyncio does."""
        if self.task is None or self.state == "running":
            return self._error
        chain = awaits(self.task)
        if (step := innermost(chain)) is not None:
            return self.place(step)
        return asyncios(self.task) or "".join(short(step.function) for step in chain[:1])

    @property
    def place_of_start(self) -> str:
        """Which cell has started it, in words."""
        return "started in no cell" if self.cell is None else f"started in {self.cell}"

    @property
    def ending(self) -> str:
        """How and when a task that has ended did so, in words."""
        how = _ENDINGS.get(self.state, self.state)
        after = "" if self.age is None else f"after {age(self.age)}, "
        when = f"{after}{age(self._now - self._ended)} ago"
        error = f": {self._error}" if self._error else ""
        return f"{label(self.name)} (task {self.number}, {self.place_of_start}) {how} {when}{error}"

    def place(self, step: Step) -> str:
        """Return a step of the chain on one line."""
        return place(step, self._name_file)

    def __repr__(self) -> str:
        return f"<TaskInfo {self.number} '{short(self.name)}' {self.state}, {self.cell or 'no cell'}, {age(self.age)}>"


class TaskTable(Sequence[TaskInfo]):
    """Tasks, the interesting ones first; shown as a table that stays short."""

    def __init__(
        self, entries: Sequence[Started | Ended], name_file: Callable[[str], str], *, notes: Sequence[str] = ()
    ) -> None:
        """*notes*: lines below the table."""
        self._notes = notes
        now = time.monotonic()
        infos = [TaskInfo(entry, name_file, now) for entry in entries]
        self._infos = sorted(infos, key=lambda info: (_ORDER.index(info.state), info.number))

    @overload
    def __getitem__(self, index: int) -> TaskInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TaskInfo]: ...
    def __getitem__(self, index: int | slice) -> TaskInfo | Sequence[TaskInfo]:
        return self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._html()}

    def __repr__(self) -> str:
        rows, rest = self._rows()
        if not rows:
            return "no tasks"
        table = [_HEADS, *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(_HEADS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join(lines + rest)

    def _html(self) -> str:
        # No colours and borders: the front end's style for tables fits its light and its dark theme.
        rows, rest = self._rows()
        if not rows:
            return "<p>no tasks</p>"
        left = "text-align: left"
        styles = [f"{left}; white-space: nowrap" if head in _ON_ONE_LINE else left for head in _HEADS]

        def tr(tag: str, row: tuple[str, ...]) -> str:
            cells = [
                f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for style, cell in zip(styles, row, strict=True)
            ]
            return f"<tr>{''.join(cells)}</tr>"

        head, body = tr("th", _HEADS), "".join(tr("td", row) for row in rows)
        tail = "".join(f"<p>{html.escape(line)}</p>" for line in rest)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{tail}"

    def _rows(self) -> tuple[list[tuple[str, ...]], list[str]]:
        kinds: Counter[tuple[str | None, ...]] = Counter()
        left: Counter[tuple[str, str, str | None]] = Counter()
        rows: list[tuple[str, ...]] = []
        for info in self._infos:
            kind = info.function, info.state, info.cell
            alike = (*kind, info.waits_for if info.state == "failed" else None)
            kinds[alike] += 1
            if len(rows) == _ROWS or (kinds[alike] > _ALIKE and len(self._infos) > _ROWS):
                left[kind] += 1
                continue
            name = label(info.name)
            cells = (str(info.number), name, info.state, info.cell or "-", age(info.age), info.waits_for)
            rows.append(tuple(short(cell) for cell in cells))
        rest = [
            f"and {number:,} more: {state}, {short(function)}, started in {cell or 'no cell'}"
            for (function, state, cell), number in left.most_common(5)
        ]
        if len(left) > 5:
            rest.append(f"and {left.total() - sum(n for _, n in left.most_common(5)):,} more of {len(left) - 5} kinds")
        return rows, [*rest, *self._notes]


def states(task: asyncio.Task[Any]) -> str:
    """Return the state of *task*, and its error if it has failed. The exception does not count as retrieved."""
    state = state_now(task)
    exc = exception_of(task) if state == "failed" else _cells_error(task) if state == "done" else None
    return state if exc is None else f"failed: {describe(exc)}"


def ending(task: asyncio.Task[Any]) -> str:
    """Return in words how *task* has ended."""
    state = states(task)
    return _ENDINGS.get(state, state)


def _cells_error(task: asyncio.Task[Any]) -> BaseException | None:
    """Return the error of a cell that *task* has run, or None: IPython puts it into the cell's result."""
    with suppress(BaseException):  # a user's task may be anything
        result = task.result()
        if type(result) is ExecutionResult:
            error: BaseException | None = result.error_in_exec or result.error_before_exec
            return error
    return None


def few(names: Sequence[str]) -> str:
    """Return the first of *names* in brackets, to be put after their number."""
    return f" ({', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''})" if names else ""


def to_cancel(runner: NotebookRunner) -> list[Started]:
    """Return the tasks that closing the loop of *runner* will cancel."""
    present = runner.present
    return [] if present is None or present.loop.is_closed() else present.tasks.started()


def cancelled(started: Sequence[Started]) -> str:
    """Return in words which of *started*, all of which were to be cancelled, have ended."""
    names = [label_of(entry.task) for entry in started if is_done(entry.task)]
    if not names:
        return "no task has ended" if started else "no tasks to cancel"
    return f"cancelled {len(names):,} task{'' if len(names) == 1 else 's'}{few(names)}"


def place(step: Step, name_file: Callable[[str], str], *, width: int = _LINE) -> str:
    """Return a step of a task's chain on one line."""
    function = "" if step.is_top_level else f" in {short(step.function)}"
    return f"{name_file(step.filename)}:{step.line}{function}: {short(step.source, width)}"


def asyncios(task: asyncio.Task[Any]) -> str:
    """Return in words what *task* waits for in a function of asyncio's; empty if it is in none."""
    if (call := calls_asyncio(task)) is None:
        return ""
    function, subject = call
    with suppress(BaseException):  # too large a number; and what a queue keeps its items in may be of a user's class
        if function == "sleep" and type(subject) in (int, float):
            return f"a sleep of {subject:g} s"
        if issubclass(type(subject), asyncio.Queue):
            number = asyncio.Queue.qsize(subject)
            return f"{short(function)} of a queue with {number:,} item{'' if number == 1 else 's'}"
    return _WORDS.get(function, short(function))


def age(seconds: float | None) -> str:
    """Return a duration as text, such as "1 min 05 s"; "-" if it is not known."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def state_now(task: asyncio.Task[Any]) -> str:
    """Return the state of *task*; if it has not ended, that is running, cancelling, ready or waiting."""
    if is_done(task):
        return state_of(task)
    try:
        if asyncio.current_task() is task:
            return "running"
    except RuntimeError:  # no loop runs
        pass
    return quick_state(task)


def quick_state(task: asyncio.Task[Any]) -> str:
    """Return the state of a task that has not ended and is not the one that runs."""
    if cancelling(task):
        return "cancelling"
    return "ready" if waits_for(task) is None else "waiting"
