"""The tasks of one loop: which are there, since when, and which have failed without anybody having looked.

The problem: asyncio keeps weak references to tasks. One that nobody holds may vanish in the middle of what it does, and
the exception of one that somebody holds is reported when that somebody lets go of it: in a notebook, never.

The solution: ``loop.create_task``, as an instance attribute, appends each task to a list, and nothing else: 100,000
tasks must cost what they cost without us, and a done callback alone makes a short task twice as dear. From time to
time, while there are new tasks, a sweep sorts them. Those that have lived through two sweeps get a done callback, a few
at a time; after that nothing runs until one of them ends. A sweep takes a twentieth of the time at most.

A failure is told by ``loop.call_exception_handler``, in asyncio's words. If nobody holds the task, nobody can ever
look, and asyncio itself tells at once when we let go. If somebody does, they have a moment to look: the time of two
sweeps, and while the cell that started the task still runs, a second, since it may come to an ``await task`` further
down. Who gathers tasks has until all of them have ended.

Not by a task factory: that is the user's to set, and with one Python 3.13.0 names tasks "None".
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import compress, count
from typing import Any, NamedTuple

from .awaiting import awaited
from .holding import Held
from .interrupt import catches_interrupts, is_forced, uninterruptible
from .origins import origin_of
from .peeking import exception_of, task_context, unseen

__all__ = ["HISTORY", "Ended", "Started", "Tasks", "describe", "function_of", "state_of"]

# Seconds between two sweeps, and between two looks at tasks that have failed.
_SWEEP = 0.08
_LOOK = 0.02
# A sweep of many tasks is followed by so many times its own length without one.
_REST = 20
# So many done callbacks are added in one sweep at most.
_CALLBACKS = 1000
# Seconds that the cell which has started a task, and still runs, has to look at its exception.
_PATIENCE = 1.0
_LOOKS = 2
# So many of the tasks that have ended are remembered.
HISTORY = 200

# Called with a new task, and the Context that was given for it, if one was; in the Context that starts it.
Watcher = Callable[["asyncio.Task[Any]", "contextvars.Context | None"], None]


class Ended(NamedTuple):
    """What is remembered of a task that has ended; not its result, which may be large."""

    number: int
    name: str
    state: str
    function: str
    origin: str | None
    started: float
    ended: float
    error: str


class Started(NamedTuple):
    """A task that has not ended, its number in the order of starting, and when it was started (``time.monotonic``)."""

    task: asyncio.Task[Any]
    number: int
    at: float


class _Suspect:
    """A task that has failed, and nobody has looked yet. Held weakly: when nobody holds it, asyncio tells by itself."""

    __slots__ = ("looks", "since", "task")

    def __init__(self, task: asyncio.Task[Any], since: float) -> None:
        self.task = weakref.ref(task)
        self.since = since
        self.looks = 0


class Tasks:
    """Keep the tasks of *loop*, from now until :meth:`close`. On the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, torn: Callable[[BaseException], None]) -> None:
        """*torn* is called with what a signal handler raises in the middle of a sweep."""
        self._loop = loop
        self._torn = torn
        # Each with its time, by one append: an interrupt of a cell without await may come between any two.
        self._new: list[tuple[asyncio.Task[Any], float]] = []
        self._count = 0
        # The numbers of those that have not ended, in the order of starting, and when they were started.
        self._live: dict[asyncio.Task[Any], int] = {}
        self._at: dict[asyncio.Task[Any], float] = {}
        # Of these, those without a done callback of ours.
        self._young: list[asyncio.Task[Any]] = []
        self._suspects: list[_Suspect] = []
        self._mains: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._past: deque[Ended] = deque(maxlen=HISTORY)
        self._timer: asyncio.TimerHandle | None = None
        self._context = contextvars.Context()
        # The loop's time before which no sweep begins.
        self._rest = 0.0
        # Called with each new task, in the Context that starts it: only while somebody wants to know.
        self._watchers: list[Watcher] = []
        self._install()

    def close(self) -> None:
        """Let go of all tasks, and of the loop."""
        vars(self._loop).pop("create_task", None)
        if self._timer is not None:
            self._timer.cancel()
        self._take()
        for suspect in self._suspects:
            self._tell(suspect)
        self._live.clear()
        self._young.clear()

    # -- looking

    def started(self) -> list[Started]:
        """Return the tasks that have not ended, in the order of starting."""
        self._take()
        strangers = [task for task in asyncio.all_tasks(self._loop) if task not in self._live]
        for task in strangers:  # made by asyncio.Task(...)
            self._count += 1
            self._live[task], self._at[task] = self._count, time.monotonic()
            self._young.append(task)
        if strangers:
            self._arm(_SWEEP)
        return [Started(task, number, self._at[task]) for task, number in self._live.items() if not task.done()]

    def ended(self) -> list[Ended]:
        """Return the last tasks that have ended, in the order of ending."""
        self._take()
        self._let_go([task for task in self._live if task.done()])
        return list(self._past)

    def is_main(self, task: asyncio.Task[Any]) -> None:
        """Say that *task* is a cell's own: it is of no interest when it has ended."""
        self._mains.add(task)

    def settle(self) -> None:
        """At the end of a cell: sort what it has started, and tell what it can no longer look at."""
        with Held(then_raise=True):
            self._take()
            self._look()
            if self._young or self._suspects:
                self._arm(self._pause())

    def holder_of(self, exc: BaseException) -> asyncio.Task[Any] | None:
        """Return the task that has ended by *exc*."""
        held = (*(task for task, _ in self._new), *self._live)
        return next((task for task in held if exception_of(task) is exc), None)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call *watcher* with each task that is started from now on; return what ends that."""
        self._watchers.append(watcher)
        self._install()

        def unwatch() -> None:
            self._watchers.remove(watcher)
            self._install()

        return unwatch

    # -- starting

    def _install(self) -> None:
        vars(self._loop)["create_task"] = self._make_create_task()

    def _make_create_task(self) -> Callable[..., asyncio.Task[Any]]:
        loop, new, begin, watchers = self._loop, self._new, self._begin, self._watchers
        append, now = new.append, time.monotonic
        make, users = type(loop).create_task, loop.get_task_factory
        # What asyncio's own create_task does without a factory, and without another call.
        direct = make is asyncio.BaseEventLoop.create_task
        make_task: Any = asyncio.Task

        def create_task(coro: Any, *, name: Any = None, context: Any = None, **options: Any) -> asyncio.Task[Any]:
            task: asyncio.Task[Any]
            if direct and not options and users() is None and not loop.is_closed():
                task = make_task(coro, loop=loop, name=name, context=context)
            else:
                if context is not None:
                    options["context"] = context
                if name is not None:  # as asyncio does: a factory need not know names
                    options["name"] = name
                task = make(loop, coro, **options)
            if not new:
                begin()
            append((task, now()))
            # In debug mode, 3.4 to 3.14: where the task was created, without the frame of what creates it.
            if created := getattr(task, "_source_traceback", None):
                del created[-1]
            return task

        def watched(coro: Any, **options: Any) -> asyncio.Task[Any]:
            task = create_task(coro, **options)
            for watcher in tuple(watchers):
                watcher(task, options.get("context"))
            return task

        return watched if watchers else create_task

    def _begin(self) -> None:
        if self._timer is None:
            self._arm(_SWEEP)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loop.is_closed():  # behind our back; it is replaced in the next cell
            return
        self._timer = self._loop.call_later(seconds, self._sweep, context=self._context)

    # -- sorting

    @uninterruptible
    def _sweep(self) -> None:
        self._timer = None
        try:
            self._sort()
        except Exception as exc:  # a signal handler of the user's has raised in the middle: that is not ours to keep
            self._arm(_SWEEP)
            self._torn(exc)

    def _sort(self) -> None:
        begin = time.monotonic()
        young, self._young = self._young, []
        self._let_go([task for task in young if task.done()])
        young = [task for task in young if not task.done()]
        self._take()
        for task in young[:_CALLBACKS]:
            task.add_done_callback(self._on_done, context=self._context)
        self._young += young[_CALLBACKS:]
        self._look()
        rest = _REST * (time.monotonic() - begin)
        self._rest = self._loop.time() + rest
        if self._young or self._suspects:
            self._arm(max(self._pause(), rest))

    def _pause(self) -> float:
        if not self._suspects:
            return _SWEEP
        looks: int = min(suspect.looks for suspect in self._suspects)
        return min(_LOOK * 2.0 ** min(looks, 10), _PATIENCE)

    def _take(self) -> None:
        """Sort the new tasks."""
        with Held(then_raise=True):
            self._sort_new()

    def _sort_new(self) -> None:
        if not self._new:
            return
        new, times = zip(*self._new, strict=True)
        self._new.clear()
        first, self._count = self._count + 1, self._count + len(new)
        # Not step by step: there may be 100,000, and this is what they pay. Most have ended, as a rule.
        pending = [not task.done() for task in new]
        left = list(compress(new, pending))
        self._live.update(zip(left, compress(count(first), pending), strict=False))
        self._at.update(zip(left, compress(times, pending), strict=False))
        self._young += left
        recent = range(max(0, len(new) - HISTORY), len(new))
        self._note(
            [new[i] for i in recent if not pending[i]], [(first + i, times[i]) for i in recent if not pending[i]]
        )
        self._suspect(new)

    @uninterruptible
    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._let_go([task])
        if self._suspects:
            due = max(self._loop.time() + _LOOK, self._rest)
            if self._timer is None or self._timer.when() > due:
                self._arm(due - self._loop.time())

    def _let_go(self, tasks: list[asyncio.Task[Any]]) -> None:
        tasks = [task for task in tasks if task in self._live]
        self._note(tasks[-HISTORY:], [(self._live[task], self._at[task]) for task in tasks[-HISTORY:]])
        for task in tasks:
            del self._live[task], self._at[task]
        self._suspect(tasks)

    def _note(self, tasks: list[asyncio.Task[Any]], starts: list[tuple[int, float]]) -> None:
        now = time.monotonic()
        for task, (number, at) in zip(tasks, starts, strict=True):
            if task not in self._mains:
                self._past.append(_remember(task, number, at, now))

    def _suspect(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Suspect those that have failed."""
        now = time.monotonic()
        for task in unseen(tasks):
            if is_forced(exception_of(task)):
                task.exception()  # whoever has forced it has told
            else:
                self._suspects.append(_Suspect(task, now))

    def _look(self) -> None:
        """Tell of the failures that nobody has looked at in time."""
        suspects, self._suspects = self._suspects, []
        now = time.monotonic()
        looked_at = awaited(self._live) if any(suspect.looks >= _LOOKS for suspect in suspects) else set()
        for suspect in suspects:
            task = suspect.task()
            if task is None or not unseen([task]):
                continue
            origin = origin_of(task_context(task))
            # Who gathers tasks looks when all of them have ended.
            waits = task in looked_at or (origin is not None and not origin.over and now - suspect.since < _PATIENCE)
            if suspect.looks < _LOOKS or now - suspect.since < _LOOKS * _SWEEP or waits:
                suspect.looks += 1
                self._suspects.append(suspect)
            else:
                self._tell(suspect)

    def _tell(self, suspect: _Suspect) -> None:
        task = suspect.task()
        if task is None or not unseen([task]):
            return
        exception = task.exception()  # seen from now on
        self._loop.call_exception_handler(
            {"message": "Task exception was never retrieved", "exception": exception, "task": task}
        )


def state_of(task: asyncio.Task[Any]) -> str:
    """Return how the task has ended."""
    return "cancelled" if task.cancelled() else "done" if exception_of(task) is None else "failed"


def function_of(task: asyncio.Task[Any]) -> str:
    """Return the name of the function whose coroutine the task runs."""
    coro = task.get_coro()
    return str(getattr(coro, "__qualname__", None) or type(coro).__qualname__)


def _remember(task: asyncio.Task[Any], number: int, at: float, now: float) -> Ended:
    origin = origin_of(task_context(task))
    error = exception_of(task)
    return Ended(
        number=number,
        name=task.get_name(),
        state=state_of(task),
        function=function_of(task),
        origin=None if origin is None else origin.label,
        started=at,
        ended=now,
        error="" if error is None else describe(error),
    )


@catches_interrupts
def describe(exc: BaseException) -> str:
    """Return type and message of an exception on one line; its ``__str__`` is user code, and may fail."""
    try:
        text = str(exc)
    except BaseException:
        text = "(its message cannot be shown)"
    first = next(iter(text.splitlines()), "")
    return f"{type(exc).__name__}: {first}" if first else type(exc).__name__
