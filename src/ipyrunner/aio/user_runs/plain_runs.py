"""``loop.run_until_complete`` in a cell without ``await``: an interrupt cancels what it waits for, and nothing else.

In such a cell Python's own handler is in place for SIGINT. It would raise KeyboardInterrupt in the task that is running
at that moment: in a script mostly the only one, in a notebook perhaps one that an earlier cell has started.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Callable
from typing import Any

from ..interrupts import Interrupts
from ..introspection.exceptions import is_a
from ..introspection.loop_class import is_fast, replace_method
from ..introspection.private_api import is_task
from ..introspection.running_callback import drives_loop
from ..introspection.running_loop import running_loop
from ..introspection.task_state import is_done, retrieve
from ..runner import as_coroutine
from ..sigint.handlers import handler_of, on_main_thread
from ..sigint.main_task import MainTask
from .nested_runs import is_allowed

__all__ = ["PlainRuns"]


class PlainRuns:
    """Handle SIGINT while a plain cell runs *loop* by ``run_until_complete``, until :meth:`restore`.

    *in_cell* returns whether a plain cell runs. *escaped* is called with each exception that a forced interrupt has
    raised and that has come out of the loop; *outcome* with the task, its CancelledError or None, and the interrupt of
    a run that was cancelled or given up: it returns what the run returns, or raises.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interrupts: Interrupts,
        *,
        in_cell: Callable[[], bool],
        escaped: Callable[[BaseException], None],
        outcome: Callable[[asyncio.Task[Any], BaseException | None, MainTask], Any],
    ) -> None:
        self._loop, self._interrupts = loop, interrupts
        self._in_cell, self._escaped, self._outcome = in_cell, escaped, outcome
        self._restore: Callable[[], None] = lambda: None
        if is_fast(loop):
            self._restore = replace_method(loop, "run_until_complete", self._instead)

    def restore(self) -> None:
        """Leave the loop as it was. Idempotent."""
        self._restore()

    def _instead(self, original: Callable[[Any], Any], future: Any) -> Any:
        return self._run_in_cell(original, future) if self._is_to_handle() else original(future)

    def _is_to_handle(self) -> bool:
        return (
            self._in_cell()
            and not is_allowed(self._loop)
            and on_main_thread()
            and not self._loop.is_closed()
            and running_loop() is None
            and self._interrupts.present is None
            # Not where somebody else handles SIGINT, asyncio.Runner for one.
            and self._interrupts.takes_over(handler_of(signal.SIGINT))
        )

    @drives_loop
    def _run_in_cell(self, original: Callable[[Any], Any], future: Any) -> Any:
        value: Any = None
        error: BaseException | None = None
        # Before there is a task: an interrupt would leave it behind.
        with self._interrupts.of_run(contextvars.copy_context()) as interrupt:
            task = asyncio.ensure_future(future, loop=self._loop)
            is_new = task is not future
            if not is_task(task):  # of a gather, say: a cancellation of it cannot be counted
                task, is_new = self._loop.create_task(as_coroutine(task)), True
            interrupt.attach(task)
            # What is ready stays in the queue: among it is the callback that stops the loop.
            interrupt.is_last = lambda: False
            interrupt.on_release = lambda: self._loop.stop() if interrupt.abandoned else None
            try:
                value = self._until_done(original, task, interrupt)
            except BaseException as exc:
                error = exc
        try:
            if is_new and is_done(task):
                retrieve(task)
            is_cancelled = is_a(error, asyncio.CancelledError)
            if is_cancelled or (interrupt.abandoned and not is_done(task)):
                return self._outcome(task, error if is_cancelled else None, interrupt)
            if error is not None:
                raise error
            if interrupt.is_unanswered:  # SIGINT came in the last step: it is for the cell
                raise KeyboardInterrupt
            return value
        finally:
            interrupt.let_go()  # the last one is kept, and what the run returns is not
            del error, value, task

    def _until_done(self, original: Callable[[Any], Any], task: asyncio.Task[Any], interrupt: MainTask) -> Any:
        while True:
            try:
                return original(task)
            except (KeyboardInterrupt, SystemExit) as exc:
                if is_done(task) or not interrupt.presses:
                    raise
                self._escaped(exc)
