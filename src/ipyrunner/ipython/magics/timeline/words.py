"""Durations, places and actors in words."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType

from ....aio.introspection.frames import function_name
from ....aio.introspection.wait_graph import Step
from ....aio.tasks.safe_names import label as shown
from ....aio.tasks.safe_names import short
from ....aio.tasks.trace.lanes import Lane, Place, resolve

__all__ = ["Words", "duration", "label"]

# Plain names for callbacks of asyncio and anyio.
_ACTORS = {
    "Timeout._on_timeout": "a timeout",
    "TaskGroup._on_task_done": "a task group",
    "CancelScope._deliver_cancellation": "a cancel scope",
    "_set_result_unless_cancelled": "a timer",
    "gather.<locals>._done_callback": "a gather",
    "_wait.<locals>._on_completion": "asyncio.wait",
}


def duration(nanoseconds: float) -> str:
    """Return a duration as text, with three digits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size * 0.9995 or unit == "µs":
            value = nanoseconds / size
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            text = f"{value:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
    raise AssertionError


def label(lane: Lane) -> str:
    """Return the label of a task: its name and its function."""
    function = lane.function.rpartition(".")[2]
    if lane.is_cells or not function or function == lane.name:
        return shown(lane.name, 40)
    return f"{shown(lane.name, 24)} {short(function, 24)}"


class Words:
    """Names for the places and the actors of one trace; *name_file* returns the name of a file."""

    def __init__(self, name_file: Callable[[str], str], lanes: dict[int, str]) -> None:
        self._name_file = name_file
        self._lanes = lanes
        # By the id of the code: code of another file may be equal.
        self._steps: dict[tuple[int, int], tuple[CodeType, Step]] = {}

    def step(self, place: Place) -> Step:
        """Return file, line and function of a place."""
        code, offset = place
        key = (id(code), offset)
        if key not in self._steps:
            self._steps[key] = code, resolve(place)
        return self._steps[key][1]

    def source(self, place: Place | None) -> str:
        """Return the text of the line; empty if there is no place."""
        return "" if place is None else short(self.step(place).source, 200)

    def where(self, place: Place | None) -> str:
        """Return file, line and text; empty if there is no place."""
        if place is None:
            return ""
        step = self.step(place)
        text = f"{short(self._name_file(step.filename))}:{step.line}"
        return f"{text} {short(step.source, 200)}".rstrip()

    def busy(self, place: tuple[CodeType, int] | str) -> str:
        """Return function, file and line of code that held the loop."""
        if isinstance(place, str):
            return place
        code, line = place
        name = function_name(code)
        return f"{'' if name is None else short(name) + '(), '}{short(self._name_file(code.co_filename))}:{line}"

    def actor(self, who: int | str | None) -> str:
        """Return the name of what has woken or cancelled a task, or of what is awaited; empty if that is not known."""
        if who is None:
            return ""
        if isinstance(who, int):
            return self._lanes.get(who, "a task")
        return _ACTORS.get(who) or short(who)
