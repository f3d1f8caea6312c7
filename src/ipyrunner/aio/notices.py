"""What a runner reports. Other code shows it, in the Context of the cell that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from .introspection.task_state import cancelling
from .main import Request
from .sigint.forced_interrupt import Forced
from .tasks.exception_handler import Failure
from .tasks.safe_names import function_of, in_seconds, label_of, short
from .tasks.slow_callbacks import Slow

__all__ = ["Cancelled", "ChildEnds", "Failure", "Forced", "GivenUp", "Notice", "Slow", "left_behind"]


class GivenUp(NamedTuple):
    """A main task that has ignored its cancellation, and still runs; nobody waits for it any more."""

    task: asyncio.Task[Any]


class ChildEnds(NamedTuple):
    """A child process made by ``os.fork`` ends, because its code awaits on the parent's loop."""


class Cancelled(NamedTuple):
    """*request* to cancel the main task has come while no cell ran; it will cancel the next cell."""

    request: Request


Notice = Failure | Forced | Slow | GivenUp | ChildEnds | Cancelled


def left_behind(late: Collection[asyncio.Task[Any]], timeout: float) -> Iterator[str]:
    """Say which tasks did not end in *timeout* seconds, before their loop was closed, and what to do next time."""
    for task in late:
        asked = "was cancelled, but " if cancelling(task) else ""
        yield (
            f"ipyrunner: the task {label_of(task)} {asked}did not end before its loop was closed "
            f"({short(function_of(task))})"
        )
    if any(map(cancelling, late)):
        yield (
            "ipyrunner: a task that catches CancelledError has to raise it again when it has cleaned up, and a client, "
            "task group or timeout that a cell has entered has to be left before this, e.g. by `await stack.aclose()`. "
            f"A clean-up that needs longer than {in_seconds(round(timeout, 3))} gets more by "
            f"`%config NotebookRunner.shutdown_timeout = {max(10, round(5 * timeout))}`. An interrupt ends the waiting."
        )
