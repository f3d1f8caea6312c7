"""The kernel answers while a cell awaits: completions, inspections, the history; and cells that run beside it.

ipykernel 7 handles one message of the shell channel after the other: what comes while a cell awaits waits for the lock
of that cell. These requests need nothing of it, and are handled when they come, in a Context of their own, by the
kernel's own handlers. All others keep their order, and so do these on ipykernel 6, whose queue is its own.

A cell that begins at once is such a request. The kernel stays busy as long as one runs: front ends show the last status
that came.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import signal
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import ipykernel
import IPython

from ...aio.introspection.private_api import task_context
from ...aio.introspection.running_loop import running_loop
from ...aio.replacements import Replacement
from ...aio.sigint.handlers import handler_of
from ...aio.tasks.safe_names import describe
from ...notebook import NotebookRunner
from .cell_count import CellCount
from .cell_record import CellRecord, recorded
from .request_status import abort, flush, idents_of, is_aborting, publish, status_published

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["ConcurrentRequests", "missing"]

_REQUESTS = frozenset(
    f"{name}_request" for name in ("complete", "inspect", "is_complete", "history", "kernel_info", "comm_info")
)
# In the source of a cell that asks for it.
_OPTION = b"--concurrent"


class ConcurrentRequests:
    """Answer requests while a cell of *runner* awaits, on a kernel that receives them meanwhile: ipykernel 7."""

    def __init__(
        self,
        kernel: Any,
        runner: NotebookRunner,
        *,
        at_once: Callable[..., bool],
        count: CellCount,
    ) -> None:
        """*at_once* says by its content whether the cell of an execute request begins at once, and is called with
        *queued*: whether others wait for the one that runs.
        """
        self._kernel = kernel
        self._at_once = at_once
        self._count = count
        # Cells begin one after the other.
        self._turns = asyncio.Lock()
        # How many requests of cells that do not run beside others have not been replied to.
        self._ordinary = 0
        # The requests of the cells that run beside others.
        self._cells: list[dict[str, Any]] = []
        self._runner = runner
        # Public, since ipykernel 7. The kernel looks it up when it starts; one that has started is told.
        self._replacement = (
            Replacement(kernel, "shell_main", self._shell_main) if hasattr(kernel, "shell_main") else None
        )
        manager = getattr(getattr(kernel, "shell_channel_thread", None), "manager", None)
        if self._replacement is not None and manager is not None:
            manager.set_on_recv_callback(_receiver(kernel))

    def restore(self) -> None:
        """Let the kernel receive its messages itself."""
        if self._replacement is not None:
            self._replacement.restore()

    def _shell_main(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def shell_main(subshell_id: str | None, message: Any) -> None:
            # Not in the Context of this task, which is that of all cells, but in a copy. A task: several may wait.
            if subshell_id is not None:
                await original(subshell_id, message)
                return
            handled = self._at_once_handled(message)
            if handled is not None:
                await asyncio.create_task(handled)
                return
            self._ordinary += 1
            try:
                async with self._turns:
                    pass  # without a pause from here to the kernel's lock
                await original(subshell_id, message)
            finally:
                self._ordinary -= 1
            if self._cells:
                publish(self._kernel, "busy", self._cells[-1])

        return shell_main

    def _at_once_handled(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Return what handles *message* at once, though a cell awaits; None if it is handled in its turn."""
        # To look into each would cost as much as an empty cell.
        if not (self._awaits() or self._runner.concurrent or any(_OPTION in frame.bytes for frame in message)):
            return None
        session = self._kernel.session
        try:
            _, frames = session.feed_identities(message, copy=False)
            request = session.deserialize(frames, content=False, copy=False)
            kind: str = request["header"]["msg_type"]
            if kind == "execute_request":
                content = session.unpack(getattr(request["content"], "bytes", request["content"]))
                return self._run_beside(message) if self._at_once(content, queued=self._ordinary > 1) else None
        except Exception:  # no session any more, or no message: the kernel says what is wrong
            return None
        return self._answer(message) if self._awaits() and kind in _REQUESTS else None

    async def _run_beside(self, message: Any) -> None:
        """As :meth:`_answer`, of a cell: what it starts belongs to it, and to nobody else it is the present cell."""
        kernel = self._kernel
        async with self._turns:
            idents, frames = kernel.session.feed_identities(message, copy=False)
            request = kernel.session.deserialize(frames, content=True, copy=False)
            request["content"]["stop_on_error"] = False  # nothing is behind it
            cell, cell_idents, awaits = kernel.get_parent("shell"), idents_of(kernel), self._awaits()
            kernel.set_parent(idents, request, channel="shell")
            if awaits:  # the kernel keeps the last parent, for threads that have none: not in our Context
                contextvars.copy_context().run(kernel.set_parent, cell_idents, cell, channel="shell")
            self._cells.append(request)
            publish(kernel, "busy", request)
            record = CellRecord(beside=True)
            running = asyncio.create_task(self._execute(idents, request, record))
            await self._count.begun(record, running)
        try:
            await running
        finally:
            self._cells.remove(request)
            flush()
            publish(kernel, "idle", request)
            self._say_busy()

    def _say_busy(self) -> None:
        """Front ends show the last status that came, and another cell may run."""
        kernel = self._kernel
        if self._awaits():
            publish(kernel, "busy", self._runner.context.copy().run(kernel.get_parent))
        elif self._cells:
            publish(kernel, "busy", self._cells[-1])

    def _awaits(self) -> bool:
        present = self._runner.present
        return present is not None and present.awaits

    async def _execute(self, idents: Any, request: dict[str, Any], record: CellRecord) -> None:
        kernel = self._kernel
        stream = kernel.shell_channel_thread.manager.get_subshell_to_shell_channel_socket(None)
        try:
            if is_aborting(kernel):
                abort(kernel, stream, request, idents)
                return
            handled = kernel.should_handle(stream, request, idents)
            if inspect.isawaitable(handled):
                handled = await handled
            if handled:
                await self._count.all_counted()
                with recorded(record):  # without a pause from here to the announcement of its number
                    await kernel.shell_handlers["execute_request"](stream, idents, request)
        except Exception:
            kernel.log.error("Exception in message handler:", exc_info=True)
        except (KeyboardInterrupt, SystemExit) as exc:
            kernel.log.error("ipyrunner: %s in a request is ignored: it does not end the kernel", describe(exc))

    async def _answer(self, message: Any) -> None:
        """Do what ``Kernel.dispatch_shell`` does, but for its hooks: SIGINT is the cell's."""
        kernel = self._kernel
        cell, cell_idents = kernel.get_parent("shell"), idents_of(kernel)
        try:
            idents, frames = kernel.session.feed_identities(message, copy=False)
            request = kernel.session.deserialize(frames, content=True, copy=False)
        except Exception:
            kernel.log.error("Invalid Message", exc_info=True)
            return
        kernel.set_parent(idents, request, channel="shell")
        try:
            with status_published(kernel, request, cell):
                stream = kernel.shell_channel_thread.manager.get_subshell_to_shell_channel_socket(None)
                handled = kernel.should_handle(stream, request, idents)
                if inspect.isawaitable(handled):
                    handled = await handled
                if handled:
                    with _second_press_raises():
                        result = kernel.shell_handlers[request["msg_type"]](stream, idents, request)
                    if inspect.isawaitable(result):
                        await _in_steps(result)
        except Exception:
            kernel.log.error("Exception in message handler:", exc_info=True)
        except (KeyboardInterrupt, SystemExit) as exc:
            kernel.log.error("ipyrunner: %s in a request is ignored: it does not end the kernel", describe(exc))
        finally:
            # The kernel keeps the last parent, for threads that have none.
            kernel.set_parent(cell_idents, cell, channel="shell")


def missing(shell: InteractiveShell) -> str:
    """Return what cells need here to run side by side, as an error's message says it; empty if nothing is missing."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return "cells can run side by side only in a Jupyter kernel, and this is a terminal. Run them one by one"
    if not hasattr(kernel, "shell_main"):
        return f"cells can run side by side only with ipykernel 7 or later: upgrade ipykernel {ipykernel.__version__}"
    if IPython.version_info < (9, 8):  # its run_cell_async is not to be entered twice
        return f"cells can run side by side only with IPython 9.8 or later: upgrade IPython {IPython.__version__}"
    return ""


def _receiver(kernel: Any) -> Callable[..., Any]:
    """Return what receives the messages of *kernel* from now on, also when the extension is unloaded.

    ipykernel would handle them in a copy of the present Context: what the cell that loads us sets after that would be
    lost to the next ones. So they are handled in the present Context itself, in which they are until now.
    """
    task = None if running_loop() is None else asyncio.current_task()
    context = None if task is None else task_context(task)

    async def receive(subshell_id: str | None, message: Any) -> None:
        handled = kernel.shell_main(subshell_id, message)
        if subshell_id is None and context is not None:
            handled = asyncio.create_task(handled, context=context)
        await handled

    return receive


@types.coroutine
def _in_steps(awaitable: Awaitable[Any]) -> Generator[Any, Any, Any]:
    """Await *awaitable*, in steps of which a second press ends each. Where it waits, SIGINT is the cell's as ever."""
    steps = awaitable.__await__()
    step: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            with _second_press_raises():
                waits = step()
        except StopIteration as stop:
            return stop.value
        try:
            step = functools.partial(steps.send, (yield waits))
        except BaseException as exc:
            step = functools.partial(steps.throw, exc)  # type: ignore[attr-defined]


@contextmanager
def _second_press_raises() -> Iterator[None]:
    """Let the first SIGINT be the cell's, as ever, and the second one end the request: one that does not end by itself.

    Else nothing would: the cell, which is cancelled, cannot go on before the request has ended.
    """
    before: Any = handler_of(signal.SIGINT)
    presses = 0

    def on_sigint(signum: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses == 1:
            before(signum, frame)
        else:
            raise KeyboardInterrupt

    if not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, on_sigint)
    try:
        yield
    finally:
        if handler_of(signal.SIGINT) is on_sigint:
            signal.signal(signal.SIGINT, before)
