"""What a task awaits: the chain of its coroutines down to the innermost, and the future at its end."""

from __future__ import annotations

import asyncio
import linecache
import sysconfig
from collections.abc import Iterable, Iterator
from types import CoroutineType, FrameType
from typing import Any, NamedTuple

from .private_api import gathered_by, is_task, waited_for_by, waits_for
from .task_state import coro_of

__all__ = ["Step", "awaited", "awaits", "dependencies", "depends_on", "frames", "innermost", "is_library"]

# What is installed is not the user's; the user's own packages, installed editable, are elsewhere.
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# A circle of coroutines cannot be, but what pretends to be one can.
_LONGEST = 1000
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


class Step(NamedTuple):
    """A suspended function of the chain and its line."""

    filename: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The line's text."""
        return linecache.getline(self.filename, self.line).strip()


def awaited(tasks: Iterable[asyncio.Task[Any]], *, raising: bool = False) -> Iterator[asyncio.Future[Any]]:
    """Give the futures that *tasks* wait for, also by ``gather`` and ``asyncio.wait``.

    *raising*: those alone whose exception is raised in the task. Between two of them the loop may run.
    """
    found: set[asyncio.Future[Any]] = set()  # of gather: they may be gathered themselves, and hold what they gather
    for task in tasks:
        pending = [waits_for(task), *waited_for_by(frames(coro_of(task)), raising=raising)]
        while pending:
            future = pending.pop()
            if future is None or future in found:
                continue
            yield future
            if children := gathered_by(future, raising=raising):
                found.add(future)
                pending += children


def depends_on(task: asyncio.Task[Any], other: asyncio.Task[Any], *, raising: bool = False) -> bool:
    """Return whether *task* is *other*, or waits for it, also by other tasks and by a ``TaskGroup``.

    *raising*: so that the exception of *other* is raised in it.
    """
    seen: set[asyncio.Task[Any]] = set()
    pending = {task}
    while pending and other not in pending:
        seen |= pending
        pending = {future for future in awaited(pending, raising=raising) if is_task(future)} - seen
    return other in pending


def dependencies(task: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    """Return the tasks that *task* waits for, as :func:`depends_on` has it, without itself."""
    found: set[asyncio.Task[Any]] = set()
    pending = {task}
    while pending:
        found |= pending
        pending = {future for future in awaited(pending) if is_task(future)} - found
    return found - {task}


def is_library(filename: str) -> bool:
    """Return whether the file is part of Python or of an installed package."""
    return filename.startswith((*_LIBRARIES, "<frozen"))


def awaits(task: asyncio.Task[Any]) -> list[Step]:
    """Return the chain of *task*, outermost first. Empty if it has ended."""
    return [Step(f.f_code.co_filename, f.f_lineno, f.f_code.co_qualname) for f in frames(coro_of(task))]


def frames(awaited: Any) -> Iterator[FrameType]:
    """Give the frames of a suspended coroutine, and of what it awaits, the outermost first."""
    for _ in range(_LONGEST):
        if type(awaited) is CoroutineType and awaited.cr_frame is not None:  # nearly always, and fastest
            yield awaited.cr_frame
            awaited = awaited.cr_await
            continue
        try:
            kind, inner = next((k, i) for k, i in _KINDS if isinstance(getattr(awaited, k, None), FrameType))
            frame, awaited = getattr(awaited, kind), getattr(awaited, inner, None)
        except (
            BaseException
        ):  # StopIteration at the end of the chain; or an awaitable of the user's, which may be anything
            return
        yield frame


def innermost(chain: list[Step]) -> Step | None:
    """Return the innermost step that is the user's own; the innermost of all if none is."""
    return next((step for step in reversed(chain) if not is_library(step.filename)), chain[-1] if chain else None)
