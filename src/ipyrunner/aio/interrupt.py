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

What still fails: a callback that catches every KeyboardInterrupt and goes on keeps the loop; it is forced again every
*grace* seconds. A call into C that never looks at signals cannot be interrupted by anything.
"""

from __future__ import annotations

import _thread
import _weakrefset
import asyncio
import dis
import inspect
import linecache
import os
import selectors
import signal
import threading
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from .running import running_loop

__all__ = ["Interrupt", "drives_loop", "is_default_handler"]

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


def is_default_handler(handler: object) -> bool:
    """Return whether *handler* is Python's own for SIGINT: what ``asyncio.Runner`` replaces."""
    return handler is signal.default_int_handler


_Function = TypeVar("_Function", bound=Callable[..., Any])
_DRIVERS: set[CodeType] = set()


def drives_loop(function: _Function) -> _Function:
    """Mark a function that calls ``loop.run_forever``.

    The functions of a loop that is not written in Python (uvloop) have no frames: a C function that such a loop has
    called shows as the driver's frame. That a forced interrupt is due there says that the loop does not poll.
    """
    _DRIVERS.add(function.__code__)
    return function


def _is_user_code(frame: FrameType, loop: asyncio.AbstractEventLoop) -> bool:
    code = frame.f_code
    if code in _DRIVERS:
        return not isinstance(loop, asyncio.BaseEventLoop)
    if code is _HANDLE_RUN:
        return frame.f_lineno in _CALLBACK_LINES
    if code.co_filename.startswith(_PROTECTED) or code.co_name == "__del__":
        return False
    # Coroutines of asyncio (sleep, wait_for, gather's callers) are the user's; its functions keep the loop's books.
    return not code.co_filename.startswith(_ASYNCIO) or bool(code.co_flags & _COROUTINE)


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
        # The line of user code that the interrupt was forced into, if it was.
        self.forced_at: tuple[str, str] | None = None
        self.on_abandon: Callable[[], None] = lambda: None
        self._loop = loop
        self._grace = grace
        self._replaces = replaces
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0
        self._previous: Any = None
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self._over = False
        # Whether the next SIGINT is one that the watcher has sent.
        self._sent = False
        self._wait = grace
        self._answered = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if previous is not None and self._replaces(previous):
                handler = self._on_sigint
                try:
                    signal.signal(signal.SIGINT, handler)
                except ValueError:  # an embedded interpreter without signals (gh-91880)
                    return self
                self._handler, self._previous = handler, previous
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._over = True
            self._answered.set()
        # signal.signal() runs the handlers of pending signals first, and ours ignores them from here on.
        if self._handler is not None and signal.getsignal(signal.SIGINT) is self._handler:
            signal.signal(signal.SIGINT, self._previous)

    def attach(self, task: asyncio.Task[Any]) -> None:
        """Name the main task. If SIGINT came before it was made, it is cancelled."""
        self._task = task
        if self.presses:
            self.cancel()

    def claims(self, exc: BaseException | None) -> bool:
        """Return whether *exc* is the cancellation that SIGINT asked for, and nobody else did.

        It is answered once: the cancellation counts as handled from then on (``Task.uncancel``).
        """
        if not isinstance(exc, asyncio.CancelledError) or not self._cancels or self._task is None:
            return False
        left = 0
        for _ in range(self._cancels):
            left = self._task.uncancel()
        self._cancels = 0
        return left == 0

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._sent:
            self._sent = False
            if self._answered.is_set():
                return
            if frame is not None and running_loop() is self._loop and _is_user_code(frame, self._loop):
                self._wait = self._grace
                code = frame.f_code
                self.forced_at = code.co_qualname, linecache.getline(code.co_filename, frame.f_lineno).strip()
                raise KeyboardInterrupt
            self._wait = _RETRY
            return
        self.presses += 1
        answered = self._answered = threading.Event()
        # Wakes the loop from select(), and touches nothing of it but its queue.
        self._loop.call_soon_threadsafe(self._answer, answered, self.presses)
        grace = self._grace if self.presses == 1 else min(self._grace, _LAST_CHANCE)
        threading.Thread(target=self._watch, args=(answered, grace), daemon=True, name="ipyrunner interrupt").start()

    def _answer(self, answered: threading.Event, press: int) -> None:
        """In the loop: what a SIGINT asks for. That it runs is the answer to the ping."""
        answered.set()
        if self._over or self._task is None or self._task.done():
            return
        try:
            self.cancel()
        except RecursionError:  # tasks that wait for each other in a circle: none of them can be cancelled
            self._abandon()
            return
        if press > 1:
            self._loop.call_later(_LAST_CHANCE, self._abandon)

    def cancel(self) -> None:
        """Cancel the main task on behalf of SIGINT."""
        assert self._task is not None
        self._cancels += 1
        self._task.cancel()

    def _abandon(self) -> None:
        if not self._over and self._task is not None and not self._task.done():
            self.abandoned = True
            self.on_abandon()

    def _watch(self, answered: threading.Event, grace: float) -> None:
        """In a thread: send SIGINT to the main thread as long as the loop does not answer."""
        self._wait = grace
        while not answered.wait(self._wait):
            with self._lock:
                if self._over or answered is not self._answered:
                    return
                self._sent = True
                self._wait = self._grace
                _signal_main_thread()


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        # interrupt_main() does not end a blocking system call; a signal to the thread does.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
