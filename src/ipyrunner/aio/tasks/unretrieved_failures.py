"""Tasks that have failed, and whose exception nobody has retrieved: they are reported when nobody is likely to do so.

The problem: asyncio reports the exception of a task when the task is collected. In a notebook a variable may hold the
task, and then that is never.

The solution: if nobody holds the task, nobody can retrieve its exception, and asyncio itself reports it at once; so
suspects are held weakly. Code that holds the task has a moment to retrieve it; while the cell that started the task
still runs, it has a second, since it may come to an ``await task`` further down. Code that gathers tasks has until all
of them have ended. Whether a task is gathered is found by a survey of what all tasks wait for, a few hundred at a time,
so that many sleeping tasks do not hold the loop.

A failure is reported by ``loop.call_exception_handler``, in asyncio's words.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any

from ..introspection.frames import uninterruptible
from ..introspection.private_api import exception_of, task_context, unseen
from ..introspection.task_origin import origin_of
from ..introspection.task_state import retrieve
from ..introspection.wait_graph import awaited
from ..sigint.forced_interrupt import is_forced
from .exception_handler import report

__all__ = ["Unretrieved"]

# Seconds until the first look at a failure, and between two steps of a survey; that code which holds the task has.
_LOOK = 0.02
_MOMENT = 0.16
_LOOKS = 2
# Seconds that the cell which has started a task, and still runs, has to look at its exception.
_PATIENCE = 1.0
# How many futures are looked at in one step.
_STEP = 500


class _Suspect:
    """A task that has failed, and whose exception nobody has retrieved yet."""

    __slots__ = ("looks", "since", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = weakref.ref(task)
        self.since = time.monotonic()
        self.looks = 0


class Unretrieved:
    """Report the failures among the tasks of *loop* that are given to :meth:`add`, until :meth:`close`.

    *pending* returns the tasks that may wait for these. *torn* is called with what a user's signal handler raises in
    the middle of a look.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        pending: Callable[[], Collection[asyncio.Task[Any]]],
        torn: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._pending = pending
        self._torn = torn
        self._suspects: list[_Suspect] = []
        # The survey that goes on; the suspects that it is about; which of these it has found to be waited for.
        self._survey: Iterator[asyncio.Future[Any]] | None = None
        self._doubted: dict[int, _Suspect] = {}
        self._waited_for: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._context = contextvars.Context()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Suspect *task*, which has ended, if it has failed."""
        if unseen([task]):
            if is_forced(exception_of(task)):
                retrieve(task)  # the forced interrupt is reported already
            else:
                self._suspects.append(_Suspect(task))
                self._arm(_LOOK)

    def suspects(self) -> list[weakref.ref[asyncio.Task[Any]]]:
        """Return the tasks whose exception nobody has retrieved yet."""
        return [suspect.task for suspect in self._suspects]

    def close(self) -> None:
        """Report all that is left."""
        if self._timer is not None:
            self._timer.cancel()
        self._survey = None
        for suspect in self._suspects:
            self._report(suspect)
        self._suspects.clear()

    def look(self) -> None:
        """Report the failures that nobody has retrieved in time."""
        if not self._suspects and self._survey is None:
            return
        self._suspects = [suspect for suspect in self._suspects if self._is_unseen(suspect)]
        now = time.monotonic()
        for suspect in self._suspects:
            suspect.looks += 1
        if self._survey is None:
            self._doubted = {id(suspect.task()): suspect for suspect in self._suspects if _is_late(suspect, now)}
            if self._doubted:
                self._waited_for = set()
                self._survey = awaited(list(self._pending()))
        if self._survey is not None:
            self._advance(self._survey)
        if self._suspects:
            looks: int = min(suspect.looks for suspect in self._suspects)
            self._arm(_LOOK if self._survey is not None else min(_LOOK * 2.0 ** min(looks, 10), _PATIENCE))

    def _advance(self, survey: Iterator[asyncio.Future[Any]]) -> None:
        steps = 0
        for future in islice(survey, _STEP):
            steps += 1
            if id(future) in self._doubted:
                self._waited_for.add(id(future))
        if steps == _STEP:
            return
        self._survey = None
        doubted, self._doubted = self._doubted, {}
        for key, suspect in doubted.items():
            if key not in self._waited_for and self._is_unseen(suspect):
                self._suspects = [other for other in self._suspects if other is not suspect]
                self._report(suspect)

    def _arm(self, seconds: float) -> None:
        if self._loop.is_closed():  # behind our back; it is replaced in the next cell
            return
        # An earlier timer stays: if the end of each cell postponed it, it would never fire.
        due = self._loop.time() + seconds
        if self._timer is None or self._timer.cancelled() or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._on_timer, context=self._context)

    @uninterruptible
    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.look()
        except Exception as exc:  # a user's signal handler has raised in the middle: pass its exception on
            self._survey = None
            self._arm(_LOOK)
            self._torn(exc)

    @staticmethod
    def _is_unseen(suspect: _Suspect) -> bool:
        task = suspect.task()
        return task is not None and bool(unseen([task]))

    def _report(self, suspect: _Suspect) -> None:
        task = suspect.task()
        if task is None or not unseen([task]):
            return
        exception = retrieve(task)  # counts as retrieved from now on
        report(self._loop, {"message": "Task exception was never retrieved", "exception": exception, "task": task})


def _is_late(suspect: _Suspect, now: float) -> bool:
    """Return whether code that holds the task has had the time to retrieve its exception."""
    task = suspect.task()
    if task is None or suspect.looks <= _LOOKS or now - suspect.since < _MOMENT:
        return False
    origin = origin_of(task_context(task))
    return origin is None or origin.over or now - suspect.since >= _PATIENCE
