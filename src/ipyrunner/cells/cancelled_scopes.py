"""What is said of a scope that one cell has entered, and that cancels what later cells do."""

from __future__ import annotations

from ..aio.main import Request
from ..aio.tasks.safe_names import describe, short

__all__ = ["cancelled_note", "kept_notice"]

_LEAVE = (
    "Leave it the way you entered it, for example `await stack.aclose()`; "
    "if nothing holds it any more: `%arunner leave`."
)


def kept_notice(request: Request) -> str:
    """Return what is said when *request* comes while no cell runs: in the cell that has started what makes it."""
    return (
        f"ipyrunner: a {_kind(request)} that is still entered was cancelled while no cell ran{_because(request)}. "
        f"The next cell with `await` ends as CancelledError. {_LEAVE}"
    )


def cancelled_note(request: Request) -> str:
    """Return what is said with the CancelledError of a cell that *request* has cancelled."""
    origin = "" if request.origin is None else f" by what {request.origin.label} has started"
    return (
        f"ipyrunner: a {_kind(request)} that an earlier cell has entered was cancelled{origin}{_because(request)}, "
        f"and with it this cell. {_LEAVE}"
    )


def _kind(request: Request) -> str:
    return short(request.kind, 60)


def _because(request: Request) -> str:
    return "" if request.cause is None else f", because its task failed ({describe(request.cause)})"
