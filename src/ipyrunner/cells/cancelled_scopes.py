"""Notes on a scope that one cell has entered, and that cancels later cells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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


def cancelled_note(requests: Sequence[Request]) -> str:
    """Return the note on the CancelledError of a cell that the last of *requests* has cancelled."""
    # anyio asks again and again: what failed is known of the first time.
    same = [request for request in requests if request.scope is requests[-1].scope]
    request = next((request for request in same if request.cause is not None), same[-1])
    scope = f"a {_kind(request)} that this or an earlier cell has entered and not left"
    label = None if request.origin is None else request.origin.label
    if request.cause is not None:
        started = "" if label is None else f", started by {label},"
        why = f"because a task{started} has failed ({describe(request.cause)}) in {scope}"
    elif type(request.scope) is asyncio.Timeout:
        why = f"by {scope}: its time is over"
    else:
        why = f"by {scope}{'' if label is None else f': code of {label} has cancelled it'}"
    return f"ipyrunner: this cell was cancelled {why}. {_LEAVE}"


def _kind(request: Request) -> str:
    return short(request.kind, 60)


def _because(request: Request) -> str:
    return "" if request.cause is None else f", because its task failed ({describe(request.cause)})"
