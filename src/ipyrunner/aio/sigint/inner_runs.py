"""Nested runs: code that runs the loop inside itself, and keeps interrupted code from ending.

Nested runs end in the reverse order of their beginning: code outside cannot go on before the innermost one has ended,
though the loop goes on in there. So an interrupt treats that run as a callback that does not yield: it has some
seconds, then KeyboardInterrupt comes out of it, through all code that does not catch it. Clean-up in the run is left
alone until the next interrupt.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

from ..introspection.frames import is_ours, uninterruptible
from ..introspection.private_api import exception_of, handle_context, is_task
from ..introspection.running_callback import is_callback, is_driver, runs_nested, task_of_step
from ..introspection.task_state import is_done
from ..introspection.wait_graph import is_library
from .dropped_exceptions import when_dropped
from .forced_interrupt import Forced, forced_interrupt, is_forced

__all__ = ["InnerRun", "Unwinding", "inner_runs"]

# Seconds: how often to look whether the innermost run still is in the way.
_LOOK = 0.05


class InnerRun(NamedTuple):
    """A task, or another callback's handle, that runs the loop; the future that it waits for; its user code."""

    owner: Any
    future: Any
    place: Forced | None


def inner_runs(frame: FrameType | None) -> list[InnerRun]:
    """Return the nested runs, innermost first; *frame* is in a callback of the innermost one."""
    found: list[InnerRun] = []
    begun, future = False, None
    place: FrameType | None = None
    while frame is not None and not is_driver(frame):
        if is_callback(frame):
            handle = frame.f_locals["self"]
            if begun:
                context = handle_context(handle)
                where = None
                if place is not None and context is not None:
                    where = Forced.into(place)._replace(context=context)
                found.append(InnerRun(task_of_step(frame) or handle, future, where))
            begun, future, place = True, None, None
        elif future is None and frame.f_code.co_name == "run_until_complete":
            future = frame.f_locals.get("f", frame.f_locals.get("future"))
        elif place is None and not is_library(frame.f_code.co_filename) and not is_ours(frame.f_code.co_filename):
            place = frame
        frame = frame.f_back
    return found


class Unwinding:
    """End inner runs of *loop* that are in the way for *seconds*, from :meth:`begin` to :meth:`close`.

    *is_in_way* is called with the nested runs; if the innermost one is not in the way, *go_on* is called with them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        *,
        is_in_way: Callable[[list[InnerRun]], bool],
        go_on: Callable[[list[InnerRun]], None],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._is_in_way = is_in_way
        self._go_on = go_on
        self._context = contextvars.Context()
        self._looks = self._over = False
        # The future that the innermost run waits for; since when; whether it had KeyboardInterrupt for the last press.
        self._future: object = None
        self._since = 0.0
        self._is_spared = False
        self._unhook: Callable[[], None] = lambda: None
        # The runs that KeyboardInterrupt may have come out of, and whether it certainly has: out of the innermost.
        self._ended: list[tuple[bool, InnerRun]] = []

    @property
    def has_raised(self) -> bool:
        """Whether KeyboardInterrupt was raised."""
        return bool(self._ended)

    @property
    def ended(self) -> list[Forced]:
        """The code of the nested runs that were ended, as far as that is known."""
        return [
            run.place
            for certain, run in self._ended
            if run.place is not None
            and (certain or (is_task(run.owner) and is_done(run.owner) and is_forced(exception_of(run.owner))))
        ]

    def close(self) -> None:
        """Do nothing any more."""
        self._over = True
        self._unhook()

    @uninterruptible
    def begin(self) -> None:
        """In the loop, at each press."""
        self._is_spared = False
        if not self._looks and runs_nested(sys._getframe()):
            self._look()

    @uninterruptible
    def _look(self) -> None:
        self._looks = False
        if self._over:
            return
        runs = inner_runs(sys._getframe())
        if runs:
            self._looks = True
            self._loop.call_later(_LOOK, self._look, context=self._context)
        if not runs or not self._is_in_way(runs):
            self._go_on(runs)
            return
        now, future = self._loop.time(), runs[0].future
        if future is not self._future:
            self._future, self._since = future, now
        if now - self._since < self._seconds or (self._is_spared and _is_cancelled(future)):
            return
        self._is_spared = True
        self._ended += [(run is runs[0], run) for run in runs]
        forced = forced_interrupt()
        self._unhook()
        self._unhook = when_dropped(forced, lambda: None)  # dropped in __del__: the next look raises again
        raise forced


def _is_cancelled(future: object) -> bool:
    """Return whether *future* is a task that was cancelled, and may be cleaning up."""
    with suppress(Exception):  # of the user's, which may be anything
        return is_task(future) and future.cancelling() > 0
    return False
