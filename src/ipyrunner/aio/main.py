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
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

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
# Frames of asyncio's and of libraries' from the call of cancel() on outwards, in which its cause may be.
_DEPTH = 6


class Request(NamedTuple):
    """A scope's call of ``cancel()``: of a task group, say. What has started the callback that calls, what has failed.

    A scope is an object with ``__exit__`` or ``__aexit__``, in a method of which ``cancel()`` is called.
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
        """Return what the coroutine has returned, or raise what it has raised; once, since nothing is kept."""
        error, value = self.error, self.value
        self.error = self.value = None
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error, value


class Detached(BaseException):
    """A run goes on, and nobody waits for it any more: raised in who has waited."""


class Alone(NamedTuple):
    """A run in a task of its own; otherwise it is a ``Step`` of the main task."""

    task: asyncio.Task[Any]
    end: asyncio.Future[Any]

    def outcome(self) -> Any:
        """Return the result of the task, or raise its exception."""
        return self.task.result()


class _Wakeup(asyncio.Future[None]):
    """What the task waits for between two coroutines; it may be woken in another Context than its own."""

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
        """End the task, soon, or when the coroutine that runs has ended. Idempotent. Also inside its Context."""
        self._over = True
        self._kept.clear()
        self._put_back()  # what was taken away is others'
        self._wake(self._empty)  # its own may be entered

    @property
    def is_closing(self) -> bool:
        """Whether the task is to end: :meth:`close` was called."""
        return self._over

    def _wake(self, context: contextvars.Context) -> None:
        if self._wakeup is not None and not self._wakeup.done() and not self._loop.is_closed():
            self._wakeup.wake(context)

    # -- the task

    async def run(self) -> Any:
        """Be the coroutine of the task. Returns what the last coroutine has returned, if it was to end meanwhile."""
        while True:
            while not self._steps and not self._over:
                self._wakeup = _Wakeup(loop=self._loop)
                with suppress(asyncio.CancelledError):  # somebody has gone round our cancel()
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
            if isinstance(exc, GeneratorExit) and asyncio.current_task(self._loop) is not task:
                raise  # we are closed, with the task: what runs has not raised it
            step.error = exc
        try:
            self.step = None
            if self._asked:  # what has come in the last moment is not for the next coroutine
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
            # The coroutine has not awaited anything, or has caught it: what a scope asks for is still to be had.
            if step.error is None and self.task.cancelling():
                self._kept += [r for r in step.requests if all(r.scope is not kept.scope for kept in self._kept)]

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
        """Be the task's ``cancel()``, called in *frame*; *cancel* is the class's own."""
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
        """Return whether a request of *scope* was told before: anyio goes on asking until it is left."""
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
    """Return what is known of the scope that calls in *frame*; None if it is no scope that does."""
    try:
        scope: object = None
        callback = frame
        for caller in _callers(frame):
            code = caller.f_code
            callback, owner = caller, caller.f_locals.get("self") if "self" in code.co_varnames[:1] else None
            # The outermost: a scope of anyio cancels what is in the scopes inside it by their methods.
            if hasattr(type(owner), "__exit__") or hasattr(type(owner), "__aexit__"):
                scope = owner
        if scope is None:
            return None
        origin = origin_of(contextvars.copy_context())
        return Request(scope, str(type(scope).__name__), origin, _cause(callback), message)
    except Exception:  # what is in the frames may be anything
        return None


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Return *frame* and those that have called it, up to the loop's callback."""
    for _ in range(_DEPTH):
        if frame is None or is_callback(frame) or is_driver(frame):
            return
        yield frame
        frame = frame.f_back


def _cause(callback: FrameType) -> BaseException | None:
    """Return what a task has failed with that *callback* is called for: a done callback of a task group."""
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

        def cancel(self, msg: Any = None) -> bool:
            return self._main.cancel(sys._getframe(1), msg, super().cancel)

        def interrupt(self) -> bool:
            return self._main.interrupt(super().cancel)

        def cancel_now(self, msg: Any = None) -> bool:
            accepted: bool = super().cancel(msg)
            return accepted

        def add_done_callback(self, fn: Any, *, context: contextvars.Context | None = None) -> None:
            # asyncio's gather, wait, as_completed and run_until_complete; others want to know of the end of the task,
            # which will come.
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
