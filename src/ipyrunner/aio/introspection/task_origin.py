"""What started a task, kept in a ContextVar that tasks and callbacks inherit."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from .private_api import handle_context, task_context

__all__ = ["Origin", "begin", "context_of", "origin_of"]


class Origin:
    """One cell, say. *over* is set when its own code has ended; what it has started may go on."""

    __slots__ = ("label", "over")

    def __init__(self, label: str) -> None:
        self.label = label
        self.over = False


_origin: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("ipyrunner origin", default=None)


def begin(label: str) -> Origin:
    """Set a new origin for everything that is started in the current Context from now on."""
    origin = Origin(label)
    _origin.set(origin)
    return origin


def origin_of(context: contextvars.Context | None) -> Origin | None:
    """Return the origin of what runs in *context*."""
    return None if context is None else context.get(_origin)


def context_of(report: dict[str, Any]) -> contextvars.Context | None:
    """Return the Context of what a report to a loop's exception handler is about; None if it is not known."""
    for key in ("task", "future"):
        future = report.get(key)
        if asyncio.isfuture(future) and (context := task_context(future)) is not None:
            return context
    handle = report.get("handle")
    return handle_context(handle) if isinstance(handle, asyncio.Handle) else None
