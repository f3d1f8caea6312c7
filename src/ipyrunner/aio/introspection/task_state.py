"""The state of a task or future of any class: a task factory of the user's may make anything.

A class derived from asyncio's is asked by asyncio's own methods, which run no user code. Any other is asked by its own
methods; if one raises, the answer is "cannot tell". Nothing here raises, but :func:`cancel` lets an interrupt through.

Private: ``asyncio.tasks`` keeps its tasks in ``_all_tasks``, since 3.12 in ``_scheduled_tasks`` and ``_eager_tasks``.
Without them ``all_tasks()`` has to do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = [
    "cancel",
    "cancelling",
    "coro_of",
    "is_cancelled",
    "is_done",
    "loop_of",
    "own_context",
    "own_name",
    "retrieve",
    "tasks_of",
]

# Where asyncio's own classes are, the C and the Python ones.
_ASYNCIO = ("_asyncio", "asyncio.tasks", "asyncio.futures")

# asyncio's classes themselves: asked directly, since every new task is asked.
_PLAIN = (asyncio.Task, asyncio.Future)
# Their functions, not the methods of an object: a user may have set an attribute of the same name on it.
_DONE, _CANCELLED, _GET_LOOP = (
    {cls: getattr(cls, name) for cls in _PLAIN} for name in ("done", "cancelled", "get_loop")
)
_CANCELLING, _GET_CORO, _GET_NAME = asyncio.Task.cancelling, asyncio.Task.get_coro, asyncio.Task.get_name
_GET_CONTEXT: Callable[[Any], Any] | None = getattr(asyncio.Task, "get_context", None)

# Python 3.12.0 to 3.12.4 crash if get_coro() is asked of an eager task that has ended (gh-122332). Private, there:
# ``_coro``.
_CRASHES = (3, 12) <= sys.version_info < (3, 12, 5) and "_coro" in vars(asyncio.Task)

_Answer = TypeVar("_Answer")


def _ask(obj: object, name: str, convert: Callable[[Any], _Answer], default: _Answer) -> _Answer:
    try:
        for cls in type(obj).__mro__:
            if name in vars(cls) and cls.__module__ in _ASYNCIO:
                return convert(vars(cls)[name](obj))
        return convert(getattr(obj, name)())
    except BaseException:
        return default


def _as_it_is(answer: Any) -> Any:
    return answer


def is_done(future: Any) -> bool:
    """Return whether it has ended; True if that is not known: nobody can wait for it then."""
    done = _DONE.get(type(future))
    return _ask(future, "done", bool, default=True) if done is None else done(future)


def is_cancelled(future: Any) -> bool:
    """Return whether it has ended by being cancelled."""
    cancelled = _CANCELLED.get(type(future))
    return _ask(future, "cancelled", bool, default=False) if cancelled is None else cancelled(future)


def cancel(task: asyncio.Task[Any], *message: str) -> BaseException | None:
    """Cancel it, with a *message* if one is given; return what is raised instead.

    By its class, or because tasks wait for each other in a circle.
    """
    try:
        before = cancelling(task)
        try:
            task.cancel(*message)
        except TypeError:  # a class of the user's that takes no message, as until Python 3.8
            if cancelling(task) != before:
                raise
            task.cancel()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        return exc
    return None


def cancelling(task: Any) -> int:
    """Return how often it was asked to be cancelled; 0 for a future, which does not count."""
    return _CANCELLING(task) if type(task) is _PLAIN[0] else _ask(task, "cancelling", int, 0)


def retrieve(future: object) -> BaseException | None:
    """Return the exception that it has ended with, or None; from now on the exception counts as retrieved."""
    exception = _ask(future, "exception", _as_it_is, None)
    return exception if issubclass(type(exception), BaseException) else None


def coro_of(task: Any) -> Any:
    """Return the coroutine that it runs; None if that is not known."""
    if _CRASHES and issubclass(type(task), _PLAIN[0]):
        return vars(_PLAIN[0])["_coro"].__get__(task)
    return _GET_CORO(task) if type(task) is _PLAIN[0] else _ask(task, "get_coro", _as_it_is, None)


def loop_of(future: Any) -> asyncio.AbstractEventLoop | None:
    """Return the loop that it belongs to."""
    get_loop = _GET_LOOP.get(type(future))
    if get_loop is not None:
        try:
            return get_loop(future)  # type: ignore[no-any-return]
        except RuntimeError:  # one that nobody has initialised
            return None
    return _ask(future, "get_loop", _as_it_is, None)  # type: ignore[no-any-return]


def own_context(task: Any) -> Any:
    """Return what ``get_context`` (since Python 3.12) does."""
    if type(task) is _PLAIN[0] and _GET_CONTEXT is not None:
        return _GET_CONTEXT(task)
    return _ask(task, "get_context", _as_it_is, None)


def own_name(task: Any) -> Any:
    """Return what ``get_name`` does."""
    if type(task) is not _PLAIN[0]:
        return _ask(task, "get_name", _as_it_is, None)
    try:
        return _GET_NAME(task)
    except AttributeError:  # one of Python's class (nest_asyncio) that nobody has initialised
        return None


def tasks_of(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """As ``asyncio.all_tasks``, also if the class of a task raises when the task is asked for its state."""
    known: list[asyncio.Task[Any]] = []
    # The first to 3.11, the others since 3.12; since 3.14 without those of asyncio's own class.
    kept = [name for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks") if hasattr(asyncio.tasks, name)]
    is_all = bool(kept) and sys.version_info < (3, 14)
    for name in kept:
        try:
            known += tuple(getattr(asyncio.tasks, name))
        except RuntimeError:  # another thread starts one at this moment
            is_all = False
    if not is_all:
        with suppress(BaseException):  # of the user's classes, KeyboardInterrupt too
            known += asyncio.all_tasks(loop)
    return {task for task in known if loop_of(task) is loop and not is_done(task)}
