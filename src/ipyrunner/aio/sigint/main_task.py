"""The main task of a run: who has cancelled it, and how it ends without delay after an interrupt.

An interrupted cell has to end at once, whatever else is ready. The callbacks that its cancellation schedules go before
all others, and so do those that they schedule in turn, until the task is done or waits again, in its clean-up.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..introspection.exceptions import is_a
from ..introspection.frames import uninterruptible
from ..introspection.private_api import is_task
from ..introspection.ready_queue import ReadyQueue
from ..introspection.running_callback import runs_nested
from ..introspection.wait_graph import dependencies, depends_on
from .dropped_exceptions import when_dropped
from .forced_interrupt import Forced, forced_interrupt
from .inner_runs import InnerRun, Unwinding, inner_runs
from .interruption import interruption

__all__ = ["LAST_CHANCE", "MainTask"]

# Seconds that the main task has left after a second SIGINT.
LAST_CHANCE = 0.1
# For how many rounds the callbacks that a cancellation leads to go first.
_STEPS = 100


def _dependencies(task: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    try:
        return dependencies(task)
    except Exception:  # tasks and futures of the user's, which may be anything
        return set()


def _waits_for(future: Any, owner: Any) -> bool:
    if future is owner:
        return True
    with suppress(Exception):  # tasks and futures of the user's, which may be anything
        return is_task(future) and is_task(owner) and depends_on(future, owner)
    return False


class MainTask:
    """Cancel :attr:`task` on behalf of an interrupt, and recognise that cancellation when it comes out.

    *queue* is that of *loop*; the code that runs the loop puts back what is set aside. Without it nothing goes first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: ReadyQueue | None, grace: float) -> None:
        self.task: asyncio.Task[Any] | None = None
        # Done when the run is: the task itself, or the end of one coroutine in a task that goes on.
        self.end: asyncio.Future[Any] | None = None
        self.abandoned = False
        # The name of the run, and the Context that it runs in.
        self.name: str | None = None
        self.context: contextvars.Context | None = None
        # The code that a KeyboardInterrupt was forced into last.
        self.forced: Forced | None = None
        # Whether nobody is to wait for it any more, though it goes on.
        self.is_detached = False
        # Called when nobody is to wait for the task any longer: it is given up, or it is done.
        self.on_release: Callable[[], None] = lambda: None
        # Called with the task before an interrupt cancels it; the KeyboardInterrupt carries what this returns.
        self.look_before: Callable[[asyncio.Task[Any]], object] = lambda task: None
        # Returns whether the loop stops when the run is done; ready callbacks are set aside then, not to delay that.
        self.is_last: Callable[[], bool] = lambda: True
        self._loop = loop
        self._queue = queue
        self._context = contextvars.Context()
        self._over = False
        # Whether a press has not had its effect yet.
        self._due = False
        self._inner = Unwinding(loop, grace, is_in_way=self._is_in_way, go_on=self._go_on)
        self._cancels = 0
        self._seen: object = None
        self._looked = False
        self._reason: BaseException | None = None
        # How many callbacks were ready when the task was cancelled, and for how many rounds others have gone first.
        self._waiting = 0
        self._steps = 0
        self._released = False
        # How many SIGINTs have come, and how many of these were answered by force; the tasks and callbacks that got the
        # last forced interrupts, and the exception that the main task will not get by itself.
        self.presses = 0
        self._spent = 0
        self._forced: list[object] = []
        self._withheld: BaseException | None = None
        self._unhook: Callable[[], None] = lambda: None

    def attach(self, task: asyncio.Task[Any], end: asyncio.Future[Any] | None = None) -> None:
        """Set the main task, and its *end* if that is another future. Cancel the task if SIGINT has come already."""
        self.task, self.end = task, task if end is None else end
        if self.presses:
            self._due = False
            self.cancel()

    def press(self, *, alone: bool = False) -> None:
        """Do what SIGINT does; *alone*: to this main task only. On the main thread, also in a signal handler."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing any more."""
        self._over = True
        self._inner.close()
        self._unhook()
        self._unhook = lambda: None  # the old function keeps the exception and a task alive
        self._forced.clear()

    def queue_up(self) -> None:
        """From now on leave the queue as it is: somebody else is about to run the loop."""
        self._queue = None

    def let_go(self) -> None:
        """Drop all references to the task."""
        self.task = self.end = self._seen = None

    @property
    def is_done(self) -> bool:
        """Whether the run is done; False before there is a main task."""
        return self.end is not None and self.end.done()

    def cancel(self) -> None:
        """Cancel the task. The callbacks that this schedules go before all that are ready."""
        assert self.task is not None
        if self.presses and not self._looked:  # at a second press the state is no longer as it was
            self._looked = True
            self._seen = self.look_before(self.task)
        if self._queue is None:
            self._cancel_task()
            return
        # In this order: the task's own step, if it is about to begin or to go on; what the cancellation schedules; a
        # look whether it is done; the steps of the tasks that it waits for, which may be about to begin; and a look at
        # what has come of that.
        self._steps, waiting = 0, len(self._queue)
        self._queue.put_first(self._call_follow)
        # There may be 10,000 that it waits for, of which none is about to begin.
        first = self._queue.promote(_dependencies(self.task)) if self._queue.may_have_steps() else 0
        self._queue.call_first(self._release_if_done)
        first += self._queue.promote([self.task])
        self._queue.put_first(self._cancel_task)
        self._waiting = waiting - first

    def _cancel_task(self) -> None:
        # The task of ``Main`` distinguishes interrupts from other cancellations, which may have come before.
        cancel: Callable[[], bool] = getattr(self.task, "interrupt", None) or getattr(self.task, "cancel")  # noqa: B009
        if cancel():
            self._cancels += 1

    def _call_follow(self) -> None:
        self._loop.call_soon(self._follow, context=self._context)

    @uninterruptible
    def _follow(self) -> None:
        self._steps += 1
        if self._over or self._queue is None or self._release_if_done():
            return
        if len(self._queue) > self._waiting and self._steps < _STEPS:
            self._queue.put_first(self._call_follow, waiting=self._waiting)

    @uninterruptible
    def _release_if_done(self) -> bool:
        if self._over or self._queue is None or not self.is_done:
            return False
        # Not after a forced interrupt: the next callbacks may not yield either, and this press is for them as well.
        # Nor in a nested run: the code that waits for it cannot put the callbacks back.
        if not self._released and not self._has_forced() and not runs_nested(sys._getframe()):
            self._released = True  # once: nobody would put back a second time
            if self.is_last():
                self._queue.set_aside()
            self.on_release()  # after that: a uvloop that is to stop puts this into its queue
        return True

    def _has_forced(self) -> bool:
        """Return whether the interrupt that has cancelled has also been forced."""
        return bool(self._forced) and self._spent == self.presses

    @uninterruptible
    def _abandon(self) -> None:
        """Give the task up, if it is not done."""
        if not self._over and not self.is_done:
            self.abandoned = True
            self.on_release()

    def detach(self) -> None:
        """Release whoever waits for the run, which goes on. Does nothing if it is to end. In the loop, or at rest."""
        if not (self._over or self._due or self.task is None or self.is_done):
            self.is_detached = True
            self.on_release()

    @property
    def unwound(self) -> list[Forced]:
        """The nested runs that were in the way and were ended."""
        return self._inner.ended

    def _is_dependent(self, running: Any, *, raising: bool = False) -> bool:
        try:
            if self.task is None or not hasattr(running, "get_coro"):
                return False
            return depends_on(self.task, running, raising=raising)
        except Exception:  # tasks and futures of the user's, which may be anything
            return False

    def _is_own(self, runs: list[InnerRun]) -> tuple[bool, bool]:
        """Return whether the innermost nested run is part of what the main task does, and whether any of them is."""
        own = some = False
        outer: InnerRun | None = None
        for run in reversed(runs):
            own = self._is_dependent(run.owner) or (own and outer is not None and _waits_for(outer.future, run.owner))
            some, outer = some or own, run
        return own, some

    def _is_in_way(self, runs: list[InnerRun]) -> bool:
        """Return whether the innermost nested run keeps code that was interrupted, or has ended, from going on."""
        if self.task is None or self.is_done or self.abandoned:
            return True
        return self._due and not self._is_own(runs)[0]

    def _go_on(self, runs: list[InnerRun]) -> None:
        if self._due and self._inner.has_raised and not self._is_own(runs)[1]:
            self._due = False  # the KeyboardInterrupt has come out of the main task's nested runs, too
        self._take_effect()

    @uninterruptible
    def _take_effect(self) -> None:
        """Cancel if that is due. If the innermost nested run is the main task's, raise KeyboardInterrupt instead."""
        if not self._due or self._over or self.task is None or self.is_done:
            return
        runs = inner_runs(sys._getframe())
        own, some = self._is_own(runs)
        self._due = some and not own
        if self._due:  # somebody else's nested run is inside it, and has to end first
            return
        if own:
            self._spent, self._forced = self.presses, [runs[0].owner]
            forced = self._make_forced(runs[0].owner)
            self._unhook()
            self._unhook = when_dropped(forced, self._take_effect_again)
            raise forced
        try:
            self.cancel()
        except Exception:  # tasks that wait for each other in a circle (RecursionError), a future of the user's
            self._abandon()

    def _take_effect_again(self) -> None:
        self._spent, self._forced, self._due = self.presses - 1, [], True
        self._loop.call_soon_threadsafe(self._take_effect, context=self._context)

    def _cancel_due(self) -> None:
        """In the handler. If cancelling fails, and in a nested run, it is left to the loop when it answers.

        Between two callbacks of a nested run no task counts as running, though those that run the loop are in a step.
        """
        if self.task is not None and not self.is_done and not runs_nested(sys._getframe()):
            with suppress(Exception):  # a circle of tasks (RecursionError), a task or a future of the user's
                self.cancel()
                self._due = False

    def _answered(self) -> None:
        """In the loop, after each press: it responds."""
        self._inner.begin()
        if self._over or self.task is None or self.is_done:
            return
        if self.presses - self._spent > 1:
            self._loop.call_later(LAST_CHANCE, self._abandon)
        self._take_effect()

    # -- forced interrupts

    def _make_forced(self, dependent: object) -> KeyboardInterrupt:
        """Return the exception to raise in *dependent*, a task that the main task waits for; None: in anything else."""
        forced = forced_interrupt()
        self._withhold(forced, dependent)
        return forced

    def _withhold(self, forced: BaseException, dependent: object) -> None:
        if dependent is not None and dependent is not self.task and not self._is_dependent(dependent, raising=True):
            self._withheld = forced

    def take_forced(self, forced: BaseException, running: object) -> Callable[[], None] | None:
        """Note that *forced* is raised in *running*; return what undoes this, None if this task is not affected."""
        if self.is_done or not self._is_dependent(running):
            return None
        due, spent, before = self._due, self._spent, self._forced
        self._due, self._spent, self._forced = False, self.presses, [*before, running]
        self._withhold(forced, running)

        def undo() -> None:
            self._due, self._spent, self._forced, self._withheld = due, spent, before, None

        return undo

    def came_out(self, exc: BaseException) -> None:
        """Note that *exc*, a forced interrupt, has come out of the code that it was raised in."""
        if exc is self._withheld:
            self._withheld = None
            self.fail(exc)

    def fail(self, exc: BaseException) -> None:
        """Cancel the main task because of *exc*, which comes out in place of KeyboardInterrupt."""
        if self.task is not None and not self.is_done:
            self._reason = exc
            self.cancel()

    def reason(self) -> BaseException:
        """Return the exception that replaces a cancellation which :meth:`claims` has claimed."""
        reason, self._reason = self._reason, None
        return self.interruption() if reason is None else reason

    def interruption(self) -> KeyboardInterrupt:
        """Return a KeyboardInterrupt, with what was seen before the interrupt."""
        seen, self._seen = self._seen, None
        return interruption(seen)

    def claims(self, exc: BaseException | None) -> bool:
        """Return whether *exc* is the cancellation that SIGINT has requested, and that nothing else has requested.

        True once only: from then on the cancellation counts as handled (``Task.uncancel``).
        """
        if not is_a(exc, asyncio.CancelledError) or not self._cancels or self.task is None:
            return False
        left = 0
        for _ in range(self._cancels):
            left = self.task.uncancel()
        self._cancels = 0
        return left == 0
