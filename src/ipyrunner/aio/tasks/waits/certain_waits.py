"""What may end a wait early: something in the task's own chain, or another task that waits for it.

Any context manager may set a deadline, or release a lock that the block around it holds. So each entered manager must
be of a class that is known to do neither; and each part of the chain, down to the future at its end, must show which
managers it has entered.

If a task that waits for another one is cancelled, it cancels that one. The callbacks of a task show who waits for it.

Private: ``_tasks`` and ``_parent_task`` of a ``TaskGroup`` (3.11 to 3.15). Without them its tasks count as free.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from types import BuiltinMethodType, FrameType, FunctionType, GeneratorType, MethodDescriptorType, MethodType
from typing import Any, NamedTuple

from ...introspection.private_api import GATHERING, callbacks_of, name_of_class, stepped_by, variable_of
from ...introspection.task_state import coro_of
from ...introspection.wait_graph import chain_of, is_asyncios
from ..task_scope import Scope
from .entered_contexts import MADE, all_entered, entered

__all__ = ["cancellers_of", "groups_around", "members_of"]

_HARMLESS = frozenset(
    (
        *MADE,
        asyncio.Lock,
        asyncio.Condition,
        asyncio.Semaphore,
        asyncio.BoundedSemaphore,
        contextlib.suppress,
        contextlib.closing,
        contextlib.aclosing,
        contextlib.nullcontext,
        contextlib.redirect_stdout,
        contextlib.redirect_stderr,
    )
)
# Packages whose functions are around the code of a cell.
_HOSTS = ("IPython", "ipykernel", "ipyrunner")
# Callbacks of asyncio's from these files pass on no cancellation.
_ENDINGS = (asyncio.tasks.__file__, asyncio.base_events.__file__)
_LIBRARY = f"{os.sep}site-packages{os.sep}", os.path.dirname(os.__file__) + os.sep
_STDLIB = frozenset(sys.stdlib_module_names)
_BUILTIN = (BuiltinMethodType, MethodDescriptorType)


class Cancellers(NamedTuple):
    """What passes its own cancellation on to a future: tasks that await it, futures of ``gather``, and groups.

    *others*: whether a library may do so as well.
    """

    futures: list[asyncio.Future[Any]]
    groups: list[asyncio.TaskGroup]
    others: bool


def cancellers_of(future: asyncio.Future[Any]) -> Cancellers:
    """Return what passes a cancellation on to *future*. Raises what the future's class raises.

    ``shield`` and ``asyncio.wait`` pass on none. A done callback of the user's is taken to pass on none.
    """
    found, groups, others = list[asyncio.Future[Any]](), list[asyncio.TaskGroup](), False
    for callback in callbacks_of(future):
        if (task := stepped_by(callback)) is not None:
            found.append(task)
            continue
        outer = variable_of(callback, "outer")
        if isinstance(outer, GATHERING):
            found.append(outer)
        elif type(callback) is MethodType and type(group := callback.__self__) is asyncio.TaskGroup:
            groups.append(group)
        else:
            others = others or not _passes_nothing(callback)
    return Cancellers(found, groups, others)


def members_of(group: asyncio.TaskGroup) -> list[asyncio.Task[Any]]:
    """Return the tasks of *group*, and the one that is in its block: if one of them fails, the others are cancelled."""
    return [*group._tasks, group._parent_task]  # type: ignore[attr-defined]


def groups_around(task: asyncio.Task[Any]) -> list[asyncio.TaskGroup] | None:
    """Return the groups in whose blocks *task* waits; None if it may go on by itself, or if that is not known."""
    groups: list[asyncio.TaskGroup] = []
    end: object = None
    for awaited, frame in chain_of(coro_of(task)):
        end = awaited
        if _is_hosts(frame):
            if any(type(context) is Scope for context in entered(awaited)):
                return None
            continue
        asyncios = is_asyncios(frame.f_code)
        if not asyncios and frame.f_code.co_name in ("__aenter__", "__aexit__") and not _is_contextlibs(frame):
            return None
        contexts = all_entered(awaited)
        if contexts is None:
            return None
        for context in contexts:
            if type(context) is asyncio.TaskGroup:
                groups.append(context)
            elif not _is_harmless(context, asyncios=asyncios):
                return None
    return groups if _is_of_future(end) else None


def _is_hosts(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _HOSTS


def _is_contextlibs(frame: FrameType) -> bool:
    return frame.f_code.co_qualname.startswith("_AsyncGeneratorContextManager.") and (
        frame.f_code.co_filename == contextlib.__file__
    )


def _is_harmless(context: Any, *, asyncios: bool) -> bool:
    kind = type(context)
    if kind is asyncio.Timeout:  # one of the user's may be given a deadline later
        return asyncios and bool(context.when() is None)
    # A file, say, or a lock of threading.
    return kind in _HARMLESS or (
        kind.__module__ in _STDLIB and all(type(_method(kind, name)) in _BUILTIN for name in ("__enter__", "__exit__"))
    )


def _method(kind: type, name: str) -> object:
    return next((vars(cls)[name] for cls in kind.__mro__ if name in vars(cls)), None)


def _is_of_future(last: Any) -> bool:
    """Return whether *last*, the innermost of a chain, awaits a future with nothing in between."""
    if type(last) is GeneratorType:  # a future that is written in Python, or @types.coroutine
        return last.gi_yieldfrom is None or name_of_class(type(last.gi_yieldfrom)) == "FutureIter"
    inner = getattr(last, "cr_await", None) or getattr(last, "ag_await", None)
    return bool(name_of_class(type(inner)) == "FutureIter")


def _passes_nothing(callback: Any) -> bool:
    if type(callback) is BuiltinMethodType:
        return True
    function = callback.__func__ if type(callback) is MethodType else callback
    if type(function) is not FunctionType:
        return type(callback).__module__.partition(".")[0] in (*_HOSTS, "tornado")
    if function.__module__.partition(".")[0] in (*_HOSTS, "tornado"):
        return function.__qualname__ != "Brood._on_done"  # of a scope, which cancels all when one fails
    filename = function.__code__.co_filename
    return filename in _ENDINGS or not (_LIBRARY[0] in filename or filename.startswith(_LIBRARY[1]))
