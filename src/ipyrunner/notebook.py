"""What one notebook keeps: a loop, a Context, and how they are run, interrupted and renewed."""

from __future__ import annotations

import asyncio
import contextvars
import os
import warnings
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from traitlets import observe

from .aio.introspection.loop_class import new_loop
from .aio.introspection.running_callback import lends_loop
from .aio.introspection.running_loop import NOTHING, Running, RunningAs, exchange, running_loop
from .aio.introspection.task_origin import origin_of
from .aio.introspection.task_state import is_done, tasks_of
from .aio.loops.create_task import Lender
from .aio.notices import Notice, left_behind
from .aio.persistent_runner import PersistentRunner
from .aio.sigint.defer_sigint import Held
from .aio.sigint.handlers import Outside, on_main_thread, signal_main_thread
from .aio.tasks.safe_names import describe, name_of, repr_of, short
from .aio.user_runs.context_copy import carry_into
from .aio.user_runs.nested_runs import allow, is_applied
from .settings import Settings, make_loop

__all__ = ["NotebookRunner", "require_main_thread"]

_T = TypeVar("_T")


def require_main_thread() -> None:
    """Raise RuntimeError on other threads, such as those of ipykernel's subshells."""
    if not on_main_thread():
        text = "the notebook's event loop belongs to the main thread, and this code runs in another one. Use asyncio."
        here = "asyncio.run(coro)" if running_loop() is None else "await coro"
        raise RuntimeError(f"{text}run_coroutine_threadsafe(coro, loop) with the loop of a cell, or {here} here")


class NotebookRunner(Settings):
    """The event loop of a notebook, and the Context (the ContextVars) of its cells: ``ipyrunner.get_runner()``.

    The loop is made when it is first needed, and stays until :meth:`restart` or :meth:`close`. After ``close`` a new
    one is made when it is needed. The loop belongs to the main thread: other threads may only call :meth:`interrupt`.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Who handles SIGINT while nothing runs in the notebook's loop, set before that is made.
        self.outside = Outside()
        self._host: asyncio.AbstractEventLoop | None = None
        self._host_options: dict[str, Any] = {}
        self._current: PersistentRunner | None = None
        # The kernel's Context at the last cell: a difference from it at the next cell is a change by the kernel.
        self._kernel_context = contextvars.copy_context()
        # The loop that the last plain cell has left running (Playwright's sync API does so), for the next one.
        self._left = NOTHING
        # Whether the cell that has loaded the extension still runs.
        self._is_first = False
        self._lender = Lender(self.get_loop)
        self._past_interrupts = 0
        self._left_behind: list[asyncio.Task[Any]] = []
        self._pid = os.getpid()
        # Called when the loop that runs this thread is told to stop.
        self.when_host_stops: Callable[[], None] = self.shutdown
        # Shows what has happened in the loop, in the output of its cell; None: asyncio shows failures.
        self.show: Callable[[Notice], object] | None = None
        # Whether all that is printed at the end of the process is logged.
        self.is_logged: Callable[[], bool] = lambda: False
        super().__init__(**kwargs)

    # -- the loop

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the notebook's loop, made now if there is none. A loop that somebody has closed is replaced."""
        return self.current.loop

    @property
    def current(self) -> PersistentRunner:
        """The runner of the present loop, made now if there is none. OSError if no file descriptor is left for it."""
        self.check_owner()
        if self._current is not None and self._current.is_broken:
            state = "was closed" if self._current.loop.is_closed() else "cannot run any more"
            stopped = " The tasks of the old loop have stopped, without clean-up: start them again."
            print(
                f"ipyrunner: the notebook's event loop {state}, so a new one is used from now on."
                + stopped * any(not is_done(task) for task in tasks_of(self._current.loop))
            )
            try:
                self.close()
            except Exception as exc:
                print(f"ipyrunner: the clean-up of the old loop failed: {describe(exc)}")
        if self._current is None:
            try:
                loop = self._make_loop()
            except Exception as exc:
                if self.loop_factory is None:
                    raise
                loop = new_loop()
                print(
                    f"ipyrunner: NotebookRunner.loop_factory failed ({describe(exc)}), so asyncio's own loop is used. "
                    "Set loop_factory to one that works, then run `%arunner restart`."
                )
            self._current = self._begin(loop)
        self._attach(self._current)
        return self._current

    def attach(self, host: asyncio.AbstractEventLoop, **options: Any) -> None:
        """Set the loop that runs this thread (the kernel's, a prompt's): from now on the notebook's runs inside it.

        The options are those of ``PersistentRunner.attach``.
        """
        self._host, self._host_options = host, options
        if self._current is not None:
            self._attach(self._current)

    def detach(self) -> None:
        """Leave the loop that :meth:`attach` has set: the notebook's rests until a cell or another loop runs it."""
        self._host = None
        if self._current is not None:
            self._current.detach()

    def _attach(self, current: PersistentRunner) -> None:
        if self._host is not None and current.hosting is None:
            current.attach(self._host, poll=self.poll, ended=lambda: self.when_host_stops(), **self._host_options)

    @property
    def present(self) -> PersistentRunner | None:
        """As :attr:`current`, but None if there is no loop at the moment."""
        return self._current

    @property
    def is_copy(self) -> bool:
        """Whether this is a copy of the kernel's runner, in a child process made by ``os.fork``."""
        return os.getpid() != self._pid

    @property
    def context(self) -> contextvars.Context:
        """The Context of all cells: the ContextVars that they have set."""
        return self.current.context

    @property
    def interrupts(self) -> int:
        """How many interrupts have come while the notebook's loop ran something."""
        return self._past_interrupts + (0 if self._current is None else self._current.interrupts.count)

    def user_variables(self) -> list[contextvars.ContextVar[Any]]:
        """Return the ContextVars that cells have set, without those of the kernel."""
        variables = self._current.context if self._current else ()
        return [v for v in variables if v not in self._kernel_context and not v.name.startswith("ipyrunner")]

    def run(self, awaitable: Awaitable[_T], *, context: contextvars.Context | None = None) -> _T:
        """Run *awaitable* on the notebook's loop, block until it is done, return its result or raise its exception.

        For cells without ``await`` and for the functions they call. It runs with the caller's ContextVars, and the
        caller sees those that it sets; or in *context*. An interrupt cancels it as it cancels a cell. TypeError for
        what cannot be awaited, RuntimeError where a loop already runs.
        """
        return self.current.run(awaitable, context=context)

    def background(self, cell: str | asyncio.Task[Any]) -> None:
        """Let a cell that awaits go on in the background, so that the next cell can run.

        *cell* is its number (``"In[3]"``), the name of its task or the task. What it prints, and its error, still
        appear below it. Interrupts no longer stop it. RuntimeError if no such cell awaits.
        """
        self.check_owner()
        runs = [] if self._current is None else self._current.interrupts.runs()
        for run in runs:
            if run.task is not None and (cell is run.task or cell in (run.name, name_of(run.task))):
                run.detach()
                return
        origin = origin_of(contextvars.copy_context())
        if origin is not None and not origin.over and origin.label == cell:
            raise RuntimeError(
                f"{cell} is a cell without await. It blocks the kernel until it ends, so it cannot go on in the "
                "background: begin it with %%arun --background"
            )
        names = short(", ".join(str(run.name) for run in runs) or "none", 200)
        raise RuntimeError(
            f"no cell {repr_of(cell)} is awaiting at the moment. Cells that are: {names}. %atasks lists all tasks"
        )

    def interrupt(self) -> None:
        """Do what the interrupt button does: send SIGINT to the main thread. May be called in any thread."""
        signal_main_thread()
        if (current := self._current) is not None:
            # A simulated signal (Windows) does not end a select(); a blocked one does not arrive.
            with suppress(RuntimeError):  # closed since
                current.loop.call_soon_threadsafe(current.interrupts.take_blocked)

    def restart(self) -> None:
        """Close the loop as :meth:`close` does, and make a new one, without the ContextVars that cells have set.

        The notebook's variables stay. If ``loop_factory`` cannot make a new loop, its error is raised and the old loop
        stays.
        """
        self.refuse_inside("restart")
        loop = self._make_loop()
        self.close()
        self._current = self._begin(loop)
        asyncio.set_event_loop(self.get_loop())

    def close(self) -> None:
        """Cancel all tasks, wait for their clean-up and close the loop. A new one is made when it is needed.

        Waits ``shutdown_timeout`` seconds at most, for tasks, asynchronous generators and the executor's threads
        together, and prints which tasks did not end. A callback that blocks the loop for half of that time is
        interrupted. An interrupt ends the waiting. Nothing if there is no loop; RuntimeError while a cell runs in it.
        """
        if self._current is not None:
            self.refuse_inside("close")
            self._close(self._current, print, self.shutdown_timeout)

    def leave(self) -> None:
        """Run the next cells in a new main task, with the same Context.

        For when a task group, cancel scope or timeout of an earlier cell is still open, cancels every cell, and no
        variable refers to it any more. It stays open, and its tasks go on. RuntimeError while a cell runs in the loop.
        """
        self.refuse_inside("leave")
        if self._current is not None:
            self._current.renew_main()

    def shutdown(self, elapsed: float = 0.0) -> None:
        """At the end of the process: as :meth:`close`. Errors are logged, since there is no cell to show them in.

        *elapsed*: how many of the seconds have already passed. A quarter of ``shutdown_timeout`` is left in any case.
        """
        current = self._current
        if current is None or self.is_copy:
            return
        if not (current.loop.is_closed() or current.loop.get_exception_handler() or self.is_logged()):
            current.loop.set_exception_handler(self._log_error)
        with warnings.catch_warnings(record=True) as caught:
            try:
                timeout = self.shutdown_timeout
                self._close(current, self.log.warning, max(timeout - elapsed, timeout / 4))
            except Exception:
                self.log.exception("ipyrunner: the clean-up of the notebook's loop failed")
        for warning in caught:
            if "was never awaited" in str(warning.message):
                continue  # these are the kernel's own requests, which the garbage collector finds meanwhile
            self.log.warning("ipyrunner: %s", warning.message)

    def _close(self, closing: PersistentRunner, say: Callable[[str], object], timeout: float) -> None:
        self._past_interrupts, self._current = self.interrupts, None
        self._left = NOTHING
        # Keep them: if they were collected, their code would end in some later cell, with a traceback.
        self._left_behind += tasks_of(closing.loop)
        try:
            late = closing.close(timeout)
            self._left_behind += late  # with what clean-up has started
            for line in left_behind(late, timeout):
                say(line)
        finally:
            self._left_behind = [task for task in self._left_behind if not is_done(task)]

    def _log_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        self.log.error("ipyrunner: %s", context.get("message"), exc_info=context.get("exception"))

    def check_owner(self) -> None:
        """Raise RuntimeError on other threads than the main one, and in child processes."""
        if on_main_thread() and os.getpid() == self._pid:
            return
        require_main_thread()
        text = "this is a child process made by os.fork(), and the notebook's event loop belongs to its parent."
        raise RuntimeError(f"{text} Use asyncio.run() here")

    def refuse_inside(self, what: str) -> None:
        """Raise RuntimeError, which says where to call *what*, while the loop runs, and on other threads."""
        self.check_owner()
        loop = None if self._current is None else self._current.loop
        if loop is not None and (running_loop() is loop or loop.is_running()):
            raise RuntimeError(
                f"{what} cannot be called while the notebook's event loop runs: call it in a cell of its own, without "
                "await"
            )

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        return make_loop(self.loop_factory, None if self._current is None else self._current.loop, nested=self.nested)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> PersistentRunner:
        if self.debug is not None:
            loop.set_debug(self.debug)
        context = self._kernel_context.copy()
        grace = lambda: self.interrupt_grace  # noqa: E731
        try:
            self._nest(loop)
            begun = PersistentRunner(loop, context, grace=grace, outside=self.outside, show=self.show)
        except BaseException:
            loop.close()
            raise
        if self.slow_callback:
            begun.show_slow(self.slow_callback)
        return begun

    def _nest(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self.nested:
                allow(loop)
        except Exception as exc:  # nest-asyncio may not fit this Python: go on without it
            self.nested = is_applied()
            print(f"ipyrunner: NotebookRunner.nested was turned off, because nest-asyncio failed: {describe(exc)}")

    # -- what the shell uses

    def settle(self) -> None:
        """At the end of a cell: show what has gone wrong in the loop."""
        if self._current is not None and not self._current.loop.is_closed():
            self._current.settle()

    def refresh(self, kernel_context: contextvars.Context) -> None:
        """Bring what has changed in the kernel's Context since the last cell into the notebook's Context."""
        carry_into((self._current or self.current).context, kernel_context, self._kernel_context)
        self._kernel_context = kernel_context

    def context_beside(self, kernel_context: contextvars.Context) -> contextvars.Context:
        """Return the Context of a cell that runs beside others: a copy, with what has changed in the kernel's."""
        context = self.context.copy()
        carry_into(context, kernel_context, self._kernel_context)
        return context

    def run_sync(self, cell: Callable[[], _T]) -> _T:
        """Run a plain cell: in the notebook's Context, with no running loop, and the notebook's as the current loop."""
        current = self.current
        asyncio.set_event_loop(current.loop)
        rests = not current.is_entered
        if rests:
            current.tasks.rest()
        with Held() as held:
            aside = exchange(self._left)
            try:
                with self._lender.lending():
                    if current.is_entered:  # a cell that runs a cell
                        return held.let_through(cell)
                    with current.entered(), current.interrupts.beside_others():
                        return current.context.run(held.let_through, cell)
            finally:
                self._put_back(aside)
                if rests:
                    current.tasks.resume()

    def begin_plain(self) -> Callable[[], None]:
        """Make the rest of a cell that runs already a plain cell, in its own Context; return a function that ends this.

        Until then, if a setting needs a new loop and no task uses the present one, the loop is renewed at once. OSError
        as for :attr:`current`.
        """
        current = self.current
        asyncio.set_event_loop(current.loop)
        current.pause()
        current.tasks.rest()
        stack = ExitStack()
        with Held(then_raise=True):
            stack.callback(self._put_back, exchange(self._left))
            stack.enter_context(self._lender.lending())
            stack.enter_context(current.entered())
            self._is_first = True

        def end() -> None:
            with Held():
                self._is_first = False
                stack.close()
                current.tasks.resume()
                if self._current is not None:
                    self.refresh(contextvars.copy_context())

        return end

    def _put_back(self, aside: Running) -> None:
        left, present = exchange(aside), None if self._current is None else self._current.loop
        # The notebook's loop, or a closed one, is left only because KeyboardInterrupt was raised: in the call that it
        # was lent to, or at the end of an asyncio.run().
        torn = left.loop is not None and (left.loop is present or left.loop.is_closed())
        self._left = NOTHING if torn else left

    @lends_loop
    def lend(self, call: Callable[[], _T]) -> _T:
        """Run *call* while the notebook's loop, which is at rest, counts as running: for user code the kernel calls."""
        present = None if self._current is None else self._current.loop
        if present is not None and (present.is_closed() or running_loop() is present):
            return call()  # a closed loop is replaced, and the user told so, in the next cell
        loop = self.get_loop()
        with Held() as held, RunningAs(Running(loop, None)):
            return held.let_through(call)

    @observe("loop_factory", "poll")
    def _say_restart(self, change: Any) -> None:
        if self._current is None:
            return
        if self._is_first and not asyncio.all_tasks(self._current.loop):
            self.restart()
        else:
            print(f"ipyrunner: {change['name']} takes effect when you run `%arunner restart`, which closes the loop.")
