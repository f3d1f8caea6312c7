"""The replacements of the two methods that every cell goes through.

``InteractiveShell.should_run_async`` and ``run_cell_async`` are public, and both ipykernel's ``do_execute`` and
IPython's ``run_cell`` call them, in IPython 7.34 as in 9.x. A cell that needs a running loop runs in the main task of
the notebook's loop; for any other cell no loop runs. Inside the kernel's loop the main task is awaited and the kernel
stays live; elsewhere (terminal, a kernel whose loop is on another thread) the run blocks. A cell that code in the
notebook's loop awaits is a part of that code, see ``InnerCells``.
"""

from __future__ import annotations

import ast
import asyncio
import contextvars
import inspect
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..aio.exit_and_fork import end_child
from ..aio.introspection.exceptions import is_a, traceback_of
from ..aio.introspection.running_loop import NOTHING, RunningAs, running_loop
from ..aio.introspection.task_origin import Origin, begin
from ..aio.main import Detached
from ..aio.sigint.defer_sigint import Held
from ..aio.sigint.handlers import on_main_thread
from ..cells.inner_cells import InnerCells
from ..cells.unawaited import Unawaited
from ..installation import Installation
from ..ipykernel.kernel_loop import kernel_loop
from ..ipykernel.output_routing import Routing
from ..ipykernel.requests.cell_count import CellCount
from ..ipykernel.requests.cell_record import CellRecord, present_record, recorded
from ..ipykernel.thread_sockets import thread_fds
from .cell_kinds import CellKinds
from .hook_errors import Calling
from .needs_loop import arun_call, read_arun_cell
from .tracebacks import Tracebacks

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

__all__ = ["Cells"]

_CellCoroutine = Coroutine[Any, Any, "ExecutionResult"]


class _Call:
    """One call of ``run_cell_async``."""

    def __init__(self, raw_cell: str, kwargs: dict[str, Any]) -> None:
        self.raw_cell = raw_cell
        # None: there is nothing to run, and IPython only shows an earlier failure.
        self.source: str | None = None if kwargs.get("preprocessing_exc_tuple") else kwargs.get("transformed_cell")
        self.silent = bool(kwargs.get("silent"))
        self.counts = bool(kwargs.get("store_history"))
        self.begun = False
        # Whether code that the notebook's loop runs awaits the cell.
        self.is_inner = False
        # Whether nobody awaits the coroutine: IPython's own run_cell expects it to end in one step.
        self.blocks = False


class Cells:
    """Run the cells of a shell by its runner."""

    def __init__(
        self, extension: Installation, routing: Routing, tracebacks: Tracebacks, inner: InnerCells, calling: Calling
    ) -> None:
        self._extension = extension
        self._shell = extension.shell
        self._runner = extension.runner
        self._routing = routing
        self._tracebacks = tracebacks
        self._inner = inner
        self._calling = calling
        self._unawaited = Unawaited()
        self.kinds = CellKinds(extension)
        self.count = CellCount(extension.shell)
        self._last_call: _Call | None = None
        # The kernel's loop, once there is one.
        self._host: asyncio.AbstractEventLoop | None = None
        self._keep_start = keeps_start(extension.shell)

    def should_run_async(self, original: Callable[..., bool]) -> Callable[..., bool]:
        """Return the replacement: whether the cell is to be awaited in the kernel's loop."""

        def should_run_async(
            raw_cell: str, *, transformed_cell: str | None = None, preprocessing_exc_tuple: Any = None
        ) -> bool:
            in_charge = self._extension.in_charge()
            self._prepare(in_charge)
            self.kinds.forget()
            stock = original(
                raw_cell, transformed_cell=transformed_cell, preprocessing_exc_tuple=preprocessing_exc_tuple
            )
            if not in_charge or preprocessing_exc_tuple is not None or transformed_cell is None:
                return stock
            self.kinds.verdict = transformed_cell, stock
            # IPython's run_cell asks after it has made the coroutine, callers that await a cell ask before.
            call, self._last_call = self._last_call, None
            if call is not None and not call.begun and call.raw_cell is raw_cell:
                call.blocks = True
            # A cell that is not awaited blocks inside run_cell_async, and needs no loop that awaits it.
            awaited = self._can_await(beside=_begins_beside()) or (
                self._is_in_loop() and not (call is not None and call.blocks)
            )
            return awaited and self.kinds.needs_loop(stock, transformed_cell, awaited=True)

        return should_run_async

    def _prepare(self, in_charge: bool) -> None:
        running = self._runner.present is not None and self._runner.present.in_cell
        if on_main_thread() and not running:
            self._routing.prepare()
            self._extension.audience.prepare(in_charge=in_charge)

    def run_cell_async(self, original: Callable[..., _CellCoroutine], stock: Callable[..., bool]) -> Any:
        """Return the replacement; *stock* is the shell's own ``should_run_async``."""

        def run_cell_async(raw_cell: str, *args: Any, **kwargs: Any) -> _CellCoroutine:
            coro = original(raw_cell, *args, **kwargs)
            if not self._extension.in_charge():
                return coro
            self._last_call = call = _Call(raw_cell, kwargs)
            return run(coro, call)

        async def run(coro: _CellCoroutine, call: _Call) -> ExecutionResult:
            record = present_record()
            if record is None or record.begun:  # not run by a request of the kernel's, or run by another cell
                record = CellRecord(record)
            record.begun = call.begun = True
            with recorded(record):
                try:
                    return await run_recorded(coro, call, record)
                finally:
                    record.end()

        async def run_recorded(coro: _CellCoroutine, call: _Call, record: CellRecord) -> ExecutionResult:
            call.is_inner = not call.blocks and self._is_in_loop()
            count = self._shell.execution_count
            # ipykernel reads it, and 7.4 sets it neither for a cell that awaits nor before the first traceback.
            vars(self._shell).setdefault("_last_traceback", None)
            try:
                result = await self._run(coro, call, record, stock)
            except GeneratorExit:
                raise
            except Detached:
                result = await original("", silent=True, transformed_cell="")
            except BaseException as exc:
                if call.is_inner and is_a(exc, asyncio.CancelledError, KeyboardInterrupt):
                    raise  # in the calling code
                # The cell has no result: IPython's code was interrupted, or the main task did not end. Without a result
                # the kernel sends no reply, and the front end waits for ever. In all versions of IPython one gets an
                # ExecutionResult by a cell whose preprocessing has failed.
                if call.counts and self._shell.execution_count == count and record.reserved is None:
                    self._shell.execution_count += 1  # IPython 7 counts at the end of a cell, which did not come
                own = record.own_error
                ended_by = exc if own is None else own
                failure = (type(ended_by), ended_by, traceback_of(ended_by))
                self._calling.is_over = True
                try:
                    if own is not None and record.own_error_shown:
                        result = await original("", silent=True, transformed_cell="")
                        result.error_in_exec = own
                    else:
                        result = await original(
                            call.raw_cell, silent=True, transformed_cell=call.raw_cell, preprocessing_exc_tuple=failure
                        )
                except GeneratorExit:
                    raise
                except BaseException as error:  # it cannot be shown, and a KeyboardInterrupt would end the kernel
                    result = await original("", silent=True, transformed_cell="")
                    result.error_in_exec = error
                    self._tracebacks.show(error)
                finally:
                    self._calling.is_over = False
            return self._tracebacks.harmless(result)

        return run_cell_async

    async def _run(
        self, coro: _CellCoroutine, call: _Call, record: CellRecord, stock: Callable[..., bool]
    ) -> ExecutionResult:
        try:
            present = self._runner.current
        except OSError as exc:
            return self._run_without_loop(coro, call, stock, exc)
        if record.beside:
            return await self._run_beside(coro, call, record, stock)
        if call.is_inner:
            return await self._inner.run(self._run_in_context(coro, call, stock))
        if present.in_cell:  # a cell that a cell runs belongs to it
            return await self._run_in_context(coro, call, stock)
        # In a copy, so that the kernel's own Context is not changed.
        kernel_context = contextvars.copy_context()
        kernel_context.run(self._routing.set_cell)
        origin: Origin = kernel_context.run(begin, f"In[{self._shell.execution_count}]")
        self._runner.refresh(kernel_context)
        try:
            self._extension.audience.begin(kernel_context, silent=call.silent)
            self._unawaited.begin()
            result = await self._run_in_context(coro, call, stock)
            if result.success and not call.silent:
                with suppress(Exception):  # the user may have replaced stderr by anything
                    for note in self._unawaited.notes(self._shell.user_ns):
                        print(note, file=sys.stderr)
            return result
        finally:
            origin.over = True
            self._runner.settle()
            self._extension.audience.end()

    async def _run_beside(
        self, coro: _CellCoroutine, call: _Call, record: CellRecord, stock: Callable[..., bool]
    ) -> ExecutionResult:
        """Run a cell beside others, in a task of its own and in a Context of its own."""
        kernel_context = contextvars.copy_context()
        label = f"In[{record.reserved or self._shell.execution_count}]"
        origin: Origin = kernel_context.run(begin, label)
        context = self._runner.context_beside(kernel_context)
        counted = self.count.run(coro, record)
        try:
            if call.source is None or not self.kinds.needs_loop(
                self.kinds.ask(call.raw_cell, call.source, stock), call.source, awaited=True
            ):
                with Held() as held, RunningAs(NOTHING):
                    return held.let_through(lambda: context.run(_run_through, counted))
            return await self._run_async(counted, call, call.source, record, context=context)
        finally:
            if inspect.getcoroutinestate(counted) == inspect.CORO_CLOSED:  # else the cell goes on, given up or detached
                coro.close()
            origin.over = True
            self._runner.settle()

    def _run_without_loop(
        self, coro: _CellCoroutine, call: _Call, stock: Callable[..., bool], error: OSError
    ) -> ExecutionResult:
        # No file descriptor is left to make a loop with: a cell without await may close some.
        source = call.source
        if source is not None and self.kinds.needs_loop(stock(call.raw_cell, transformed_cell=source), source):
            coro.close()
            raise RuntimeError(
                f"the notebook's event loop cannot be made ({error}). Close files or connections in a cell without "
                "await, which needs no loop, and run this cell again"
            ) from error
        return _run_through(coro)

    async def _run_in_context(self, coro: _CellCoroutine, call: _Call, stock: Callable[..., bool]) -> ExecutionResult:
        source = call.source
        if source is None:
            return self._run_sync(coro)
        awaited = self._can_await() or call.is_inner
        if not self.kinds.needs_loop(self.kinds.ask(call.raw_cell, source, stock), source, awaited=awaited):
            return self._run_sync(coro)
        record = present_record()
        assert record is not None
        return await self._run_async(coro, call, source, record)

    def before_transform(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the replacement of ``shell.transform_ast``."""

        # Not one of its transformers: if there is any, IPython visits all nodes of each cell once more.
        def transform_ast(node: Any) -> Any:
            self._visit(node)
            return original(node)

        return transform_ast

    def _visit(self, tree: ast.AST) -> None:
        """Await the call that a cell beginning with ``%%arun`` consists of."""
        self._unawaited.visit(tree)
        record = present_record()
        if record is not None and record.expects_call and (call := arun_call(tree)) is not None:
            record.expects_call = False
            record.expects_coroutine = True
            assert isinstance(tree, ast.Module)
            expression = tree.body[0]
            assert isinstance(expression, ast.Expr)
            expression.value = ast.copy_location(ast.Await(call), call)

    def takes_coroutine(self) -> bool:
        """Return, once, whether the cell awaits what ``%%arun`` returns."""
        record = present_record()
        if record is None or not record.expects_coroutine:
            return False
        record.expects_coroutine = False
        return True

    def _can_await(self, *, beside: bool = False) -> bool:
        """Return whether this thread runs the kernel's loop, and the cell is not run by another cell."""
        host = self._host
        if host is None:
            host = self._host = kernel_loop(self._shell)
        present = self._runner.present
        if host is None or running_loop() is not host or (present is not None and present.in_cell and not beside):
            return False
        if present is None or present.hosting is None:
            self._runner.attach(host, thread_fds=thread_fds(self._shell))
        return True

    def _is_in_loop(self) -> bool:
        """Return whether the notebook's loop runs the caller."""
        present = self._runner.present
        return present is not None and running_loop() is present.loop and asyncio.current_task() is not None

    def _run_sync(self, coro: _CellCoroutine) -> ExecutionResult:
        try:
            result = self._runner.run_sync(lambda: _run_through(coro))
        finally:
            self._keep_start()
        if self._runner.is_copy and kernel_loop(self._shell) is not None:
            # This is a child process that the cell has forked: the kernel and its connections belong to the parent.
            end_child(_exit_status(result.error_in_exec or result.error_before_exec))
        return result

    async def _run_async(
        self,
        coro: _CellCoroutine,
        call: _Call,
        source: str,
        record: CellRecord,
        *,
        context: contextvars.Context | None = None,
    ) -> ExecutionResult:
        runner = self._runner
        before = self._shell.last_execution_result
        arun = read_arun_cell(source)
        name = f"In[{record.reserved or self._shell.execution_count}]"
        detached = False
        try:
            if context is None and not call.is_inner and not self._can_await():
                return self._tracebacks.settle(runner.current.run_cell(coro, name=name))
            record.expects_call = arun is not None
            if context is not None:
                return self._tracebacks.settle(await runner.current.run_beside(coro, context=context, name=name))
            copy = self.kinds.is_concurrent(arun) or (arun is not None and self.kinds.arguments(arun).context == "copy")
            if call.is_inner:
                return await (self._inner.run_in_copy(coro, name=name) if copy else coro)
            return self._tracebacks.settle(await runner.current.run_in_guest(coro, name=name, copy_context=copy))
        except Detached:
            detached = True
            raise
        except BaseException:
            # A cancellation that arrives in the last step makes the task lose the result; the shell still has it.
            last = record.result if record.has_ended else self._shell.last_execution_result
            if last is None or last is before or last.info.raw_cell != call.raw_cell:
                raise
            return self._tracebacks.settle(last)
        finally:
            record.expects_call = record.expects_coroutine = False
            if inspect.getcoroutinestate(coro) == inspect.CORO_CREATED and not detached:
                coro.close()


def _begins_beside() -> bool:
    """Return whether the present Context is that of a cell that is about to begin beside others."""
    record = present_record()
    return record is not None and record.beside and not record.begun


def _run_through(coro: _CellCoroutine) -> ExecutionResult:
    try:
        coro.send(None)
    except StopIteration as stop:
        result: ExecutionResult = stop.value
        return result
    coro.close()
    raise RuntimeError("this cell awaits, which its source did not show: begin it with %%arun")


def _exit_status(error: BaseException | None) -> int:
    if isinstance(error, SystemExit):  # sys.exit() takes anything: a string is an error
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return int(error is not None)


def keeps_start(shell: InteractiveShell) -> Callable[[], None]:
    """Return a function to call after a plain cell that runs before the kernel does: a line of ``exec_lines``, say.

    The kernel starts on the thread's current loop. A plain cell has made the notebook's loop the current one: without
    this the kernel would start on that, and there would not be two loops, one inside the other.
    """
    if getattr(shell, "kernel", None) is None or kernel_loop(shell) is not None:
        return lambda: None
    from tornado.ioloop import IOLoop

    # The kernel asks for its loop this way when it starts; ipykernel 6 has done so already.
    loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]

    def keep_start() -> None:
        if kernel_loop(shell) is None:
            asyncio.set_event_loop(loop)

    return keep_start
