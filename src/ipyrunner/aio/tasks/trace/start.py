"""Begin and end a session. Several may go on at a time: they share the tracer of their loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any, Protocol

from ...introspection.task_state import tasks_of
from ...sigint.defer_sigint import Held
from ..registry import Tasks
from .busy_places import BusyPlaces
from .lanes import Pending
from .probes import CallbackProbe, CoroutineProbe, Probe
from .session import Session
from .tracer import Tracer

__all__ = ["Traced", "begin", "end", "goes_on", "pending"]


class Traced(Protocol):
    """What is traced: a loop, its tasks, and a list of functions to call before the loop is closed."""

    loop: asyncio.AbstractEventLoop
    tasks: Tasks
    when_closed: list[Callable[[], None]]


class _Active:
    """The tracer of one loop and its probe, while there are sessions."""

    def __init__(self, runner: Traced, cells: CodeType) -> None:
        self.runner = runner
        self.tracer = tracer = Tracer(runner.loop, cells)
        own = isinstance(runner.loop, asyncio.BaseEventLoop)
        self.probe: Probe = CallbackProbe(tracer) if own else CoroutineProbe(tracer)
        self.ends: list[Callable[[], object]] = []

    def start(self) -> None:
        self.probe.start()
        self.ends = [self.probe.stop, self.runner.tasks.watch(self._on_new), BusyPlaces(self.tracer).stop]
        gc.callbacks.append(self.tracer.on_collection)
        self.ends.append(self._leave_collector)
        self.runner.when_closed.append(self.stop)
        self.ends.append(lambda: self.runner.when_closed.remove(self.stop))
        for task in tasks_of(self.runner.loop):
            self.probe.watch(task)

    def _leave_collector(self) -> None:
        with suppress(ValueError):  # somebody has taken it away
            gc.callbacks.remove(self.tracer.on_collection)

    def sees(self) -> bool:
        """Return whether the tracer is told anything. If it has missed something, mark its sessions incomplete."""
        with suppress(Exception):  # an audit hook may refuse
            if reason := self.probe.check():
                for session in self.tracer.sessions:
                    session.incomplete = reason
        return self.probe.is_on

    def _on_new(self, task: asyncio.Task[Any], context: Any) -> None:
        self.sees()
        self.tracer.on_new(task)
        with suppress(Exception):  # a task of the user's own, which may be anything
            self.probe.watch(task)

    def begin(self, key: object | None, own: asyncio.Task[Any] | None) -> Session:
        """Begin a session."""
        tracer = self.tracer
        tracer.settle_at_rest()
        lane = None if own is None else tracer.lane_of(own)
        lanes = [tracer.adopt(task) for task in tasks_of(self.runner.loop) if task is not own]
        session = Session(key=key, own=lane, sees_callbacks=self.probe.sees_callbacks)
        for each in lanes:
            if each is not None:
                session.appeared(each)
        tracer.sessions.append(session)
        return session

    def stop(self) -> None:
        """End all sessions. Idempotent."""
        global _active
        self.sees()
        for session in [*self.tracer.sessions]:
            self.tracer.close(session)
        ends, self.ends = self.ends, []
        for end in ends:
            end()
        self.tracer.forget()
        if _active is self:
            _active = None


_active: _Active | None = None


def begin(
    runner: Traced, cells: CodeType, *, key: object | None = None, own: asyncio.Task[Any] | None = None
) -> Session:
    """Begin to record *runner*'s loop, on its thread; *cells* is the code of the task that awaits the cells.

    All tasks; or *own* and those that are started in a Context whose ``keys`` have *key*. RuntimeError if that is not
    possible at the moment. An interrupt is raised when the session has begun: a caller that must not lose the
    session holds the interrupt back until it has stored that.
    """
    global _active
    with Held(then_raise=True):
        if _active is not None and _active.runner is not runner:
            raise RuntimeError("another event loop is being traced: end that trace first")
        active = _active
        if active is None:
            active = _Active(runner, cells)
            active.start()
            _active = active
        elif not active.sees():
            raise RuntimeError(
                "another trace is still running, but records nothing, because something that it needs was taken away: "
                "end that trace first, or the profiler that has taken it"
            )
        try:
            return active.begin(key, own)
        except BaseException:
            if not active.tracer.sessions:
                active.stop()
            raise


def goes_on(session: Session) -> bool:
    """Return whether *session* has not ended, and its loop is seen."""
    return _active is not None and session in _active.tracer.sessions and _active.sees()


def end(session: Session) -> None:
    """End *session*. Idempotent."""
    active = _active
    with Held(then_raise=True):
        if active is not None and session in active.tracer.sessions:
            active.sees()
            active.tracer.close(session)
            if not active.tracer.sessions:
                active.stop()


def pending(session: Session) -> list[Pending]:
    """Return the tasks of *session* that have not ended, and what they wait for: now, or at its end."""
    if _active is not None and session in _active.tracer.sessions:
        _active.sees()
        return _active.tracer.pending(session)
    return session.pending
