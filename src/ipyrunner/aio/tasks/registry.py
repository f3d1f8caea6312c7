"""The tasks of one loop: which are there, since when, and which have ended lately.

The problem: asyncio keeps weak references to tasks. One that nobody holds may vanish in the middle of what it does. To
hold all of them would keep what they return; a done callback for each makes a short task twice as dear.

The solution: a task that has ended is nobody's to keep. ``loop.create_task``, as an instance attribute, notes a weak
reference, and nothing else. Before its first step a task is held by the loop's queue. Once per iteration, while there
are new tasks, those that have begun are sorted, in the order of the queue: one that has ended is let go, and one that
has not is kept by the future that it waits for: we hold that, and that holds the task. So nothing is held when it ends,
and what it returns is gone at once. Right after it was woken it is looked at again; one that waits often is held itself
from then on, with a done callback that lets it go in the next iteration. What is not sorted yet when the garbage
collector begins is sorted then (``gc.callbacks``, only as long as there is something to sort).

So a task that ends in its first steps costs a weak reference, and 100,000 that sleep cost nothing until they end.

Not by a task factory: that is the user's to set, and with one Python 3.13.0 names tasks "None". It may make anything:
what cannot be kept is handed on as it is. A cell's own task is none that the user starts, and not made by it.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ..introspection.frames import uninterruptible
from ..introspection.private_api import exception_of, has_begun, is_task, tasks_of, waits_for
from ..introspection.task_state import is_done
from ..replacements import Override
from ..sigint.defer_sigint import Held
from .task_records import HISTORY, Ended, Started, remember
from .unretrieved_failures import Unretrieved

__all__ = ["Tasks"]

# So often a task is kept by what it waits for, a callback each time; then by itself, and a callback at its end.
_WAITS = 8
# So many new tasks are sorted in one iteration at most.
_SORTED = 1000

_T = TypeVar("_T")

# Called with a new task, and the Context that was given for it, if one was; in the Context that starts it.
Watcher = Callable[["asyncio.Task[Any]", "contextvars.Context | None"], None]


class _Entry:
    """One pending task, and what keeps it from being collected: the future that it waits for, or the task itself."""

    __slots__ = ("anchor", "at", "books", "number", "ref", "waits")

    def __init__(self, books: Tasks, ref: weakref.ref[asyncio.Task[Any]], number: int, at: float) -> None:
        self.books, self.ref, self.number, self.at = books, ref, number, at
        self.anchor: asyncio.Future[Any] | None = None
        self.waits = 0


class _Look:
    """Look at a task once: right after it was woken, or when it has ended. Holds it from the wakeup to the look."""

    __slots__ = ("entry", "task")

    def __init__(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        self.entry, self.task = entry, task

    @uninterruptible
    def __call__(self, _: object) -> None:
        try:
            self.entry.books._look_at(self.entry, self.task)
        except BaseException:  # a signal handler's, which is not ours; nobody else would look again
            self.entry.books._look_at(self.entry, self.task)
            raise


class Tasks:
    """Keep the pending tasks of *loop*, from now until :meth:`close`. On the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, torn: Callable[[BaseException], None]) -> None:
        """*torn* is called with what a signal handler raises in the middle of our books."""
        self._loop = loop
        # Not sorted yet, with their times. By one append: between two an interrupt of a cell without await may come.
        self._new: deque[tuple[weakref.ref[asyncio.Task[Any]], float]] = deque()
        self._count = 0
        # Those that have not ended, in the order of starting.
        self._live: dict[weakref.ref[asyncio.Task[Any]], _Entry] = {}
        self._unretrieved = Unretrieved(loop, pending=self._pending, torn=torn)
        self._mains: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        # The main task, while something runs in it.
        self._running: Started | None = None
        self._past: deque[Ended] = deque(maxlen=HISTORY)
        self._context = contextvars.Context()
        self._thread = threading.get_ident()
        # Whether the loop will sort, whether somebody does, and what the garbage collector has to spare meanwhile.
        self._armed = self._sorting = self._watching = False
        self._spared: list[asyncio.Task[Any] | None] = []
        # Called with each new task, in the Context that starts it: only while somebody wants to know.
        self._watchers: list[Watcher] = []
        self._create_task = Override(loop, "create_task", self._make_create_task)

    def close(self) -> None:
        """Let go of all tasks, and of the loop."""
        self._create_task.restore()
        self._take()
        self._unwatch_collector()
        self._new.clear()
        self._unretrieved.close()
        self._live.clear()

    # -- looking

    def started(self) -> list[Started]:
        """Return the tasks that have not ended, in the order of starting."""
        self._take()
        running = self._running
        for task in tasks_of(self._loop):
            if running is None or task is not running.task:
                with suppress(Exception):  # one that cannot be kept
                    self._hold(task, time.monotonic())  # those made by asyncio.Task(...)
        found = [Started(task, entry.number, entry.at) for task, entry in self._alive() if not is_done(task)]
        return found if running is None else sorted([*found, running], key=lambda started: started.number)

    def ended(self) -> list[Ended]:
        """Return the last tasks that have ended, in the order of ending. Not those that have vanished at once."""
        self._take()
        for task, entry in self._alive():
            if is_done(task):
                self._let_go(entry, task)
        return list(self._past)

    def main_begins(self, task: asyncio.Task[Any]) -> None:
        """Say that *task*, which others hold, begins with something new: until :meth:`main_ends` it is a task."""
        self._take()
        self._count += 1
        self._running = Started(task, self._count, time.monotonic())

    def main_ends(self, *, given_up: bool = False) -> None:
        """Say that the main task has ended what it was at; *given_up*: it has not, and is a task like any other."""
        if given_up and self._running is not None:
            self._mains.add(self._running.task)
            self._hold(self._running.task, self._running.at)
        self._running = None

    def _pending(self) -> list[asyncio.Task[Any]]:
        running = [] if self._running is None else [self._running.task]
        return [*running, *(task for task, _ in self._alive())]

    def settle(self) -> None:
        """At the end of a cell: report what it can no longer look at."""
        with Held(then_raise=True):
            self._sort(at_most=_SORTED)
            self._unretrieved.look()

    def holder_of(self, exc: BaseException) -> asyncio.Task[Any] | None:
        """Return the task that has ended by *exc*."""
        held = [ref() for ref in (*(ref for ref, _ in self._new), *self._live, *self._unretrieved.suspects())]
        return next((task for task in held if task is not None and exception_of(task) is exc), None)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call *watcher* with each task that is started from now on; return what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    # -- starting

    def start(
        self,
        coro: Coroutine[Any, Any, _T],
        *,
        name: str | None,
        context: contextvars.Context | None = None,
        main: bool = False,
    ) -> asyncio.Task[_T]:
        """Start *coro*, a cell, without the user's task factory. A *main* one is of no interest when it has ended."""
        task: asyncio.Task[_T] = asyncio.tasks.Task(coro, loop=self._loop, name=name, context=context)
        if main:
            self._mains.add(task)
        self._new.append((weakref.ref(task), time.monotonic()))
        if not self._watching:
            self._begin()
        for watcher in tuple(self._watchers):
            watcher(task, context)
        return task

    def _make_create_task(self, make: Callable[..., asyncio.Task[Any]]) -> Callable[..., asyncio.Task[Any]]:
        loop, begin, watchers = self._loop, self._begin, self._watchers
        append, now, ref = self._new.append, time.monotonic, weakref.ref
        users = loop.get_task_factory
        # What asyncio's own create_task does without a factory, and without another call.
        direct = getattr(make, "__func__", None) is asyncio.BaseEventLoop.create_task
        module: Any = asyncio.tasks  # its Task is looked up each time, as there: nest_asyncio puts another one in

        def create_task(coro: Any, *, name: Any = None, context: Any = None, **options: Any) -> asyncio.Task[Any]:
            task: asyncio.Task[Any]
            if direct and not options and users() is None and not loop.is_closed():
                task = module.Task(coro, loop=loop, name=name, context=context)
            else:
                if context is not None:
                    options["context"] = context
                if name is not None:  # as asyncio does: a factory need not know names
                    options["name"] = name
                task = make(coro, **options)
                self._take_in(task, context)
                return task
            append((ref(task), now()))
            if not self._watching:
                begin()
            # In debug mode, 3.4 to 3.15: where the task was created, without the frame of what creates it.
            if created := getattr(task, "_source_traceback", None):
                del created[-1]
            if watchers:
                for watcher in tuple(watchers):
                    watcher(task, context)
            return task

        return create_task

    def _take_in(self, task: asyncio.Task[Any], context: contextvars.Context | None) -> None:
        """Keep what a factory of the user's has made, as far as it can be kept."""
        with suppress(Exception):
            if is_done(task):  # eager: there may be any number of them before the loop comes to sort
                self._unretrieved.add(task)
            elif has_begun(task):  # eager as well: not in the order of the queue
                self._hold(task, time.monotonic())
            else:
                self._new.append((weakref.ref(task), time.monotonic()))
                if not self._watching:
                    self._begin()
            if created := getattr(task, "_source_traceback", None):
                del created[-1]
            if asyncio.isfuture(task):
                for watcher in tuple(self._watchers):
                    watcher(task, context)

    # -- sorting

    def _begin(self) -> None:
        if self._loop.is_closed():
            return
        if not self._armed:
            self._loop.call_soon(self._sort_in_loop, context=self._context)
            self._armed = True
        # Not in a cell without await: what an interrupt raises in there, the collector drops. Nothing begins meanwhile.
        if self._loop.is_running():
            self._watch_collector()

    @uninterruptible
    def _sort_in_loop(self) -> None:
        try:
            self._armed = False
            self._sort(at_most=_SORTED)
        finally:  # also if a signal handler, which is not ours, has raised in the middle
            if self._new:
                self._begin()
            else:
                self._unwatch_collector()

    def _sort(self, *, at_most: int | None = None, all_of_them: bool = False) -> None:
        """Sort the new tasks that have begun: tasks begin in the order of their making."""
        if self._sorting:
            return
        self._sorting = True
        try:
            for _ in range(len(self._new) if at_most is None else min(at_most, len(self._new))):
                ref, at = self._new[0]
                task = ref()
                if task is None:
                    self._count += 1
                elif all_of_them or is_done(task) or has_begun(task):
                    self._hold(task, at)
                else:
                    break
                self._new.popleft()
        finally:
            self._sorting = False

    def _alive(self) -> list[tuple[asyncio.Task[Any], _Entry]]:
        return [(task, entry) for ref, entry in tuple(self._live.items()) if (task := ref()) is not None]

    def _hold(self, task: asyncio.Task[Any], at: float) -> None:
        ref = weakref.ref(task)
        if ref in self._live:
            return  # or: an interrupt has come before it was taken from the new ones
        entry = _Entry(self, ref, self._count + 1, at)
        if is_done(task):
            self._let_go(entry, task)
        else:
            self._keep(entry, task)
            # Last: an interrupt may come between any two of these, and until then the task is still a new one.
            self._live[ref] = entry
        self._count = entry.number

    def _keep(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        """Keep the task until it is woken, and later on until it has ended."""
        entry.anchor = task  # whatever raises in what follows
        waiter = waits_for(task) if entry.waits < _WAITS else None
        entry.waits += 1
        # Others may wait for a task, and be woken between its end and our look.
        if waiter is not None and not is_task(waiter):
            with suppress(Exception):  # a future of the user's, which may be anything
                waiter.add_done_callback(_Look(entry, task), context=self._context)
                entry.anchor = waiter
                return
        task.add_done_callback(_Look(entry, task), context=self._context)

    def _look_at(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        """Let the task go if it has ended; else keep it."""
        if self._live.get(entry.ref) is not entry:
            return  # torn apart when it was made; there is another one
        if is_done(task):
            self._let_go(entry, task)
        else:
            self._keep(entry, task)

    def _take(self) -> None:
        """Sort all new tasks."""
        with Held(then_raise=True):
            self._sort(all_of_them=True)

    def _let_go(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        # First, and once more if an interrupt comes before the rest: a failure that is suspected twice is told once.
        self._unretrieved.add(task)
        self._live.pop(entry.ref, None)
        if task not in self._mains:
            self._past.append(remember(task, entry.number, entry.at, time.monotonic()))

    def is_reported(self, task: asyncio.Task[Any]) -> None:
        """Remember *task*, which nobody held: asyncio reports its failure, and it vanishes."""
        entry = self._live.get(weakref.ref(task))
        if entry is not None and is_done(task):
            self._let_go(entry, task)

    # -- the garbage collector

    def _watch_collector(self) -> None:
        if not self._watching:
            self._watching = True
            gc.callbacks.append(self._on_collection)

    def rest(self) -> None:
        """Before a cell without await: what an interrupt raises in there, the garbage collector would drop."""
        if self._watching:
            self._take()
            self._unwatch_collector()

    def _unwatch_collector(self) -> None:
        self._watching, self._spared = False, []
        with suppress(ValueError):
            while True:
                gc.callbacks.remove(self._on_collection)

    @uninterruptible
    def _on_collection(self, phase: str, info: object) -> None:
        """Hold what has begun. In the middle of that, and from other threads, hold all while the collector runs."""
        if phase == "stop":
            self._spared = []
        elif self._sorting or threading.get_ident() != self._thread:
            self._spared = [ref() for ref, _ in list(self._new)]
        else:
            try:
                self._sort()
            except RecursionError:  # the code that collects is deep in a recursion
                self._spared = [ref() for ref, _ in list(self._new)]
