"""A Runner with one loop and one Context. Its runs block or are awaited in another loop; SIGINT interrupts them."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TypeVar

from .exit_and_fork import end_child, in_forked_children, refuse_copy
from .interrupts import Interrupts
from .introspection.exceptions import set_traceback, traceback_of
from .introspection.private_api import cancel_ready
from .introspection.ready_queue import ReadyQueue
from .introspection.running_callback import is_left_running
from .introspection.running_loop import NOTHING, RunningAs, running_loop
from .loops.blocking_run import drive
from .loops.host_and_guest import Hosting
from .loops.shutdown import wind_up
from .loops.turns_choice import hosting_of
from .main import Alone, Detached, Main, Request, Step
from .notices import Cancelled, ChildEnds, GivenUp, Notice
from .runner import as_coroutine
from .sigint.escaped_exceptions import settle_escaped, settle_signal
from .sigint.handlers import Outside
from .sigint.interrupt import Interrupt
from .sigint.main_task import MainTask
from .tasks.exception_handler import Failures
from .tasks.registry import Tasks
from .tasks.slow_callbacks import SlowCallbacks
from .tasks.task_scope import leave
from .user_runs.context_copy import carry_back
from .user_runs.nested_runs import is_allowed
from .user_runs.plain_runs import PlainRuns

__all__ = ["PersistentRunner"]

_T = TypeVar("_T")


class PersistentRunner:
    """Run awaitables in *loop* and *context*, from now until :meth:`close`, on the loop's thread.

    Parameters
    ----------
    loop : the loop, which is closed with the runner.
    context : the Context that cells share.
    grace : returns the seconds that the loop has to answer a first SIGINT, see ``Interrupt``.
    outside : who handles SIGINT while no run does.
    show : called with each notice, in the Context that it belongs to. By default asyncio shows failures, and other
        notices are not shown.
    """

    # The loops that close() has closed.
    closed_loops: ClassVar[weakref.WeakSet[asyncio.AbstractEventLoop]] = weakref.WeakSet()

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        *,
        grace: Callable[[], float],
        outside: Outside | None = None,
        show: Callable[[Notice], object] | None = None,
    ) -> None:
        self.loop = loop
        self.context = context
        self.tasks = Tasks(loop, torn=self._on_escaped)
        self._show = show or (lambda notice: None)
        self._failures = (
            None if show is None else Failures(loop, show, raised=self._on_signal_raised, failed=self.tasks.is_reported)
        )
        self.hosting: Hosting | None = None
        # Main tasks that did not end when they were cancelled; nobody waits for them any more.
        self.given_up: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        # The task that awaits the cells, since the first one.
        self._main: Main | None = None
        self._queue = ReadyQueue(loop)
        self.interrupts = Interrupts(loop, self._queue, grace=grace, outside=outside or Outside(), show=self._show)
        self._plain_runs = PlainRuns(
            loop,
            self.interrupts,
            in_cell=lambda: self._in_context,
            escaped=self._on_escaped,
            outcome=lambda task, error, interrupt: self._outcome(Alone(task, task, error), interrupt),
        )
        self._slowness: SlowCallbacks | None = None
        # Called when the tasks have ended, before the loop is closed.
        self.when_closed: list[Callable[[], None]] = []
        self._in_context = False
        # Whether a cell is being awaited in the host's loop.
        self._awaiting = False
        # Whether this is a copy, in a child process that os.fork() has made.
        self._is_copy = False
        in_forked_children(self)

    def after_fork(self) -> None:
        """In a child process: keep away from the parent's loop, whose fds the parent uses as well.

        The code that has called ``os.fork`` goes on until it awaits or returns; there the child process ends.
        """
        self._is_copy = True
        self.interrupts.after_fork()
        if self.loop.is_running():
            cancel_ready(self.loop)
            self.loop.stop()
        else:
            vars(self.loop)["run_forever"] = refuse_copy

    def attach(self, host: asyncio.AbstractEventLoop, **options: Any) -> None:
        """Run the loop inside *host*, another loop of this thread, from now on. See ``hosting_of`` for the options."""
        if self.hosting is not None or host is self.loop:
            return
        self.hosting = hosting_of(
            host,
            self.loop,
            escaped=self._on_escaped,
            stop=self._stop,
            between=self.interrupts.between_runs,
            asleep=self.interrupts.asleep,
            left=self._leave,
            **options,
        )
        self.hosting.start()

    def detach(self) -> None:
        """Leave the host. A loop that could not run any more stays broken. Idempotent."""
        if self.hosting is not None and self.hosting.active:
            self.hosting.stop()
            self.hosting = None

    def show_slow(self, limit: float) -> None:
        """From now on show callbacks that hold the loop for *limit* seconds, see ``SlowCallbacks``; 0: none."""
        if self._slowness is not None:
            self._slowness.stop()
        self._slowness = SlowCallbacks(self.loop, limit, self._show) if limit else None

    @property
    def is_broken(self) -> bool:
        """Whether the loop was closed by somebody else, or cannot run any more."""
        return self.loop.is_closed() or (self.hosting is not None and not self.hosting.active)

    @property
    def in_cell(self) -> bool:
        """Whether the caller runs in a cell or in a task, or while a cell awaits."""
        return self.is_entered or self._awaiting

    @property
    def awaits(self) -> bool:
        """Whether a cell is being awaited in the host's loop at this moment."""
        return self._awaiting

    @property
    def is_entered(self) -> bool:
        """Whether the Context may be entered already; while a cell is awaited in the host, nobody is inside it."""
        return self._in_context or self.loop.is_running()

    @property
    def takes_calls(self) -> bool:
        """Whether the loop will run a call from another thread: it runs, or is hosted and no plain cell blocks it."""
        return self.loop.is_running() or (self.hosting is not None and self.hosting.active and not self._in_context)

    @property
    def requests(self) -> list[Request]:
        """The requests of scopes to cancel the main task's current run; empty once these scopes have been left."""
        main = self._main
        return [] if main is None or main.step is None or not main.task.cancelling() else main.step.requests

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
        the second SIGINT; then the task stays in the loop, and is reported. With *copy_context* later cells do not see
        its ContextVar changes.
        """
        assert self.hosting is not None
        before, self._awaiting = self._awaiting, True
        try:
            with self.interrupts.of_run(self.context) as interrupt:
                run = self._start_alone(coro, self.context.copy(), name) if copy_context else self._start(coro, name)
                interrupt.name, interrupt.context = name, self.context
                interrupt.attach(run.task, run.end)
                await self.hosting.wait(run.end, interrupt)
        finally:
            self._awaiting = before
        return self._outcome(run, interrupt)  # type: ignore[no-any-return]

    async def run_beside(
        self, coro: Coroutine[Any, Any, _T], *, context: contextvars.Context, name: str | None = None
    ) -> _T:
        """As :meth:`run_in_guest`, in a task of its own and in *context*, also while other runs go on."""
        assert self.hosting is not None
        with self.interrupts.beside(context, name) as interrupt:
            run = self._start_alone(coro, context, name)
            interrupt.attach(run.task, run.end)
            await self.hosting.wait(run.end, interrupt)
        return self._outcome(run, interrupt)  # type: ignore[no-any-return]

    def _start(self, coro: Coroutine[Any, Any, Any], name: str | None) -> Step:
        """Begin *coro* in the task that all cells share, and in their Context."""
        main = self._main
        if main is not None and (main.task.done() or not isinstance(main.task, asyncio.tasks.Task)):
            # Something has ended it. Or nest_asyncio has replaced the class: our task is not found as the current one.
            self.renew_main()
        if self._main is None:
            self._main = Main(
                self.loop, self.context, queue=self._queue, kept=lambda asked: self._show(Cancelled(asked))
            )
        self.tasks.main_begins(self._main.task)
        return self._main.begin(coro, name=name)

    def _start_alone(self, coro: Coroutine[Any, Any, Any], context: contextvars.Context, name: str | None) -> Alone:
        """Begin *coro* in a task of its own."""
        task = self.tasks.start(coro, name=name, context=context, main=True)
        return Alone(task, task)

    def run(
        self, awaitable: Awaitable[_T], *, context: contextvars.Context | None = None, name: str | None = None
    ) -> _T:
        """Run *awaitable* on the notebook's loop, block until it is done, return its result or raise its exception.

        For cells without ``await`` and for the functions they call. It runs with the caller's ContextVars, and the
        caller sees those that it sets; or in *context*. An interrupt cancels it as it cancels a cell. TypeError for
        what cannot be awaited, RuntimeError where a loop already runs.
        """
        main = as_coroutine(awaitable)
        loop = self.loop
        running = running_loop()
        if loop.is_running() or (running is not None and not is_left_running(running)):
            main.close()
            raise RuntimeError(
                "this code already runs inside an event loop, and a loop cannot run inside itself: write `await ...` "
                "instead, or use a cell without await"
            )
        self.pause()
        copy = contextvars.copy_context() if context is None else context
        with RunningAs(NOTHING), self.interrupts.of_run(self.context) as interrupt:
            run = self._start_alone(main, copy, name)
            self._drive(run, interrupt)
        if context is not None:
            return self._outcome(run, interrupt)  # type: ignore[no-any-return]
        carry_back(copy)
        unanswered = interrupt.is_unanswered
        try:
            return self._outcome(run, interrupt)  # type: ignore[no-any-return]
        finally:
            interrupt.let_go()  # nobody will ask any more who cancelled it
            if unanswered:  # SIGINT came in the last step: it is for the calling cell
                raise KeyboardInterrupt

    def run_cell(self, coro: Coroutine[Any, Any, _T], *, name: str | None = None) -> _T:
        """Run *coro*, a cell that awaits, and block. For where no kernel has a loop that must go on meanwhile."""
        with RunningAs(NOTHING):
            if self.is_entered:
                return self.run(coro, name=name)
            self.pause()
            with self.entered():
                with self.interrupts.of_run(self.context) as interrupt:
                    run = self._start(coro, name)
                    self._drive(run, interrupt)
                return self._outcome(run, interrupt)  # type: ignore[no-any-return]

    def close(self, timeout: float) -> set[asyncio.Task[Any]]:
        """Wind up and close the loop within *timeout* seconds; return the tasks that did not end in time.

        A callback that does not yield for half of the time is interrupted. SIGINT ends the waiting at once.
        """
        late: set[asyncio.Task[Any]] = set()
        if self.hosting is not None:
            self.hosting.stop()
        try:
            if not self.loop.is_closed():
                self._wind_up(timeout, late)
        finally:
            if self._slowness is not None:
                self._slowness.stop()
            for end in tuple(self.when_closed):
                end()
            self.tasks.close()
            self._plain_runs.restore()
            if self._failures is not None:
                self._failures.close()
            self.interrupts.close()
            self.loop.close()
            with suppress(TypeError):  # a loop factory of the user's may return anything
                self.closed_loops.add(self.loop)
        return late

    def settle(self) -> None:
        """At the end of a cell: show what has gone wrong, as far as that is known."""
        self.tasks.settle()
        if self._failures is not None:
            self._failures.flush()

    def _wind_up(self, timeout: float, late: set[asyncio.Task[Any]]) -> None:
        if self._main is not None:
            self._main.close()
        with RunningAs(NOTHING), self.interrupts.of_shutdown(timeout) as interrupt:
            # Not by create_task, which calls the user's task factory.
            task = asyncio.Task(wind_up(timeout, late), loop=self.loop, name="ipyrunner: close")
            self._drive(Alone(task, task), interrupt)
        if task.done() and not task.cancelled():
            task.result()

    def _drive(self, run: Step | Alone, interrupt: Interrupt) -> None:
        interrupt.attach(run.task, run.end)
        drive(self.loop, run.end, interrupt, stop=self._stop, escaped=self._on_escaped, left=self._leave)

    def _outcome(self, run: Step | Alone, interrupt: MainTask) -> Any:
        if not run.end.done():
            if interrupt.is_detached:
                self._leave_running(run)
                raise Detached
            if not interrupt.abandoned:
                raise RuntimeError(
                    "the notebook's event loop was stopped before this code ended. The next cell gets a new loop"
                )
            self.given_up.add(run.task)
            self._leave_running(run)
            self._show(GivenUp(run.task))
            raise interrupt.interruption()
        if isinstance(run, Step):
            self.tasks.main_ends()
        try:
            result = run.outcome()
            if not interrupt.presses:
                interrupt.let_go()  # what it returns is not kept
            return result
        except asyncio.CancelledError as exc:
            if interrupt.claims(exc):
                reason = interrupt.reason()
                set_traceback(reason, traceback_of(reason) or traceback_of(exc))
                raise reason from None
            raise

    def _leave_running(self, run: Step | Alone) -> None:
        """Stop waiting for *run*, which goes on. If it is in the main task, later cells get another main task."""
        if isinstance(run, Step):
            self.tasks.main_ends(given_up=True)
            self.renew_main()

    def renew_main(self) -> None:
        """Leave the main task to what runs or is still entered in it; later cells get another one."""
        if self._main is not None:
            self._main.close()
            if self._main.step is not None:  # it keeps its Context: if a cell entered that, the task's steps would fail
                self.context = self.context.copy()
                leave(self.context)
            self._main = None

    def _stop(self) -> None:
        """Stop the loop. Called in a callback that is not in an inner run."""
        if is_allowed(self.loop):
            # A ready callback may begin an inner run, which would end with an error because its loop is stopping.
            self._queue.set_aside()
        self.loop.stop()

    def _leave(self) -> None:
        """Before and after each run of the loop: put back callbacks that were set aside; end a forked child process."""
        if self._queue.aside:
            self._queue.put_back()
        if self._is_copy:
            run = self.interrupts.present
            unfinished = run is not None and not run.is_done
            if unfinished:
                self._show(ChildEnds())
            end_child(int(unfinished))

    def _on_escaped(self, exc: BaseException) -> None:
        interrupts = self.interrupts
        settle_escaped(
            exc,
            loop=self.loop,
            run=interrupts.present,
            peers=tuple(interrupts.peers),
            holder_of=self.tasks.holder_of,
        )

    def _on_signal_raised(self, exc: BaseException) -> None:
        settle_signal(exc, self.loop, self.interrupts.present)
