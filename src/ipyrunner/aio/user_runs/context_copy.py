"""Carry ContextVars from one Context to another.

A Context cannot be entered twice: a run inside a cell that already is inside the notebook's Context needs a copy,
and what the run sets there has to come back. ``Token.reset`` to "no value" is the one change that cannot be carried.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from itertools import compress, repeat
from operator import is_not
from typing import Any

__all__ = ["carry_back", "carry_into"]

_MISSING: Any = object()


def _changes(
    now: contextvars.Context, before: contextvars.Context
) -> Iterable[tuple[contextvars.ContextVar[Any], Any]]:
    # Without a step of Python code for each variable: this is asked around each cell, and mostly nothing has changed.
    were = map(before.get, now.keys(), repeat(_MISSING))
    return compress(now.items(), map(is_not, now.values(), were))


def carry_back(copy: contextvars.Context) -> None:
    """Set in the current Context the variables whose values differ in *copy*."""
    for var, value in _changes(copy, contextvars.copy_context()):
        var.set(value)


def carry_into(target: contextvars.Context, now: contextvars.Context, before: contextvars.Context) -> None:
    """Set in *target* what has changed from *before* to *now*, and nothing else. *target* must not be entered."""
    for var, value in _changes(now, before):
        target.run(var.set, value)
