"""``%%arun --background``: a cell that goes on as a task, and the handle to it."""

from __future__ import annotations

import asyncio
import contextvars
import html
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.display import DisplayHandle, display

from ...aio.tasks.safe_names import label
from .tasks_table import age, states

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["BackgroundCell", "show_figures"]

_T = TypeVar("_T")


def show_figures(shell: InteractiveShell) -> None:
    """Show, in the output of the present Context, what matplotlib's inline backend shows when a cell ends."""
    for hook in tuple(shell.events.callbacks.get("post_execute", ())):
        if getattr(hook, "__module__", None) == "matplotlib_inline.backend_inline":
            hook()


class BackgroundCell:
    """A cell that runs in the background: ``await`` it, ``cancel()`` it, ask for its ``result()`` or ``exception()``.

    ``await`` returns the cell's value, or raises its exception. If the code that awaits it is interrupted or cancelled,
    the cell goes on. ``task`` is the task itself. The display of this object is updated when the cell ends.
    """

    def __init__(self, task: asyncio.Task[Any], *, live: bool) -> None:
        """*live*: the front end can update a display."""
        self.task = task
        self._live = live
        self._began = time.monotonic()
        self._took: float | None = None
        self._displays: list[tuple[DisplayHandle, contextvars.Context]] = []
        task.add_done_callback(self._on_done)

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.task.get_name()

    @property
    def state(self) -> str:
        """The state: waiting, ready, running or cancelling; done, cancelled or failed, with the error."""
        return states(self.task)

    def done(self) -> bool:
        """Return whether the cell has ended."""
        return self.task.done()

    def cancelled(self) -> bool:
        """Return whether the cell was cancelled."""
        return self.task.cancelled()

    def cancel(self, msg: str | None = None) -> bool:
        """Cancel the cell, which can clean up; return False if it has already ended."""
        return self.task.cancel(msg)

    def result(self) -> Any:
        """Return the value of the cell's last expression, or raise its exception; InvalidStateError before its end."""
        self._check_ended()
        return self._ask(self.task.result)

    def exception(self) -> BaseException | None:
        """Return the cell's exception, or None; InvalidStateError before its end, CancelledError if cancelled."""
        self._check_ended()
        return self._ask(self.task.exception)

    def _check_ended(self) -> None:
        if not self.task.done():
            raise asyncio.InvalidStateError(
                self._lost()
                if self.task.get_loop().is_closed()
                else f"{label(self.name)} has not ended, so it has no result yet: to wait for it, await this object, "
                "as in `await job`, or in a cell without await `%arun job`"
            )

    def _ask(self, answer: Callable[[], _T]) -> _T:
        try:
            return answer()
        except asyncio.CancelledError as exc:
            if self.task.cancelled() and not exc.args:
                exc.args = (f"{label(self.name)} was cancelled",)
            raise

    def _lost(self) -> str:
        return f"{label(self.name)} did not end before its event loop was closed, and cannot go on: run its cell again"

    # These are for asyncio.wait() and as_completed().

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the notebook's loop."""
        return self.task.get_loop()

    def add_done_callback(
        self, callback: Callable[[asyncio.Task[Any]], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Call *callback* with the task when the cell has ended."""
        self.task.add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callable[[asyncio.Task[Any]], object]) -> int:
        """Remove *callback*; return how many times it was there."""
        return self.task.remove_done_callback(callback)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        loop = self.task.get_loop()
        if self.task.done():
            return self._ask(self.task.result)
        if loop.is_closed():
            raise RuntimeError(self._lost())
        if asyncio.get_running_loop() is not loop:
            raise RuntimeError(
                f"{label(self.name)} runs in the notebook's event loop, but this code runs in another one: await it "
                "directly in a cell"
            )
        # Not the task itself: cancelling the waiting code must not cancel the cell.
        await asyncio.wait([self.task])
        return self._ask(self.task.result)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._took = time.monotonic() - self._began
        for handle, context in self._displays:
            context.run(handle.update, self._bundle(), raw=True)
        self._displays.clear()

    def __repr__(self) -> str:
        state, _, error = (states(self.task) if self.task.done() else "running").partition(": ")
        if not self.task.done() and self.task.get_loop().is_closed():
            state = "did not end before its loop was closed"
        took = "" if self._took is None else f" after {age(self._took)}"
        return f"<{label(self.name)} {state}{took}{': ' if error else ''}{error}>"

    def _bundle(self) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": f"<code>{html.escape(repr(self)[1:-1])}</code>"}

    def _ipython_display_(self) -> None:
        if not self._live or self.task.done():
            display(self._bundle(), raw=True)
            return
        handle = DisplayHandle()
        handle.display(self._bundle(), raw=True)
        self._displays.append((handle, contextvars.copy_context()))
