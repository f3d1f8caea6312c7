"""SIGINT for one main task of a loop that stays: cancel, ask whether the loop responds, force what does not yield.

The problem: ``asyncio.Runner`` may raise KeyboardInterrupt anywhere, because its loop is closed right after. A loop
that stays must not lose a callback, a timer or a task to it; and headless clients interrupt only once. The solution:

* *Cancel.* The signal handler itself cancels the main task, as ``asyncio.Runner``'s does; a callback would have to wait
  for all busy tasks in the queue. Only while a task is in one of its steps (it may be the main task, or one that the
  cancellation is passed on to), a callback at the front of the queue cancels when that step has ended. A step that does
  not end gets a KeyboardInterrupt instead, so that one interrupt has one effect.
* *Ask.* ``call_soon_threadsafe`` puts a question to the loop. Once the loop has answered, nothing in it is forced any
  more: a cell that does its asynchronous clean-up is not cut short.
* *Force.* The watchdog's thread looks every 10 ms which callback the loop is in (``Holder``). One that has itself held
  the loop for *grace* seconds since the interrupt does not yield. SIGINT is then sent again until the handler finds
  user code, where an exception does not damage the loop, and raises KeyboardInterrupt there.

A second SIGINT cancels once more. Tasks that the main task depends on may then hold the loop for a tenth of a second
only; a main task that is not done a tenth of a second after the loop has answered stays in the loop, and the cell ends.

A forced KeyboardInterrupt may be caught: code that catches it may save its results, or await its clean-up, and is left
alone until the next SIGINT, which counts as a first one. If it comes out of a task whose exception the main task will
not get (``gather(return_exceptions=True)``, ``asyncio.wait``), the main task is cancelled. Raised where Python drops
exceptions (``__del__``, a weakref's callback, a generator that is collected), it is raised again.

Where the main task runs a loop inside itself (nest_asyncio), the callback that should cancel raises KeyboardInterrupt
instead, which comes out of the inner run.

What still fails: a callback that catches KeyboardInterrupt and goes on holds the loop until the next SIGINT. A call
into C that never checks for signals cannot be interrupted. On a loop that hides its queue one more callback may run.
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from ..introspection.frames import is_user_code, uninterruptible, user_frame
from ..introspection.private_api import is_stepping
from ..introspection.ready_queue import ReadyQueue
from ..introspection.running_callback import CallbackCall, Holder
from ..introspection.stacks import callers, frames_of
from .dropped_exceptions import call_at_next_line, when_dropped
from .forced_interrupt import Forced
from .handlers import handler_of, is_default_handler, on_main_thread, signal_main_thread
from .main_task import LAST_CHANCE, MainTask
from .watchdog_thread import watchdog

__all__ = ["Interrupt"]

# Seconds: between two looks of the watchdog.
_LOOK = 0.01


class _Question:
    answered = False  # set by a single instruction, which no forced interrupt can tear apart


class Interrupt(MainTask):
    """Take SIGINT over for one main task; a context manager, entered before the task is made.

    Only on the main thread, and if *replaces* is true of the present handler. That handler is restored at the end
    unless somebody has replaced ours. Our handler raises forced interrupts only.

    Parameters
    ----------
    loop : the main task's loop.
    grace : seconds that a callback may hold the loop after the first SIGINT.
    replaces : called with the present handler.
    queue : the loop's queue; the code that runs the loop puts back what is set aside. Without it nothing goes first.
    peers : returns the main tasks that are interrupted together with this one, and have no handler of their own.
    press_peers : interrupts these; called in the handler.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        grace: float,
        replaces: Callable[[object], bool] = is_default_handler,
        queue: ReadyQueue | None = None,
        peers: Callable[[], Iterable[MainTask]] = tuple,
        press_peers: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(loop, queue, grace)
        self._peers, self._press_peers = peers, press_peers
        # How many presses were passed on to the peers: one that comes when this is almost over is only counted.
        self.told = 0
        self._grace = grace
        self._replaces = replaces
        self._previous: Any = None
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._holder = Holder(loop, everything=True)
        # Whether the next SIGINT was sent by the watchdog; whether a SIGINT has come that could not be handled; whether
        # a SIGINT is being handled.
        self._sent = self._missed = self._handling = False
        self._put = watchdog.put
        # Whether the effect of a press waits for the end of a step, and of which step.
        self._waits = False
        self._behind: CallbackCall | None = None
        # The last question, and whether it has still to be put.
        self._question = _Question()
        self._question.answered = True
        self._asks = False
        # Whether the watchdog looks, and the end of watch_over().
        self._watched = False
        self._until: float | None = None
        self._within = 0.0

    def __enter__(self) -> Interrupt:
        if on_main_thread():
            previous = handler_of(signal.SIGINT)
            if previous is not None and self._replaces(previous):
                watchdog.start()
                handler, self._put = self.on_sigint, watchdog.put  # of the thread that runs now
                try:
                    signal.signal(signal.SIGINT, handler)
                except ValueError:  # an embedded interpreter without signals (gh-91880)
                    return self
                self._handler, self._previous = handler, previous
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._over = True
        self.presses += self._missed
        self.close()
        self._holder.forget()
        self._behind = None
        if self.handles_signals:
            if hasattr(signal, "pthread_sigmask"):
                # A system call: what the watchdog has sent arrives now at the latest, and our handler ignores it.
                signal.pthread_sigmask(signal.SIG_BLOCK, ())
            signal.signal(signal.SIGINT, self._previous)

    @staticmethod
    def owns(handler: object) -> bool:
        """Return whether *handler* belongs to some Interrupt."""
        return isinstance(getattr(handler, "__self__", None), Interrupt)

    @property
    def handles_signals(self) -> bool:
        """Whether our handler is in place: not on other threads, nor where the user has one."""
        return self._handler is not None and handler_of(signal.SIGINT) is self._handler

    @property
    def is_unanswered(self) -> bool:
        """Whether SIGINT has come, and has neither cancelled anything nor been forced."""
        return self.presses > self._spent and not self._cancels

    def after_fork(self) -> None:
        """In a child process: restore Python's handler for SIGINT; the loop and its watchers are the parent's."""
        self._over = True
        if self.handles_signals:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # -- SIGINT

    def press(self, *, alone: bool = False) -> None:
        """Do what SIGINT does; *alone*: to this main task only. On the main thread, also in a signal handler."""
        self.told += 1
        if not alone:
            self._press_peers()
        self.presses += 1
        self._due, self._waits = self.task is not None, False
        if self.presses - self._spent == 1:
            self._holder.forget()  # how long it took to handle the last one does not count
        if self._question.answered:
            self._question, self._asks = _Question(), True
            self._ask()
        self._be_watched()

    def _be_watched(self) -> None:
        if not self._watched:
            self._put((time.monotonic() + _LOOK, self._watch))
            self._watched = True

    def watch_over(self, seconds: float) -> None:
        """Until this ends, force what holds the loop for half of *seconds*; after these, what holds it for 10 ms."""
        self._within, self._until = seconds / 2, time.monotonic() + seconds
        self._be_watched()

    def on_sigint(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if self._over:  # about to be handed back; a SIGINT counts unless the watchdog has sent it
            self.presses += not self._sent
            self._sent = False
            return
        forced, presses = None, self.presses
        if self._sent and not self._missed:
            self._sent = False
        else:
            self._missed = True
        if self._handling:  # the previous one, still, on a machine under load: this SIGINT is handled after it
            self._be_watched()
            return
        missed, self._missed = self._missed, False
        try:
            self._handling = True
            if missed:
                self.press()
                missed = False
            forced = self._take_step(frame)
        except RecursionError:  # the interrupted code is deep in a recursion: try again later
            if missed:
                self._missed, self.presses = True, presses
            if not self._watched:  # _be_watched() would be another frame
                self._put((time.monotonic() + _LOOK, self._watch))
                self._watched = True
        finally:
            self._handling = False
        if forced is not None:
            raise forced

    def _raise(self, frame: FrameType) -> None:
        held = self._holder.look(callers(frame), task=self.task if is_stepping(self.task) else None)
        if held is not None and not self._over and is_user_code(frame, self._loop):
            raise self._force(frame, held)

    def _take_step(self, frame: FrameType | None) -> KeyboardInterrupt | None:
        """In the handler: do what can be done at this moment; return what is to be raised in *frame*."""
        if self._asks:
            self._ask()
        main = self.task if is_stepping(self.task) else None
        held = self._holder.look(callers(frame), task=main)
        if self._due:
            if main is None and asyncio.current_task(self._loop) is None:
                self._cancel_due()
            elif not self._waits:
                self._waits, self._behind = True, held
                if self._queue is not None:
                    self._queue.call_first(self._take_effect)
            elif held is not self._behind:
                # That step has ended, and the next one has begun meanwhile: the main task's own, or any other.
                self._behind = held
                if main is None:
                    self._cancel_due()
        if frame is None or held is None or not self._is_late(held) or not is_user_code(frame, self._loop):
            return None
        return self._force(frame, held)

    def _ask(self) -> None:
        try:
            # Wakes the loop from select(), and touches nothing of it but its queue.
            self._loop.call_soon_threadsafe(self._answer, self._question, context=self._context)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._question.answered = True
        self._asks = False

    def _patience(self, held: CallbackCall, *, elsewhere: bool) -> float:
        """Return the seconds that *held* may hold the loop."""
        patience = self._grace if self.presses else math.inf
        if self.presses - self._spent > 1 and self._is_needed(held, elsewhere=elsewhere):
            patience = min(patience, LAST_CHANCE)
        if self._until is not None:
            patience = min(patience, self._within, max(self._until - time.monotonic(), _LOOK))
        return patience

    def _is_needed(self, held: CallbackCall, *, elsewhere: bool) -> bool:
        """Return whether interrupted code waits for *held*; *elsewhere*: or whether that has not been found out yet."""
        if not elsewhere and not self._is_any_dependent(self._running(held)):
            held.unneeded = self.presses
        return held.unneeded != self.presses

    def _is_any_dependent(self, running: object) -> bool:
        return self._is_dependent(running) or any(peer._is_dependent(running) for peer in self._peers())

    def _running(self, held: CallbackCall) -> object:
        # A task is the same one in all of its steps.
        task = asyncio.current_task(self._loop)
        return task or (self.task if is_stepping(self.task) else held.callback)

    def _is_late(self, held: CallbackCall | None, *, elsewhere: bool = False) -> bool:
        """Return whether *held* does not yield, and has not had its KeyboardInterrupt for this press.

        *elsewhere*: on another thread, which cannot look what waits for what, whether the handler is to find it out.
        """
        if held is None or held.seconds < self._patience(held, elsewhere=elsewhere):
            return False
        running = self._running(held) if self.presses and self._has_forced() else None
        return running is None or not any(forced is running for forced in self._forced)

    def _force(self, frame: FrameType, held: CallbackCall) -> KeyboardInterrupt:
        running = self._running(held)
        if self._spent != self.presses:
            self._spent, self._forced = self.presses, []
        dependent = self._is_dependent(running)
        if self._due and not dependent:
            self._cancel_due()
        is_taken, self._due = self._due and dependent, self._due and not dependent
        self._forced.append(running)
        self.forced = Forced.into(frame)._replace(seconds=held.seconds)
        since, held.since = held.since, time.monotonic()
        forced = self._make_forced(running if dependent else None)
        given_back = [back for peer in self._peers() if (back := peer.take_forced(forced, running)) is not None]

        def undo() -> None:
            for give_back in given_back:
                give_back()
            held.since = since
            self._forced = [other for other in self._forced if other is not running]
            self._due = self._due or is_taken
            # Code that frees one object after another is in a __del__ whenever the watchdog looks.
            call_at_next_line(user_frame(sys._getframe(), self._loop), self._raise)

        self._unhook()
        self._unhook = when_dropped(forced, undo)
        return forced

    # -- in the loop

    @uninterruptible
    def _answer(self, question: _Question) -> None:
        """Answer the question. It was put before any callback that came to the queue after the press."""
        question.answered = True
        self._answered()

    # -- in the watchdog's thread

    def _watch(self) -> float | None:
        """Send SIGINT to the main thread if there is something to do there; return when to look again."""
        if self._over:
            return None
        if self._question.answered and not (self._asks or self._missed) and self._until is None:
            self._watched = False
            if self._question.answered and not self._missed:
                return None
            self._watched = True  # it has just been put
        if self._handling:
            return _LOOK
        held = self._holder.look(frames_of(self._thread), task=self.task if is_stepping(self.task) else None)
        has_ended = self._due and self._waits and held is not self._behind
        if self._is_late(held, elsewhere=True) or has_ended or self._asks or self._missed:
            with self._lock:
                if self._over or not self.handles_signals:
                    return None
                self._sent = True
                signal_main_thread()
        return _LOOK
