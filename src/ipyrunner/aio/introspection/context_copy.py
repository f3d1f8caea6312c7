"""Carry ContextVars from one Context to another.

A Context cannot be entered twice: a run inside a cell that already is inside the notebook's Context needs a copy,
and what the run sets there has to come back. ``Token.reset`` to "no value" is the one change that cannot be carried.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

__all__ = ["carry_back", "carry_into"]

_MISSING: Any = object()


def _changes(
    now: contextvars.Context, before: contextvars.Context
) -> Iterator[tuple[contextvars.ContextVar[Any], Any]]:
    for var, value in now.items():
        if before.get(var, _MISSING) is not value:
            yield var, value


def carry_back(copy: contextvars.Context) -> None:
    """Set in the current Context the variables whose values differ in *copy*."""
    for var, value in _changes(copy, contextvars.copy_context()):
        var.set(value)


def carry_into(target: contextvars.Context, now: contextvars.Context, before: contextvars.Context) -> None:
    """Set in *target* what has changed from *before* to *now*, and nothing else. *target* must not be entered."""
    for var, value in _changes(now, before):
        target.run(var.set, value)
