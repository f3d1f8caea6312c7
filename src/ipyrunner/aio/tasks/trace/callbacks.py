"""Tell the recorder of each call of a callback, and each ``call_soon`` of a task's step, on asyncio's own loops.

Both are Python functions of asyncio: ``Handle._run`` and ``BaseEventLoop.call_soon``. Other loops of the process run
them too, the kernel's among them.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

from ...introspection.private_api import call_in, stepped_by
from ...introspection.running_callback import HANDLE_RUN, is_callback
from .code_events import CodeEvents
from .recorder import Recorder

__all__ = ["Callbacks"]

_CALL_SOON = asyncio.BaseEventLoop.call_soon.__code__


class Callbacks:
    """Tell *recorder* what its loop calls."""

    sees_callbacks = True

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._events = CodeEvents()

    def start(self) -> None:
        """Begin. RuntimeError if that is not possible at the moment."""
        recorder, loop, begin, end = self._recorder, self._recorder.loop, self._recorder.begin, self._recorder.end

        def enter(frame: FrameType) -> None:
            of, callback = call_in(frame)
            if of is loop:
                begin(frame, stepped_by(callback), callback)

        def leave(frame: FrameType) -> None:
            if recorder.stack:
                end(frame)

        self._events.watch(HANDLE_RUN, enter, leave)
        self._events.watch(_CALL_SOON, recorder.ready)
        self._events.start()
        running, frame = [], sys._getframe(1)
        while frame is not None:
            if is_callback(frame):
                running.append(frame)
            frame = frame.f_back  # type: ignore[assignment]
        for each in reversed(running):
            enter(each)

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
        """Do nothing: the steps of all tasks are callbacks."""
