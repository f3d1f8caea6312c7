"""``%atasks``: list, show, cancel and wait for the tasks of the notebook's loop."""

from __future__ import annotations

import asyncio
import contextvars
import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument

from ...aio.introspection.private_api import is_task, waits_for
from ...aio.introspection.running_loop import running_loop
from ...aio.introspection.task_state import cancel
from ...aio.introspection.wait_graph import awaits
from ...aio.loops.threadsafe_call import hand_over
from ...aio.sigint.handlers import on_main_thread
from ...aio.tasks.safe_names import in_seconds, label, label_of, name_of, repr_of, short
from ...aio.tasks.task_records import Ended, Started
from ...aio.tasks.waits.deadlocks import Waits
from ...audience import has_audience
from ...cells.deadlock_notes import deadlock_lines
from ...notebook import NotebookRunner
from ..arun_options import MagicOptions, seconds, unquoted, without_comment
from ..tracebacks import MACHINERY, name_file
from .tasks_table import TaskInfo, TaskTable, age, ending, few
from .tasks_tree import Drawing, TaskTree

__all__ = ["ACTIONS", "ATASKS", "TaskMagics", "table"]

# How many tasks the table looks at for deadlocks.
_MOST = 10_000

ACTIONS = ("tree", "show", "cancel", "wait", "background")
ATASKS = MagicOptions(
    "%atasks",
    ("%atasks [-a | --live]", "%atasks tree", "%atasks show|cancel|background TASK ...",
     "%atasks wait [--timeout SECONDS] TASK ..."),
    argument("-a", "--all", action="store_true", help="also list the last 200 tasks that have ended"),
    argument("--live", action="store_true", help="show the tasks as they are at the moment, as a tree with buttons, "
             "also while a cell awaits (needs anywidget; in a terminal a table, which needs rich)"),
    argument("--timeout", type=seconds, metavar="SECONDS", help="for wait: raise TimeoutError after SECONDS. The "
             "tasks are not cancelled"),
    argument("action", nargs="?", choices=ACTIONS, help="tree: which cell has started which "
             "task, and what waits for what; show: where the task waits, call by call; cancel: cancel "
             "tasks, or cells that await; wait: block until the tasks have ended; background: let a cell that awaits "
             "go on in the background, so that the next cell can run"),
    argument("tasks", nargs="*", type=unquoted, metavar="TASK", help="number or name of a task, In[N] for a cell that "
             "awaits, or all, which leaves out the task of the cell itself"),
)  # fmt: skip


def table(
    shell: InteractiveShell,
    runner: NotebookRunner,
    *,
    ended: bool = False,
    deadlocks: bool = False,
    but: asyncio.Task[Any] | None = None,
) -> TaskTable:
    """Return the tasks of *runner* except *but*; with *ended* also the last ones that have ended. Makes no loop.

    *deadlocks*: the table also lists deadlocks.
    """
    present = runner.present
    started = [] if present is None else present.tasks.started()
    entries: list[Started | Ended] = [entry for entry in started if entry.task is not but]
    if ended and present is not None:
        entries += present.tasks.ended()
    naming, notes = partial(name_file, shell), list[str]()
    if deadlocks:
        notes = deadlock_lines(Waits([each.task for each in started], most=_MOST).deadlocks(), naming)
    return TaskTable(entries, naming, notes=notes)


@magics_class
class TaskMagics(Magics):
    """The magic for tasks."""

    def __init__(self, shell: Any, runner: NotebookRunner) -> None:
        super().__init__(shell)
        self._runner = runner
        # The live view, if there is one: it can be displayed more than once.
        self._view: Any = None

    def close(self) -> None:
        """End the live view."""
        if self._view is not None:
            self._view.close()

    @ATASKS
    @line_magic
    def atasks(self, line: str) -> object:
        """List the tasks of the event loop; show, cancel or wait for some of them.

        `%atasks` shows a table: each task's number, name and state, the cell that
        started it, its age, and the line of your code where it waits.
        `ipyrunner.tasks()` returns the same as a list.

            %atasks -a
            %atasks --live
            %atasks tree
            %atasks show 3
            %atasks cancel 3 ticker
            %atasks wait 4 5 --timeout 10
            %atasks background In[6]

        `%atasks tree` shows them below the cells that have started them; a task that
        another one waits for stands below that one. `%atasks` and `%atasks tree` also
        name deadlocks: tasks that wait for each other.

        With ipykernel 7 and IPython 9.8 it is answered at once even while another
        cell awaits, if it is alone in its cell. So with "Run All" it may be answered
        before the cells above it have run. `%atasks wait` blocks instead.
        """
        arguments = ATASKS.parse(self.atasks, without_comment(line))
        if arguments.help:
            ATASKS.show_help(self.atasks)
            return None
        if arguments.timeout is not None and arguments.action != "wait":
            raise UsageError("%atasks: --timeout is an option of wait, as in %atasks wait 3 --timeout 10")
        if arguments.live:
            if arguments.action is not None or arguments.all:
                raise UsageError("%atasks --live stands alone: leave out --live, or what stands beside it")
            return self._show_live()
        if arguments.action is None:
            return table(self.shell, self._runner, ended=arguments.all, deadlocks=True)
        if arguments.action == "tree":
            if arguments.tasks or arguments.all:
                raise UsageError("%atasks tree shows all tasks that have not ended, and takes no TASK and no option")
            return self._tree()
        if not arguments.tasks:
            raise UsageError(
                f"%atasks {arguments.action} needs numbers or names of tasks, or all. %atasks lists the tasks"
            )
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
                print(info.ending)
        if arguments.action == "cancel":
            self._on_loop(partial(self._cancel, tasks))
            return None
        if arguments.action == "background":
            self._on_loop(partial(self._background, tasks))
            return None
        self._wait(tasks, arguments.timeout)
        return None

    def _show_live(self) -> object:
        make_table = partial(table, self.shell, self._runner)
        if not hasattr(self.shell, "kernel"):
            from .live.terminal import show_live

            return None if running_loop() is None and show_live(self._runner, make_table) else make_table()
        if not has_audience(self.shell):
            return make_table()  # nbconvert's HTML shows no such widget
        try:
            from .live.view import LiveView
        except ImportError:
            raise UsageError(
                "%atasks --live needs anywidget, which is not installed: run `%pip install anywidget`, reload the "
                "page in the browser, and run this cell again. Or use %atasks"
            ) from None
        if self._view is None or not self._view.is_open:
            self._view = LiveView(self.shell, self._runner, make_table)
        return self._view

    def _tree(self) -> TaskTree:
        present = self._runner.present
        started = [] if present is None else present.tasks.started()
        mains = [] if present is None else [run.task for run in present.interrupts.runs() if run.task is not None]
        return TaskTree(Drawing(started, mains, partial(name_file, self.shell)).lines)

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
            raise UsageError(f"%atasks: the task {short(word)} has already ended. %atasks show {short(word)} says how")
        if not found:
            raise UsageError(f"%atasks: {self._why_not(word)}")
        return found

    def _on_loop(self, act: Callable[[], None]) -> None:
        """Call *act* on the loop's thread, also from a cell of a subshell, which has a thread of its own."""
        present = self._runner.present
        if present is None or on_main_thread() or present.loop.is_closed():
            act()
            return
        failed: list[BaseException] = []

        def call() -> None:
            try:
                act()
            except BaseException as exc:  # for the subshell's cell
                failed.append(exc)

        if not hand_over(present.loop, call, patience=self._runner.interrupt_grace):
            raise UsageError(
                "%atasks: the event loop does not answer, since a cell or a task keeps the main thread busy. Nothing "
                "was done. Interrupt that cell, or try again later"
            )
        for exc in failed:
            raise exc

    def _why_not(self, word: str) -> str:
        """Return why there is no task *word*, and what to write instead."""
        if re.fullmatch(r"In\[\d+\]", word):
            return f"{word} does not await at this moment. %atasks lists the tasks that cells have started"
        infos = table(self.shell, self._runner, ended=True)
        name = next((info.name for info in infos if word in info.name.split()), None)
        if name is not None and name != word:
            return f"there is no task {short(word)!r}. A name with spaces has to be in quotes, such as {short(name)!r}"
        return (
            f"there is no task {short(word)!r}. %atasks lists the tasks that run, %atasks -a also those that have ended"
        )

    def _background(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            try:
                self._runner.background(task)
            except RuntimeError:
                raise UsageError(
                    f"%atasks background is for cells that await. {label_of(task)} is a task that already runs in the "
                    "background"
                ) from None
            print(f"{label_of(task)} goes on in the background; %atasks lists it")

    @staticmethod
    def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
        cancelled = []
        for task in tasks:
            if (exc := cancel(task, "cancelled by %atasks cancel")) is None:
                cancelled.append(label_of(task))
            else:
                print(
                    f"{label_of(task)} cannot be cancelled ({type(exc).__name__}). `%arunner restart` closes the loop "
                    "without it"
                )
        if cancelled:
            print(f"cancelling {len(cancelled)} task{'s' if len(cancelled) > 1 else ''}{few(cancelled)}")
        elif not tasks:
            print("no tasks to cancel")

    def _wait(self, tasks: list[asyncio.Task[Any]], timeout: float | None) -> None:
        self._runner.check_owner()
        if running_loop() is not None:
            raise UsageError(
                "%atasks wait blocks, so it cannot be used in a cell with await: put it into a cell without await, or "
                "write `await asyncio.wait([task])` here"
            )
        if tasks:
            done, late = self._runner.run(asyncio.wait(tasks, timeout=timeout), context=contextvars.copy_context())
            for task in sorted(done, key=name_of):
                print(f"{label_of(task)} {ending(task)}")
            if late and timeout is not None:
                names = ", ".join(sorted(map(label_of, late)))
                raise TimeoutError(
                    f"still running after {in_seconds(timeout)}: {short(names, 1000)}. They go on; %atasks lists them"
                )

    def _show(self, info: TaskInfo) -> None:
        task = info.task
        if task is None:
            print(info.ending)
            return
        old = "" if info.age is None else f", {age(info.age)} old"
        print(f"{label(info.name)} (task {info.number}, {info.place_of_start}) is {info.state}{old}")
        print("  It is in these calls, the outermost first:")
        for step in awaits(task):
            if not step.filename.startswith(MACHINERY):
                print(f"    {info.place(step)}")
        future = waits_for(task)
        if is_task(future):
            print(f"  which waits for the task {label_of(future)}")
        elif future is not None:
            # Without the callbacks, which are the task's own and ours.
            shown = repr_of(future, 10_000)
            if type(future) is asyncio.Future:
                shown = re.sub(r" cb=\[.*\](?= created at |>$)", "", shown)
            print(f"  which waits for {short(shown, 300)}")
        call_graph = getattr(asyncio, "print_call_graph", None)  # since 3.14
        if call_graph is not None:
            text = io.StringIO()
            with suppress(BaseException):  # a task of the user's may raise anything, SystemExit too
                call_graph(task, file=text)
            for line in text.getvalue().rstrip().splitlines():
                print(short(line, 200))  # the names of tasks in it may be anything
