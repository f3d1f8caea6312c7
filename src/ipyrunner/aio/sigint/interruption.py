"""The KeyboardInterrupt that an interrupted run ends with, and what was seen before the interrupt changed it."""

from __future__ import annotations

from typing import Any

__all__ = ["interruption", "take_seen"]

_MARK = "_seen_by_ipyrunner"


def interruption(seen: object = None) -> KeyboardInterrupt:
    """Return the exception, which keeps *seen* until somebody takes it."""
    exc = KeyboardInterrupt()
    if seen is not None:
        vars(exc)[_MARK] = seen
    return exc


def take_seen(exc: BaseException) -> Any:
    """Return, once, what was seen before the interrupt that raised *exc*; None for any other exception."""
    return vars(exc).pop(_MARK, None) if type(exc) is KeyboardInterrupt else None
