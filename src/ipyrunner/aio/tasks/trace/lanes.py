"""Lanes: what a trace keeps of tasks, their runs, and places in code. No task, coroutine, future or result."""

from __future__ import annotations

import asyncio
from types import CodeType, CoroutineType
from typing import Any, NamedTuple

from ...introspection.frames import OURS, inner_name
from ...introspection.private_api import exception_of
from ...introspection.task_state import coro_of
from ...introspection.wait_graph import Step
from ..safe_names import describe, function_of, name_of
from ..task_records import state_of

__all__ = ["Lane", "Pending", "Place", "Run", "resolve"]

# A function, and an index into its code: the line is looked up when somebody wants to see it.
Place = tuple[CodeType, int]

# Characters of a name that are kept.
_LONGEST = 200


def resolve(place: Place) -> Step:
    """Return the file, line and function of *place*."""
    code, offset = place
    line = next((n for start, end, n in code.co_lines() if start <= offset < end and n is not None), None)
    return Step(code.co_filename, line or code.co_firstlineno, inner_name(code))


class Lane:
    """One task: what is known of it, and what it does at the moment. It does not hold the task."""

    __slots__ = (
        "cancel",
        "cancelled_by",
        "created",
        "created_by",
        "ended",
        "error",
        "function",
        "is_cells",
        "keys",
        "name",
        "number",
        "place",
        "ready",
        "ref",
        "since",
        "waits_for",
        "woken_by",
    )

    def __init__(self, number: int, ref: Any, now: int) -> None:
        self.number = number
        self.ref = ref
        self.name = self.function = ""
        # The keys of the blocks that have started it, for recordings of a block's tasks.
        self.keys: tuple[object, ...] = ()
        # When it was started, None if that was before the session; and when it has ended, and how.
        self.created: int | None = None
        self.created_by: int | str | None = None
        self.ended: int | None = None
        self.error = ""
        # What has last cancelled the future that it waited for; the same for its next step. The number of a lane, or
        # words, which are empty if it is not known.
        self.cancelled_by: int | str | None = None
        self.cancel: int | str | None = None
        # Since when it has not run; where it waits, and for what; when it was made ready to run, and by what.
        self.since = now
        self.place: Place | None = None
        self.waits_for: int | str | None = None
        self.ready: int | None = None
        self.woken_by: int | str | None = None
        # Whether it is the task of all cells, whose own name is that of the present cell.
        self.is_cells = False

    @property
    def state(self) -> str:
        """How it has ended: done, failed, cancelled or vanished (it was freed before its end was seen); or pending."""
        return self.error.partition(":")[0] or "pending"

    def name_it(self, task: asyncio.Task[Any]) -> None:
        """Record the present name of the task."""
        coro = coro_of(task)
        is_ours = type(coro) is CoroutineType and coro.cr_code.co_filename.startswith(OURS)  # a cell, say
        if type(task) is asyncio.Task and type(coro) is CoroutineType:  # nearly always, and fastest
            name, function = task.get_name(), coro.__qualname__
            if type(name) is type(function) is str:  # not of a class of the user's
                self.name, self.function = name[:_LONGEST], "" if is_ours else function[:_LONGEST]
                return
        self.name = "cells" if self.is_cells else name_of(task)[:_LONGEST]
        self.function = "" if is_ours else function_of(task)[:_LONGEST]

    def end(self, task: asyncio.Task[Any], now: int) -> None:
        """Record that the task has ended, and how."""
        self.name_it(task)
        self.ended = now
        error = exception_of(task)
        if error is None and type(task) is asyncio.Task:
            self.error = "cancelled" if task.cancelled() else "done"
        else:
            state = state_of(task)
            self.error = f"{state}: {describe(error)[:_LONGEST]}" if state == "failed" and error is not None else state


class Run(NamedTuple):
    """One step of a task, or one call of another callback, and the waiting before it. Times in nanoseconds.

    *lane*: None for a callback, which *name* is the name of. *since*, *place*, *waits_for*: when it began to wait,
    where and for what. *ready*: when it was made ready, None if that is not known; *woken_by*, *cancelled_by*: by what.
    *blocked_at*: where it was most of the time (code and line), if it took long. *inside*: whether another callback ran
    inside it; *depth*: inside how many callbacks it ran.
    """

    lane: Lane | None
    name: str
    since: int
    place: Place | None
    waits_for: int | str | None
    ready: int | None
    woken_by: int | str | None
    cancelled_by: int | str | None
    begin: int
    end: int
    blocked_at: tuple[CodeType, int] | str | None
    inside: bool
    depth: int


class Pending(NamedTuple):
    """A task that had not ended at the end of a session: what it waited for."""

    lane: Lane
    since: int
    place: Place | None
    waits_for: int | str | None
    ready: int | None
