"""Probes tell the tracer of a loop what runs in it, by the events of code objects.

On asyncio's own loops that is each call of a callback, and each ``call_soon`` of a task's step. Both are Python
functions of asyncio: ``Handle._run`` and ``BaseEventLoop.call_soon``. Other loops of the process run them too, the
kernel's among them.

On loops that are not written in Python (uvloop) it is each step of a task's coroutine. The events are local to the code
of the outermost coroutine of each task. Other callbacks are not seen, nor when a task is made ready. What a task waits
for is not known yet when its coroutine pauses: a callback looks a moment later.
"""

from __future__ import annotations

import asyncio
import sys
from types import CoroutineType, FrameType
from typing import Any, ClassVar

from ...introspection.private_api import call_in, stepped_by
from ...introspection.running_callback import HANDLE_RUN, is_callback
from ...introspection.task_state import coro_of
from .code_events import CodeEvents
from .tracer import Tracer

__all__ = ["CallbackProbe", "CoroutineProbe", "Probe"]

_CALL_SOON = asyncio.BaseEventLoop.call_soon.__code__


class Probe:
    """Tell *tracer* what its loop does, from :meth:`start` to :meth:`stop`."""

    # Whether it tells of callbacks that are no steps of tasks, and when a task is made ready.
    sees_callbacks: ClassVar[bool]

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._events = CodeEvents(coroutines=not self.sees_callbacks)

    def start(self) -> None:
        """Begin. RuntimeError if that is not possible at the moment."""
        raise NotImplementedError

    def stop(self) -> None:
        """End. Idempotent."""
        self._events.stop()

    @property
    def is_on(self) -> bool:
        """Whether it tells anything, so far as is known."""
        return self._events.is_on

    def check(self) -> str:
        """Return why something was not told; nothing if all was."""
        return self._events.check()

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Tell of the steps of *task* from now on."""
        raise NotImplementedError


class CallbackProbe(Probe):
    """Tell of the callbacks of asyncio's own loops."""

    sees_callbacks = True

    def start(self) -> None:
        """Begin. RuntimeError if that is not possible at the moment."""
        tracer, loop, begin, end = self._tracer, self._tracer.loop, self._tracer.begin, self._tracer.end

        def enter(frame: FrameType) -> None:
            of, callback = call_in(frame)
            if of is loop:
                begin(frame, stepped_by(callback), callback)

        def leave(frame: FrameType) -> None:
            if tracer.stack:
                end(frame)

        self._events.watch(HANDLE_RUN, enter, leave)
        self._events.watch(_CALL_SOON, tracer.ready)
        own: Any = type(loop).call_soon  # that of the notebook's loop calls asyncio's only in debug mode
        self._events.watch(getattr(own, "__code__", _CALL_SOON), tracer.ready)
        self._events.start()
        running, frame = [], sys._getframe(1)
        while frame is not None:
            if is_callback(frame):
                running.append(frame)
            frame = frame.f_back  # type: ignore[assignment]
        for each in reversed(running):
            enter(each)

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Every task's steps are callbacks."""


class CoroutineProbe(Probe):
    """Tell of the steps of tasks, on any loop."""

    sees_callbacks = False

    def start(self) -> None:
        """Begin. RuntimeError if that is not possible at the moment."""
        self._events.watch(self._tracer.cells, self._enter, self._leave)  # nobody lists it between two cells
        self._events.start()
        task = asyncio.current_task(self._tracer.loop)
        frame = getattr(coro_of(task), "cr_frame", None)
        if task is not None and isinstance(frame, FrameType):
            self._tracer.begin(frame, task, None)

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Tell of the steps of *task* from now on."""
        coro = coro_of(task)
        if type(coro) is CoroutineType:
            self._events.watch(coro.cr_code, self._enter, self._leave)

    def _enter(self, frame: FrameType) -> None:
        task = asyncio.current_task(self._tracer.loop)
        # The same function may be awaited by others.
        if task is not None and getattr(coro_of(task), "cr_frame", None) is frame:
            self._tracer.begin(frame, task, None)

    def _leave(self, frame: FrameType) -> None:
        if self._tracer.stack:
            self._tracer.end(frame, later=True)
