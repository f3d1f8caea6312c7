"""Clean-up at exit, while threads still work; and child processes, which must not act for their parent."""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

__all__ = ["at_exit", "end_child", "in_forked_children", "refuse_copy"]

_at_exit: dict[object, Callable[[], None]] = {}
_in_children: weakref.WeakSet[Any] = weakref.WeakSet()
_registered = False


def at_exit(callback: Callable[[], None]) -> Callable[[], None]:
    """Call *callback* when the interpreter exits, before it joins executor threads; return a function that undoes this.

    Not in child processes. Functions registered with ``atexit`` run later, and never if such a thread does not end.
    """
    _register()
    key = object()
    _at_exit[key] = callback
    return lambda: _at_exit.pop(key, None) and None


def in_forked_children(owner: Any) -> None:
    """Call ``owner.after_fork()`` in each child that ``os.fork`` makes of this process, as long as *owner* lives."""
    _register()
    _in_children.add(owner)


def end_child(status: int) -> NoReturn:
    """End this process, a child made by ``os.fork``, without the clean-up that belongs to its parent."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # whatever it is, the process is to end
            stream.flush()
    os._exit(status)


def refuse_copy() -> NoReturn:
    """Raise RuntimeError. In a child process this replaces ``run_forever`` of the parent's loop."""
    raise RuntimeError(
        "this is a child process made by os.fork(), and the event loop belongs to its parent: use asyncio.run() here"
    )


def _register() -> None:
    global _registered
    if _registered:
        return
    _registered = True
    # Private, since Python 3.9. concurrent.futures uses it as well, and is imported above so that our function is
    # called first (last in, first out). Without it atexit has to do: it fails if an executor's thread does not end.
    getattr(threading, "_register_atexit", atexit.register)(_exit, os.getpid())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _exit(pid: int) -> None:
    while _at_exit and os.getpid() == pid:
        _at_exit.popitem()[1]()


def _after_fork() -> None:
    _at_exit.clear()
    for owner in tuple(_in_children):
        owner.after_fork()


# The import above is for its effect.
assert concurrent.futures.thread
