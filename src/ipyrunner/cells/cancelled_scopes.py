"""What is said of a scope that one cell has entered, and that cancels what later cells do."""

from __future__ import annotations

from ..aio.main import Request
from ..aio.tasks.wording import describe, short

__all__ = ["cancelled_note", "kept_notice"]

_LEAVE = (
    "To leave it and see its error: `await stack.aclose()`, or `await group.__aexit__(None, None, None)`. If nothing "
    "holds it any more: `%arunner leave`."
)


def kept_notice(request: Request) -> str:
    """Return what is said when *request* comes while no cell runs."""
    return f"ipyrunner: no cell runs, and {_scope(request)} has cancelled the next one that awaits. {_LEAVE}"


def cancelled_note(request: Request) -> str:
    """Return what is said with the CancelledError of a cell that *request* has cancelled."""
    return f"ipyrunner: {_scope(request)} has cancelled this cell. {_LEAVE}"


def _scope(request: Request) -> str:
    of = "" if request.origin is None else f" of {request.origin.label}"
    cause = "" if request.cause is None else f", in which {describe(request.cause)} was raised,"
    return f"the {short(request.kind, 60)}{of}{cause}"
