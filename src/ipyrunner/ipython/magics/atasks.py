"""``%atasks``: see, end and wait for the tasks of the notebook's loop."""

from __future__ import annotations

import asyncio
import contextvars
import io
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from ...aio.introspection.private_api import is_task, waits_for
from ...aio.introspection.running_loop import running_loop
from ...aio.introspection.wait_graph import awaits
from ...aio.tasks.safe_names import label_of, name_of, repr_of, short
from ...aio.tasks.task_records import Ended, Started
from ...notebook import NotebookRunner
from ..arun_options import seconds, unquoted
from ..loop_reports import name_file
from ..tracebacks import MACHINERY
from .tasks_table import TaskInfo, TaskTable, states

__all__ = ["TaskMagics", "table"]


def table(shell: InteractiveShell, runner: NotebookRunner, *, ended: bool = False) -> TaskTable:
    """Return the tasks of *runner*; with *ended* also the last ones that have ended. Makes no loop."""
    present = runner.present
    entries: list[Started | Ended] = [] if present is None else [*present.tasks.started()]
    if ended and present is not None:
        entries += present.tasks.ended()
    return TaskTable(entries, partial(name_file, shell))


@magics_class
class TaskMagics(Magics):
    """The magic for tasks."""

    def __init__(self, shell: Any, runner: NotebookRunner) -> None:
        super().__init__(shell)
        self._runner = runner

    @magic_arguments()
    @argument("-a", "--all", action="store_true", help="also the last 200 tasks that have ended")
    @argument("--timeout", type=seconds, metavar="SECONDS", help="for wait: raise TimeoutError after SECONDS; the "
              "tasks go on")  # fmt: skip
    @argument("action", nargs="?", choices=["show", "cancel", "wait", "background"], help="show: what one task awaits, "
              "down to the innermost call; cancel: cancel tasks, or cells; wait: block until they have ended; "
              "background: let cells that await go on in the background")  # fmt: skip
    @argument(
        "tasks",
        nargs="*",
        type=unquoted,
        metavar="N|NAME|In[N]|all",
        help="numbers or names of tasks, cells that await; 'all' but the cell's own",
    )
    @line_magic
    def atasks(self, line: str) -> TaskTable | None:
        """List, show, cancel and wait for the tasks of the notebook's event loop.

        `%atasks` is a table: number, name, state, the cell that started the task, its age in seconds, and the innermost
        line of your own code that it waits in. `ipyrunner.tasks()` returns the same as a list.

            %atasks -a
            %atasks show 3
            %atasks cancel 3 ticker
            %atasks wait 4 5 --timeout 10
            %atasks background In[6]

        Alone in a cell it is answered at once, also while another cell awaits (not `wait`, which blocks; with
        ipykernel 7 and IPython 9.8).
        """
        arguments = parse_argstring(self.atasks, line)
        if arguments.timeout is not None and arguments.action != "wait":
            raise UsageError("%atasks: --timeout belongs to wait: %atasks wait 3 --timeout 10")
        if arguments.action is None:
            return table(self.shell, self._runner, ended=arguments.all)
        if not arguments.tasks:
            raise UsageError(f"%atasks {arguments.action} needs numbers or names of tasks, or all: see %atasks")
        if arguments.action == "show":
            for word in arguments.tasks:
                for info in self._find(word, ended=True):
                    self._show(info)
            return None
        found = {
            info.number: info for word in arguments.tasks for info in self._find(word, ended=arguments.action == "wait")
        }
        tasks = [info.task for info in found.values() if info.task is not None]
        for info in found.values():
            if info.task is None:
                print(f"{short(info.name)}: {info.state}")
        if arguments.action == "cancel":
            self._cancel(tasks)
            return None
        if arguments.action == "background":
            self._background(tasks)
            return None
        self._wait(tasks, arguments.timeout)
        return None

    def _find(self, word: str, *, ended: bool) -> Sequence[TaskInfo]:
        infos = [*table(self.shell, self._runner, ended=ended)]
        if word == "all":
            return [info for info in infos if info.task is not None and info.state != "running"]
        cells = [] if self._runner.present is None else self._runner.present.interrupts.runs()
        mains = [run.task for run in cells if run.name == word]
        found = [info for info in infos if word == str(info.number)] or [info for info in infos if word == info.name]
        found = found or [info for info in infos if info.task is not None and info.task in mains]
        if (
            not found
            and not ended
            and any(word in (str(i.number), i.name) for i in table(self.shell, self._runner, ended=True))
        ):
            raise UsageError(f"%atasks: the task {word} has ended already: %atasks -a lists it")
        if not found:
            raise UsageError(
                f"%atasks: there is no task {word!r}: %atasks lists numbers and names, -a also what has ended"
            )
        return found

    def _background(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            try:
                self._runner.background(task)
            except RuntimeError:
                raise UsageError(
                    f"%atasks background is for cells that await, and {label_of(task)} is none: it runs in the "
                    "background already"
                ) from None
            print(f"{label_of(task)} goes on in the background; %atasks lists it")

    @staticmethod
    def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            try:
                task.cancel()
            except Exception as exc:  # RecursionError: tasks that wait for each other in a circle
                print(f"{label_of(task)} cannot be cancelled ({type(exc).__name__}); `%arunner restart` ends it")

    def _wait(self, tasks: list[asyncio.Task[Any]], timeout: float | None) -> None:
        if running_loop() is not None:
            raise UsageError(
                "%atasks wait blocks, and this cell runs in the notebook's loop: put it into a cell without await, or "
                "write `await asyncio.wait([task])`"
            )
        if tasks:
            done, late = self._runner.run(asyncio.wait(tasks, timeout=timeout), context=contextvars.copy_context())
            for task in sorted(done, key=name_of):
                print(f"{label_of(task)}: {states(task)}")
            if late:
                names = ", ".join(sorted(map(label_of, late)))
                raise TimeoutError(f"after {timeout} seconds still running: {names}. They go on; see %atasks")

    def _show(self, info: TaskInfo) -> None:
        print(repr(info))
        task = info.task
        if task is None:
            print(f"  {info.waits_for or info.state}")
            return
        print("  awaits, outermost first:")
        for step in awaits(task):
            if not step.filename.startswith(MACHINERY):
                print(f"    {info.place(step)}")
        future = waits_for(task)
        if is_task(future):
            print(f"  which waits for the task {label_of(future)}")
        elif future is not None:
            print(f"  which waits for {repr_of(future)}")
        call_graph = getattr(asyncio, "print_call_graph", None)  # since 3.14
        if call_graph is not None:
            text = io.StringIO()
            with suppress(BaseException):  # a task of the user's may raise anything, SystemExit too
                call_graph(task, file=text)
            for line in text.getvalue().rstrip().splitlines():
                print(short(line, 200))  # it has the names of tasks
