"""The note on an interrupt that was raised in a background task: the loop ran in a cell without ``await``.

There Python's own handler is in place, as in a script, and raises KeyboardInterrupt in whatever runs at that moment.
"""

from __future__ import annotations

import asyncio
import contextvars

from ..aio.introspection.private_api import task_context
from ..aio.introspection.task_origin import origin_of
from ..aio.tasks.safe_names import label_of

__all__ = ["interrupted_note"]


def interrupted_note(task: asyncio.Task[object] | None) -> str | None:
    """Return the note on the KeyboardInterrupt that has ended *task*; None if a cell that has ended did not start it.

    In the Context of the cell that was interrupted.
    """
    origin = None if task is None else origin_of(task_context(task))
    if origin is None or origin is origin_of(contextvars.copy_context()):
        return None
    return (
        f"ipyrunner: the interrupt has ended the task {label_of(task)} of {origin.label}, which the loop was running, "
        "and not what this cell waits for. In a cell with `await`, or with `%arun`, an "
        "interrupt leaves other tasks alone."
    )
