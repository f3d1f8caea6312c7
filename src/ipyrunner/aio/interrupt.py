"""SIGINT for one main task of a loop that stays: cancel, escalate, hand back.

The problem: ``asyncio.Runner`` can let a KeyboardInterrupt fly out of anywhere, because its loop is closed right after.
A loop that stays must not lose a callback, a timer or a task to it; and one press must be enough, because headless
clients press once.

The solution: the first SIGINT asks the loop, through ``call_soon_threadsafe``, to cancel the main task. That request
is a ping as well. If the loop has not answered within *grace* seconds, the callback that it is in does not yield,
and KeyboardInterrupt is forced into that callback: a watcher thread sends SIGINT to the main thread again until the
handler finds it in user code, which is where raising costs the loop nothing. In the loop's own code it never raises.
A loop that answers is never forced: a cell that does its asynchronous clean-up is not cut short.

The second SIGINT cancels once more, and is forced after a tenth of a second if the loop does not answer; a main task
that is not done a tenth of a second after the loop has answered is given up: it stays in the loop, the cell ends.

A press has one effect, as in a script: code that has got its KeyboardInterrupt may catch it, save what it has, or await
its clean-up, and is left alone until the next press, which counts as a first one. So is a main task that waits for that
code.

What still fails: a callback that catches KeyboardInterrupt and goes on keeps the loop until the next press. A call into
C that never looks at signals cannot be interrupted by anything.
"""

from __future__ import annotations

import _weakrefset
import asyncio
import contextvars
import dis
import inspect
import linecache
import os
import selectors
import signal
import threading
import time
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from .awaiting import depends_on
from .running import running_loop
from .signalling import forget_before_debugger, in_thread, is_debuggers_handler, is_default_handler, signal_main_thread

__all__ = ["Interrupt", "drives_loop", "is_callback", "is_driver", "is_forced", "uninterruptible"]

_RETRY = 0.01
_LAST_CHANCE = 0.1

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
# Weak references and finalizers swallow what is raised in them, and asyncio keeps its tasks in a WeakSet.
_PROTECTED = (_OURS, selectors.__file__, _weakrefset.__file__, weakref.__file__)
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
# Private: events.Handle._run calls each callback (3.4 to 3.14). On the line of that call the callback is running, or
# has run; on the others it may be lost. Found nowhere, C functions used as callbacks cannot be forced.
_HANDLE_RUN = asyncio.Handle._run.__code__
_CALLBACK_LINES = {
    i.positions.lineno for i in dis.get_instructions(_HANDLE_RUN) if i.argval == "run" and i.positions is not None
}


_Function = TypeVar("_Function", bound=Callable[..., Any])
_DRIVERS: set[CodeType] = set()
_OUR_CALLBACKS: set[CodeType] = set()
_CATCHING: set[CodeType] = set()


class _Question:
    """Put to the loop; *answered* is set by a single instruction, which no forced interrupt can tear apart."""

    answered = False


def drives_loop(function: _Function) -> _Function:
    """Mark a function that calls ``loop.run_forever``.

    The functions of a loop that is not written in Python (uvloop) have no frames: a C function that such a loop has
    called shows as the driver's frame. That a forced interrupt is due there says that the loop does not poll.
    """
    _DRIVERS.add(function.__code__)
    return function


def uninterruptible(function: _Function) -> _Function:
    """Mark a function that the loop calls for us: no interrupt is forced into it, nor into what it calls."""
    _OUR_CALLBACKS.add(function.__code__)
    return function


def catches_interrupts(function: _Function) -> _Function:
    """Mark a function that calls user code and catches what is raised in it, in uninterruptible ones as well."""
    _CATCHING.add(function.__code__)
    return function


def is_driver(frame: FrameType) -> bool:
    """Return whether the frame's function is marked by :func:`drives_loop`."""
    return frame.f_code in _DRIVERS


def is_callback(frame: FrameType) -> bool:
    """Return whether a loop of asyncio's own calls a callback in the frame; its ``self`` is the Handle."""
    return frame.f_code is _HANDLE_RUN


def is_forced(exc: BaseException | None) -> bool:
    """Return whether *exc* was raised by an Interrupt, and not by the code that it came out of."""
    return isinstance(getattr(exc, "forced_by", None), Interrupt)


def _is_debugger(frame: FrameType) -> bool:
    # Stopped at a breakpoint of a front end's debugger (debugpy). After a KeyboardInterrupt in there neither it nor the
    # kernel answers any more: measured with a plain cell of the stock kernel. The cell is cancelled when it goes on.
    return str(frame.f_globals.get("__name__", "")).startswith(("pydevd", "_pydevd"))


def _is_user_code(frame: FrameType, loop: asyncio.AbstractEventLoop) -> bool:
    code = frame.f_code
    if code in _DRIVERS:
        return not isinstance(loop, asyncio.BaseEventLoop)
    if code is _HANDLE_RUN:
        return frame.f_lineno in _CALLBACK_LINES
    if code.co_filename.startswith(_PROTECTED) or code.co_name == "__del__":
        return False
    caller: FrameType | None = frame
    while caller is not None and caller.f_code is not _HANDLE_RUN and caller.f_code not in _DRIVERS:
        if caller.f_code in _CATCHING:
            break
        if caller.f_code in _OUR_CALLBACKS or _is_debugger(caller):
            return False
        caller = caller.f_back
    # Coroutines of asyncio (sleep, wait_for, gather's callers) are the user's; its functions keep the loop's books.
    return not code.co_filename.startswith(_ASYNCIO) or bool(code.co_flags & _COROUTINE)


def _running(frame: FrameType, loop: asyncio.AbstractEventLoop) -> object:
    """Return what the loop runs in *frame*: the task, or of a callback its Handle, where loops have such frames."""
    task = asyncio.current_task(loop)
    if task is not None:
        return task
    while frame.f_code is not _HANDLE_RUN and frame.f_back is not None and frame.f_back.f_code not in _DRIVERS:
        frame = frame.f_back
    return frame.f_locals["self"] if frame.f_code is _HANDLE_RUN else frame


class Interrupt:
    """Take SIGINT over for one main task; a context manager, entered before the task is made.

    On the main thread alone, and only if *replaces* says so of the handler that is there; handed back only if the
    handler still is ours. Elsewhere it does nothing.

    Parameters
    ----------
    loop : the main task's loop.
    grace : seconds that the loop has to answer the first SIGINT.
    replaces : called with the present handler.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        grace: float,
        replaces: Callable[[object], bool] = is_default_handler,
    ) -> None:
        self.presses = 0
        self.abandoned = False
        # The function and the line of user code that the interrupt was forced into, if it was, and its Context.
        self.forced_at: tuple[str, str] | None = None
        self.forced_in: contextvars.Context | None = None
        self.on_abandon: Callable[[], None] = lambda: None
        self._loop = loop
        self._grace = grace
        self._replaces = replaces
        self.task: asyncio.Task[Any] | None = None
        self._cancels = 0
        self._reason: BaseException | None = None
        self._previous: Any = None
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self._over = False
        # Whether the next SIGINT is one that the watcher has sent.
        self._sent = False
        self._wait = grace
        # The last question to the loop, and when it was put. There was none yet.
        self._question = _Question()
        self._question.answered = True
        self._asked = 0.0
        # How many of the presses were answered by forced interrupts, and what these were forced into.
        self._spent = 0
        self._forced: list[object] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if previous is not None and (self._replaces(previous) or is_debuggers_handler(previous)):
                handler = self._on_sigint
                try:
                    signal.signal(signal.SIGINT, handler)
                except ValueError:  # an embedded interpreter without signals (gh-91880)
                    return self
                self._handler, self._previous = handler, previous
                forget_before_debugger()  # that of an earlier cell
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._over = True
        self._forced.clear()
        # signal.signal() runs the handlers of pending signals first, and ours ignores them from here on.
        if self.handles_signals:
            signal.signal(signal.SIGINT, self._previous)

    @staticmethod
    def owns(handler: object) -> bool:
        """Return whether *handler* belongs to some Interrupt."""
        return isinstance(getattr(handler, "__self__", None), Interrupt)

    @property
    def handles_signals(self) -> bool:
        """Whether our handler is in place: not on other threads, nor where the user has one."""
        return self._handler is not None and signal.getsignal(signal.SIGINT) is self._handler

    def after_fork(self) -> None:
        """In a child process: SIGINT is Python's again; the loop and its watchers are the parent's."""
        self._over = True
        if self.handles_signals:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def attach(self, task: asyncio.Task[Any]) -> None:
        """Name the main task. If SIGINT came before it was made, it is cancelled."""
        self.task = task
        if self.presses:
            self.cancel()

    def fail(self, exc: BaseException) -> None:
        """Cancel the main task because of *exc*, which is to come out in the place of KeyboardInterrupt."""
        if self.task is not None and not self.task.done():
            self._reason = exc
            self.cancel()

    def reason(self) -> BaseException:
        """Return what takes the place of a cancellation that :meth:`claims` has claimed."""
        reason, self._reason = self._reason, None
        return KeyboardInterrupt() if reason is None else reason

    def claims(self, exc: BaseException | None) -> bool:
        """Return whether *exc* is the cancellation that SIGINT asked for, and nobody else did.

        It is answered once: the cancellation counts as handled from then on (``Task.uncancel``).
        """
        if not isinstance(exc, asyncio.CancelledError) or not self._cancels or self.task is None:
            return False
        left = 0
        for _ in range(self._cancels):
            left = self.task.uncancel()
        self._cancels = 0
        return left == 0

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._sent:
            self._sent = False
            if not self._question.answered:
                self._wait = _RETRY
                self._force(frame)
            return
        if not self._question.answered and time.monotonic() - self._asked > self._grace + _LAST_CHANCE:
            # The watcher has had no chance either: C code that looks at signals (re) but keeps the GIL.
            self._force(frame)
        self.press()

    def _force(self, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt if *frame*, which the signal has found, is user code that the loop runs."""
        if frame is not None and running_loop() is self._loop and _is_user_code(frame, self._loop):
            self._wait = self._grace
            running = _running(frame, self._loop)
            if self._spent != self.presses:
                self._spent, self._forced = self.presses, []
            if not self.presses:  # watch_over() asks anew
                self._question.answered = True
            elif any(forced is running for forced in self._forced):
                return  # it has its KeyboardInterrupt; the next one that does not yield has not
            self._forced.append(running)
            code = frame.f_code
            name = "the cell" if code.co_name.startswith(("<module>", "<cell")) else code.co_qualname
            self.forced_at = name, linecache.getline(code.co_filename, frame.f_lineno).strip()
            self.forced_in = contextvars.copy_context()
            forced = KeyboardInterrupt()
            forced.forced_by = self  # type: ignore[attr-defined]
            raise forced

    def watch_over(self, seconds: float) -> None:
        """Until this is over: interrupt a callback that does not yield for half of *seconds*. In a thread of its own.

        When the seconds are up a tenth of a second without yielding is enough. The main task is not cancelled.
        """
        end = time.monotonic() + seconds
        while not self._over:
            question = self._question = _Question()
            try:
                self._loop.call_soon_threadsafe(setattr, question, "answered", True)
            except RuntimeError:  # closed since
                return
            self._watch(question, min(seconds / 2, max(end - time.monotonic(), _RETRY)))
            time.sleep(_RETRY)

    def press(self) -> None:
        """Do what SIGINT does. From any thread, and from signal handlers."""
        if self._over:
            return
        self.presses += 1
        unspent = self.presses - self._spent
        if unspent > 2 and not self._question.answered:
            return  # a watcher is at it; one after the other, each beginning anew, would never get to its end
        question = self._question = _Question()
        self._asked = time.monotonic()
        # Wakes the loop from select(), and touches nothing of it but its queue.
        self._loop.call_soon_threadsafe(self._answer, question, self.presses)
        grace = self._grace if unspent == 1 else min(self._grace, _LAST_CHANCE)
        in_thread(self._watch, question, grace)

    @uninterruptible
    def _answer(self, question: _Question, press: int) -> None:
        """In the loop: what a SIGINT asks for. That it runs is the answer to the ping."""
        question.answered = True
        if self._over or self.task is None or self.task.done():
            return
        forced = [task for task in self._forced if isinstance(task, asyncio.Task)] if press <= self._spent else []
        if any(depends_on(self.task, task) for task in forced):
            return  # it has its KeyboardInterrupt, or gets it from there
        try:
            self.cancel()
        except RecursionError:  # tasks that wait for each other in a circle: none of them can be cancelled
            self._abandon()
            return
        if press - self._spent > 1:
            self._loop.call_later(_LAST_CHANCE, self._abandon)

    def cancel(self) -> None:
        """Cancel the main task on behalf of SIGINT."""
        assert self.task is not None
        self._cancels += 1
        self.task.cancel()

    def _abandon(self) -> None:
        if not self._over and self.task is not None and not self.task.done():
            self.abandoned = True
            self.on_abandon()

    def _watch(self, question: _Question, grace: float) -> None:
        """In a thread: send SIGINT to the main thread as long as the loop does not answer."""
        self._wait = grace
        asked = time.monotonic()
        while not question.answered and not self._over:
            if time.monotonic() - asked < self._wait:
                time.sleep(_RETRY)
                continue
            asked = time.monotonic()
            with self._lock:
                if self._over or question is not self._question or not self.handles_signals:
                    return
                self._sent = True
                self._wait = self._grace
                signal_main_thread()
