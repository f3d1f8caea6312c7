"""What a loop that is at rest has to do, and what a task waits for.

asyncio has no public way to ask. These private names of ``asyncio.BaseEventLoop`` are used here alone, all present
from 3.4 to 3.14: ``_selector`` (its ``fileno`` is public), ``_ready``, ``_scheduled`` and ``_stopping``. On a loop
that lacks them (uvloop, Windows' proactor and ``select``) the answer is "cannot tell", and the caller polls. uvloop
(0.14 to 0.22) has one deque, its queue, which the garbage collector shows.

What a task waits for is found by these names, and is unknown without them: for ``gather``, ``_children`` of its
``_GatheringFuture``, and in their ``_callbacks`` a closure with its future ``outer`` and ``return_exceptions``; for
``shield``, ``inner`` in the closure of a done callback; for ``asyncio.wait``, the local ``fs`` of ``tasks._wait`` (all
from 3.4 to 3.14); for the end of a ``TaskGroup``, ``_tasks`` (3.11 to 3.14); for ``wait_for``, to 3.11, its local
``fut``.

Of tasks, C and Python ones, from 3.4 to 3.14: ``_fut_waiter``, ``_exception`` and ``_log_traceback``; of handles
``_callback`` and ``_loop`` (3.4 to 3.15) and ``_context`` (3.7 to 3.11, public since); of both, in debug mode,
``_source_traceback`` (3.4 to 3.15). Tasks of a user's own factory may lack them: then what they wait for is not shown,
and they report their failures themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from operator import attrgetter
from types import BuiltinMethodType, CodeType, CoroutineType, FrameType, FunctionType, MethodType
from typing import Any, TypeGuard, TypeVar

from .task_state import coro_of, is_done, own_context

__all__ = [
    "GATHERING",
    "GROUP_ENDS",
    "WAIT",
    "WAIT_FOR",
    "call_in",
    "callback_of",
    "callbacks_of",
    "can_watch",
    "cancel_ready",
    "exception_of",
    "gathered_by",
    "handle_context",
    "has_begun",
    "has_ready",
    "hide_frames",
    "is_acquire",
    "is_await_of_future",
    "is_stepping",
    "is_stopping",
    "is_task",
    "may_step",
    "name_of_class",
    "next_timer",
    "ready_callbacks",
    "returns_exceptions",
    "scheduled_in",
    "selector_fd",
    "selector_of",
    "shielded_by",
    "short_call_soon",
    "signal_fd",
    "step_of",
    "stepped_by",
    "task_context",
    "unseen",
    "unseen_of",
    "variable_of",
    "waited_for_by",
    "waiter_of",
    "waits_for",
]

_T = TypeVar("_T")
# The class of the future of a gather.
GATHERING: Any = getattr(asyncio.tasks, "_GatheringFuture", ())
GROUP_ENDS = ("__aexit__", "_aexit")  # the second since 3.13
WAIT = getattr(getattr(asyncio.tasks, "_wait", None), "__code__", None)
WAIT_FOR = asyncio.wait_for.__code__ if sys.version_info < (3, 12) else None  # since then it awaits its argument
_CALL_SOON = ("_check_closed", "_debug", "_check_thread", "_check_callback", "_call_soon", "_source_traceback")
_HANDLE = (
    *("contextvars", "copy_context", "_context", "_loop", "_callback", "_args", "_cancelled", "_repr"),
    *("get_debug", "format_helpers", "extract_stack", "sys", "_getframe", "_source_traceback"),
)
_ACQUIRE = asyncio.Lock.acquire.__code__


def selector_of(loop: asyncio.AbstractEventLoop) -> object:
    """Return what the loop waits in, or None if that is not known."""
    return getattr(loop, "_selector", None)


def selector_fd(loop: asyncio.AbstractEventLoop) -> int | None:
    """Return the fd that is readable when one of the loop's fds is (epoll, kqueue, devpoll), or None."""
    with suppress(Exception):  # it has none, or the user has closed it
        fd: int = selector_of(loop).fileno()  # type: ignore[attr-defined]
        return fd if fd >= 0 else None
    return None


def signal_fd(loop: asyncio.AbstractEventLoop) -> int | None:
    """Return the fd that the loop's own signal handlers (``add_signal_handler``) learn of signals by, or None.

    ``_csock`` has been there from 3.4 to 3.14; without it such handlers are called as long as nobody else takes the
    wakeup fd.
    """
    fileno: Any = getattr(getattr(loop, "_csock", None), "fileno", None)
    return fileno() if callable(fileno) else None


def _ready_of(loop: asyncio.AbstractEventLoop) -> Any:
    return getattr(loop, "_ready", ())


def ready_callbacks(loop: asyncio.AbstractEventLoop) -> deque[Any] | None:
    """Return the queue of what the loop calls next; None if that is not known."""
    ready = _ready_of(loop)
    if isinstance(ready, deque):
        return ready
    is_uvloops = type(loop).__module__.partition(".")[0] == "uvloop"
    found = [held for held in gc.get_referents(loop) if type(held) is deque] if is_uvloops else []
    return found[0] if len(found) == 1 else None


def short_call_soon(cls: Any) -> Callable[..., asyncio.Handle] | None:
    """Return asyncio's ``call_soon`` without the functions that it calls, for a subclass of *cls*.

    None if *cls* has another one than asyncio's, or that one or ``Handle`` are not as from 3.7 to 3.15: then they use
    these names.
    """
    original, Handle = cls.call_soon, vars(asyncio.events)["Handle"]  # noqa: N806 - a class
    used = [getattr(getattr(function, "__code__", None), "co_names", ()) for function in (original, Handle.__init__)]
    if original is not asyncio.BaseEventLoop.call_soon or used != [_CALL_SOON, _HANDLE]:
        return None
    # Looked up here: each time would take as long as one of those calls.
    new, copy_context = Handle.__new__, contextvars.copy_context

    def call_soon(self: Any, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle: Any
        if self._debug or self._closed:
            handle = original(self, callback, *args, context=context)
            hide_frames(handle, __file__)
            return handle  # type: ignore[no-any-return]
        handle = new(Handle)
        handle._context = copy_context() if context is None else context
        handle._loop, handle._callback, handle._args = self, callback, args
        handle._cancelled, handle._repr, handle._source_traceback = False, None, None
        self._ready.append(handle)
        return handle  # type: ignore[no-any-return]

    return call_soon


def hide_frames(obj: object, file: str) -> None:
    """Remove the frames of *file* from what debug mode shows as the place where a task or handle was created."""
    if created := getattr(obj, "_source_traceback", None):
        created[:] = [frame for frame in created if frame.filename != file]


def callback_of(handle: object) -> object:
    """Return what *handle* calls; None if it was cancelled, or if that is not known."""
    return getattr(handle, "_callback", None)


def call_in(frame: FrameType) -> tuple[object, object]:
    """Return the loop and the callback, for a frame in which ``Handle._run`` begins."""
    handle = frame.f_locals["self"]
    return handle._loop, handle._callback


def scheduled_in(frame: FrameType) -> tuple[object, object, tuple[object, ...]]:
    """Return the loop, the callback and its arguments, for a frame in which ``call_soon`` begins."""
    variables = frame.f_locals
    return variables["self"], variables["callback"], variables["args"]


# Whatever a metaclass makes of ``__name__``.
name_of_class = vars(type)["__name__"].__get__


def stepped_by(callback: Any) -> asyncio.Task[Any] | None:
    """Return the task that takes a step when *callback* is called; None if it is nothing of that kind.

    Private, 3.4 to 3.15: the names of these methods, in C and in Python. Without them no step is recognised.
    """
    kind = type(callback)
    if kind is FunctionType:  # often, and asked for each callback
        return None
    if kind is MethodType:
        function = callback.__func__
        is_step = type(function) is FunctionType and function.__name__ in ("__step", "__wakeup")
    elif kind is BuiltinMethodType:
        is_step = callback.__name__ == "task_wakeup"
    else:
        is_step = name_of_class(kind) == "TaskStepMethWrapper"
    if is_step:
        owner = callback.__self__
        return owner if type(owner) is asyncio.Task or is_task(owner) else None
    return None


def may_step(task: asyncio.Task[Any]) -> bool:
    """Return whether a step of *task* may be in its loop's queue: it was woken, has not begun, or hides it."""
    waiter = waits_for(task)
    return waiter is None or is_done(waiter)


def step_of(handle: object, ids: Collection[int] | None) -> bool:
    """Return whether *handle*, of a loop's queue, is a step of a task with one of *ids* (None: any)."""
    # Only the garbage collector shows what handles of uvloop hold; there may be 100,000 of them.
    own = type(handle) is asyncio.Handle
    held: Iterable[object] = (callback_of(handle),) if own else gc.get_referents(handle)
    # The callback may be anything of the user's.
    owners = (getattr(h, "__self__", None) for h in held if type(h).__module__ in ("builtins", "_asyncio"))
    return any(map(is_task, owners)) if ids is None else any(id(owner) in ids for owner in owners)


def is_pythons(handle: object) -> bool:
    """Return whether *handle*, of uvloop's queue, calls a function that Python knows, and is not uvloop's own."""
    return any(map(callable, gc.get_referents(handle)))


def has_ready(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether callbacks are waiting for the loop's next iteration; False if that is not known."""
    return bool(getattr(loop, "_ready", ()))  # not by _ready_of: a kernel asks a dozen times around each cell


def cancel_ready(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the callbacks that are waiting for their turn; none on loops that do not show them."""
    for handle in tuple(_ready_of(loop)):
        handle.cancel()


def next_timer(loop: asyncio.AbstractEventLoop) -> float | None:
    """Return when the loop's next timer is due, in the loop's time; None without timers, or if that is not known."""
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    if scheduled and scheduled[0].cancelled():  # the loop drops these when it runs
        return min((timer.when() for timer in scheduled if not timer.cancelled()), default=None)
    return scheduled[0].when() if scheduled else None


def is_stopping(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop was told to stop in this iteration; False if that is not known."""
    return bool(getattr(loop, "_stopping", False))


def can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop can watch a fd (``add_reader``): all but Windows' proactor."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def is_await_of_future(code: CodeType) -> bool:
    """Return whether *code* is that of ``await future``, of a future that is written in Python."""
    # Private: asyncio.futures._PyFuture (3.6 to 3.15). Without it these frames are shown.
    method = getattr(getattr(asyncio.futures, "_PyFuture", None), "__await__", None)
    return getattr(method, "__code__", None) is code


def is_task(obj: object) -> TypeGuard[asyncio.Task[Any]]:
    """Return whether *obj* is a task; nest_asyncio has a class of its own."""
    return hasattr(type(obj), "get_coro") and hasattr(type(obj), "get_loop")


def is_stepping(task: asyncio.Task[Any] | None) -> bool:
    """Return whether the task is in one of its steps; not the current task, if a loop runs inside the step."""
    coro = None if task is None else coro_of(task)
    return any(_attribute(coro, name) is True for name in ("cr_running", "gi_running"))


def _attribute(obj: object, name: str) -> Any:
    """As ``getattr``; None if there is none, or if it cannot be told: the user's own may be anything."""
    try:
        return getattr(obj, name, None)
    except BaseException:
        return None


def has_begun(task: asyncio.Task[Any]) -> bool:
    """Return whether the task has begun with its first step; True if that is not known."""
    coro = coro_of(task)
    if type(coro) is not CoroutineType:
        return True
    return bool(coro.cr_suspended or coro.cr_running or coro.cr_frame is None)


def waits_for(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return the future that the task is suspended on; None if it is about to run, runs, or has ended."""
    plain = type(task) is asyncio.Task  # then nothing has to be suppressed, and no interrupt is lost
    return waiter_of(task) if plain else _attribute(task, "_fut_waiter")  # type: ignore[no-any-return]


# The same, where it must be fast; AttributeError of a task that has none.
waiter_of = attrgetter("_fut_waiter")


def gathered_by(future: asyncio.Future[Any], *, raising: bool = False) -> list[asyncio.Future[Any]]:
    """Return what the future of an ``asyncio.gather`` waits for; nothing for other futures.

    *raising*: nothing for a ``gather(return_exceptions=True)`` either.
    """
    if not isinstance(future, GATHERING):
        return []
    children = list(future._children)  # type: ignore[attr-defined]
    return [] if raising and returns_exceptions(future, children) else children


def returns_exceptions(gathering: object, children: list[asyncio.Future[Any]]) -> bool:
    """Return whether the future of a ``gather`` waits for all *children*, even if one of them fails."""
    for callback in (callback for child in children for callback in callbacks_of(child)):
        if variable_of(callback, "outer") is gathering:
            return bool(variable_of(callback, "return_exceptions"))
    return False


def waited_for_by(frames: Iterable[FrameType], *, raising: bool = False) -> list[asyncio.Future[Any]]:
    """Return what an ``asyncio.wait`` or the end of a ``TaskGroup`` among the frames of a coroutine waits for.

    *raising*: nothing of ``asyncio.wait``, which returns its futures as they are.
    """
    found: list[asyncio.Future[Any]] = []
    for frame in frames:
        if frame.f_code is WAIT and not raising:
            found += frame.f_locals.get("fs", ())
        elif frame.f_code.co_name in GROUP_ENDS and isinstance(group := frame.f_locals.get("self"), asyncio.TaskGroup):
            found += getattr(group, "_tasks", ())
    return found


def callbacks_of(future: asyncio.Future[Any]) -> list[Any]:
    """Return what is called when *future* has ended. Raises what its class raises; AttributeError if it has none."""
    return [callback for callback, _ in future._callbacks or ()]


def variable_of(callback: Any, name: str) -> object:
    """Return the variable *name* of a closure, if *callback* is a function of ``asyncio.tasks``; otherwise None."""
    code = callback.__code__ if type(callback) is FunctionType else None
    if code is None or code.co_filename != asyncio.tasks.__file__ or name not in code.co_freevars:
        return None
    return callback.__closure__[code.co_freevars.index(name)].cell_contents  # type: ignore[no-any-return]


def shielded_by(future: asyncio.Future[Any]) -> asyncio.Future[Any] | None:
    """Return what the future of an ``asyncio.shield`` waits for; None for other futures."""
    found = (variable_of(each, "inner") for each in callbacks_of(future)) if type(future) is asyncio.Future else ()
    return next((each for each in found if asyncio.isfuture(each)), None)


def is_acquire(code: CodeType) -> bool:
    """Return whether *code* is that of ``asyncio.Lock.acquire``, whose ``self`` is the lock."""
    return code is _ACQUIRE


def exception_of(task: asyncio.Task[Any]) -> BaseException | None:
    """As ``task.exception()``, for a task that may not have ended; the exception does not count as retrieved."""
    exception: BaseException | None = _attribute(task, "_exception")
    return exception


def unseen_of(refs: list[_T], tasks: list[asyncio.Task[Any] | None]) -> list[_T]:
    """As :func:`unseen`, faster for tasks of asyncio's own class; return the *refs* that refer to such tasks."""
    pairs: Any = zip(refs, tasks, strict=True)
    try:
        return [ref for ref, task in pairs if task is not None and task._log_traceback]
    except Exception:  # somebody has put another class there
        return [ref for ref, task in zip(refs, tasks, strict=True) if task is not None and unseen([task])]


def unseen(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return those of the tasks that have ended with an exception that nobody has retrieved yet."""
    return [task for task in tasks if _attribute(task, "_log_traceback") is True]


def task_context(task: asyncio.Future[Any]) -> contextvars.Context | None:
    """Return the Context that the task runs in; None if that is not known."""
    context = own_context(task)  # since 3.12
    if type(context) is contextvars.Context:
        return context
    if sys.version_info < (3, 12) and is_task(task):
        if (own := getattr(task, "_context", None)) is not None:  # nest_asyncio uses tasks written in Python
            return own
        # The garbage collector shows a C task's own Context before those of its callbacks.
        return next((held for held in gc.get_referents(task) if isinstance(held, contextvars.Context)), None)
    return None


def handle_context(handle: asyncio.Handle) -> contextvars.Context | None:
    """Return the Context that the callback runs in; None if that is not known."""
    return getattr(handle, "_context", None)
