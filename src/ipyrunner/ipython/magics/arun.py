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
from IPython.core.magic_arguments import argument
from IPython.display import display

from ...aio.introspection.exceptions import add_note, notes_of
from ...aio.introspection.task_origin import origin_of
from ...aio.runner import run
from ...aio.tasks.safe_names import in_seconds
from ...aio.tasks.task_scope import Scope
from ...audience import has_audience
from ...cells.portals import wait_for
from ...notebook import NotebookRunner
from ..arun_options import ARUN, ArunArguments, MagicOptions, without_comment
from ..run_cell import Cells
from ..top_level_await import Body, compile_body, compile_expression, evaluate, is_statement, run_body
from .arunner_status import Status
from .background_cell import BackgroundCell, show_figures
from .progress_bar import Progress, require_tqdm
from .tasks_table import cancelled, to_cancel

__all__ = ["ACTIONS", "ARUNNER", "RunnerMagics"]

ACTIONS = ("status", "restart", "close", "leave")
ARUNNER = MagicOptions(
    "%arunner",
    ("%arunner [status|restart|close|leave]",),
    argument(
        "action",
        nargs="?",
        default="status",
        choices=ACTIONS,
        help="status (default): show the event loop, its tasks and its ContextVars; restart: cancel all tasks, wait "
        "for their clean-up, close servers and make a new loop, without the ContextVars that cells have set; close: "
        "like restart, but make the new loop at the next cell; leave: run the next cells in a new main task. Use it if "
        "a task group, cancel scope or timeout of an earlier cell is still open, cancels every cell, and no variable "
        "refers to it any more",
    ),
)


@magics_class
class RunnerMagics(Magics):
    """The magics of the extension."""

    def __init__(self, shell: Any, runner: NotebookRunner, cells: Cells) -> None:
        super().__init__(shell)
        self._runner = runner
        self._cells = cells

    @ARUN
    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def arun(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run async code on the notebook's event loop.

        `%arun EXPRESSION` awaits the expression and returns the result. It takes no
        options:

            x = %arun fetch(url)

        Use it in cells without `await`, and in functions that are not async and that
        such cells call. In a cell with `await` it works after
        `await greenback.ensure_portal()`, or with
        `%config NotebookRunner.nested = True`.

        `%%arun [options]` as the first line of a cell runs the whole cell in the
        event loop, so that code which needs a running loop works there, with or
        without `await`. The value of the last line is displayed; a coroutine or a
        task is awaited first. IPython's own syntax (`!ls`, `%pwd`, `name?`) works in
        the cell.

            %%arun --timeout 10
            pages = [fetch(url) for url in urls]
            asyncio.gather(*pages)
        """
        if cell is None:
            return self._run_expression(line, local_ns)
        arguments = ArunArguments.parse(self.shell.var_expand(without_comment(line)))
        if arguments.help:
            ARUN.show_help(self.arun)
            return None
        if arguments.concurrent and self._runner.why_not_concurrent:
            raise UsageError(f"%%arun --concurrent: {self._runner.why_not_concurrent}")
        if arguments.trace:
            from .timeline.cell_trace import file_of

            arguments = arguments._replace(trace=file_of(arguments.trace))
        body = compile_body(self.shell, f"%%arun {line}".rstrip(), cell)
        if self._cells.takes_coroutine():
            return self._run_body(arguments, body)
        if arguments.fresh:
            return self._run_fresh(arguments, body)
        self._runner.check_owner()  # before there are coroutines, which nobody would await
        if arguments.background:
            return self._run_in_background(arguments, body)
        context = contextvars.copy_context() if arguments.context == "copy" or arguments.concurrent else None
        return self._runner.run(self._run_body(arguments, body), context=context)

    @ARUNNER
    @line_magic
    def arunner(self, line: str) -> Status | None:
        """Show, restart or close the notebook's event loop.

        The variables of the notebook stay in any case.
        """
        arguments = ARUNNER.parse(self.arunner, without_comment(line))
        if arguments.help:
            ARUNNER.show_help(self.arunner)
            return None
        action = arguments.action
        if action == "status":
            return Status.of(self._runner)
        if action == "restart":
            started = to_cancel(self._runner)
            self._runner.restart()
            print(f"{cancelled(started)}; made a new event loop")
        elif action == "leave":
            self._runner.leave()
            print(
                "ipyrunner: the next cell runs in a new main task. Task groups that earlier cells have entered stay "
                "open, and their tasks go on."
            )
        elif self._runner.present is None:
            print("no event loop to close: the next cell gets a new one")
        else:
            started = to_cancel(self._runner)
            self._runner.close()
            print(f"{cancelled(started)}; closed the event loop. The next cell gets a new one")
        return None

    def _run_expression(self, line: str, local_ns: dict[str, Any] | None) -> Any:
        if line.strip() in ("-h", "--help"):
            ARUN.show_help(self.arun)
            return None
        if not line.strip():
            raise UsageError(
                "%arun needs an expression, such as %arun fetch(url). To run a whole cell, begin it with %%arun"
            )
        if line.lstrip().startswith("--"):
            raise _no_options()
        expression = line.strip().rstrip(";")
        try:
            code = compile_expression(self.shell, expression)
        except SyntaxError:
            if line.lstrip().startswith("-"):  # -o, say
                raise _no_options() from None
            if is_statement(expression):
                raise UsageError(
                    "%arun takes one expression. For an assignment write `x = %arun EXPRESSION`; for statements begin "
                    "the cell with %%arun"
                ) from None
            raise
        self._runner.check_owner()
        namespace = self.shell.user_global_ns
        if local_ns is not None and local_ns is not self.shell.user_ns:
            namespace = {**namespace, **local_ns}

        async def main() -> Any:
            value = await evaluate(code, namespace)
            if code.co_flags & inspect.CO_COROUTINE:
                return value
            if not inspect.isawaitable(value):
                raise TypeError(
                    f"%arun awaits the value of its expression, but {type(value).__name__!r} cannot be awaited. "
                    "Pass a coroutine (the call of an async function), a Task, a Future or another awaitable"
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
        cancelled: asyncio.CancelledError | None = None
        expired: TimeoutError | None = None
        if arguments.debug:
            loop.set_debug(True)
        try:
            with self._progress(arguments), self._trace(arguments), self._profile(arguments):
                async with asyncio.timeout(arguments.timeout) as timeout:
                    try:
                        async with self._scope(arguments):
                            value = await run_body(body, self.shell.user_ns)
                    except asyncio.CancelledError as exc:
                        cancelled = exc
                        raise
        except TimeoutError as exc:
            if cancelled is not None and exc.__cause__ is cancelled and timeout.expired():
                message = f"the cell was cancelled because it did not end within {in_seconds(arguments.timeout or 0)}"
                # As with an interrupt: one traceback, of the place where the cell was.
                expired = TimeoutError(message).with_traceback(cancelled.__traceback__)
                for note in notes_of(cancelled):
                    add_note(expired, note)
                raise expired from None
            raise
        finally:
            cancelled = expired = None  # their tracebacks hold this frame
            if arguments.debug and loop.get_debug():  # else the cell has turned it off
                loop.set_debug(debug)
        return self._deliver(arguments, value)

    def _run_in_background(self, arguments: ArunArguments, body: Body) -> BackgroundCell | None:
        if arguments.progress:
            require_tqdm()
        if arguments.profile:
            from .profile.cell_profile import require_profiler

            require_profiler()

        async def main() -> Any:
            value = await self._run_body(arguments._replace(output=None), body)
            if value is not None:
                display(value)
            if not self._runner.current.awaits:  # they may be those of the cell that awaits at this moment
                show_figures(self.shell)
            return value

        name = arguments.name or _label("background")
        coro: Any = main()
        coro.__qualname__ = "%%arun --background"  # what tables and reports call its function
        task = self._runner.current.tasks.start(coro, name=name)
        cell = BackgroundCell(task, live=hasattr(self.shell, "kernel"))
        return self._deliver(arguments, cell)  # type: ignore[no-any-return]

    def _progress(self, arguments: ArunArguments) -> AbstractContextManager[object]:
        shown = arguments.progress and has_audience(self.shell)
        return Progress(self._runner.current.tasks) if shown else nullcontext()

    def _profile(self, arguments: ArunArguments) -> AbstractContextManager[object]:
        if not arguments.profile:
            return nullcontext()
        from .profile.cell_profile import CellProfile

        return CellProfile(self.shell, self._runner.current.tasks, _label("the cell"))

    def _trace(self, arguments: ArunArguments) -> AbstractContextManager[object]:
        if arguments.trace is None:
            return nullcontext()
        from .timeline.cell_trace import CellTrace

        return CellTrace(self.shell, self._runner.current, arguments.trace or None, arguments.name)

    def _scope(self, arguments: ArunArguments) -> AbstractAsyncContextManager[object]:
        return Scope(self._runner.current.tasks.watch) if arguments.scope else nullcontext()

    def _run_fresh(self, arguments: ArunArguments, body: Body) -> Any:
        main: Coroutine[Any, Any, Any] = self._run_body(arguments._replace(debug=False), body)
        try:
            return run(main, debug=arguments.debug or None)
        finally:
            main.close()  # if it was refused, in a subshell, say

    def _deliver(self, arguments: ArunArguments, value: Any) -> Any:
        if arguments.output is None:
            return value
        self.shell.user_ns[arguments.output] = value
        return None


def _no_options() -> UsageError:
    return UsageError("%arun takes an expression and no options. To use options, begin the cell with %%arun")


def _label(default: str) -> str:
    """Return the name of the cell whose code runs, such as ``In[5]``."""
    origin = origin_of(contextvars.copy_context())
    return default if origin is None else origin.label
