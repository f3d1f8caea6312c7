"""Tell the recorder of each step of a task's coroutine, on loops that are not written in Python (uvloop).

The events are local to the code of the outermost coroutine of each task. Other callbacks are not seen, nor when a task
is made ready. What a task waits for is not known yet when its coroutine pauses: a callback looks a moment later.
"""

from __future__ import annotations

import asyncio
from types import CoroutineType, FrameType
from typing import Any

from ...introspection.task_state import coro_of
from .code_events import CodeEvents
from .recorder import Recorder

__all__ = ["Coroutines"]


class Coroutines:
    """Tell *recorder* of the steps of its loop's tasks."""

    sees_callbacks = False

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._events = CodeEvents(coroutines=True)

    def start(self) -> None:
        """Begin. RuntimeError if that is not possible at the moment."""
        self._events.watch(self._recorder.cells, self._enter, self._leave)  # all_tasks() omits it between two cells
        self._events.start()
        task = asyncio.current_task(self._recorder.loop)
        frame = getattr(coro_of(task), "cr_frame", None)
        if task is not None and isinstance(frame, FrameType):
            self._recorder.begin(frame, task, None)

    def stop(self) -> None:
        """End. Idempotent."""
        self._events.stop()

    @property
    def is_on(self) -> bool:
        """Whether the recorder is told anything, so far as is known."""
        return self._events.is_on

    def check(self) -> str:
        """Return why the recorder was not told everything; empty if it was."""
        return self._events.check()

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Tell the recorder of the steps of *task* from now on."""
        coro = coro_of(task)
        if type(coro) is CoroutineType:
            self._events.watch(coro.cr_code, self._enter, self._leave)

    def _enter(self, frame: FrameType) -> None:
        task = asyncio.current_task(self._recorder.loop)
        # The same function may be awaited by others.
        if task is not None and getattr(coro_of(task), "cr_frame", None) is frame:
            self._recorder.begin(frame, task, None)

    def _leave(self, frame: FrameType) -> None:
        if self._recorder.stack:
            self._recorder.end(frame, later=True)
