"""Where KeyboardInterrupt may be raised: in code of the user's that a loop runs, and nowhere else.

Raised in the loop's own functions it would lose a callback or a timer; raised in ours, it would leave work half done.
"""

from __future__ import annotations

import _weakrefset
import asyncio
import inspect
import os
import selectors
import sys
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from .running_callback import is_callback, is_driver, is_in_call, runs_other_loop

__all__ = [
    "OURS",
    "catches_interrupts",
    "function_name",
    "inner_name",
    "is_ours",
    "is_top_level",
    "is_user_code",
    "leave_alone",
    "line_of",
    "uninterruptible",
    "user_frame",
]

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
# The folder of this package, wherever this module is in it.
OURS = os.path.dirname(sys.modules[__name__.partition(".")[0]].__file__ or "") + os.sep
# asyncio keeps its tasks in a WeakSet, whose state must stay consistent; so must that of the loop's selector.
_PROTECTED = (OURS, selectors.__file__, _weakrefset.__file__, weakref.__file__)
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

_Function = TypeVar("_Function", bound=Callable[..., Any])
# By their id(): to hash code, Python goes through all of its instructions.
_OUR_CALLBACKS: dict[int, CodeType] = {}
_CATCHING: dict[int, CodeType] = {}
_LEFT_ALONE: set[str] = set()
# Names of lambdas and comprehensions. Others in <> stand for the top level of a module, or of code that runs as one.
_INNER = ("<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def uninterruptible(function: _Function) -> _Function:
    """Mark a function that the loop calls for us: no interrupt is forced into it, nor into what it calls."""
    _OUR_CALLBACKS[id(function.__code__)] = function.__code__
    return function


def catches_interrupts(function: _Function) -> _Function:
    """Mark a function that calls user code and catches what it raises: interrupts may be forced into that code."""
    _CATCHING[id(function.__code__)] = function.__code__
    return function


def is_ours(filename: str) -> bool:
    """Return whether *filename* is of this package."""
    return filename.startswith(OURS)


def leave_alone(*modules: str) -> None:
    """Force no interrupt into modules whose names begin with one of *modules*, nor into what they call."""
    _LEFT_ALONE.update(modules)


def _is_left_alone(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(tuple(_LEFT_ALONE))


def is_user_code(frame: FrameType, loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether KeyboardInterrupt raised in *frame*, which *loop* runs, affects nothing but user code."""
    code = frame.f_code
    if is_driver(frame):
        return not isinstance(loop, asyncio.BaseEventLoop)
    if is_callback(frame):
        return is_in_call(frame)
    caller: FrameType | None = frame
    while caller is not None and not is_callback(caller) and not is_driver(caller):
        if id(caller.f_code) in _CATCHING:
            break
        if id(caller.f_code) in _OUR_CALLBACKS or _is_left_alone(caller):
            return False
        if runs_other_loop(caller, loop):  # a loop of the user's, run in a callback of ours
            return True
        caller = caller.f_back
    # "_run_once": nest_asyncio's, which is not in asyncio's folder, runs our loop.
    if code.co_filename.startswith(_PROTECTED) or code.co_name == "_run_once":
        return False
    # Coroutines of asyncio (sleep, wait_for, gather's callers) count as the user's; its functions maintain the loop.
    return not code.co_filename.startswith(_ASYNCIO) or bool(code.co_flags & _COROUTINE)


def user_frame(frame: FrameType | None, loop: asyncio.AbstractEventLoop) -> FrameType | None:
    """Return the innermost frame of user code from *frame* on."""
    while frame is not None and not is_user_code(frame, loop):
        frame = frame.f_back
    return frame


def line_of(frame: FrameType) -> int:
    """Return the line where *frame* is, or its function's: since Python 3.11 there are instructions without a line."""
    return frame.f_lineno or frame.f_code.co_firstlineno


def function_name(code: CodeType) -> str | None:
    """Return the name of a function; None for code at the top level of a module, or of code that runs as one."""
    return None if is_top_level(code.co_name) else inner_name(code)


def inner_name(code: CodeType) -> str:
    """Return the name of *code* with its class, but without the functions around it, unless it is that of a lambda."""
    outer, within, name = code.co_qualname.rpartition(".<locals>.")
    return f"{outer.rpartition('.<locals>.')[2]}{within}{name}" if name.startswith("<") else name


def is_top_level(name: str) -> bool:
    """Return whether code of this name is the top level of a module, a cell's, say, and not a function."""
    return name.startswith("<") and "." not in name and name not in _INNER
