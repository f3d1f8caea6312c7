"""Begin and end a recording. Several may go on at a time: they share the recorder of their loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any, Protocol

from ...introspection.private_api import tasks_of
from ...sigint.defer_sigint import Held
from ..registry import Tasks
from .busy_places import BusyPlaces
from .callbacks import Callbacks
from .coroutines import Coroutines
from .recorder import Recorder
from .recording import Recording
from .records import Pending

__all__ = ["Traced", "begin", "end", "goes_on", "pending"]


class _Probe(Protocol):
    sees_callbacks: bool

    @property
    def is_on(self) -> bool: ...
    def check(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def watch(self, task: asyncio.Task[Any]) -> None: ...


class Traced(Protocol):
    """What is traced: a loop, its tasks, and a list of functions to call before the loop is closed."""

    loop: asyncio.AbstractEventLoop
    tasks: Tasks
    when_closed: list[Callable[[], None]]


class _Active:
    """The recorder of one loop and its probe, while there are recordings."""

    def __init__(self, runner: Traced, cells: CodeType) -> None:
        self.runner = runner
        self.recorder = recorder = Recorder(runner.loop, cells)
        own = isinstance(runner.loop, asyncio.BaseEventLoop)
        self.probe: _Probe = Callbacks(recorder) if own else Coroutines(recorder)
        self.ends: list[Callable[[], object]] = []

    def start(self) -> None:
        self.probe.start()
        self.ends = [self.probe.stop, self.runner.tasks.watch(self._on_new), BusyPlaces(self.recorder).stop]
        gc.callbacks.append(self.recorder.on_collection)
        self.ends.append(self._leave_collector)
        self.runner.when_closed.append(self.stop)
        self.ends.append(lambda: self.runner.when_closed.remove(self.stop))
        for task in tasks_of(self.runner.loop):
            self.probe.watch(task)

    def _leave_collector(self) -> None:
        with suppress(ValueError):  # somebody has taken it away
            gc.callbacks.remove(self.recorder.on_collection)

    def sees(self) -> bool:
        """Return whether the recorder is told anything. If it has missed something, mark its recordings incomplete."""
        with suppress(Exception):  # an audit hook may refuse
            if reason := self.probe.check():
                for recording in self.recorder.recordings:
                    recording.incomplete = reason
        return self.probe.is_on

    def _on_new(self, task: asyncio.Task[Any], context: Any) -> None:
        self.sees()
        self.recorder.on_new(task)
        with suppress(Exception):  # a task of the user's own, which may be anything
            self.probe.watch(task)

    def record(self, key: object | None, own: asyncio.Task[Any] | None) -> Recording:
        """Begin a recording."""
        recorder = self.recorder
        recorder.settle_at_rest()
        lane = None if own is None else recorder.lane_of(own)
        lanes = [recorder.adopt(task) for task in tasks_of(self.runner.loop) if task is not own]
        recording = Recording(key=key, own=lane, sees_callbacks=self.probe.sees_callbacks)
        for each in lanes:
            if each is not None:
                recording.appeared(each)
        recorder.recordings.append(recording)
        return recording

    def stop(self) -> None:
        """End all recordings. Idempotent."""
        global _active
        self.sees()
        for recording in [*self.recorder.recordings]:
            self.recorder.close(recording)
        ends, self.ends = self.ends, []
        for end in ends:
            end()
        self.recorder.forget()
        if _active is self:
            _active = None


_active: _Active | None = None


def begin(
    runner: Traced, cells: CodeType, *, key: object | None = None, own: asyncio.Task[Any] | None = None
) -> Recording:
    """Begin to record *runner*'s loop, on its thread; *cells* is the code of the task that awaits the cells.

    All tasks; or *own* and those that are started in a Context whose ``keys`` have *key*. RuntimeError if that is not
    possible at the moment. An interrupt is raised when the recording has begun: a caller that must not lose the
    recording holds the interrupt back until it has stored that.
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
            return active.record(key, own)
        except BaseException:
            if not active.recorder.recordings:
                active.stop()
            raise


def goes_on(recording: Recording) -> bool:
    """Return whether *recording* has not ended, and its loop is seen."""
    return _active is not None and recording in _active.recorder.recordings and _active.sees()


def end(recording: Recording) -> None:
    """End *recording*. Idempotent."""
    active = _active
    with Held(then_raise=True):
        if active is not None and recording in active.recorder.recordings:
            active.sees()
            active.recorder.close(recording)
            if not active.recorder.recordings:
                active.stop()


def pending(recording: Recording) -> list[Pending]:
    """Return the tasks of *recording* that have not ended, and what they wait for: now, or at its end."""
    if _active is not None and recording in _active.recorder.recordings:
        _active.sees()
        return _active.recorder.pending(recording)
    return recording.pending
