"""``main()``: one task that awaits one coroutine after the other, as a script's awaits its lines.

The problem: what one coroutine enters and a later one leaves (a task group, a cancel scope, ``asyncio.timeout``, a
ContextVar's token) belongs to the task and to the Context that have entered it.

The solution: a task that stays, in one Context. Between two coroutines it waits, and is no task to anybody:
``asyncio.all_tasks()`` does not know it. A coroutine that is cancelled ends, and the task goes on.

A scope that is still entered may cancel the task between two coroutines: a child of a ``TaskGroup`` has failed, a
``timeout`` is over. The request is kept, and made again when the next coroutine begins, which gets it at its first
``await``. anyio repeats such a request in each iteration of the loop, until the scope is left, and the loop would spin:
meanwhile the callback that does so is kept as well.

That no request is counted (``cancelling() == 0``) when a coroutine begins, whatever it has left entered, does no harm:
scopes take their requests back by ``uncancel``, which never counts below zero.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

from .introspection.frames import is_ours, uninterruptible
from .introspection.private_api import exception_of, is_task
from .introspection.ready_queue import ReadyQueue
from .introspection.running_loop import register_task, unregister_task
from .introspection.task_origin import Origin, origin_of

__all__ = ["Main", "Request", "Step"]

# Seconds: how often a scope that repeats its request may do so while nothing runs.
_PAUSE = 0.05
_NEVER_ENDS = (
    "this task runs one coroutine after the other and does not end, so waiting for it would last for ever: leave it "
    "out, as in [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]"
)
# Frames of asyncio's and of libraries' from the call of cancel() on outwards, in which its cause may be.
_DEPTH = 6


class Request(NamedTuple):
    """A call of ``cancel()``: the object that has called, what has started that, what had failed there."""

    scope: object
    kind: str
    origin: Origin | None
    cause: BaseException | None
    message: Any


class Step:
    """One coroutine of :class:`Main`, and how it has ended: *future* is done when the coroutine is."""

    def __init__(self, coro: Coroutine[Any, Any, Any], future: asyncio.Future[None], name: str | None) -> None:
        self.coro, self.future, self.name = coro, future, name
        # The requests to cancel it that have come while it ran, or that were kept for it; not those of an interrupt.
        self.requests: list[Request] = []
        self.value: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """Return what the coroutine has returned, or raise what it has raised; once, since nothing is kept."""
        error, value = self.error, self.value
        self.error = self.value = None
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error, value


class Main:
    """Await coroutines one after the other, in one task of *loop* and in *context*, until :meth:`close`.

    On the loop's thread. *queue* is the loop's. *kept* is called with each request to cancel that comes between two
    coroutines, in the Context of who makes it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        *,
        queue: ReadyQueue,
        kept: Callable[[Request], object] = lambda request: None,
    ) -> None:
        self.context = context
        # The one that runs, if one does.
        self.step: Step | None = None
        self._loop = loop
        self._queue = queue
        self._tell = kept
        self._steps: deque[Step] = deque()
        self._wakeup: asyncio.Future[None] | None = None
        self._kept: list[Request] = []
        self._aside: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None
        self._empty = contextvars.Context()
        # Whether somebody has asked to cancel the coroutine that runs.
        self._asked = self._over = False
        self.task: asyncio.Task[None] = _task_class()(self, loop, context)
        unregister_task(self.task)

    def begin(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None) -> Step:
        """Await *coro* when those before it have ended."""
        step = Step(coro, self._loop.create_future(), name)
        self._steps.append(step)
        self._wake()
        return step

    def close(self) -> None:
        """End the task: now, or when the coroutine that runs has ended. Idempotent."""
        self._over = True
        self._kept.clear()
        self._aside.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done() and not self._loop.is_closed():
            self._wakeup.set_result(None)

    # -- the task

    async def run(self) -> None:
        """Be the coroutine of the task."""
        while True:
            while not self._steps and not self._over:
                self._wakeup = self._loop.create_future()
                with suppress(asyncio.CancelledError):
                    await self._wakeup
            self._wakeup = None
            if not self._steps:
                return
            await self._await(self._steps.popleft())

    async def _await(self, step: Step) -> None:
        task, self.step = self.task, step
        register_task(task)
        try:
            if step.name is not None:
                task.set_name(step.name)
            self._deliver(step)
            step.value = await step.coro
        except GeneratorExit:
            raise
        except BaseException as exc:
            step.error = exc
        finally:
            self.step = None
            unregister_task(task)
            if not step.future.done():
                step.future.set_result(None)
            del step
        if self._asked:
            # One that came in the last moment is not for the next coroutine.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    def _deliver(self, step: Step) -> None:
        """Ask for what was asked for since the last coroutine."""
        self._asked = False
        while self.task.cancelling():
            self.task.uncancel()
        kept, self._kept = self._kept, []
        step.requests += kept
        self._put_back()
        for request in kept:
            # A scope that repeats its request does so when it finds that right: not where anyio shields.
            if not self._queue.has(request.scope):
                self._asked = True
                asyncio.tasks.Task.cancel(self.task, request.message)

    # -- cancel()

    def cancel(self, frame: FrameType, message: Any, cancel: Callable[..., bool]) -> bool:
        """Be the task's ``cancel()``, called in *frame*; *cancel* is the class's own."""
        by_interrupt = is_ours(frame.f_code.co_filename)
        if self.step is not None:
            self._asked = True
            if not by_interrupt:
                self.step.requests.append(_request(frame, message))
            return cancel(message)
        if self._over or by_interrupt or self.task.done():
            return cancel(message) if self._over else False
        scope = frame.f_locals.get("self")
        if scope is not None and any(request.scope is scope for request in self._kept):
            self._loop.call_soon(self._put_aside, scope, context=self._empty)
        else:
            request = _request(frame, message)
            self._kept.append(request)
            self._tell(request)
        return True

    @uninterruptible
    def _put_aside(self, scope: object) -> None:
        if self.step is None and not self._over:
            self._aside += self._queue.take(scope)
            if self._timer is None:
                self._timer = self._loop.call_later(_PAUSE, self._put_back, context=self._empty)

    @uninterruptible
    def _put_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        aside, self._aside = self._aside, []
        self._queue.give(aside)


def _request(frame: FrameType, message: Any) -> Request:
    scope = frame.f_locals.get("self")
    kind = frame.f_code.co_qualname if scope is None else type(scope).__name__
    return Request(scope, kind, origin_of(contextvars.copy_context()), _cause(frame), message)


def _cause(frame: FrameType | None) -> BaseException | None:
    """Return what a task has failed with that is at hand in *frame*, or in one that has called it: of a task group."""
    for _ in range(_DEPTH):
        if frame is None:
            break
        for value in list(frame.f_locals.values()):
            if is_task(value) and value.done() and (failed := exception_of(value)) is not None:
                return failed
        frame = frame.f_back
    return None


@functools.cache
def _subclass(base: Any) -> Any:
    class MainTask(base):  # type: ignore[misc]
        """The task of a :class:`Main`."""

        def __init__(self, main: Main, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
            self._main = main
            super().__init__(main.run(), loop=loop, context=context)

        def cancel(self, msg: Any = None) -> bool:
            return self._main.cancel(sys._getframe(1), msg, super().cancel)

        def add_done_callback(self, fn: Any, *, context: contextvars.Context | None = None) -> None:
            # asyncio's gather, wait and as_completed; others want to know of the end of the task, which will come.
            if sys._getframe(1).f_code.co_filename == asyncio.tasks.__file__:
                raise RuntimeError(_NEVER_ENDS)
            super().add_done_callback(fn, context=context)

        def __await__(self) -> Any:
            raise RuntimeError(_NEVER_ENDS)

        __iter__ = __await__

    return MainTask


def _task_class() -> Any:
    # Looked up each time: nest_asyncio puts another class in its place.
    return _subclass(asyncio.tasks.Task)
