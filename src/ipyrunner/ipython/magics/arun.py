"""``%arun``, ``%%arun`` and ``%arunner``."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from ...aio.introspection.task_origin import origin_of
from ...aio.runner import run
from ...aio.tasks.task_scope import Scope
from ...audience import has_audience
from ...cells.portals import wait_for
from ...notebook import NotebookRunner
from ..arun_options import ArunArguments, arun_options
from ..run_cell import Cells
from ..top_level_await import Body, compile_body, compile_expression, evaluate, is_statement, run_body
from .arunner_status import Status
from .background_cell import BackgroundCell, show_figures
from .progress_bar import Progress, require_tqdm

__all__ = ["RunnerMagics"]


@magics_class
class RunnerMagics(Magics):
    """The magics of the extension."""

    def __init__(self, shell: Any, runner: NotebookRunner, cells: Cells) -> None:
        super().__init__(shell)
        self._runner = runner
        self._cells = cells

    @arun_options
    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def arun(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run anything awaitable on the notebook's event loop.

        `%arun EXPR` evaluates the expression, awaits it and returns the value; it blocks, and takes no options:

            x = %arun fetch(url)

        It works in cells without `await` and in the functions that they call; in cells with `await` where there is
        a portal (`await greenback.ensure_portal()`), or with `%config NotebookRunner.nested = True`.

        `%%arun [options]` runs the cell's body as a coroutine, with a running event loop. The value of its last
        expression, awaited if that is possible, is the value of the cell. IPython's own syntax (`!ls`, `%pwd`,
        `name?`) works in the body.
        """
        if cell is None:
            return self._run_expression(line, local_ns)
        arguments = ArunArguments.parse(self.shell.var_expand(line))
        if arguments.concurrent and self._runner.why_not_concurrent:
            raise UsageError(f"%%arun --concurrent: {self._runner.why_not_concurrent}")
        body = compile_body(self.shell, f"%%arun {line}".rstrip(), cell)
        if self._cells.takes_coroutine():
            return self._run_body(arguments, body)
        if arguments.background:
            return self._run_in_background(arguments, body)
        if arguments.fresh:
            return self._run_fresh(arguments, body)
        context = contextvars.copy_context() if arguments.context == "copy" or arguments.concurrent else None
        return self._runner.run(self._run_body(arguments, body), context=context)

    @magic_arguments()
    @argument(
        "action",
        nargs="?",
        default="status",
        choices=["status", "restart", "close", "leave"],
        help="status: show the loop and what it does (default); restart: cancel the tasks, run their clean-up and "
        "start anew with a fresh loop and Context; close: the same, and start anew when it is next needed; leave: give "
        "the cells that come another main task, without the task groups, cancel scopes and timeouts that earlier cells "
        "have entered and nothing can leave any more",
    )
    @line_magic
    def arunner(self, line: str) -> Status | None:
        """Show, restart or close the notebook's event loop, or leave its main task. The variables stay in any case."""
        action = parse_argstring(self.arunner, line).action
        if action == "status":
            return Status.of(self._runner)
        if action == "restart":
            self._runner.restart()
        elif action == "leave":
            self._runner.leave()
            print(
                "ipyrunner: the next cell runs in a new main task. Groups entered before stay open; their tasks go on."
            )
        else:
            self._runner.close()
        return None

    def _run_expression(self, line: str, local_ns: dict[str, Any] | None) -> Any:
        if not line.strip():
            raise UsageError("%arun needs an expression: %arun fetch(url). For a whole cell: %%arun")
        if line.lstrip().startswith("--"):
            raise UsageError("%arun takes an expression and no options; they belong to %%arun, see %arun?")
        expression = line.strip().rstrip(";")
        try:
            code = compile_expression(self.shell, expression)
        except SyntaxError:
            if is_statement(expression):
                raise UsageError(
                    "%arun takes one expression: for an assignment write `x = %arun EXPR`, for statements begin the "
                    "cell with %%arun"
                ) from None
            raise
        namespace = self.shell.user_global_ns
        if local_ns is not None and local_ns is not self.shell.user_ns:
            namespace = {**namespace, **local_ns}

        async def main() -> Any:
            value = await evaluate(code, namespace)
            if code.co_flags & inspect.CO_COROUTINE:
                return value
            if not inspect.isawaitable(value):
                raise TypeError(
                    f"%arun awaits the value of its expression, and {type(value).__name__!r} cannot be awaited: "
                    "give it a coroutine (call the async function), a Task, a Future or another awaitable"
                )
            return await value

        value = wait_for(self._runner, main())
        return None if line.rstrip().endswith(";") else value  # as with IPython's own %time

    async def _run_body(self, arguments: ArunArguments, body: Body) -> Any:
        task = asyncio.current_task()
        if arguments.name is not None and task is not None:
            task.set_name(arguments.name)
        loop = asyncio.get_running_loop()
        debug = loop.get_debug()
        if arguments.debug:
            loop.set_debug(True)
        try:
            with self._progress(arguments):
                async with asyncio.timeout(arguments.timeout) as timeout, self._scope(arguments):
                    value = await run_body(body, self.shell.user_ns)
        except TimeoutError as exc:
            if timeout.expired():
                message = f"the cell did not end within {arguments.timeout} seconds and was cancelled"
                raise TimeoutError(message) from exc.__cause__
            raise
        finally:
            if arguments.debug and loop.get_debug():  # else the cell has turned it off
                loop.set_debug(debug)
        return self._deliver(arguments, value)

    def _run_in_background(self, arguments: ArunArguments, body: Body) -> BackgroundCell | None:
        if arguments.progress:
            require_tqdm()

        async def main() -> Any:
            value = await self._run_body(arguments._replace(output=None), body)
            if value is not None:
                display(value)
            if not self._runner.current.awaits:  # they may be those of the cell that awaits at this moment
                show_figures(self.shell)
            return value

        origin = origin_of(contextvars.copy_context())
        name = arguments.name or ("background" if origin is None else origin.label)
        coro: Any = main()
        coro.__qualname__ = "%%arun --background"  # what tables and reports call its function
        task = self._runner.current.tasks.start(coro, name=name)
        cell = BackgroundCell(task, live=hasattr(self.shell, "kernel"))
        return self._deliver(arguments, cell)  # type: ignore[no-any-return]

    def _progress(self, arguments: ArunArguments) -> AbstractContextManager[object]:
        shown = arguments.progress and has_audience(self.shell)
        return Progress(self._runner.current.tasks) if shown else nullcontext()

    def _scope(self, arguments: ArunArguments) -> AbstractAsyncContextManager[object]:
        return Scope(self._runner.current.tasks.watch) if arguments.scope else nullcontext()

    def _run_fresh(self, arguments: ArunArguments, body: Body) -> Any:
        main: Coroutine[Any, Any, Any] = self._run_body(arguments._replace(debug=False), body)
        return run(main, debug=arguments.debug or None)

    def _deliver(self, arguments: ArunArguments, value: Any) -> Any:
        if arguments.output is None:
            return value
        self.shell.user_ns[arguments.output] = value
        return None
