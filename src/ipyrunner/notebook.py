"""What one notebook keeps: a loop, a Context, and how they are run, interrupted and renewed."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, TraitError, observe, validate
from traitlets.config import Configurable
from traitlets.utils.importstring import import_item

from .aio.closing import finalize
from .aio.contexts import carry_back, carry_into
from .aio.holding import Held
from .aio.hosting import Hosting
from .aio.interrupt import Interrupt, drives_loop, is_default_handler
from .aio.lending import Lender
from .aio.runner import as_coroutine
from .aio.running import NOTHING, Running, exchange, running_as, running_loop
from .aio.wakeup import Wakeup

__all__ = ["NotebookRunner"]

_T = TypeVar("_T")


class NotebookRunner(Configurable):
    """One event loop and one Context for all cells of a notebook. Get it by ``ipyrunner.get_runner()``.

    The loop is made on first use and stays until :meth:`restart` or :meth:`close`; after ``close`` the next use makes
    a new one. Every method raises RuntimeError on threads other than the main one, whose loop this is.
    """

    loop_factory = AnyTrait(
        None,
        allow_none=True,
        help="What makes the loop: a callable or the import string of one ('uvloop.new_event_loop'); None for "
        "asyncio's own. Takes effect at `%arunner restart`.",
    ).tag(config=True)
    debug = Bool(
        None,
        allow_none=True,
        help="asyncio's debug mode: True, False, or None for what PYTHONASYNCIODEBUG says. Takes effect at once.",
    ).tag(config=True)
    interrupt_grace = Float(
        1.0,
        help="Seconds that the loop has to answer the first interrupt before KeyboardInterrupt is forced into "
        "the callback that blocks it.",
    ).tag(config=True)
    shutdown_timeout = Float(
        3.0,
        help="Seconds that restart, close and the end of the process wait for tasks, for asynchronous generators "
        "and for the default executor, each.",
    ).tag(config=True)
    poll = Bool(
        False,
        help="Take turns with the kernel in short slices, as on loops without a pollable fd, even where there is "
        "one. Takes effect at `%arunner restart`.",
    ).tag(config=True)

    def __init__(
        self,
        *,
        replaces: Callable[[object], bool] = is_default_handler,
        **kwargs: Any,
    ) -> None:
        """*replaces* says of which SIGINT handlers a run takes over, see ``Interrupt``."""
        self._replaces = replaces
        self._host: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context | None = None
        self._hosting: Hosting | None = None
        self._wakeup: Wakeup | None = None
        # The kernel's Context as of the last cell: what differs from it at the next cell, the kernel has changed.
        self._kernel_context = contextvars.copy_context()
        # What the last sync cell has left running (Playwright's sync API does), for the next one.
        self._left = NOTHING
        self._lender = Lender(self.get_loop)
        self._in_context = False
        # Whether a cell is being awaited in the kernel's loop.
        self._awaiting = False
        self._interrupting: Interrupt | None = None
        self.last_interrupt: Interrupt | None = None
        self.interrupts = 0
        super().__init__(**kwargs)

    # -- the loop

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the notebook's loop, made now if there is none. A loop that was closed behind our back is replaced."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "the notebook's loop belongs to the main thread, and this is another one: use "
                "asyncio.run_coroutine_threadsafe(coro, loop) with the loop of a cell, or ipyrunner.run(coro) here"
            )
        if self._loop is not None and self._loop.is_closed():
            print("ipyrunner: the notebook's loop was closed; a new one takes its place. Its tasks are gone.")
            self._discard()
        if self._loop is None:
            try:
                self._begin(self._make_loop())
            except Exception as exc:
                print(
                    f"ipyrunner: NotebookRunner.loop_factory failed ({type(exc).__name__}: {exc}); asyncio's own loop "
                    "is used. Set loop_factory to one that works, then `%arunner restart`."
                )
                self._begin(asyncio.new_event_loop())
        assert self._loop is not None
        if self._hosting is None and self._host is not None:
            self._hosting = Hosting(
                self._host, self._loop, escaped=self._on_escaped, between=self._interrupt_between_cells, poll=self.poll
            )
            self._hosting.start()
        return self._loop

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop() if self.loop_factory is None else self.loop_factory()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop_factory returned {loop!r}, which is no event loop")
        return loop

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.debug is not None:
            loop.set_debug(self.debug)
        self._loop, self._context = loop, self._kernel_context.copy()
        self._wakeup = Wakeup(loop)

    def attach(self, host: asyncio.AbstractEventLoop) -> None:
        """Name the kernel's loop on this thread: from now on the notebook's loop runs inside it."""
        self._host = host

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The notebook's loop, or None if there is none at the moment."""
        return self._loop

    @property
    def context(self) -> contextvars.Context:
        """The Context of all cells."""
        self.get_loop()
        assert self._context is not None
        return self._context

    def user_variables(self) -> list[contextvars.ContextVar[Any]]:
        """Return the ContextVars of the notebook's Context that the kernel has not set."""
        return [] if self._context is None else [var for var in self._context if var not in self._kernel_context]

    @property
    def hosting(self) -> Hosting | None:
        """How the loop shares this thread with the kernel's; None where there is none, or before first use."""
        return self._hosting

    def restart(self) -> None:
        """Close the loop and start anew with a fresh loop and Context; the notebook's variables stay.

        As :meth:`close`. If the new loop cannot be made, ``loop_factory``'s error is raised and the old loop stays.
        """
        if self._loop is not None:
            self.refuse_inside("restart")
        loop = self._make_loop()
        self.close()
        self._begin(loop)
        asyncio.set_event_loop(self.get_loop())

    def close(self) -> None:
        """Cancel the tasks, run their clean-up, close the loop; the next use makes a new one. Idempotent.

        Waits ``shutdown_timeout`` seconds at most for each of tasks, asynchronous generators and executor, and names
        the tasks that did not end. RuntimeError while a cell runs in the loop.
        """
        if self._loop is None:
            return
        self.refuse_inside("close")
        if self._hosting is not None:
            self._hosting.stop()
        try:
            if not self._loop.is_closed():
                with running_as(NOTHING):
                    late = self._finalize(self._loop)
                for task in late:
                    print(f"ipyrunner: this task did not end within {self.shutdown_timeout} seconds: {task!r}")
        finally:
            self._discard()

    def _finalize(self, loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        while True:
            try:
                return finalize(loop, timeout=self.shutdown_timeout)
            except SystemExit as exc:  # of a task in its clean-up; that task has ended, the others have not
                self._on_escaped(exc)

    def _discard(self) -> None:
        assert self._loop is not None
        if self._hosting is not None:
            self._hosting.stop()
        if self._wakeup is not None:
            self._wakeup.close()
        self._loop.close()
        self._loop = self._context = self._hosting = self._wakeup = None

    # -- what cells and magics use

    @property
    def in_cell(self) -> bool:
        """Whether the code that asks is run by a cell or by a task, or while a cell awaits: not by an idle kernel."""
        return self._is_entered or self._awaiting

    @property
    def _is_entered(self) -> bool:
        # A Context cannot be entered twice; while a cell of the kernel's awaits, nobody is inside it.
        return self._in_context or (self._loop is not None and self._loop.is_running())

    def refresh(self, kernel_context: contextvars.Context) -> None:
        """Bring what has changed in the kernel's Context since the last cell into the notebook's Context."""
        carry_into(self.context, kernel_context, self._kernel_context)
        self._kernel_context = kernel_context

    async def run_in_guest(
        self, coro: Coroutine[Any, Any, _T], *, name: str | None = None, copy_context: bool = False
    ) -> _T:
        """In the kernel's loop: run *coro* as one main task of the notebook's loop while the kernel stays live.

        KeyboardInterrupt if SIGINT cancelled the task and the cancellation came out, or if the task did not end after
        the second SIGINT; it stays in the loop then, and is named. *copy_context* keeps ContextVar changes from later
        cells.
        """
        loop = self.get_loop()
        assert self._hosting is not None
        context = self.context.copy() if copy_context else self.context
        before, self._awaiting = self._awaiting, True
        try:
            with self._interrupt() as interrupt:
                task = loop.create_task(coro, name=name, context=context)
                interrupt.attach(task)
                await self._hosting.wait(task, interrupt)
        finally:
            self._awaiting = before
        return self._outcome(task, interrupt, context)

    def run(
        self, awaitable: Awaitable[_T], *, context: contextvars.Context | None = None, name: str | None = None
    ) -> _T:
        """Run *awaitable* on the notebook's loop, block until it is done, return its result or raise its exception.

        For cells without ``await`` and for the functions they call. It runs in a copy of the caller's Context, whose
        changes are carried back, or in *context*. SIGINT cancels it as it does a cell. TypeError for what cannot be
        awaited, RuntimeError where a loop runs already.
        """
        main = as_coroutine(awaitable)
        loop = self.get_loop()
        if running_loop() is not None or loop.is_running():
            main.close()
            raise RuntimeError(
                "this code already runs inside an event loop, and a loop cannot run inside itself: "
                "write `await ...` instead, or use a cell without await"
            )
        if self._hosting is not None:
            self._hosting.pause()
        copy = contextvars.copy_context() if context is None else context
        with self._interrupt() as interrupt:
            task = loop.create_task(main, name=name, context=copy)
            interrupt.attach(task)
            self._drive(loop, task, interrupt)
        if context is None:
            carry_back(copy)
        return self._outcome(task, interrupt, copy)

    def run_cell(self, coro: Coroutine[Any, Any, _T], *, name: str | None = None) -> _T:
        """Run *coro*, a cell that awaits, and block: where there is no kernel whose loop could go on meanwhile."""
        with running_as(NOTHING):
            if self._is_entered:
                return self.run(coro, name=name)
            with self._entered():
                return self.run(coro, context=self.context, name=name)

    def run_sync(self, cell: Callable[[], _T]) -> _T:
        """Run a sync cell: in the notebook's Context, with no running loop, and with the notebook's as current one."""
        loop = self.get_loop()
        asyncio.set_event_loop(loop)
        if self._hosting is not None and not loop.is_running():
            self._hosting.pause()  # the cell may run the loop itself
        with Held() as held:
            aside = exchange(self._left)
            try:
                with self._lender.lending():
                    if self._is_entered:  # a cell that runs a cell
                        return held.let_through(cell)
                    with self._entered():
                        return self.context.run(held.let_through, cell)
            finally:
                self._left = exchange(aside)

    def lend(self, call: Callable[[], _T]) -> _T:
        """Call with the notebook's loop counted as running, though it is at rest: for what the kernel calls."""
        if self._loop is not None and (self._loop.is_closed() or running_loop() is self._loop):
            return call()  # a closed loop is replaced, and the user told so, in the next cell
        loop = self.get_loop()
        with Held() as held, running_as(Running(loop, None)):
            return held.let_through(call)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        before, self._in_context = self._in_context, True
        try:
            yield
        finally:
            self._in_context = before

    @contextmanager
    def _interrupt(self) -> Iterator[Interrupt]:
        assert self._loop is not None
        assert self._wakeup is not None
        before = self._interrupting
        interrupt = Interrupt(self._loop, grace=self.interrupt_grace, replaces=self._replaces)
        with self._wakeup.on_signals(), interrupt:
            self._interrupting = interrupt
            try:
                yield interrupt
            finally:
                self._interrupting, self.last_interrupt = before, interrupt
                self.interrupts += interrupt.presses

    def _interrupt_between_cells(self) -> Interrupt:
        # ipykernel ignores SIGINT between cells. A background callback that never yields is forced all the same: no
        # cell could run any more. There is no main task to cancel.
        assert self._loop is not None
        return Interrupt(self._loop, grace=self.interrupt_grace, replaces=lambda handler: handler is signal.SIG_IGN)

    @property
    def interrupting(self) -> Interrupt | None:
        """The SIGINT handling of the run that goes on, if one does."""
        return self._interrupting

    @drives_loop
    def _drive(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], interrupt: Interrupt) -> None:
        finished = False

        def finish(_: object = None) -> None:
            nonlocal finished
            if not finished:  # uvloop keeps a second stop() for its next run
                finished = True
                loop.stop()

        task.add_done_callback(finish)
        interrupt.on_abandon = finish
        while not finished:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as exc:
                self._on_escaped(exc)

    def _outcome(self, task: asyncio.Task[_T], interrupt: Interrupt, context: contextvars.Context) -> _T:
        if not task.done():
            if not interrupt.abandoned:
                raise RuntimeError("the notebook's loop ended before this run did; the next cell starts with a new one")
            # The task keeps the Context; in one that a cell has entered its steps would fail.
            if self._context is context:
                self._context = context.copy()
            print(f"ipyrunner: the task of {task.get_name()} ignored its cancellation and still runs.")
            raise KeyboardInterrupt
        try:
            return task.result()
        except asyncio.CancelledError as exc:
            if interrupt.claims(exc):
                raise KeyboardInterrupt().with_traceback(exc.__traceback__) from None
            raise

    def _on_escaped(self, exc: BaseException) -> None:
        # A task that ended this way holds the exception; nobody but the loop's handler hears of a plain callback's.
        if isinstance(exc, KeyboardInterrupt) or self._loop is None:
            return
        message = (
            "SystemExit in a callback of the notebook's loop does not end the kernel"
            if isinstance(exc, SystemExit)
            else "the notebook's loop cannot run any more: `%arunner restart`"
        )
        # Not call_exception_handler: a handler of the user's may raise SystemExit again.
        self._loop.default_exception_handler({"message": message, "exception": exc})

    def refuse_inside(self, what: str) -> None:
        """Raise RuntimeError, which says where to call *what* instead, if the notebook's loop runs."""
        if running_loop() is self._loop or (self._loop is not None and self._loop.is_running()):
            raise RuntimeError(
                f"{what} cannot be called while the notebook's loop runs: call it in a cell of its own, without await"
            )

    # -- configuration

    @validate("loop_factory")
    def _resolve_loop_factory(self, proposal: Any) -> Callable[[], asyncio.AbstractEventLoop] | None:
        value = proposal["value"]
        if isinstance(value, str):
            try:
                value = import_item(value)
            except (ImportError, ValueError) as exc:
                raise TraitError(f"loop_factory: cannot import {value!r}: {exc}") from exc
        if value is not None and not callable(value):
            self._reject(value)
        return value  # type: ignore[no-any-return]

    def _reject(self, value: object) -> NoReturn:
        raise TraitError(
            f"loop_factory is a callable, an import string such as 'uvloop.new_event_loop', or None, not {value!r}"
        )

    @observe("debug")
    def _apply_debug(self, change: Any) -> None:
        if self._loop is not None and change["new"] is not None:
            self._loop.set_debug(change["new"])

    @observe("loop_factory", "poll")
    def _say_restart(self, change: Any) -> None:
        if self._loop is not None:
            print(f"ipyrunner: {change['name']} takes effect at `%arunner restart`; the present loop stays until then.")
