"""The main task of a run: on whose behalf it was cancelled, and that nobody waits for it longer than need be.

An interrupted cell is to end now, whatever else is ready. What its cancellation has scheduled is put before all others,
and what that has scheduled in its turn, until the task is done, or waits for something again: its clean-up.
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

# Seconds: what a second SIGINT leaves.
LAST_CHANCE = 0.1
# So often what a cancellation has led to goes first.
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
    """Cancel :attr:`task` on behalf of an interrupt, and know that cancellation again when it comes out.

    *queue* is that of *loop*; whoever runs the loop puts back what is set aside. Without it nothing goes first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: ReadyQueue | None, grace: float) -> None:
        self.task: asyncio.Task[Any] | None = None
        # Done when what it is about is: the task itself, or one coroutine of a task that goes on.
        self.end: asyncio.Future[Any] | None = None
        self.abandoned = False
        # What others know it by, and the Context that it runs in.
        self.name: str | None = None
        self.context: contextvars.Context | None = None
        # What a KeyboardInterrupt was forced into, last.
        self.forced: Forced | None = None
        # Whether nobody is to wait for it any more, though it goes on.
        self.is_detached = False
        # Called when nobody is to wait for the task any longer: it is given up, or it is done.
        self.on_release: Callable[[], None] = lambda: None
        # Called with the task before an interrupt cancels it; what that returns is a fact of the KeyboardInterrupt.
        self.look_before: Callable[[asyncio.Task[Any]], object] = lambda task: None
        # Returns whether whoever runs the loop stops when it is done: what waits its turn does not keep it then.
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
        # What was ready when the task was cancelled, and how many steps what has come of that has taken.
        self._waiting = 0
        self._steps = 0
        self._released = False
        # How often SIGINT has come for it, and how many of these forced interrupts have answered; what these were
        # forced into, and the one that the task will not get by itself.
        self.presses = 0
        self._spent = 0
        self._forced: list[object] = []
        self._withheld: BaseException | None = None
        self._unhook: Callable[[], None] = lambda: None

    def attach(self, task: asyncio.Task[Any], end: asyncio.Future[Any] | None = None) -> None:
        """Name the main task, and its *end*, if that is another. If SIGINT came before it was made, it is cancelled."""
        self.task, self.end = task, task if end is None else end
        if self.presses:
            self._due = False
            self.cancel()

    def press(self, *, alone: bool = False) -> None:
        """Do what SIGINT does, *alone*: to this main task alone. On the main thread, also in a signal handler."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing any more."""
        self._over = True
        self._inner.close()
        self._unhook()
        self._unhook = lambda: None  # the other one has the exception, and a task
        self._forced.clear()

    def queue_up(self) -> None:
        """Put nothing first any more, and nothing aside: somebody else is about to run the loop."""
        self._queue = None

    def let_go(self) -> None:
        """Keep nothing of the task."""
        self.task = self.end = self._seen = None

    @property
    def is_done(self) -> bool:
        """Whether what the main task was to do is done; not before there is one."""
        return self.end is not None and self.end.done()

    def cancel(self) -> None:
        """Cancel the task. What that schedules goes before all that is ready."""
        assert self.task is not None
        if self.presses and not self._looked:  # the second press finds nothing as it was
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
        first = self._queue.promote(_dependencies(self.task)) if waiting else 0
        self._queue.call_first(self._release_if_done)
        first += self._queue.promote([self.task])
        self._queue.put_first(self._cancel_task)
        self._waiting = waiting - first

    def _cancel_task(self) -> None:
        # A task that stays (``Main``) tells interrupts from others, who may have cancelled what runs before.
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
        # Not if something had to be forced: what is behind it may not yield either, and this press is for all of
        # them. Nor in an inner run: whoever waits for that cannot put back.
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
        """Let nobody wait for it any more: it goes on. In the loop, or at rest; nothing if it is to end."""
        if not (self._over or self._due or self.task is None or self.is_done):
            self.is_detached = True
            self.on_release()

    @property
    def unwound(self) -> list[Forced]:
        """The inner runs that were in the way, and were ended."""
        return self._inner.ended

    def _is_dependent(self, running: Any, *, raising: bool = False) -> bool:
        try:
            if self.task is None or not hasattr(running, "get_coro"):
                return False
            return depends_on(self.task, running, raising=raising)
        except Exception:  # tasks and futures of the user's, which may be anything
            return False

    def _is_own(self, runs: list[InnerRun]) -> tuple[bool, bool]:
        """Return whether the innermost of the inner runs is part of what the main task does, and whether any is."""
        own = some = False
        outer: InnerRun | None = None
        for run in reversed(runs):
            own = self._is_dependent(run.owner) or (own and outer is not None and _waits_for(outer.future, run.owner))
            some, outer = some or own, run
        return own, some

    def _is_in_way(self, runs: list[InnerRun]) -> bool:
        """Return whether the innermost of the inner runs keeps what is interrupted, or has ended, from going on."""
        if self.task is None or self.is_done or self.abandoned:
            return True
        return self._due and not self._is_own(runs)[0]

    def _go_on(self, runs: list[InnerRun]) -> None:
        if self._due and self._inner.has_raised and not self._is_own(runs)[1]:
            self._due = False  # what came out of the run that was in the way has come out of theirs, too
        self._take_effect()

    @uninterruptible
    def _take_effect(self) -> None:
        """Cancel if that is due. In a run inside what is interrupted raise instead, if that is the innermost one."""
        if not self._due or self._over or self.task is None or self.is_done:
            return
        runs = inner_runs(sys._getframe())
        own, some = self._is_own(runs)
        self._due = some and not own
        if self._due:  # somebody else's run lies over it, and has to end first
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
        """In the handler. What cannot be cancelled here, the loop's answer decides about; so it does in an inner run.

        There no task counts as running, between two callbacks, though those that run the loop are in a step of theirs.
        """
        if self.task is not None and not self.is_done and not runs_nested(sys._getframe()):
            with suppress(Exception):  # a circle of tasks (RecursionError), a task or a future of the user's
                self.cancel()
                self._due = False

    def _answered(self) -> None:
        """In the loop, at each press: it lives."""
        self._inner.begin()
        if self._over or self.task is None or self.is_done:
            return
        if self.presses - self._spent > 1:
            self._loop.call_later(LAST_CHANCE, self._abandon)
        self._take_effect()

    # -- forced interrupts

    def _make_forced(self, dependent: object) -> KeyboardInterrupt:
        """Return what is raised in *dependent*, a task that the main task waits for, or in something else (None)."""
        forced = forced_interrupt()
        self._withhold(forced, dependent)
        return forced

    def _withhold(self, forced: BaseException, dependent: object) -> None:
        if dependent is not None and dependent is not self.task and not self._is_dependent(dependent, raising=True):
            self._withheld = forced

    def take_forced(self, forced: BaseException, running: object) -> Callable[[], None] | None:
        """Say that *forced* is raised in *running*; return what takes that back, None if it is nothing to this task."""
        if self.is_done or not self._is_dependent(running):
            return None
        due, spent, before = self._due, self._spent, self._forced
        self._due, self._spent, self._forced = False, self.presses, [*before, running]
        self._withhold(forced, running)

        def undo() -> None:
            self._due, self._spent, self._forced, self._withheld = due, spent, before, None

        return undo

    def came_out(self, exc: BaseException) -> None:
        """Say that *exc*, which is forced, has come out of what it was forced into."""
        if exc is self._withheld:
            self._withheld = None
            self.fail(exc)

    def fail(self, exc: BaseException) -> None:
        """Cancel the main task because of *exc*, which is to come out in the place of KeyboardInterrupt."""
        if self.task is not None and not self.is_done:
            self._reason = exc
            self.cancel()

    def reason(self) -> BaseException:
        """Return what takes the place of a cancellation that :meth:`claims` has claimed."""
        reason, self._reason = self._reason, None
        return self.interruption() if reason is None else reason

    def interruption(self) -> KeyboardInterrupt:
        """Return a KeyboardInterrupt, with what was seen before the interrupt."""
        seen, self._seen = self._seen, None
        return interruption(seen)

    def claims(self, exc: BaseException | None) -> bool:
        """Return whether *exc* is the cancellation that SIGINT asked for, and nobody else did.

        It is answered once: the cancellation counts as handled from then on (``Task.uncancel``).
        """
        if not is_a(exc, asyncio.CancelledError) or not self._cancels or self.task is None:
            return False
        left = 0
        for _ in range(self._cancels):
            left = self.task.uncancel()
        self._cancels = 0
        return left == 0
