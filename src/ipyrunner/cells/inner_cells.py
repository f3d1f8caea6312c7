"""Cells that code in the notebook's loop awaits: an agent's, by ``run_cell_async`` or by the kernel's ``do_execute``.

Such a cell is awaited where it is called, in the caller's task and Context. IPython puts every exception of its code
into the cell's result, also the cancellation of the task: the caller would go on as if it had not been interrupted, and
an ``asyncio.timeout`` around the call would have no effect. So a cancellation is raised in the caller, which shows it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

from ..aio.introspection.exceptions import is_a, set_traceback, traceback_of
from ..aio.introspection.running_loop import running_loop

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult

__all__ = ["InnerCells"]


class InnerCells:
    """Await the cells that code in the notebook's loop runs."""

    def __init__(self) -> None:
        # How often each task that awaits such a cell had been cancelled before it.
        self._cancels: dict[asyncio.Task[Any], int] = {}

    async def run(self, cell: Awaitable[ExecutionResult]) -> ExecutionResult:
        """Await *cell* and return its result. Raises the cell's exception if :meth:`passes_on` says so."""
        task = _current_task()
        if task is None:
            return await cell
        before, name = self._cancels.get(task), task.get_name()
        self._cancels[task] = _cancels(task)
        try:
            result = await cell
            error = result.error_in_exec
            if error is not None and self.passes_on(error):
                tb = traceback_of(error)
                set_traceback(error, None if tb is None else tb.tb_next)  # without the line of IPython's
                raise error
            return result
        finally:
            if before is None:
                del self._cancels[task]
            else:
                self._cancels[task] = before
            task.set_name(name)  # %%arun --name names the cell, and not its caller

    async def run_in_copy(self, cell: Coroutine[Any, Any, ExecutionResult], *, name: str) -> ExecutionResult:
        """As :meth:`run`, in a copy of the caller's Context, and so in a new task: a task cannot change its Context."""
        loop = asyncio.get_running_loop()
        return await loop.create_task(self.run(cell), name=name, context=contextvars.copy_context())

    def passes_on(self, exc: object) -> bool:
        """Return whether *exc*, raised now in an inner cell, is passed on to the code that awaits the cell."""
        task = _current_task()
        if task not in self._cancels:
            return False
        # An interrupt that was forced into code which does not yield may not have cancelled this task.
        cancelled = is_a(exc, asyncio.CancelledError) and _cancels(task) > self._cancels[task]
        return cancelled or is_a(exc, KeyboardInterrupt)


def _current_task() -> asyncio.Task[Any] | None:
    return None if running_loop() is None else asyncio.current_task()


def _cancels(task: asyncio.Task[Any]) -> int:
    # A task factory may make tasks without this method.
    count: int = getattr(task, "cancelling", int)()
    return count
