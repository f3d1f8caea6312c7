"""Names of callbacks, and places where tasks wait, found without running user code."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from ...introspection.exceptions import is_a
from ...introspection.frames import OURS
from ...introspection.private_api import exception_of
from ...introspection.task_state import coro_of, is_cancelled
from ...introspection.wait_graph import chain_of, is_library
from .lanes import Place

__all__ = ["Places", "callback_name", "class_name", "was_cancelled"]

# The name of all callbacks of this package.
_OWN = "ipyrunner"

# The name of a class, whatever a metaclass makes of ``__name__``.
class_name: Callable[[type], str] = vars(type)["__name__"].__get__


def callback_name(callback: Any) -> str:
    """Return the name of a callback."""
    for _ in range(10):
        if type(callback) is not functools.partial:
            break
        callback = callback.func
    kind = type(callback)
    if kind is MethodType:
        callback = callback.__func__
    if type(callback) is FunctionType:
        code = callback.__code__
        return _OWN if code.co_filename.startswith(OURS) else code.co_qualname
    if kind is BuiltinMethodType:
        name: str = callback.__name__
        return name
    call = vars(type)["__dict__"].__get__(kind).get("__call__")  # runs no user code
    if type(call) is FunctionType and call.__code__.co_filename.startswith(OURS):
        return _OWN
    return class_name(kind)


class Places:
    """The innermost line of user code that a task waits in; the innermost line of all if there is no user code."""

    def __init__(self) -> None:
        # For each file: 0 this package, 1 a library, 2 user code.
        self._kinds: dict[str, int] = {}

    def of(self, task: asyncio.Task[Any]) -> Place | None:
        """Return where *task*, which is suspended, waits."""
        found, kinds = None, self._kinds
        best = 1
        for _, frame in chain_of(coro_of(task)):
            code = frame.f_code
            kind = kinds.get(code.co_filename)
            if kind is None:
                kind = 0 if code.co_filename.startswith(OURS) else 1 if is_library(code.co_filename) else 2
                kinds[code.co_filename] = kind
            if kind >= best:
                found, best = (code, frame.f_lasti), kind
        return found


def was_cancelled(future: Any) -> bool:
    """Return whether *future* has ended by being cancelled."""
    # A gather that is cancelled ends with CancelledError as its exception.
    return is_cancelled(future) or is_a(exception_of(future), asyncio.CancelledError)
