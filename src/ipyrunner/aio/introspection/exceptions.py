"""The attributes of an exception, read and set without running code of its class.

A class of the user's may forbid attributes (a frozen dataclass), or raise where one is read (``__getattr__``, a
property ``args``, ``__notes__`` or ``__class__``). Nothing here calls code of the user's, and nothing raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeGuard, TypeVar

__all__ = [
    "add_note",
    "inner_of",
    "is_a",
    "links_of",
    "message_of",
    "notes_of",
    "set_traceback",
    "suppressed",
    "traceback_from",
    "traceback_of",
]

_Kind = TypeVar("_Kind", bound=BaseException)


def is_a(exc: object, *kinds: type[_Kind]) -> TypeGuard[_Kind]:
    """As ``isinstance``, but without reading ``__class__``."""
    return issubclass(type(exc), kinds)


def traceback_of(exc: BaseException) -> TracebackType | None:
    """Return what ``__traceback__`` is."""
    return _read(BaseException, "__traceback__", exc)  # type: ignore[no-any-return]


def set_traceback(exc: BaseException, tb: TracebackType | None) -> None:
    """Set ``__traceback__``."""
    BaseException.with_traceback(exc, tb)


def traceback_from(entries: Sequence[TracebackType], rest: TracebackType | None = None) -> TracebackType | None:
    """Return a traceback of copies of *entries*, with *rest* after them. Each has a line: if need be, its function's.

    Since Python 3.11 there are instructions without a line: the first one of a generator, where an interrupt may come,
    and those of generated code. No new entry can be made like that, and IPython cannot format one.
    """
    for entry in reversed(entries):
        line = entry.tb_lineno or entry.tb_frame.f_code.co_firstlineno
        rest = TracebackType(rest, entry.tb_frame, entry.tb_lasti, line)
    return rest


def links_of(exc: BaseException) -> list[BaseException]:
    """Return cause and context, as far as there are any."""
    links = (_read(BaseException, "__cause__", exc), _read(BaseException, "__context__", exc))
    return [link for link in links if link is not None]


def inner_of(exc: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a group; none for any other exception."""
    return _read(BaseExceptionGroup, "exceptions", exc) if is_a(exc, BaseExceptionGroup) else ()


def message_of(exc: BaseException) -> tuple[str, ...]:
    """Return those of ``args`` that are strings."""
    return tuple(part for part in _read(BaseException, "args", exc) if type(part) is str)


def notes_of(exc: BaseException) -> list[str]:
    """Return the notes that are in the exception's own ``__dict__`` and are strings."""
    notes = _read(BaseException, "__dict__", exc).get("__notes__")
    return [note for note in notes if type(note) is str] if type(notes) in (list, tuple) else []


def add_note(exc: BaseException, note: str) -> None:
    """Add *note*, once, if the notes are as ``BaseException.add_note`` keeps them."""
    notes = _read(BaseException, "__dict__", exc).setdefault("__notes__", [])
    if type(notes) is list and note not in notes_of(exc):
        notes.append(note)


@contextmanager
def suppressed() -> Iterator[None]:
    """Suppress anything that user code raises except KeyboardInterrupt, which may be meant for us."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        pass


def _read(base: type, name: str, exc: BaseException) -> Any:
    return vars(base)[name].__get__(exc)
