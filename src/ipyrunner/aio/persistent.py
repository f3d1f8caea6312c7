"""A Runner that stays: one loop and one Context; its runs block, or are awaited in another loop, and obey SIGINT."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .closing import finalize
from .contexts import carry_back
from .hosting import Hosting
from .interrupt import Interrupt, drives_loop, is_default_handler
from .runner import as_coroutine
from .running import NOTHING, running_as, running_loop
from .wakeup import Wakeup

__all__ = ["PersistentRunner"]

_T = TypeVar("_T")


class PersistentRunner:
    """Run awaitables in *loop* and *context*, from now until :meth:`close`, on the loop's thread.

    Parameters
    ----------
    loop : the loop, which is closed with the runner.
    context : the Context that cells share.
    grace : returns the seconds that the loop has to answer a first SIGINT, see ``Interrupt``.
    replaces : says of which SIGINT handlers a run takes over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        *,
        grace: Callable[[], float],
        replaces: Callable[[object], bool] = is_default_handler,
    ) -> None:
        self.loop = loop
        self.context = context
        self.hosting: Hosting | None = None
        # The SIGINT handling of the run that goes on, and of the last one.
        self.interrupting: Interrupt | None = None
        self.last_interrupt: Interrupt | None = None
        self.interrupts = 0
        self._grace = grace
        self._replaces = replaces
        self._wakeup = Wakeup(loop)
        self._in_context = False
        # Whether a cell is being awaited in the host's loop.
        self._awaiting = False

    def attach(self, host: asyncio.AbstractEventLoop, *, poll: bool = False) -> None:
        """Run the loop inside *host*, another loop of this thread, from now on; *poll* see ``Hosting``."""
        if self.hosting is None:
            self.hosting = Hosting(
                host, self.loop, escaped=self._on_escaped, between=self._interrupt_between_cells, poll=poll
            )
            self.hosting.start()

    @property
    def in_cell(self) -> bool:
        """Whether the code that asks is run by a cell or by a task, or while a cell awaits: not by an idle kernel."""
        return self.is_entered or self._awaiting

    @property
    def is_entered(self) -> bool:
        """Whether the Context may be entered already; while a cell is awaited in the host, nobody is inside it."""
        return self._in_context or self.loop.is_running()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Note that the Context is entered for the length of the block."""
        before, self._in_context = self._in_context, True
        try:
            yield
        finally:
            self._in_context = before

    def pause(self) -> None:
        """Leave the loop to somebody who is about to run it."""
        if self.hosting is not None and not self.loop.is_running():
            self.hosting.pause()

    async def run_in_guest(
        self, coro: Coroutine[Any, Any, _T], *, name: str | None = None, copy_context: bool = False
    ) -> _T:
        """In the kernel's loop: run *coro* as one main task of the notebook's loop while the kernel stays live.

        KeyboardInterrupt if SIGINT cancelled the task and the cancellation came out, or if the task did not end after
        the second SIGINT; it stays in the loop then, and is named. *copy_context* keeps ContextVar changes from later
        cells.
        """
        assert self.hosting is not None
        context = self.context.copy() if copy_context else self.context
        before, self._awaiting = self._awaiting, True
        try:
            with self._interrupt() as interrupt:
                task = self.loop.create_task(coro, name=name, context=context)
                interrupt.attach(task)
                await self.hosting.wait(task, interrupt)
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
        loop = self.loop
        if running_loop() is not None or loop.is_running():
            main.close()
            raise RuntimeError(
                "this code already runs inside an event loop, and a loop cannot run inside itself: "
                "write `await ...` instead, or use a cell without await"
            )
        self.pause()
        copy = contextvars.copy_context() if context is None else context
        with self._interrupt() as interrupt:
            task = loop.create_task(main, name=name, context=copy)
            interrupt.attach(task)
            self._drive(task, interrupt)
        if context is None:
            carry_back(copy)
        return self._outcome(task, interrupt, copy)

    def run_cell(self, coro: Coroutine[Any, Any, _T], *, name: str | None = None) -> _T:
        """Run *coro*, a cell that awaits, and block: where there is no kernel whose loop could go on meanwhile."""
        with running_as(NOTHING):
            if self.is_entered:
                return self.run(coro, name=name)
            with self.entered():
                return self.run(coro, context=self.context, name=name)

    def close(self, timeout: float) -> set[asyncio.Task[Any]]:
        """Finalize and close the loop, waiting *timeout* seconds at most for each step; return what did not end."""
        if self.hosting is not None:
            self.hosting.stop()
        try:
            if self.loop.is_closed():
                return set()
            with running_as(NOTHING):
                return self._finalize(timeout)
        finally:
            self._wakeup.close()
            self.loop.close()

    def _finalize(self, timeout: float) -> set[asyncio.Task[Any]]:
        while True:
            try:
                return finalize(self.loop, timeout=timeout)
            except SystemExit as exc:  # of a task in its clean-up; that task has ended, the others have not
                self._on_escaped(exc)

    @contextmanager
    def _interrupt(self) -> Iterator[Interrupt]:
        before = self.interrupting
        interrupt = Interrupt(self.loop, grace=self._grace(), replaces=self._replaces)
        with self._wakeup.on_signals(), interrupt:
            self.interrupting = interrupt
            try:
                yield interrupt
            finally:
                self.interrupting, self.last_interrupt = before, interrupt
                self.interrupts += interrupt.presses

    def _interrupt_between_cells(self) -> Interrupt:
        # ipykernel ignores SIGINT between cells. A background callback that never yields is forced all the same: no
        # cell could run any more. There is no main task to cancel.
        return Interrupt(self.loop, grace=self._grace(), replaces=lambda handler: handler is signal.SIG_IGN)

    @drives_loop
    def _drive(self, task: asyncio.Task[Any], interrupt: Interrupt) -> None:
        finished = False

        def finish(_: object = None) -> None:
            nonlocal finished
            if not finished:  # uvloop keeps a second stop() for its next run
                finished = True
                self.loop.stop()

        task.add_done_callback(finish)
        interrupt.on_abandon = finish
        while not finished:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as exc:
                self._on_escaped(exc)

    def _outcome(self, task: asyncio.Task[_T], interrupt: Interrupt, context: contextvars.Context) -> _T:
        if not task.done():
            if not interrupt.abandoned:
                raise RuntimeError("the notebook's loop ended before this run did; the next cell starts with a new one")
            # The task keeps the Context; in one that a cell has entered its steps would fail.
            if self.context is context:
                self.context = context.copy()
            print(
                f"ipyrunner: the task of {task.get_name()} ignored its cancellation and still runs. "
                "`%arunner restart` ends it, with the loop and all other tasks; variables stay."
            )
            raise KeyboardInterrupt
        try:
            return task.result()
        except asyncio.CancelledError as exc:
            if interrupt.claims(exc):
                raise KeyboardInterrupt().with_traceback(exc.__traceback__) from None
            raise

    def _on_escaped(self, exc: BaseException) -> None:
        # A task that ended this way holds the exception; nobody but the loop's handler hears of a plain callback's.
        if isinstance(exc, KeyboardInterrupt):
            return
        message = (
            "SystemExit in a callback of the notebook's loop does not end the kernel"
            if isinstance(exc, SystemExit)
            else "the notebook's loop cannot run any more: `%arunner restart`"
        )
        # Not call_exception_handler: a handler of the user's may raise SystemExit again.
        self.loop.default_exception_handler({"message": message, "exception": exc})
