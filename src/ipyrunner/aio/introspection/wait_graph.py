"""What a task awaits: the chain of its coroutines down to the innermost, and the future at its end."""

from __future__ import annotations

import asyncio
import gc
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType
from typing import Any, NamedTuple

from .frames import inner_name, is_top_level, line_of
from .private_api import (
    GROUP_ENDS,
    WAIT,
    WAIT_FOR,
    gathered_by,
    is_acquire,
    is_task,
    name_of_class,
    returns_exceptions,
    shielded_by,
    waited_for_by,
    waits_for,
)
from .task_state import coro_of, is_done

__all__ = [
    "Call",
    "Step",
    "Wait",
    "awaited",
    "awaits",
    "calls_asyncio",
    "chain_of",
    "dependencies",
    "depends_on",
    "innermost",
    "is_asyncios",
    "is_library",
    "wait_of",
]

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
# asyncio's functions that only wait for another function.
_PASSING = ("_ContextManagerMixin.__aenter__", "wait_for", "_wait", "wait", "TaskGroup.__aexit__", "TaskGroup._aexit")
# What is installed is not the user's; the user's own packages, installed editable, are elsewhere.
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# Coroutines cannot await each other in a circle, but objects that imitate them can.
_LONGEST = 1000
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
# The awaitables of an asynchronous generator.
_STEPS = ("async_generator_asend", "async_generator_athrow")


class Combined(NamedTuple):
    """Futures that a task waits for together: for *all*, or, if *fails*, until one has failed; or for one of them.

    *timed*: with a timeout.
    """

    futures: list[asyncio.Future[Any]]
    all: bool = True
    fails: bool = False
    timed: bool = False


def combined_by(frame: FrameType) -> Combined | None:
    """Return the futures that a task's innermost frame waits for together; None if its function does no such thing."""
    code, found = frame.f_code, frame.f_locals if frame.f_code in (WAIT, WAIT_FOR) else {}
    if code is WAIT:
        until = found.get("return_when")
        return Combined(
            list(found.get("fs", ())),
            all=until != asyncio.FIRST_COMPLETED,
            fails=until == asyncio.FIRST_EXCEPTION,
            timed=found.get("timeout") is not None,
        )
    if code is WAIT_FOR and asyncio.isfuture(future := found.get("fut")):
        return Combined([future], timed=found.get("timeout") is not None)
    if code.co_name in GROUP_ENDS and (futures := waited_for_by([frame])):
        return Combined(futures, fails=True)
    return None


class Step(NamedTuple):
    """A suspended function of the chain and its line."""

    filename: str
    line: int
    function: str

    @property
    def is_top_level(self) -> bool:
        """Whether it is no function: a cell itself, say, which tracebacks name by its number alone."""
        return is_top_level(self.function)

    @property
    def source(self) -> str:
        """The line's text; empty if there is none, or if no file can have that name."""
        try:
            return linecache.getline(self.filename, self.line).strip()
        except Exception:  # ValueError of Python 3.11; a loader of the user's own may raise anything
            return ""


class Wait(NamedTuple):
    """What a suspended task waits for: *all* of the tasks or one of them, and *others*, futures that are no tasks.

    Or a *lock* of asyncio's. *fails*: for all, or until one of them has failed. *timed*: with a timeout.
    """

    tasks: list[asyncio.Task[Any]]
    others: bool = False
    all: bool = True
    fails: bool = False
    timed: bool = False
    lock: asyncio.Lock | None = None


class Call(NamedTuple):
    """A function of asyncio's, say ``Queue.get``, and its ``self``; for ``sleep`` the delay."""

    function: str
    subject: Any


def awaited(tasks: Iterable[asyncio.Task[Any]], *, raising: bool = False) -> Iterator[asyncio.Future[Any]]:
    """Yield the futures that *tasks* wait for, also by ``gather`` and ``asyncio.wait``.

    *raising*: only those whose exception is raised in the task. The loop may run between two of them.
    """
    found: set[asyncio.Future[Any]] = set()  # of gather: they may be gathered themselves, and hold what they gather
    for task in tasks:
        pending = [waits_for(task), *waited_for_by((frame for _, frame in chain_of(coro_of(task))), raising=raising)]
        while pending:
            future = pending.pop()
            if future is None or future in found:
                continue
            yield future
            if children := gathered_by(future, raising=raising):
                found.add(future)
                pending += children


def depends_on(task: asyncio.Task[Any], other: asyncio.Task[Any], *, raising: bool = False) -> bool:
    """Return whether *task* is *other*, or waits for it, also through other tasks and a ``TaskGroup``.

    *raising*: only if the exception of *other* would be raised in *task*.
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


def wait_of(
    task: asyncio.Task[Any], *, most: int = sys.maxsize, known: dict[int, Wait | None] | None = None
) -> Wait | None:
    """Return what *task* waits for; None if it is about to go on, or waits for nothing that is known.

    At most *most* tasks, of a ``gather``, say, are looked at. *known* is a cache, by the ids of futures.
    """
    future = waits_for(task)
    if future is None or is_done(future):
        return None
    if is_task(future):
        return Wait([future])
    frame = None
    for _, each in chain_of(coro_of(task)):
        frame = each
    if frame is not None and is_acquire(frame.f_code):
        lock = frame.f_locals.get("self")
        return Wait([], lock=lock) if type(lock) is asyncio.Lock else None
    combined = None if frame is None else combined_by(frame)
    if combined is None:
        known = {} if known is None else known
        if id(future) not in known:
            known[id(future)] = _all_of(Combined([future]), most)
        return known[id(future)]
    if combined.all:
        return _all_of(combined, most)
    futures = [each for each in combined.futures if not is_done(each)]
    tasks = [each for each in futures[:most] if is_task(each)]
    return Wait(tasks, others=len(tasks) < len(futures), all=len(futures) < 2, timed=combined.timed)


def _all_of(combined: Combined, most: int) -> Wait | None:
    """Return the pending tasks among its futures, including those that a ``gather`` or ``shield`` waits for."""
    found: list[asyncio.Task[Any]] = []
    seen: set[int] = set()
    others, fails = False, combined.fails
    pending = combined.futures[::-1]
    while pending and len(found) < most:
        future = pending.pop()
        if id(future) in seen or is_done(future):
            continue
        seen.add(id(future))
        if type(future) is asyncio.Task or is_task(future):
            found.append(future)
        elif children := gathered_by(future):
            pending += children[::-1]
            fails = fails or not returns_exceptions(future, children)
        elif (inner := shielded_by(future)) is not None:
            pending.append(inner)
        else:
            others = True
    others = others or bool(pending)
    return Wait(found, others=others, fails=fails, timed=combined.timed) if found else None


def calls_asyncio(task: asyncio.Task[Any]) -> Call | None:
    """Return the function of asyncio's that *task* waits in, and that other code has called; None if there is none."""
    call: Call | None = None
    for _, frame in reversed(list(chain_of(coro_of(task)))):
        code = frame.f_code
        if not is_asyncios(code):
            break
        if code.co_qualname not in _PASSING:
            call = Call(code.co_qualname, frame.f_locals.get("delay" if code.co_name == "sleep" else "self"))
        if is_acquire(code):  # called by Condition.wait, say, which has to acquire the lock before it goes on
            break
    return call


def is_asyncios(code: CodeType) -> bool:
    """Return whether *code* is asyncio's own."""
    return code.co_filename.startswith(_ASYNCIO)


def is_library(filename: str) -> bool:
    """Return whether the file is part of Python or of an installed package."""
    return filename.startswith((*_LIBRARIES, "<frozen"))


def awaits(task: asyncio.Task[Any]) -> list[Step]:
    """Return the chain of *task*, outermost first. Empty if it has ended."""
    return [Step(f.f_code.co_filename, line_of(f), inner_name(f.f_code)) for _, f in chain_of(coro_of(task))]


def chain_of(awaited: Any) -> Iterator[tuple[Any, FrameType]]:
    """Yield *awaited*, a coroutine, and what it awaits in turn, each with its frame. Empty if it has ended."""
    for _ in range(_LONGEST):
        # Nearly always, and fastest. It may end at any moment if it runs on another thread.
        if type(awaited) is CoroutineType and (frame := awaited.cr_frame) is not None:
            yield awaited, frame
            awaited = awaited.cr_await
            continue
        if name_of_class(type(awaited)) in _STEPS:
            awaited = next((held for held in gc.get_referents(awaited) if type(held) is AsyncGeneratorType), None)
        try:
            found = ((getattr(awaited, kind, None), inner) for kind, inner in _KINDS)
            frame, inner = next((frame, inner) for frame, inner in found if isinstance(frame, FrameType))
            present, awaited = awaited, getattr(awaited, inner, None)
        except (
            BaseException
        ):  # StopIteration at the end of the chain; or an awaitable of the user's, which may be anything
            return
        yield present, frame


def innermost(chain: list[Step]) -> Step | None:
    """Return the innermost step that is the user's own; if none is, the innermost of others that is not asyncio's."""
    others = [step for step in reversed(chain) if not step.filename.startswith(_ASYNCIO)]
    return next((step for step in others if not is_library(step.filename)), others[0] if others else None)
