"""Which callback a loop is in, and for how long: seen from a signal handler or from another thread.

The problem: to interrupt or to report a callback that holds its loop, one must know that it is *one* callback and not
many short ones; and this must not slow the loop down.

The solution: look at the frames of the loop's thread, more than once. On asyncio's own loops each call of a callback
has a frame, so the same frame seen twice means one callback. Other loops (uvloop) have no such frames, and a coroutine
shows the same frame in each of its steps. There a question is also put to the loop, when a callback is seen for the
first time. Loops keep the order, so the answer comes before the next step of that task, and says that the callback has
ended. A loop at rest is not asked.

A loop that somebody runs inside a callback (nest_asyncio; a greenlet of its own, as sync Playwright has) belongs to
that callback. From a greenlet the frames of the code that has switched to it cannot be seen; the current task can.
"""

from __future__ import annotations

import asyncio
import dis
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeVar

from .exceptions import traceback_of
from .private_api import callback_of, is_task
from .stacks import local_of

__all__ = [
    "HANDLE_RUN",
    "CallbackCall",
    "Holder",
    "drives_loop",
    "is_callback",
    "is_driver",
    "is_from_callback",
    "is_in_call",
    "is_left_running",
    "is_lent",
    "lends_loop",
    "runs_nested",
    "runs_other_loop",
    "task_of_step",
]

# Private: events.Handle._run calls each callback (3.4 to 3.15). On the line of that call the callback is running, or
# has run; an exception on another line may lose it. If no line is found, nothing is forced into C callbacks.
HANDLE_RUN = asyncio.Handle._run.__code__
_CALLBACK_LINES = {
    i.positions.lineno for i in dis.get_instructions(HANDLE_RUN) if i.argval == "run" and i.positions is not None
}
# By their id(): to hash code, Python goes through all of its instructions, and these are asked for at each turn.
_DRIVERS: dict[int, CodeType] = {}
_LENDERS: dict[int, CodeType] = {}
# Those of classes of loops, since the user's functions may have such names. Somebody may have replaced or wrapped a
# method (nest_asyncio): asyncio's own count also when no class has them any more.
_RUN_NAMES = ("run_forever", "run_until_complete", "_run_once")
_METHODS: dict[int, CodeType] = {
    id(method.__code__): method.__code__
    for name, method in vars(asyncio.BaseEventLoop).items()
    if name in _RUN_NAMES and type(method) is FunctionType
}
# Whatever a metaclass makes of ``__dict__``.
_variables_of = vars(type)["__dict__"].__get__
_Function = TypeVar("_Function", bound=Callable[..., Any])


def drives_loop(function: _Function) -> _Function:
    """Mark a function that calls ``loop.run_forever``.

    The functions of a loop that is not written in Python (uvloop) have no frames: while such a loop calls a C function,
    the driver's frame is the innermost. If a forced interrupt is due there, the loop is not polling.
    """
    _DRIVERS[id(function.__code__)] = function.__code__
    return function


def lends_loop(function: _Function) -> _Function:
    """Mark a function that calls user code for which a loop counts as running, as for a callback of that loop."""
    _LENDERS[id(function.__code__)] = function.__code__
    return function


def is_driver(frame: FrameType) -> bool:
    """Return whether the frame's function is marked by :func:`drives_loop`."""
    return id(frame.f_code) in _DRIVERS


def is_callback(frame: FrameType) -> bool:
    """Return whether a loop of asyncio's own calls a callback in the frame; its ``self`` is the Handle."""
    return frame.f_code is HANDLE_RUN


def is_in_call(frame: FrameType) -> bool:
    """Return whether a frame of :func:`is_callback` is at its call: before it and after it the callback may be lost."""
    return frame.f_lineno in _CALLBACK_LINES


def runs_other_loop(frame: FrameType, loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop other than *loop*, written in Python, runs in the frame."""
    return _loop_in(frame, frame.f_back, loop) not in (None, loop)


def _loop_in(
    frame: FrameType, caller: FrameType | None, loop: asyncio.AbstractEventLoop
) -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in the frame, if it is written in Python; *loop* if it cannot be told which one."""
    if not _is_loops(frame.f_code, ("run_forever", "_run_once")):
        return None
    if frame.f_code.co_name == "_run_once":
        # Its variables change; nest_asyncio's run_until_complete calls it as well.
        if caller is None or not _is_loops(caller.f_code, ("run_forever", "run_until_complete")):
            return loop
        frame = caller
    other = local_of(frame, "self")
    return other if isinstance(other, asyncio.AbstractEventLoop) else loop


def _is_loops(code: CodeType, names: tuple[str, ...]) -> bool:
    """Return whether *code* is that of a method of a loop's class, with one of *names*."""
    if code.co_name not in names:
        return False
    if id(code) not in _METHODS:
        classes: list[type] = [asyncio.AbstractEventLoop]
        for each in classes:
            method = _variables_of(each).get(code.co_name)  # of the user's class it may be anything
            if type(method) is FunctionType and method.__code__ is code:
                _METHODS[id(code)] = code
                break
            classes += type.__subclasses__(each)
    return id(code) in _METHODS


def is_left_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether *loop*, which counts as running, is on another stack, and does not run the caller.

    Between two calls of Playwright's sync API that is so for its loop, which has a greenlet of its own. False for a
    loop without frames.
    """
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # nest_asyncio's run_until_complete calls _run_once.
        if frame.f_code.co_name in ("run_forever", "run_until_complete") and frame.f_locals.get("self") is loop:
            return False
        frame = frame.f_back
    return True


def is_lent(frame: FrameType | None) -> bool:
    """Return whether *frame* is in a call of a function marked by :func:`lends_loop`."""
    while frame is not None and id(frame.f_code) not in _LENDERS:
        frame = frame.f_back
    return frame is not None


def is_from_callback(exc: BaseException, loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether *exc*, which came out of ``run_forever``, was raised by a callback and not by a signal handler.

    True for a loop without frames, where this cannot be told.
    """
    if not isinstance(loop, asyncio.BaseEventLoop):
        return True
    tb = traceback_of(exc)
    while tb is not None and tb.tb_frame.f_code is not HANDLE_RUN:
        tb = tb.tb_next
    return tb is not None


def task_of_step(frame: FrameType) -> asyncio.Task[Any] | None:
    """Return the task whose step is called in a frame of :func:`is_callback`; None if it is another callback."""
    owner = getattr(callback_of(local_of(frame, "self")), "__self__", None)  # a step is a method of the task
    return owner if is_task(owner) else None


def runs_nested(frame: FrameType | None) -> bool:
    """Return whether a callback runs a loop inside itself, and *frame* is in that: in a callback or between two."""
    # Asked at each end of a turn: so little is done for each frame.
    while frame is not None and id(code := frame.f_code) not in _DRIVERS:
        # nest_asyncio's has that name, too.
        if code.co_name == "_run_once" and isinstance(frame.f_locals.get("self"), asyncio.AbstractEventLoop):
            break
        frame = frame.f_back
    while frame is not None and id(code := frame.f_code) not in _DRIVERS:
        if code is HANDLE_RUN:
            return True
        frame = frame.f_back
    return False


class CallbackCall:
    """One call of a callback, or one step of a task, from the first look at it on."""

    __slots__ = ("callback", "last", "since", "unneeded")

    def __init__(self, callback: object) -> None:
        # How many SIGINTs had come when it was found that no interrupted code waits for it.
        self.unneeded = 0
        # Kept only while it runs: a frame keeps the variables of its function alive.
        self.callback: object | None = callback
        self.since = self.last = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been seen to hold the loop."""
        return self.last - self.since

    def let_go(self) -> None:
        """In the loop: the callback has ended."""
        self.callback = None


class Holder:
    """What holds *loop*, recognised from one look to the next. Looks may come from several threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, everything: bool = False) -> None:
        """*everything*: also code that the loop is only lent to; and, on a loop without frames, when it shows none: at
        rest or in a C function.
        """
        self._loop = loop
        self._has_frames = isinstance(loop, asyncio.BaseEventLoop)
        self._everything = everything
        self._held: CallbackCall | None = None

    def look(self, frames: Iterable[FrameType], *, task: asyncio.Task[Any] | None = None) -> CallbackCall | None:
        """Return the callback that *loop* runs in *frames*, the stack of its thread; None if it runs none.

        The same object as last time if it is the same call. *task* counts as running if no frame shows a callback.
        """
        # ``last`` is the time before the look, ``since`` the time after: waiting for the GIL in between adds no time.
        now = time.monotonic()
        callback = self._called(list(frames)) or task
        held = self._held
        if callback is None:
            self._held = None
        elif held is None or held.callback is not callback:
            held = self._held = CallbackCall(callback)
            if not self._has_frames or is_task(callback):
                with suppress(RuntimeError):  # closed since
                    self._loop.call_soon_threadsafe(held.let_go)
        else:
            held.last = now
        return self._held

    def forget(self) -> None:
        """Forget the callback that was seen."""
        self._held = None

    def _called(self, frames: list[FrameType]) -> object | None:
        callback, outermost, other = None, None, False
        for frame, caller in zip(frames, [*frames[1:], None], strict=True):
            if id(frame.f_code) in _DRIVERS:
                break
            if id(frame.f_code) in _LENDERS:
                return frame if self._everything else None
            if callback is None and frame.f_code is HANDLE_RUN:
                callback = frame
            elif (loop := _loop_in(frame, caller, self._loop)) is not None and loop is not self._loop:
                callback, other = None, True
            elif loop is not None and callback is None and frame.f_code.co_name == "_run_once":
                return None  # it is at rest, though perhaps inside itself
            outermost = frame
        else:  # the loop does not run, or is on another greenlet's stack
            return asyncio.current_task(self._loop) if other else None
        if self._has_frames:
            return callback
        return asyncio.current_task(self._loop) or outermost or (frame if self._everything else None)
