"""Puts the parts in place on one shell, and takes them back."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .aio.exit_and_fork import at_exit
from .aio.introspection.running_loop import running_loop
from .aio.replacements import Replacement
from .aio.sigint.watchdog_thread import watchdog
from .aio.tasks.safe_names import describe
from .cells.first_cell import FirstCell
from .cells.inner_cells import InnerCells
from .cells.portals import wait_for
from .ipykernel.comms import Comms
from .ipykernel.gui_loops import Gui
from .ipykernel.kernel_loop import kernel_loop
from .ipykernel.late_output import Unwatched
from .ipykernel.output_routing import Routing
from .ipykernel.request_sigint import Guard
from .ipykernel.sigterm import Termination
from .ipython.debugger import debugger, leave_out_ours
from .ipython.hook_errors import Calling
from .ipython.input import Asking
from .ipython.loop_reports import Reports
from .ipython.magics.arun import RunnerMagics
from .ipython.magics.atasks import TaskMagics, table
from .ipython.magics.tasks_table import TaskTable
from .ipython.magics.timeit import Timing
from .ipython.run_cell import Cells
from .ipython.tracebacks import Tracebacks, pointing_records
from .notebook import NotebookRunner
from .terminal.prompt import Prompting

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["ask", "await_", "get_runner", "load", "runner_of", "tasks", "unload"]

_T = TypeVar("_T")
_extensions: weakref.WeakKeyDictionary[Any, Extension] = weakref.WeakKeyDictionary()


def load(shell: InteractiveShell) -> None:
    """Load the extension into *shell*; nothing if it is there. On the main thread, else RuntimeError."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "ipyrunner belongs to the main thread, and this cell runs on another one, a subshell's: run "
            "`%load_ext ipyrunner` in a cell of the notebook itself"
        )
    if shell not in _extensions:
        _extensions[shell] = Extension(shell)


def unload(shell: InteractiveShell) -> None:
    """Close the runner of *shell* and restore the shell; nothing if the extension is not loaded."""
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

    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "the notebook's runner belongs to the main thread, and this is another one: use "
            "asyncio.run_coroutine_threadsafe(coro, loop) with the loop of a cell, or ipyrunner.run(coro) here"
        )
    shell = get_ipython()
    extension = None if shell is None else _extensions.get(shell)
    if extension is None:
        raise RuntimeError("no notebook has ipyrunner loaded: run `%load_ext ipyrunner` first, or use ipyrunner.Runner")
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


class Extension:
    """Everything that is changed on one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        # What undoes each step, in the order of the steps.
        self._undo: list[Callable[[], object]] = []
        try:
            self._install()
        except BaseException:
            self._restore()
            raise

    def _install(self) -> None:
        shell, undo = self.shell, self._undo.append
        undo(lambda: _leave_current_loop(kernel_loop(shell)))
        undo(watchdog.stop)
        self._guard = Prompting(shell) if Prompting.fits(shell) else Guard(shell)
        undo(self._guard.restore)
        self.runner = NotebookRunner(parent=shell, outside=self._guard)
        host = kernel_loop(shell)
        if host is not None and host is running_loop():
            self.runner.attach(host)
        self._routing = Routing(shell)
        undo(self._routing.restore)
        self._unwatched = Unwatched(shell, self._routing)
        undo(self._unwatched.restore)
        self.runner.show = Reports(shell, self._unwatched).show
        self.runner.is_logged = lambda: self._unwatched.active
        self.asking = Asking(shell, self._routing)
        inner = InnerCells()
        tracebacks = Tracebacks(shell, self.runner, inner)
        self._calling = Calling(shell)
        self._cells = Cells(shell, self.runner, self._routing, self._unwatched, tracebacks, inner, self._calling)
        self._gui = Gui(shell, self.runner)
        undo(self._gui.stop)
        self._termination = Termination(
            lambda: kernel_loop(shell),
            timeout=lambda: self.runner.shutdown_timeout,
            in_kernel=hasattr(shell, "kernel"),
        )
        undo(self._termination.restore)
        stock = shell.should_run_async
        self._replace(shell, "should_run_async", self._cells.should_run_async)
        self._replace(shell, "run_cell_async", lambda original: self._cells.run_cell_async(original, stock))
        self._replace(shell, "showtraceback", tracebacks.showtraceback)
        if hasattr(shell.InteractiveTB, "get_records"):  # without it the arrow may point at a clean-up
            self._replace(shell.InteractiveTB, "get_records", pointing_records)
        self._replace(shell, "debugger", lambda original: debugger(shell, original))
        self._replace(shell, "enable_gui", self._gui.enable_gui)
        self._replace(shell.events, "trigger", self._lend_to_hooks)
        self._replace(shell, "transform_cell", self._calling.transform)
        self._replace(shell, "transform_ast", self._calling.transform)
        if hasattr(shell, "_user_obj_error"):
            # Private, since IPython 1. Without it an expression whose error cannot be shown costs the reply.
            self._replace(shell, "_user_obj_error", self._calling.user_obj_error)
        if hasattr(shell, "_format_exception_for_storage"):
            # Private, since IPython 9.2: for the history, what showtraceback has done. What it raises ends the cell.
            self._replace(shell, "_format_exception_for_storage", tracebacks.stored)
        if hasattr(shell, "_atexit_once"):
            # Private, since IPython 8.0: a terminal clears the user's variables there, before atexit's functions run.
            # Without it tasks are cleaned up at exit all the same, only later.
            self._replace(shell, "_atexit_once", self._close_before)
        undo(leave_out_ours(shell))
        self._append("ast_transformers", self._cells)
        self._append("configurables", self.runner)
        for magics in (RunnerMagics(shell, self.runner, self._cells), TaskMagics(shell, self.runner)):
            undo(partial(self._remove, "configurables", magics))  # Magics register themselves
            before = {kind: dict(present) for kind, present in shell.magics_manager.magics.items()}
            shell.register_magics(magics)
            undo(partial(_unregister, shell, magics, before))
        undo(Timing(shell, self.runner, self._cells.in_charge).restore)
        undo(Comms(shell, self.runner).restore)
        self.runner.when_host_stops = self._shutdown
        self._guard.begin(self.runner, self._cells.in_charge)
        undo(at_exit(self._exit))
        self._first_cell = FirstCell(shell, self.runner)
        undo(self._first_cell.end)

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._undo.append(Replacement(owner, name, make).restore)

    def _append(self, name: str, item: object) -> None:
        getattr(self.shell, name).append(item)
        self._undo.append(partial(self._remove, name, item))

    def _remove(self, name: str, item: object) -> None:
        # From the list that is there now: the user may have made another one of it, or have removed ours.
        items = getattr(self.shell, name)
        items[:] = [other for other in items if other is not item]

    def unload(self) -> None:
        """Close the runner; restore what was there before, even if closing fails."""
        try:
            self.runner.close()
        finally:
            self._restore()

    def _restore(self) -> None:
        """Undo all steps. One that fails is told, and keeps no other from being undone."""
        while self._undo:
            step = self._undo.pop()
            try:
                step()
            except Exception as exc:
                print(f"ipyrunner: something could not be restored: {describe(exc)}", file=sys.stderr)

    def _exit(self) -> None:
        self._shutdown()
        self._termination.finish()

    def _shutdown(self) -> None:
        with self._termination.cleaning_up() as elapsed:
            try:
                self.runner.shutdown(elapsed)
            finally:
                self._unwatched.tell(self.runner.log)

    def _close_before(self, original: Callable[[], None]) -> Callable[[], None]:
        def close_before() -> None:
            self.runner.shutdown()
            original()

        return close_before

    def _lend_to_hooks(self, original: Callable[..., None]) -> Callable[..., None]:
        original = self._calling.trigger(original)
        lent = self._lend(original)

        def trigger(event: str, *args: Any, **kwargs: Any) -> None:
            if event == "post_execute":
                self._first_cell.end_if_over()
            self._termination.renew()  # at the beginning and at the end of each cell
            # IPython's own hooks need no loop: to lend for them would make one again right after `%arunner close`.
            hooks = self.shell.events.callbacks.get(event, ())
            (original if all(map(_is_ipythons, hooks)) else lent)(event, *args, **kwargs)

        return trigger

    def _lend(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Let the event hooks, which the kernel calls, see the notebook's loop as the running one."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(*args, **kwargs)
            return self.runner.lend(lambda: original(*args, **kwargs))

        return call


def _leave_current_loop(host: asyncio.AbstractEventLoop | None) -> None:
    """Make *host* the current loop, unless the user has set one of their own: ours is closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # instead of making one
        try:
            current = asyncio.get_event_loop()
        except (RuntimeError, DeprecationWarning):  # there is none
            current = None
    if current is None or current.is_closed():
        asyncio.set_event_loop(host)


def _unregister(shell: InteractiveShell, magics: Any, before: dict[str, dict[str, Any]]) -> None:
    """Restore the magics of before, unless somebody has defined others of the same names since."""
    for kind, names in magics.magics.items():
        present = shell.magics_manager.magics[kind]
        for name in names:
            if getattr(present.get(name), "__self__", None) is magics:
                del present[name]
                if name in before[kind]:
                    present[name] = before[kind][name]


def _is_ipythons(hook: object) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(("IPython.", "ipykernel."))
