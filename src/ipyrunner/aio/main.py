"""``main()``: one task that awaits one coroutine after the other, as the task of a script runs its lines.

The problem: what one coroutine enters and a later one leaves (a task group, a cancel scope, ``asyncio.timeout``, a
ContextVar's token) belongs to the task and to the Context that have entered it.

The solution: one task for all coroutines, in one Context. Between two coroutines it waits, and
``asyncio.all_tasks()`` does not list it. When a coroutine is cancelled it ends, and the task goes on.

A scope that is still entered may cancel the task between two coroutines: a child of a ``TaskGroup`` has failed, or a
``timeout`` is over. The request is kept and repeated when the next coroutine begins, which is cancelled at its first
``await``. anyio repeats such a request in each iteration of the loop until the scope is left. So that the loop does not
spin, the callback that does this is kept as well.

When a coroutine begins, no request is counted (``cancelling() == 0``), even if scopes are still entered. This does no
harm: scopes withdraw their requests by ``uncancel``, which never counts below zero.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

from .introspection.exceptions import is_a
from .introspection.frames import uninterruptible
from .introspection.private_api import exception_of, is_task
from .introspection.ready_queue import ReadyQueue
from .introspection.running_callback import is_callback, is_driver
from .introspection.running_loop import register_task, unregister_task
from .introspection.task_origin import Origin, origin_of
from .introspection.task_state import is_done

__all__ = ["Alone", "Detached", "Main", "Request", "Step"]

# Seconds: how often a scope that repeats its request may do so while nothing runs.
_PAUSE = 0.05
_NEVER_ENDS = (
    "this task runs all cells with await, one after the other, and never ends, so it cannot be waited for. Leave it "
    "out: [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]"
)
# How many frames, outwards from the call of cancel(), are searched for the scope and the cause.
_DEPTH = 6


class Request(NamedTuple):
    """A call of ``cancel()`` by a scope, say a task group; the origin of the calling callback; the failure behind it.

    A scope is an object with ``__exit__`` or ``__aexit__``, one of whose methods calls ``cancel()``.
    """

    scope: object
    kind: str
    origin: Origin | None
    cause: BaseException | None
    message: Any


class Step:
    """One coroutine of :class:`Main`, and how it has ended; *end* is done when it has."""

    def __init__(self, main: Main, coro: Coroutine[Any, Any, Any], name: str | None) -> None:
        self.main, self.coro, self.name = main, coro, name
        self.end: asyncio.Future[None] = main.task.get_loop().create_future()
        # The requests to cancel it that have come while it ran, or that were kept for it; not those of an interrupt.
        self.requests: list[Request] = []
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that it runs in."""
        return self.main.task  # type: ignore[no-any-return]

    def outcome(self) -> Any:
        """Return the coroutine's value, or raise its exception. Only once: neither is kept."""
        error, value = self.error, self.value
        self.error = self.value = None
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error, value


class Detached(BaseException):
    """Raised in whoever waits for a run that goes on, because nobody is to wait for it any more."""


class Alone(NamedTuple):
    """A run in a task of its own; otherwise it is a ``Step`` of the main task."""

    task: asyncio.Task[Any]
    end: asyncio.Future[Any]
    # What somebody has had from the task already: a cancellation has its traceback only the first time.
    error: BaseException | None = None

    def outcome(self) -> Any:
        """Return the result of the task, or raise its exception."""
        if self.error is not None:
            raise self.error
        return self.task.result()


class _Wakeup(asyncio.Future[None]):
    """What the task waits for between two coroutines; the task may be woken in another Context than its own."""

    _resume: Callable[[asyncio.Future[None]], object] | None = None

    def add_done_callback(self, fn: Any, *, context: contextvars.Context | None = None) -> None:
        self._resume = fn

    def cancel(self, msg: Any = None) -> bool:
        """Do nothing: whoever cancels all futures does not mean this one."""
        return False

    def wake(self, context: contextvars.Context) -> None:
        """Let the task go on, in *context*."""
        self.set_result(None)
        if self._resume is not None:
            self.get_loop().call_soon(self._resume, self, context=context)


class Main:
    """Await coroutines one after the other, in one task of *loop* and in *context*, until :meth:`close`.

    On the loop's thread. *queue* is the loop's queue. *kept* is called with the first request of each scope to cancel
    that comes between two coroutines, in the Context of the caller.
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
        # The coroutine that runs, if one does.
        self.step: Step | None = None
        self._loop = loop
        self._queue = queue
        self._tell = kept
        self._steps: deque[Step] = deque()
        self._wakeup: _Wakeup | None = None
        self._kept: list[Request] = []
        self._told: list[weakref.ref[Any]] = []
        self._aside: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None
        self._empty = contextvars.Context()
        # Whether somebody has asked to cancel the coroutine that runs.
        self._asked = self._over = False
        # How many interrupts have come before the next coroutine has begun.
        self._early = 0
        self.task: Any = _task_class()(self, loop, context)
        unregister_task(self.task)

    def begin(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None) -> Step:
        """Await *coro* when those before it have ended."""
        step = Step(self, coro, name)
        self._steps.append(step)
        self._wake(self.context)
        return step

    def close(self) -> None:
        """End the task soon, or when the coroutine that runs has ended. Idempotent. Also inside the task's Context."""
        self._over = True
        self._kept.clear()
        self._put_back()  # the callbacks belong to others
        self._wake(self._empty)  # the task's own Context may be entered

    @property
    def is_closing(self) -> bool:
        """Whether the task is to end: :meth:`close` was called."""
        return self._over

    def _wake(self, context: contextvars.Context) -> None:
        if self._wakeup is not None and not self._wakeup.done() and not self._loop.is_closed():
            self._wakeup.wake(context)

    # -- the task

    async def run(self) -> Any:
        """The coroutine of the task. Returns the last coroutine's value, if :meth:`close` was called while that ran."""
        while True:
            while not self._steps and not self._over:
                self._wakeup = _Wakeup(loop=self._loop)
                with suppress(asyncio.CancelledError):  # somebody has bypassed our cancel()
                    await self._wakeup
            self._wakeup = None
            if not self._steps:
                return None
            step = self._steps.popleft()
            await self._await(step)
            if self._over and not self._steps:
                return step.value
            del step

    async def _await(self, step: Step) -> None:
        task, self.step = self.task, step
        register_task(task)
        try:
            if step.name is not None:
                task.set_name(step.name)
            self._deliver(step)
            if self._early:
                self._refuse(step)
            step.value = await step.coro
        except BaseException as exc:
            if is_a(exc, GeneratorExit) and asyncio.current_task(self._loop) is not task:
                raise  # the task is being closed: the coroutine has not raised this itself
            step.error = exc
        try:
            self.step = None
            if self._asked:  # a request that came at the last moment must not cancel the next coroutine
                await self._swallow(step)
        finally:
            self.step = None
            unregister_task(task)
            if not step.end.done():
                step.end.set_result(None)
            del step

    async def _swallow(self, step: Step) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            # The coroutine has awaited nothing, or has caught the cancellation: the scopes' requests are still open.
            if step.error is None and self.task.cancelling():
                self._kept += [r for r in step.requests if all(r.scope is not kept.scope for kept in self._kept)]

    def _deliver(self, step: Step) -> None:
        """Repeat the requests that have come since the last coroutine."""
        self._asked = False
        while self.task.cancelling():
            self.task.uncancel()
        kept, self._kept = self._kept, []
        step.requests += kept
        self._put_back()
        for request in kept:
            # A scope whose callback is queued repeats its request itself, except where anyio shields.
            if not self._queue.has(request.scope):
                self._asked = True
                self.task.cancel_now(request.message)

    def _refuse(self, step: Step) -> None:
        """Cancel a coroutine that has not begun: nothing of it is to run."""
        self._asked = True
        while self._early:
            self._early -= 1
            self.task.cancel_now()
        step.coro.throw(asyncio.CancelledError())

    # -- cancel()

    def cancel(self, frame: FrameType, message: Any, cancel: Callable[..., bool]) -> bool:
        """Implement the task's ``cancel()``, called in *frame*; *cancel* is that of the class."""
        if self.step is not None or self._over:
            self._asked, accepted = True, cancel(message)
            if self.step is not None and (request := _request(frame, message)) is not None:
                self.step.requests.append(request)
            return accepted
        request = _request(frame, message)
        if request is None:  # nothing runs
            return False
        if any(kept.scope is request.scope for kept in self._kept):
            self._loop.call_soon(self._put_aside, request.scope, context=self._empty)
        else:
            self._kept.append(request)
            if not self._is_told(request.scope):
                self._tell(request)
        return True

    def interrupt(self, cancel: Callable[..., bool]) -> bool:
        """Cancel the coroutine that runs, or the one that is about to begin; return whether there is one."""
        if self.step is not None:
            self._asked = True
            return cancel()
        self._early += bool(self._steps)
        return bool(self._steps)

    def _is_told(self, scope: object) -> bool:
        """Return whether a request of *scope* was reported before: anyio repeats it until the scope is left."""
        self._told = [ref for ref in self._told if ref() is not None]
        if any(ref() is scope for ref in self._told):
            return True
        with suppress(TypeError):  # it may be anything
            self._told.append(weakref.ref(scope))
        return False

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


def _request(frame: FrameType, message: Any) -> Request | None:
    """Return what is known of the scope that called ``cancel()`` in *frame*; None if the caller is no scope."""
    try:
        scope: object = None
        callback = frame
        for caller in _callers(frame):
            code = caller.f_code
            callback, owner = caller, caller.f_locals.get("self") if "self" in code.co_varnames[:1] else None
            # The outermost one: a scope of anyio calls methods of the scopes inside it to cancel their tasks.
            if hasattr(type(owner), "__exit__") or hasattr(type(owner), "__aexit__"):
                scope = owner
        if scope is None:
            return None
        origin = origin_of(contextvars.copy_context())
        return Request(scope, str(type(scope).__name__), origin, _cause(callback), message)
    except Exception:  # what is in the frames may be anything
        return None


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame* and its callers, up to the loop's callback."""
    for _ in range(_DEPTH):
        if frame is None or is_callback(frame) or is_driver(frame):
            return
        yield frame
        frame = frame.f_back


def _cause(callback: FrameType) -> BaseException | None:
    """Return the exception of the failed task that *callback*, a done callback of a task group, was called for."""
    code = callback.f_code
    for name in code.co_varnames[: code.co_argcount]:
        task = callback.f_locals.get(name)
        if is_task(task) and is_done(task) and (failed := exception_of(task)) is not None:
            return failed
    return None


@functools.cache
def _subclass(base: Any) -> Any:
    class MainTask(base):  # type: ignore[misc]
        """The task of a :class:`Main`."""

        def __init__(self, main: Main, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
            self._main = main
            super().__init__(main.run(), loop=loop, context=context)

        def __del__(self) -> None:
            # If somebody closes the loop between two coroutines it waits for ever, which is no fault of the user's.
            if self._main.step is not None or is_done(self):
                super().__del__()

        def cancel(self, msg: Any = None) -> bool:
            return self._main.cancel(sys._getframe(1), msg, super().cancel)

        def interrupt(self) -> bool:
            return self._main.interrupt(super().cancel)

        def cancel_now(self, msg: Any = None) -> bool:
            accepted: bool = super().cancel(msg)
            return accepted

        def add_done_callback(self, fn: Any, *, context: contextvars.Context | None = None) -> None:
            # asyncio's gather, wait, as_completed and run_until_complete would wait for ever. Other callers only want
            # to be told of the task's end, which will come.
            if sys._getframe(1).f_code.co_filename in (asyncio.tasks.__file__, asyncio.base_events.__file__):
                self._refuse_waiting()
            super().add_done_callback(fn, context=context)

        def __await__(self) -> Any:
            self._refuse_waiting()
            return super().__await__()

        __iter__ = __await__

        def _refuse_waiting(self) -> None:
            if not self._main.is_closing:
                raise RuntimeError(_NEVER_ENDS)

    return MainTask


def _task_class() -> Any:
    # Looked up each time: nest_asyncio puts another class in its place.
    return _subclass(asyncio.tasks.Task)
