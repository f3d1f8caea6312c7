"""Wait in code that is not async: in a cell without ``await`` by running the loop, in a cell with it by a portal.

A loop cannot run inside itself. ``greenback`` gives a task a portal, through which a function that is not async may
await: it runs the task in a greenlet, and switches. The loop and the other tasks go on meanwhile. Each ``await`` of a
task with a portal takes about twice as long, so the user has to open it. In nested mode the loop runs inside itself.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from ..aio.introspection.running_callback import is_left_running
from ..aio.introspection.running_loop import running_loop
from ..aio.runner import as_coroutine
from ..aio.user_runs.nested_runs import is_allowed, run_inside

if TYPE_CHECKING:
    from ..notebook import NotebookRunner

__all__ = ["wait_for"]

_T = TypeVar("_T")
NESTED = (
    " Or run `%config NotebookRunner.nested = True`, which patches asyncio, so that they and asyncio.run() work here."
)


def wait_for(runner: NotebookRunner, awaitable: Awaitable[_T]) -> _T:
    """Return the result of *awaitable*, or raise its exception, see ``ipyrunner.await_``."""
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"ipyrunner.await_() waits for an awaitable, and {type(awaitable).__name__!r} cannot be awaited. Pass a "
            "coroutine (the call of an async function), a Task, a Future or another awaitable"
        )
    running = running_loop()
    # If there is a portal, greenback was imported. Asked first, since in a greenlet the loop's frames cannot be seen.
    greenback: Any = sys.modules.get("greenback")
    if running is not None and greenback is not None and asyncio.current_task() and greenback.has_portal():
        result: _T = greenback.await_(awaitable)
        return result
    if running is None or is_left_running(running):
        return runner.run(awaitable)
    if is_allowed(running):
        return run_inside(running, awaitable)
    as_coroutine(awaitable).close()
    raise RuntimeError(
        "this code already runs inside an event loop, and a loop cannot run inside itself: write `await ...` instead, "
        "or use a cell without await. For a function that is not async, run `await greenback.ensure_portal()` in a "
        "cell once (%pip install 'ipyrunner[portal]'); then ipyrunner.await_() and %arun work in all cells."
        + (NESTED if isinstance(running, asyncio.BaseEventLoop) else "")
    )
