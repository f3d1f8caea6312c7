"""Texts for messages: names of tasks, their functions and exceptions, safe for any object of the user's.

They are short, and on one line. Names, messages and ``repr`` may be ten megabytes long, contain control characters, or
raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from ..introspection.frames import catches_interrupts
from ..introspection.task_state import coro_of, own_name

__all__ = ["describe", "function_of", "in_seconds", "label", "label_of", "name_of", "repr_of", "short"]

# Characters of a name, or of the name of a function, that are kept.
_LONGEST = 1000
# asyncio's own class, whatever is put in its place later.
_TASK = asyncio.Task


def short(text: str, width: int = 60) -> str:
    """Return *text* on one line of *width* characters at most; what is not printable is escaped."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: width + 1])
    return line if len(line) <= width else line[: width - 1] + "…"


def label(name: str, width: int = 60) -> str:
    """Return a name as it is shown; in quotes if nothing of it would be seen."""
    return short(name, width) if name.strip() else repr(short(name, width))


@catches_interrupts
def _text(make: Callable[[], Any]) -> str | None:
    """Return what *make* returns, as a text; None if it returns nothing, or raises."""
    try:
        value = make()
        return None if value is None else "".join((str(value),))  # a plain str, of no class of the user's
    except BaseException:
        return None


def name_of(task: Any) -> str:
    """Return the first 1,000 characters of the name of a task, or of the name of its class if it has none."""
    name = own_name(task) if type(task) is _TASK else None
    if type(name) is str:  # nearly always; and ten thousand tasks may end at once
        return name[:_LONGEST]
    name = _text(lambda: task.get_name())
    if name is None and (name := _text(lambda: own_name(task))) is None:
        name = type(task).__name__
    return name[:_LONGEST]


def in_seconds(number: float) -> str:
    """Return a number of seconds in words."""
    text = f"{number:g}"
    return f"{text} second{'' if text == '1' else 's'}"


def label_of(task: Any) -> str:
    """Return the name of a task as it is shown."""
    return label(name_of(task))


def function_of(task: Any) -> str:
    """Return the name of the function whose coroutine the task runs, its first 1,000 characters."""
    coro = coro_of(task)
    if type(coro) is CoroutineType and type(coro.__qualname__) is str:
        return coro.__qualname__[:_LONGEST]
    name = _text(lambda: getattr(coro, "__qualname__", None))
    if coro is None:
        return f"a {type(task).__qualname__}"[:_LONGEST]
    return (name or type(coro).__qualname__)[:_LONGEST]


def repr_of(obj: object, width: int = 300) -> str:
    """Return ``repr(obj)``, at most *width* characters."""
    text = _text(lambda: repr(obj))
    return f"a {short(type(obj).__name__)} (its repr raises)" if text is None else short(text, width)


def describe(exc: BaseException) -> str:
    """Return the type of an exception and the first line of its message."""
    text = _text(lambda: str(exc))
    if text is None:
        text = "(its message cannot be shown)"
    first = next(iter(text[: _LONGEST + 1].splitlines()), "")
    return short(f"{type(exc).__name__}: {first}" if first else type(exc).__name__, _LONGEST)
