"""Notes on a scope that one cell has entered, and that cancels later cells."""

from __future__ import annotations

from ..aio.main import Request
from ..aio.tasks.safe_names import describe, short

__all__ = ["cancelled_note", "kept_notice"]

_LEAVE = (
    "Leave it the way you entered it, for example with `await stack.aclose()`. If no variable refers to it any more, "
    "run `%arunner leave`."
)


def kept_notice(request: Request) -> str:
    """Return the notice for a *request* that comes while no cell runs, shown in the cell that has started its cause."""
    return (
        f"ipyrunner: a {_kind(request)} that is still open was cancelled while no cell ran{_because(request)}. "
        f"The next cell with `await` will end with CancelledError. {_LEAVE}"
    )


def cancelled_note(request: Request) -> str:
    """Return the note on the CancelledError of a cell that *request* has cancelled."""
    origin = "" if request.origin is None else f" by code that {request.origin.label} has started"
    return (
        f"ipyrunner: this cell was cancelled because a {_kind(request)} that an earlier cell has entered, and that is "
        f"still open, was cancelled{origin}{_because(request)}. {_LEAVE}"
    )


def _kind(request: Request) -> str:
    return short(request.kind, 60)


def _because(request: Request) -> str:
    return "" if request.cause is None else f", because its task failed ({describe(request.cause)})"
