"""What is known of a task that has started, and what is remembered of one that has ended."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from ..introspection.private_api import exception_of, task_context
from ..introspection.task_origin import origin_of
from ..introspection.task_state import is_cancelled
from .safe_names import describe, function_of, name_of

__all__ = ["HISTORY", "Ended", "Started", "remember", "state_of"]

# How many tasks that have ended are remembered.
HISTORY = 200


class Ended(NamedTuple):
    """What is remembered of a task that has ended; not its result, which may be large."""

    number: int
    name: str
    state: str
    function: str
    origin: str | None
    started: float | None
    ended: float
    error: str


class Started(NamedTuple):
    """A task that has not ended, its number in the order of starting, and when it was started (``time.monotonic``).

    None if nobody knows: of a task that was made without the loop's ``create_task``.
    """

    task: asyncio.Task[Any]
    number: int
    at: float | None


def state_of(task: asyncio.Task[Any]) -> str:
    """Return how the task has ended."""
    return "cancelled" if is_cancelled(task) else "done" if exception_of(task) is None else "failed"


def remember(task: asyncio.Task[Any], number: int, at: float | None, now: float) -> Ended:
    """Return what is remembered of *task*, which has ended at the time *now*."""
    origin = origin_of(task_context(task))
    error = exception_of(task)
    return Ended(
        number=number,
        name=name_of(task),
        state=state_of(task),
        function=function_of(task),
        origin=None if origin is None else origin.label,
        started=at,
        ended=now,
        error="" if error is None else describe(error),
    )
