"""The class of a notebook's loop: a subclass of asyncio's that no other loop has, and that reports changes of state.

CPython stores the attribute names of all objects of a class in one place, which has room for about thirty. asyncio's
loops leave room for one or two more, and each loop of that class ever made leaves less. An object with a further
attribute needs a dict, and then each iteration of the loop takes a tenth longer on Python 3.13. We set attributes of
the notebook's loop and of the kernel's, which would be of one class; so the notebook's loop has its own class.

Its ``call_soon``, which is called for each step of a task, does what asyncio's does, but calls no other functions. This
makes up for our bookkeeping of tasks.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import weakref
from collections.abc import Callable
from operator import is_
from types import CodeType
from typing import Any

from ..replacements import Replacements
from .private_api import short_call_soon

__all__ = [
    "REPLACED",
    "follow_patches",
    "is_call_soon",
    "is_fast",
    "new_loop",
    "own_method",
    "replace_method",
    "takes_other_options",
    "when_changed",
]

_Changed = Callable[[], None]
_Instead = Callable[[Callable[[Any], Any], Any], Any]
# What is called in the place of a loop's methods, by their names.
_instead: weakref.WeakKeyDictionary[Any, dict[str, _Instead]] = weakref.WeakKeyDictionary()
REPLACED = ("run_until_complete", "default_exception_handler")
# The classes that are to have a call_soon of ours, with it, and with what of asyncio's it stands for.
_short: dict[type, tuple[Any, tuple[object, ...]]] = {}
_told: weakref.WeakKeyDictionary[Any, _Changed] = weakref.WeakKeyDictionary()


def new_loop() -> asyncio.AbstractEventLoop:
    """As ``asyncio.new_event_loop``, but of our subclass, unless somebody has changed what makes loops."""
    loop = asyncio.new_event_loop()
    cls: Any = type(loop)
    if not _has_own_policy() or cls.__module__ not in ("asyncio.unix_events", "asyncio.windows_events"):
        return loop
    loop.close()  # not by loop.__class__, which gives it a dict
    own: asyncio.AbstractEventLoop = _subclass(cls)()
    return own


def when_changed(loop: asyncio.AbstractEventLoop, changed: _Changed) -> Callable[[], None] | None:
    """Call *changed* when the task factory or the debug mode was set, or the loop was closed.

    Return a function that ends this; None if the loop does not report changes.
    """
    if hasattr(type(loop), "_tells_changes"):
        _told[loop] = changed

        def end() -> None:
            _told.pop(loop, None)

        return end
    if not _is_uvloops(loop):
        return None
    replaced = Replacements()
    for name in ("set_task_factory", "set_debug", "close"):
        replaced.replace(loop, name, functools.partial(_telling, changed))
    return replaced.restore


def _telling(changed: _Changed, method: Callable[..., None]) -> Callable[..., None]:
    def tell(*args: Any) -> None:
        method(*args)
        changed()

    return tell


def replace_method(loop: asyncio.AbstractEventLoop, name: str, function: _Instead) -> Callable[[], None]:
    """Call *function* with the loop's method *name* and its argument in the place of that; return what ends this.

    *name* is one of ``REPLACED``. On our loop this takes no attribute, each of which may slow it down; on a loop that
    is neither ours nor uvloop's it does.
    """
    if hasattr(type(loop), "_tells_changes"):
        functions = _instead.setdefault(loop, {})
        functions[name] = function

        def end() -> None:
            functions.pop(name, None)

        return end
    replaced = Replacements()
    replaced.replace(loop, name, lambda original: functools.partial(function, original))
    return replaced.restore


def own_method(loop: asyncio.AbstractEventLoop, name: str) -> Callable[..., Any]:
    """Return the method *name* of the loop's class, without what has replaced it on the loop."""
    cls: Any = type(loop)
    if hasattr(cls, "_tells_changes"):
        cls = cls.__base__
    return functools.partial(getattr(cls, name), loop)


def is_fast(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a method can be replaced without slowing the loop down: on ours, and on uvloop's."""
    return hasattr(type(loop), "_tells_changes") or _is_uvloops(loop)


def is_call_soon(code: CodeType) -> bool:
    """Return whether *code* is that of our ``call_soon``, which leaves it to asyncio's to raise."""
    return any(ours.__code__ is code for ours, _ in _short.values())


def follow_patches(loop: asyncio.AbstractEventLoop) -> None:
    """Use asyncio's ``call_soon`` while it, or ``Handle``, is replaced in asyncio. Before each cell."""
    _follow_patches(type(loop))


def takes_other_options(create_task: Any) -> bool | None:
    """Return whether asyncio's or uvloop's ``loop.create_task`` takes more than a name and a context.

    None if it is of neither.
    """
    function = getattr(create_task, "__func__", None)
    if function is asyncio.BaseEventLoop.create_task:
        return bool(asyncio.BaseEventLoop.create_task.__code__.co_flags & inspect.CO_VARKEYWORDS)  # since 3.13.3
    if _is_uvloops(getattr(create_task, "__self__", None)) and not inspect.isfunction(function):
        return True
    return None


def _is_uvloops(loop: object) -> bool:
    # Its own class, not one derived from it.
    return type(loop) is getattr(sys.modules.get("uvloop"), "Loop", None)


def _follow_patches(cls: Any) -> None:
    if cls in _short:
        ours, parts = _short[cls]
        is_plain = all(map(is_, _parts(cls.__base__), parts))
        if is_plain and "call_soon" not in vars(cls):
            type.__setattr__(cls, "call_soon", ours)
        elif not is_plain and "call_soon" in vars(cls):
            type.__delattr__(cls, "call_soon")


def _parts(cls: Any) -> tuple[object, ...]:
    handle: Any = asyncio.events.Handle
    return cls.call_soon, getattr(cls, "_call_soon", None), handle, handle.__init__


class _PassingOn(type):
    """Pass changes of the class on to asyncio's class: who patches a loop's class (nest_asyncio) means that."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if cls in _short and value is _short[cls][0]:  # a patch is undone: it has taken ours for what was there
            if name in vars(cls.__base__):
                delattr(cls.__base__, name)
        else:
            setattr(cls.__base__, name, value)
        _follow_patches(cls)

    def __delattr__(cls, name: str) -> None:
        delattr(cls.__base__, name)
        _follow_patches(cls)


def _replaceable(cls: Any, name: str) -> Any:
    # Under another name in frames: what runs loops is found by that of asyncio's function.
    @functools.wraps(getattr(cls, name))
    def call(self: Any, argument: Any) -> Any:
        original, function = functools.partial(getattr(cls, name), self), _instead.get(self, {}).get(name)
        return original(argument) if function is None else function(original, argument)

    return call


@functools.cache
def _subclass(cls: Any) -> Any:
    class NotebookLoop(cls, metaclass=_PassingOn):  # type: ignore[misc]
        _tells_changes = True

        def set_task_factory(self, factory: Any) -> None:
            super().set_task_factory(factory)
            self._tell_change()

        def set_debug(self, enabled: bool) -> None:
            super().set_debug(enabled)
            self._tell_change()

        def close(self) -> None:
            super().close()
            self._tell_change()

        def _tell_change(self) -> None:
            if (changed := _told.get(self)) is not None:
                changed()

    if (call_soon := short_call_soon(cls)) is not None:
        _short[NotebookLoop] = call_soon, _parts(cls)
        _follow_patches(NotebookLoop)
    for name in REPLACED:
        type.__setattr__(NotebookLoop, name, _replaceable(cls, name))
    # It is shown under the name of asyncio's class.
    for name in ("__name__", "__qualname__", "__module__"):
        type.__setattr__(NotebookLoop, name, getattr(cls, name))
    return NotebookLoop


def _has_own_policy() -> bool:
    """Return whether asyncio's own policy makes loops, by asyncio's own function."""
    # The private function, since 3.14, does not warn.
    policy: Any = getattr(asyncio.events, "_get_event_loop_policy", None) or asyncio.get_event_loop_policy
    makers = (type(policy()), asyncio.new_event_loop)
    return all(
        maker.__module__ in ("asyncio.events", "asyncio.unix_events", "asyncio.windows_events") for maker in makers
    )
