"""Puts the parts in place on one shell, and removes them."""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from IPython.core.events import EventManager

from .aio.exit_and_fork import at_exit
from .aio.introspection.running_loop import running_loop
from .aio.sigint.handlers import on_main_thread
from .aio.sigint.watchdog_thread import watchdog
from .cells.first_cell import FirstCell
from .cells.inner_cells import InnerCells
from .cells.portals import wait_for
from .installation import Installation
from .ipykernel.comms import Comms
from .ipykernel.kernel_loop import kernel_loop
from .ipykernel.output_routing import Routing
from .ipykernel.requests.cell_record import present_record
from .ipykernel.requests.cell_replies import CellReplies
from .ipykernel.requests.concurrent_requests import ConcurrentRequests, missing
from .ipykernel.requests.interrupt_requests import InterruptRequests
from .ipykernel.requests.request_sigint import Guard
from .ipykernel.sigterm import Termination
from .ipykernel.thread_sockets import thread_fds
from .ipython.hook_errors import Calling
from .ipython.input import Asking
from .ipython.loop_reports import Reports
from .ipython.magics.arun import RunnerMagics
from .ipython.magics.atasks import TaskMagics, table
from .ipython.magics.tasks_table import TaskTable, cancelled, to_cancel
from .ipython.run_cell import Cells
from .ipython.tracebacks import Tracebacks, name_file, pointing_records
from .notebook import NotebookRunner, require_main_thread

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .ipython.magics.timeline.trace import Trace

__all__ = ["ask", "await_", "get_runner", "load", "load_for_kernel", "runner_of", "tasks", "trace", "unload"]

Part: TypeAlias = "Callable[[Extension], None]"
_T = TypeVar("_T")
_extensions: weakref.WeakKeyDictionary[Any, Extension] = weakref.WeakKeyDictionary()


def load(shell: InteractiveShell) -> None:
    """Load the extension into *shell*, unless it is loaded already. RuntimeError in threads other than the main one."""
    if not on_main_thread():
        raise RuntimeError(
            "ipyrunner can only be loaded in the main thread, and this cell runs in another one (a subshell's): run "
            "`%load_ext ipyrunner` in a cell of the notebook itself"
        )
    if shell not in _extensions:
        _extensions[shell] = Extension(shell)


def load_for_kernel(shell: InteractiveShell) -> None:
    """Load the extension as the kernel does: that it is loaded is no news to the notebook that loads it again."""

    def make_silent(original: Callable[[str], str | None]) -> Callable[[str], str | None]:
        # What IPython returns, "already loaded", %load_ext prints.
        return lambda module_str: None if module_str == __package__ else original(module_str)

    manager: Any = shell.extension_manager
    manager.load_extension(__package__)
    _extensions[shell].replace(manager, "load_extension", make_silent)


def unload(shell: InteractiveShell) -> None:
    """Close the runner of *shell* and restore the shell, if it is loaded. RuntimeError while the loop runs."""
    extension = _extensions.get(shell)
    if extension is not None:
        extension.runner.refuse_inside("%unload_ext ipyrunner")
        del _extensions[shell]
        extension.unload()


def runner_of(shell: InteractiveShell) -> NotebookRunner | None:
    """Return the runner of *shell*, None if the extension is not loaded. From any thread."""
    extension = _extensions.get(shell)
    return None if extension is None else extension.runner


def get_runner() -> NotebookRunner:
    """Return the runner of the present shell, see ``ipyrunner.get_runner``."""
    return _present().runner


def _present() -> Extension:
    from IPython.core.getipython import get_ipython

    require_main_thread()
    shell = get_ipython()
    extension = None if shell is None else _extensions.get(shell)
    if extension is None:
        raise RuntimeError(
            "ipyrunner is not loaded here: run `%load_ext ipyrunner` in a cell. Outside IPython use asyncio.run() "
            "or ipyrunner.Runner"
        )
    return extension


async def ask(prompt: object, *, password: bool) -> str:
    """Ask the user of the present notebook, see ``ipyrunner.input``."""
    return await _present().asking.ask(prompt, password=password)


def await_(awaitable: Awaitable[_T]) -> _T:
    """Wait in the present notebook, see ``ipyrunner.await_``."""
    return wait_for(get_runner(), awaitable)


def tasks(*, ended: bool = False) -> TaskTable:
    """Return the tasks of the present notebook, see ``ipyrunner.tasks``."""
    extension = _present()
    return table(extension.shell, extension.runner, ended=ended)


def trace(file: str | os.PathLike[str] | None) -> Trace:
    """Return a trace of the present notebook's loop, see ``ipyrunner.trace``."""
    from .ipython.magics.timeline.trace import Trace

    extension = _present()
    return Trace(lambda: extension.runner.current, partial(name_file, extension.shell), file=file)


class Extension(Installation):
    """Everything that is changed on one shell."""

    # Set by some parts, used by others.
    calling: Calling
    cells: Cells
    stock_should_run_async: Callable[..., bool]
    termination: Termination

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell, NotebookRunner(parent=shell))
        self.asking = Asking(shell)
        try:
            for install in PARTS:
                install(self)
        except BaseException:
            self.restore()
            raise

    def unload(self) -> None:
        """Close the runner, and say which tasks that has cancelled; restore what was there, even if closing fails."""
        started = to_cancel(self.runner)
        try:
            self.runner.close()
        finally:
            self.restore()
        if started:
            print(f"{cancelled(started)}; closed the event loop")

    def append(self, name: str, item: object) -> None:
        """Append *item* to the shell's list *name*, until :meth:`restore`."""
        getattr(self.shell, name).append(item)
        self.undo(partial(self.remove, name, item))

    def remove(self, name: str, item: object) -> None:
        """Remove *item* from the present list: the user may have replaced the list, or removed *item* already."""
        items = getattr(self.shell, name)
        items[:] = [other for other in items if other is not item]


def _loops(extension: Extension) -> None:
    host = kernel_loop(extension.shell)
    extension.undo(lambda: _leave_current_loop(kernel_loop(extension.shell)))
    if host is not None and host is running_loop():
        extension.runner.attach(host, thread_fds=thread_fds(extension.shell))


def _leave_current_loop(host: asyncio.AbstractEventLoop | None) -> None:
    """Make *host* the current loop instead of the notebook's, which is closed, unless the user has set another one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # so that get_event_loop() does not make a loop
        try:
            current = asyncio.get_event_loop()
        except (RuntimeError, DeprecationWarning):  # there is none
            current = None
    if current is None or current.is_closed():
        asyncio.set_event_loop(host)


def _sigint(extension: Extension) -> None:
    extension.undo(watchdog.stop)
    extension.runner.outside = guard = Guard(extension.shell)
    extension.undo(guard.restore)
    guard.begin(extension.runner, extension.in_charge)


def _end_of_process(extension: Extension) -> None:
    shell, runner = extension.shell, extension.runner
    extension.termination = termination = Termination(
        lambda: kernel_loop(shell), timeout=lambda: runner.shutdown_timeout, in_kernel=hasattr(shell, "kernel")
    )
    extension.undo(termination.restore)

    def shutdown() -> None:
        with termination.cleaning_up() as elapsed:
            try:
                runner.shutdown(elapsed)
            finally:
                extension.audience.tell(runner.log)

    def end() -> None:
        shutdown()
        termination.finish()

    def close_before(original: Callable[[], None]) -> Callable[[], None]:
        def close_before() -> None:
            runner.shutdown()
            original()

        return close_before

    runner.when_host_stops = shutdown
    extension.undo(at_exit(end))
    if hasattr(shell, "_atexit_once"):
        # Private, since IPython 8.0: a terminal clears the user's variables there, before atexit's functions run.
        # Without it tasks are also cleaned up at exit, only later.
        extension.replace(shell, "_atexit_once", close_before)


def _cells(extension: Extension) -> None:
    shell, runner = extension.shell, extension.runner
    routing = Routing(shell)
    extension.undo(routing.restore)
    runner.show = Reports(extension).show
    runner.is_logged = lambda: extension.audience.is_logged()
    inner = InnerCells()
    tracebacks = Tracebacks(shell, runner, inner)
    extension.calling = calling = Calling(shell)
    extension.cells = cells = Cells(extension, routing, tracebacks, inner, calling)
    extension.stock_should_run_async = stock = shell.should_run_async
    extension.replace(shell, "should_run_async", cells.should_run_async)
    extension.replace(shell, "run_cell_async", lambda original: cells.run_cell_async(original, stock))
    extension.replace(shell, "showtraceback", tracebacks.showtraceback)
    if hasattr(shell.InteractiveTB, "get_records"):  # without it the arrow may point at a clean-up
        extension.replace(shell.InteractiveTB, "get_records", pointing_records)
    extension.replace(shell, "transform_cell", calling.transform)
    extension.replace(shell, "transform_ast", lambda original: calling.transform(cells.before_transform(original)))
    if hasattr(shell, "_user_obj_error"):
        # Private, since IPython 1. Otherwise the reply is lost if the error of a user expression cannot be shown.
        extension.replace(shell, "_user_obj_error", calling.user_obj_error)
    if hasattr(shell, "_format_exception_for_storage"):
        # Private, since IPython 9.2: formats what showtraceback has shown for the history. If it raises, the cell ends.
        extension.replace(shell, "_format_exception_for_storage", tracebacks.stored)


def _magics(extension: Extension) -> None:
    shell, runner = extension.shell, extension.runner
    extension.append("configurables", runner)
    tasks = TaskMagics(shell, runner)
    extension.undo(tasks.close)
    for magics in (RunnerMagics(shell, runner, extension.cells), tasks):
        extension.undo(partial(extension.remove, "configurables", magics))  # Magics register themselves
        before = {kind: dict(present) for kind, present in shell.magics_manager.magics.items()}
        shell.register_magics(magics)
        extension.undo(partial(_unregister, shell, magics, before))


def _unregister(shell: InteractiveShell, magics: Any, before: dict[str, dict[str, Any]]) -> None:
    """Restore the magics that were there before, unless somebody has defined others of the same names since."""
    for kind, names in magics.magics.items():
        present = shell.magics_manager.magics[kind]
        for name in names:
            if getattr(present.get(name), "__self__", None) is magics:
                del present[name]
                if name in before[kind]:
                    present[name] = before[kind][name]


def _requests(extension: Extension) -> None:
    shell, runner, cells = extension.shell, extension.runner, extension.cells
    extension.undo(Comms(shell, runner).restore)
    runner.why_not_concurrent = missing(shell)
    requests = ConcurrentRequests(
        getattr(shell, "kernel", None),
        runner,
        at_once=partial(cells.kinds.at_once, stock=extension.stock_should_run_async),
        count=cells.count,
    )
    extension.undo(requests.restore)
    extension.undo(CellReplies(shell, cells.count).restore)
    extension.undo(InterruptRequests(getattr(shell, "kernel", None), runner).restore)


def _event_hooks(extension: Extension) -> None:
    """Let the event hooks, which the kernel calls, see the notebook's loop as the running one."""
    shell, runner = extension.shell, extension.runner
    first_cell = FirstCell(shell, runner)

    def lend_to_hooks(original: Callable[..., None]) -> Callable[..., None]:
        is_ipythons = getattr(original, "__func__", None) is EventManager.trigger
        original = extension.calling.trigger(original)

        def trigger(event: str, *args: Any, **kwargs: Any) -> None:
            hooks = shell.events.callbacks.get(event)
            if event == "pre_execute":
                extension.cells.count.counted(present_record())
                extension.termination.renew()
            elif event == "post_execute":
                first_cell.end_if_over()
                extension.termination.renew()
            elif is_ipythons and hooks == []:  # as mostly, twice in each cell
                return
            # IPython's own hooks need no loop, and lending it would make a new one right after `%arunner close`.
            if all(map(_is_ipythons, hooks or ())) or not on_main_thread():
                original(event, *args, **kwargs)
            else:
                runner.lend(lambda: original(event, *args, **kwargs))

        return trigger

    extension.replace(shell.events, "trigger", lend_to_hooks)
    extension.undo(first_cell.end)


def _is_ipythons(hook: object) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(("IPython.", "ipykernel."))


def _room(module: str) -> Part:
    """Return the part that *module* puts in place. Nothing else uses it: it can be deleted, with its line below."""
    install: Part = import_module(f".{module}", __package__).install
    return install


# They are undone in reverse order, since some change what others before them have changed.
PARTS: tuple[Part, ...] = (
    _loops,
    _sigint,
    _end_of_process,
    _room("ipykernel.message_encoding"),
    _room("terminal.prompt"),
    _cells,
    _room("ipykernel.late_output"),
    _room("ipykernel.gui_loops"),
    _room("ipython.debugger"),
    _magics,
    _room("ipython.magics.timeit"),
    _room("ipython.magics.completion"),
    _requests,
    _event_hooks,
)
