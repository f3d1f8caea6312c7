"""The kernel answers while a cell awaits: completions, inspections, the history; and cells that run beside it.

ipykernel 7 handles one message of the shell channel after the other: a message that comes while a cell awaits waits for
the lock which that cell holds. These requests do not depend on the cell, and are handled when they come, in a Context
of their own, by the kernel's own handlers. All others keep their order; on ipykernel 6 these do as well.

A cell that begins at once is such a request. The kernel stays busy as long as a cell runs: front ends show the last
status that came.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import signal
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from operator import attrgetter, contains
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
# In the source of a cell that is to run beside others.
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
        """*at_once* is called with the content of an execute request, and returns whether its cell begins at once;
        *queued*: whether other cells wait for the one that runs.
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
        # Public, since ipykernel 7. A kernel looks it up when it starts; one that has started gets a new callback.
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
            # Requests that are handled at once get a task, as several may wait, and with it a copy of this task's
            # Context, which all cells share.
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
                    pass  # no await from here to the kernel's lock
                await original(subshell_id, message)
            finally:
                self._ordinary -= 1
            if self._cells:
                publish(self._kernel, "busy", self._cells[-1])

        return shell_main

    def _at_once_handled(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Return a coroutine that handles *message* at once, while a cell awaits; None: in its turn."""
        # Looking into each message would take as long as an empty cell.
        if not (self._awaits() or self._runner.concurrent or _has_option(message)):
            return None
        session = self._kernel.session
        try:
            _, frames = session.feed_identities(message, copy=False)
            request = session.deserialize(frames, content=False, copy=False)
            kind: str = request["header"]["msg_type"]
            if kind == "execute_request":
                content = session.unpack(getattr(request["content"], "bytes", request["content"]))
                return self._run_beside(message) if self._at_once(content, queued=self._ordinary > 1) else None
        except Exception:  # no session any more, or an invalid message: the kernel reports it
            return None
        return self._answer(message) if self._awaits() and kind in _REQUESTS else None

    async def _run_beside(self, message: Any) -> None:
        """As :meth:`_answer`, for a cell: it is the present cell to what it starts, and to nothing else."""
        kernel = self._kernel
        async with self._turns:
            idents, frames = kernel.session.feed_identities(message, copy=False)
            request = kernel.session.deserialize(frames, content=True, copy=False)
            request["content"]["stop_on_error"] = False  # no cell waits behind it
            cell, cell_idents, awaits = kernel.get_parent("shell"), idents_of(kernel), self._awaits()
            kernel.set_parent(idents, request, channel="shell")
            if awaits:  # threads without a parent use the last one: set it back, but not in our Context
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
        """Publish "busy" again if another cell runs: front ends show the last status that came."""
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
                with recorded(record):  # no await from here until its number is announced
                    await kernel.shell_handlers["execute_request"](stream, idents, request)
        except Exception:
            kernel.log.error("Exception in message handler:", exc_info=True)
        except (KeyboardInterrupt, SystemExit) as exc:
            kernel.log.error("ipyrunner: %s in a request is ignored: it does not end the kernel", describe(exc))

    async def _answer(self, message: Any) -> None:
        """Do what ``Kernel.dispatch_shell`` does, without its hooks: SIGINT interrupts the cell."""
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
            # Threads without a parent use the last one that was set.
            kernel.set_parent(cell_idents, cell, channel="shell")


def _has_option(message: Iterable[Any]) -> bool:
    # Without a step of Python code for each frame.
    return any(map(contains, map(attrgetter("bytes"), message), repeat(_OPTION)))


def missing(shell: InteractiveShell) -> str:
    """Return the message that says what cells need here to run side by side; empty if nothing is missing."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return "cells can run side by side only in a Jupyter kernel, and this is a terminal. Run them one by one"
    if not hasattr(kernel, "shell_main"):
        return f"cells can run side by side only with ipykernel 7 or later: upgrade ipykernel {ipykernel.__version__}"
    if IPython.version_info < (9, 8):  # before that run_cell_async must not be entered twice
        return f"cells can run side by side only with IPython 9.8 or later: upgrade IPython {IPython.__version__}"
    return ""


def _receiver(kernel: Any) -> Callable[..., Any]:
    """Return the function that receives the messages of *kernel* from now on, also when the extension is unloaded.

    By itself ipykernel would now handle messages in a copy of the present Context, and later cells would not see what
    the rest of the loading cell sets. So they are handled in the present Context itself, as before.
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
    """Await *awaitable*; a second press ends a step of it. While it waits, SIGINT interrupts the cell as usual."""
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
    """Let the first SIGINT interrupt the cell, as usual, and the second one end a request that does not end by itself.

    Nothing else would end it: the cancelled cell cannot go on before the request has ended.
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
