"""SIGINT for all runs of one loop: one after another, one inside another, or concurrent."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .introspection.ready_queue import ReadyQueue
from .introspection.task_origin import origin_of
from .sigint.forced_interrupt import Forced
from .sigint.handlers import Outside, take_blocked
from .sigint.interrupt import Interrupt
from .sigint.main_task import MainTask
from .sigint.peer import Peer
from .sigint.wakeup_fd import Wakeup
from .tasks.waits.deadlocks import Deadlock, deadlock_of

__all__ = ["Interrupts"]


class Interrupts:
    """Make an ``Interrupt`` for each run of *loop*, whose queue is *queue*, until :meth:`close`.

    *grace* returns the seconds that the loop has to answer a first SIGINT; *outside* handles SIGINT while no run does;
    *show* is called with the code that an interrupt was forced into, in its Context, if the run did not start it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: ReadyQueue,
        *,
        grace: Callable[[], float],
        outside: Outside,
        show: Callable[[Forced], object],
    ) -> None:
        # The interrupt of the current run, and that of the last one.
        self.present: Interrupt | None = None
        self.last: Interrupt | None = None
        # Those of concurrent runs.
        self.peers: list[Peer] = []
        # Whether the next SIGINT is only for the run that has the thread, and not for the peers.
        self.alone = False
        self._pressed = False
        # How often SIGINT has come for a run.
        self.count = 0
        self._loop = loop
        self._queue = queue
        self._grace = grace
        self._outside = outside
        self._show = show
        self._wakeup = Wakeup(loop)
        # For the time that the loop and its host sleep together, and run nothing that SIGINT could interrupt.
        self.asleep = self._wakeup.on_signals
        self._between: Interrupt | None = None

    def close(self) -> None:
        """Let go of the loop."""
        self._wakeup.close()

    def after_fork(self) -> None:
        """In a child process: restore Python's handler for SIGINT."""
        for interrupt in (self.present, self._between):
            if interrupt is not None:
                interrupt.after_fork()
        for peer in self.peers:
            peer.close()

    def take_blocked(self) -> None:
        """In the loop: interrupt the current run also if SIGINT is pending because the user blocks it."""
        if (run := self.present) is not None and run.handles_signals and take_blocked():
            run.on_sigint(signal.SIGINT, None)

    def takes_over(self, handler: object) -> bool:
        """Return whether a run that begins takes SIGINT over from *handler*, the present one."""
        return self._outside.replaces(handler)

    @contextmanager
    def of_run(self, context: contextvars.Context) -> Iterator[Interrupt]:
        """Handle SIGINT during the block, which is one run in *context*."""
        before = self.present
        interrupt = Interrupt(
            self._loop,
            grace=self._grace(),
            replaces=self._outside.replaces,
            queue=self._queue,
            peers=lambda: tuple(self.peers),
            press_peers=self._press_from_run,
        )
        interrupt.look_before = self._look_before
        try:
            with self._wakeup.on_signals(), interrupt:
                self.present = interrupt
                if self._outside.take():
                    interrupt.press(alone=True)  # the peers have had this SIGINT
                try:
                    yield interrupt
                finally:
                    self.present, self.last = before, interrupt
                    if interrupt.presses:  # handled: the prompt that runs the loop next must not get it
                        self._wakeup.forget(signal.SIGINT)
        finally:
            self.count += interrupt.presses
            self._tell_peers(interrupt)
            if (forced := interrupt.forced) and origin_of(forced.context) is not origin_of(context):
                forced.context.run(self._show, forced)
            self._show_unwound(interrupt)

    @contextmanager
    def between_runs(self) -> Iterator[None]:
        """Handle SIGINT while the loop runs, and no run does or only concurrent ones do.

        ipykernel ignores SIGINT then. A background callback that never yields is interrupted all the same, because no
        cell could run any more. There is no main task to cancel.
        """
        if self.present is not None:  # a cell waits
            yield
            return
        interrupt = Interrupt(
            self._loop,
            grace=self._grace(),
            replaces=self._outside.rests,
            peers=lambda: tuple(self.peers),
            press_peers=self.press_peers,
        )
        self._between = interrupt
        try:
            with self._wakeup.on_signals(), interrupt:
                yield
        finally:
            self._between = None
            self._tell_peers(interrupt)
            if interrupt.presses:
                self._wakeup.forget(signal.SIGINT)
            self._show_unwound(interrupt)
            if interrupt.forced is not None:
                interrupt.forced.context.run(self._show, interrupt.forced)
            elif interrupt.presses and not self._wakeup.passed_on:
                self._outside.keep()

    @contextmanager
    def beside(self, context: contextvars.Context, name: str | None) -> Iterator[Peer]:
        """The block is a run in *context*: SIGINT interrupts it together with all other runs."""
        peer = Peer(self._loop, self._queue, self._grace())
        peer.context, peer.name = context, name
        peer.look_before = self._look_before
        self.peers.append(peer)
        if len(self.peers) == 1:
            self.alone = False  # it was set for a cell without peers
            self._outside.begin_peers(self._press_from_run)
        try:
            yield peer
        finally:
            peer.close()
            self.peers.remove(peer)
            if not self.peers:
                self._outside.end_peers()
            self._show_unwound(peer)

    def _look_before(self, task: asyncio.Task[Any]) -> Deadlock | None:
        return deadlock_of(task, self._loop)

    def press_peers(self) -> None:
        """Interrupt the concurrent runs as SIGINT does. On the main thread, also in a signal handler."""
        alone, self.alone = self.alone, False
        for peer in () if alone else tuple(self.peers):
            peer.press()

    def _tell_peers(self, interrupt: Interrupt) -> None:
        if interrupt.presses > interrupt.told:
            self._press_from_run()

    def _press_from_run(self) -> None:
        self._pressed = True
        self.press_peers()

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """After the block, in which others handle SIGINT, pass a SIGINT that came on to the concurrent runs as well."""
        if not self.peers:
            yield
            return
        pressed, self._pressed = self._pressed, False
        try:
            with self._wakeup.on_signals():
                yield
        finally:
            if self._wakeup.take(signal.SIGINT) and not self._pressed:  # else a run in the block has handled it
                self.press_peers()
            self._pressed, self.alone = pressed, False

    def runs(self) -> list[MainTask]:
        """Return the interrupts of the current run and of its peers, of those that have names."""
        present = [] if self.present is None else [self.present]
        return [run for run in (*present, *self.peers) if run.name is not None]

    def of_task(self, task: object) -> MainTask | None:
        """Return the interrupt of the peer whose main task is *task*; if there is none, that of the current run."""
        return next((peer for peer in self.peers if peer.task is task), self.present)

    def _show_unwound(self, interrupt: MainTask) -> None:
        for unwound in interrupt.unwound:
            unwound.context.copy().run(self._show, unwound)

    @contextmanager
    def of_shutdown(self, timeout: float) -> Iterator[Interrupt]:
        """Handle SIGINT while the loop closes, in *timeout* seconds; interrupt what blocks it for half of them."""
        if self.present is not None:  # of a cell that still waits when the process ends
            self.present.queue_up()
        outside = self._outside
        interrupt = Interrupt(
            self._loop,
            grace=0.02,  # seconds: there may be many that do not yield
            replaces=lambda handler: outside.replaces(handler) or outside.rests(handler) or Interrupt.owns(handler),
        )
        with self._wakeup.on_signals(), interrupt:
            interrupt.watch_over(timeout)
            yield interrupt
