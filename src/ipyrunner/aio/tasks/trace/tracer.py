"""The tracer of one loop: it is told what begins and ends, and passes each run on to the sessions.

It holds no task: a lane has a weak reference, and a callback is held only while it runs. If the end of a run is not
told (an exception out of ``Handle._run``), this is noticed at the next event: a run that is no longer on the stack
ended when it was last seen there.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from collections import Counter
from contextlib import suppress
from time import perf_counter_ns
from types import CodeType, FrameType
from typing import Any

from ...introspection.frames import uninterruptible
from ...introspection.private_api import (
    gathered_by,
    has_begun,
    is_task,
    scheduled_in,
    stepped_by,
    task_context,
    waiter_of,
)
from ...introspection.task_state import coro_of, is_done
from ...sigint import handlers
from .descriptions import Places, callback_name, class_name, was_cancelled
from .lanes import Lane, Pending
from .session import BLOCK, Session

__all__ = ["INTERRUPT", "Tracer", "keys"]

INTERRUPT = "the interrupt"
# The place of a long run that the garbage collector has taken most of.
COLLECTOR = "the garbage collector"
_SIGINT = os.path.dirname(handlers.__file__) + os.sep

# The keys of the blocks whose tasks are recorded, in the Context that starts them: small objects, which stay in it.
keys: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("ipyrunner traces", default=())


class _Ref(weakref.ref[Any]):
    __slots__ = ("key",)
    key: int


class Open:
    """What runs at the moment, and in which frame; *before*: the fields of ``Run`` about the time before it."""

    __slots__ = ("before", "begin", "callback", "collecting", "frame", "inside", "lane", "places", "seen", "task")

    frame: FrameType  # an id may be that of the next one
    lane: Lane | None
    task: Any
    callback: object
    before: Any
    begin: int
    # When its frame was last certainly there.
    seen: int
    inside: bool
    # Where it was seen, if it takes long; and how long the garbage collector took in it.
    places: Counter[tuple[CodeType, int]] | None
    collecting: int


class Tracer:
    """Record what *loop* does, on its thread, for all :attr:`sessions`. Methods that are told events never raise."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cells: CodeType) -> None:
        """*cells*: the code of the coroutine of the task that awaits the cells."""
        self.loop = loop
        self.cells = cells
        self.thread = threading.get_ident()
        self.sessions: list[Session] = []
        self.stack: list[Open] = []
        # By the id of the task, as long as the task exists.
        self._lanes: dict[int, Lane] = {}
        self._count = 0
        self._places = Places()
        # Steps that have ended, of tasks whose wait is not known yet; and whether a look at these is scheduled.
        self._unresolved: list[tuple[Lane, int]] = []
        self._due = False
        # Since when the garbage collector has been working.
        self._collecting: int | None = None
        self._context = contextvars.Context()

    # -- lanes

    def lane_of(self, task: asyncio.Task[Any]) -> Lane | None:
        """Return the lane of the task, made now if there is none; None if the task allows no weak reference."""
        return self._lanes.get(id(task)) or self._make_lane(task)

    def _make_lane(self, task: asyncio.Task[Any]) -> Lane | None:
        key = id(task)
        try:
            ref = _Ref(task, self._forget)
        except TypeError:
            return None
        ref.key = key
        now = perf_counter_ns()
        self._count += 1
        lane = Lane(self._count, ref, now)
        # The task of all cells has a class of its own.
        lane.is_cells = type(task) is not asyncio.Task and getattr(coro_of(task), "cr_code", None) is self.cells
        if not has_begun(task):
            lane.created, lane.created_by = now, self._runs()
        if any(session.key is not None for session in self.sessions):
            context = task_context(task)
            lane.keys = () if context is None else context.get(keys, ())
        self._lanes[key] = lane
        for session in self.sessions:
            session.appeared(lane)
        return lane

    def _forget(self, ref: Any) -> None:
        lane = self._lanes.get(ref.key)
        if lane is not None and lane.ref is ref:
            del self._lanes[ref.key]
            lane.ref = None
            if lane.ended is None:
                lane.ended, lane.error = perf_counter_ns(), "vanished"
                self._ended(lane)

    def _ended(self, lane: Lane) -> None:
        for session in self.sessions:
            session.vanished(lane)

    def on_new(self, task: asyncio.Task[Any], context: contextvars.Context | None = None) -> None:
        """Record a task that was started just now."""
        try:
            lane = self.lane_of(task)
            if lane is not None and lane.ended is None:
                if lane.created is None:
                    lane.created, lane.created_by = perf_counter_ns(), self._runs()
                if lane.ready is None:  # an eager one, which has taken its first step already
                    self._look(lane, task, perf_counter_ns())
        except Exception:  # a task of the user's own, which may be anything
            return

    def adopt(self, task: asyncio.Task[Any]) -> Lane | None:
        """Record a task that was started before; return its lane."""
        known = id(task) in self._lanes
        lane = self.lane_of(task)
        if lane is not None and not known and all(each.lane is not lane for each in self.stack):
            with suppress(Exception):  # a task of the user's own, which may be anything
                self._look(lane, task, lane.since)
        return lane

    # -- what runs

    def begin(self, frame: FrameType, task: asyncio.Task[Any] | None, callback: object) -> None:
        """Record the begin of a step of *task*, or else of *callback*, which ends when *frame* does."""
        try:
            if self.stack and not self._is_inside(frame):
                self._settle(frame)
            each = Open()
            each.frame, each.task, each.callback = frame, task, callback
            each.lane = lane = None if task is None else self._lanes.get(id(task)) or self._make_lane(task)
            each.inside, each.places, each.collecting = False, None, 0
            each.begin = each.seen = now = perf_counter_ns()
            if lane is None:
                each.before = (now, None, None, None, None, None)
            else:
                each.before = (lane.since, lane.place, lane.waits_for, lane.ready, lane.woken_by, lane.cancel)
                lane.ready = lane.woken_by = lane.cancel = None
            self.stack.append(each)
        except Exception:
            return

    def end(self, frame: FrameType, *, later: bool = False) -> None:
        """Record the end of what began in *frame*; *later*: what its task waits for is not known yet."""
        stack = self.stack
        try:
            if not stack:
                return
            if stack[-1].frame is not frame:
                if all(each.frame is not frame for each in stack):
                    return
                while stack[-1].frame is not frame:
                    self._close(stack[-1].seen)
            self._close(perf_counter_ns(), later=later)
        except Exception:
            return

    def _close(self, now: int, *, later: bool = False) -> None:
        stack = self.stack
        each = stack.pop()
        if stack:
            stack[-1].inside, stack[-1].seen = True, max(now, stack[-1].seen)
        lane = each.lane
        run = self._made(each, now, len(stack))
        if lane is not None:
            lane.since, lane.place, lane.waits_for = now, None, None
            if later:
                self._look_later(lane, now)
            elif lane.ready is None:  # else the task is ready to go on at once
                self._look(lane, each.task, now)
        for session in self.sessions:
            session.add(run)

    def _made(self, each: Open, now: int, depth: int) -> Any:
        lane, begin = each.lane, each.begin
        place: tuple[CodeType, int] | str | None = None
        if now - begin >= BLOCK:
            if each.collecting * 2 >= now - begin:
                place = COLLECTOR
            elif each.places:
                place = each.places.most_common(1)[0][0]
        name = "" if lane is not None else callback_name(each.callback)
        since, at, waits_for, ready, woken_by, cancel = each.before
        return (lane, name, since, at, waits_for, ready, woken_by, cancel, begin, now, place, each.inside, depth)

    def _is_inside(self, frame: FrameType | None) -> bool:
        """Return whether the run that is known to be the innermost has called *frame*."""
        outer = self.stack[-1].frame
        frame = None if frame is None else frame.f_back
        while frame is not None:
            if frame is outer:
                return True
            frame = frame.f_back
        return False

    def _settle(self, frame: FrameType) -> None:
        while self.stack and not self._is_inside(frame):
            self._close(self.stack[-1].seen)

    def settle_at_rest(self) -> None:
        """If the loop does not run, end all runs: the end of some was not told."""
        while self.stack and not self.loop.is_running():
            with suppress(Exception):  # a task of the user's own, which may be anything
                self._close(self.stack[-1].seen)

    def _runs(self) -> int | str | None:
        """Return what runs now: the number of a lane, or the name of a callback."""
        if not self.stack:
            return None
        lane = self.stack[-1].lane
        return callback_name(self.stack[-1].callback) if lane is None else lane.number

    def on_collection(self, phase: str, info: object) -> None:
        """Record how long the garbage collector interrupts what runs. A callback of ``gc.callbacks``."""
        if self.stack and threading.get_ident() == self.thread:
            now, since = perf_counter_ns(), self._collecting
            self._collecting = now if phase == "start" else None
            if since is not None and phase == "stop":
                self.stack[-1].collecting += now - since

    # -- what a task waits for

    def _look(self, lane: Lane, task: asyncio.Task[Any], now: int) -> None:
        if task.done() if type(task) is asyncio.Task else is_done(task):
            if lane.ended is None:
                lane.end(task, now)
                self._ended(lane)
        elif lane.ready is None and (waiter := waiter_of(task)) is not None:
            lane.place = self._places.of(task)
            lane.waits_for = self._awaited(waiter)

    def _look_later(self, lane: Lane, now: int) -> None:
        self._unresolved.append((lane, now))
        if not self._due:
            with suppress(RuntimeError):  # closed since
                self.loop.call_soon(self._look_now, context=self._context)
                self._due = True

    @uninterruptible
    def _look_now(self) -> None:
        self._due = False
        unresolved, self._unresolved = self._unresolved, []
        for lane, since in unresolved:
            task = None if lane.ref is None else lane.ref()
            if task is not None and lane.since == since and all(each.lane is not lane for each in self.stack):
                with suppress(Exception):
                    self._look(lane, task, since)

    def _awaited(self, waiter: Any) -> int | str | None:
        if type(waiter) is asyncio.Future:
            return None
        if is_task(waiter):
            lane = self.lane_of(waiter)
            return None if lane is None else lane.number
        if gathered := gathered_by(waiter):
            return f"gather of {len(gathered)}"
        return class_name(type(waiter))[:60]

    # -- what makes a task ready

    def ready(self, frame: FrameType) -> None:
        """Record that ``call_soon`` begins in *frame*."""
        try:
            loop, callback, arguments = scheduled_in(frame)
            if loop is not self.loop or (task := stepped_by(callback)) is None:
                return
            if threading.get_ident() != self.thread:
                return
            lane = self._lanes.get(id(task)) or self._make_lane(task)
            if lane is None:
                return
            lane.ready = perf_counter_ns()
            lane.woken_by = self._runs()
            if arguments and was_cancelled(arguments[0]):
                who = self._canceller(frame, arguments[0])
                # In its own step, if it was cancelled while it ran or was ready: then it is not known by what.
                lane.cancel = lane.cancelled_by = "" if who is None or who == lane.number else who
        except Exception:
            return

    def _canceller(self, frame: FrameType | None, future: Any) -> int | str | None:
        """Return what has cancelled *future*, whose end wakes a task."""
        for each in (future, *gathered_by(future)):
            if is_task(each) and (lane := self._lanes.get(id(each))) is not None and lane.cancelled_by is not None:
                return lane.cancelled_by
        outer = self.stack[-1].frame if self.stack else None
        while frame is not None and frame is not outer:
            if frame.f_code.co_filename.startswith(_SIGINT):
                return INTERRUPT
            frame = frame.f_back
        return self._runs()

    # -- the beginning and the end

    def close(self, session: Session) -> None:
        """End *session*: a run that goes on counts up to now."""
        self.settle_at_rest()
        now = perf_counter_ns()
        self._look_now()
        self.sessions.remove(session)
        session.ended, session.is_over = now, True
        for depth, each in enumerate(self.stack):
            session.add(self._made(each, now, depth))
        session.pending = self.pending(session)

    def forget(self) -> None:
        """Let go of all tasks."""
        for lane in self._lanes.values():
            lane.ref = None
        self._lanes.clear()
        self.stack.clear()

    def pending(self, session: Session) -> list[Pending]:
        """Return the tasks of *session* that have not ended, and what they wait for."""
        running = [each.lane for each in self.stack]
        found = []
        for lane in [*self._lanes.values()]:
            if lane.ended is None and session.covers(lane):
                if lane.ref is not None and (task := lane.ref()) is not None:
                    with suppress(Exception):
                        lane.name_it(task)
                        if lane not in running and is_done(task):  # its end was missed, or is looked at later
                            lane.end(task, lane.since)
                            self._ended(lane)
                            continue
                if lane not in running:
                    found.append(Pending(lane, lane.since, lane.place, lane.waits_for, lane.ready))
        return found
