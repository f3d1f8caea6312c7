"""The tasks of one loop: which are there, since when, and which have ended lately.

The problem: asyncio keeps weak references to tasks, and a task that nobody holds may be collected before it has ended.
But holding a task until we notice that it has ended would keep its result alive.

The solution: keep no task that has ended. ``loop.create_task``, replaced on the loop, adds each new task to the young
ones (``YoungTasks``). A task that is still there a moment later is watched: we hold the future that it waits for, and
that holds the task. So nothing holds the task when it ends, and its result is freed at once. Right after each wakeup we
look at it again; a task that waits often is held directly from then on, and a done callback lets it go in the iteration
after its end.

So a task that soon ends costs a weak reference, and 100,000 that sleep cost nothing until they end.

A task factory is not used for this: it is for the user to set, and with one Python 3.13.0 names tasks "None". A user's
factory may make anything: what cannot be kept is returned as it is. A cell's own task is not made by it.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeVar

from ..introspection.frames import uninterruptible
from ..introspection.loop_class import follow_patches, takes_other_options, when_changed
from ..introspection.private_api import exception_of, hide_frames, is_task, waits_for
from ..introspection.task_state import is_done, tasks_of
from ..replacements import Override
from ..sigint.defer_sigint import Held
from .task_records import HISTORY, Ended, Started, remember
from .unretrieved_failures import Unretrieved
from .young_tasks import FEW, YoungTasks

__all__ = ["Tasks"]

# How many times a task is kept by the future that it waits for, with a callback each time; then it is held directly,
# with one callback at its end.
_WAITS = 8
# Until 3.13 asyncio keeps each new task of its class in a WeakSet; we share that reference, if it is the only one.
# Another one takes longer to make, and is one more object for each garbage collection.
_SHARED: Any = asyncio.tasks.Task if sys.version_info < (3, 14) else None

_T = TypeVar("_T")

# Called with a new task, and the Context that was given for it, if one was; in the Context that starts it.
Watcher = Callable[["asyncio.Task[Any]", "contextvars.Context | None"], None]


class _Entry:
    """One pending task, and what keeps it from being collected: the future that it waits for, or the task itself."""

    __slots__ = ("anchor", "at", "books", "number", "ref", "waits")

    def __init__(self, books: Tasks, ref: weakref.ref[asyncio.Task[Any]], number: int, at: float | None) -> None:
        self.books, self.ref, self.number, self.at = books, ref, number, at
        self.anchor: asyncio.Future[Any] | None = None
        self.waits = 0


class _Look:
    """Look at a task once: right after it was woken, or when it has ended. Holds it from the wakeup to the look."""

    __slots__ = ("entry", "task")

    def __init__(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        self.entry, self.task = entry, task

    def __repr__(self) -> str:
        return "ipyrunner"  # among the callbacks in the repr of a task or future

    @uninterruptible
    def __call__(self, _: object) -> None:
        try:
            self.entry.books._look_at(self.entry, self.task)
        except BaseException:  # raised by a user's signal handler; nobody else would look again
            self.entry.books._look_at(self.entry, self.task)
            raise


class Tasks:
    """Keep the pending tasks of *loop*, from now until :meth:`close`. On the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, torn: Callable[[BaseException], None]) -> None:
        """*torn* is called with what a signal handler raises while our records are being changed."""
        self._loop = loop
        self._young = YoungTasks(loop, hand_on=self._watch, failed=self._suspect)
        # The tasks that are watched and have not ended.
        self._live: dict[weakref.ref[asyncio.Task[Any]], _Entry] = {}
        self._unretrieved = Unretrieved(loop, pending=self._pending, torn=torn)
        self._mains: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        # The main task, while something runs in it.
        self._running: Started | None = None
        self._past: deque[Ended] = deque(maxlen=HISTORY)
        self._context = contextvars.Context()
        # Called with each new task, in the Context that starts it.
        self._watchers: list[Watcher] = []
        self._is_over = False
        # Called when the way to make a task may have changed.
        self._choose: Callable[[], None] = lambda: None
        self._stop_telling: Callable[[], None] | None = None
        self._create_task = Override(loop, "create_task", self._make_create_task)

    def close(self) -> None:
        """Let go of all tasks, and of the loop."""
        if self._stop_telling is not None:
            self._stop_telling()
        self._is_over = True
        self._choose()
        self._create_task.restore()
        for task, _, _ in self._alive():
            self._unretrieved.add(task)
        self._young.close()
        self._unretrieved.close()
        self._live.clear()

    # -- looking

    def started(self) -> list[Started]:
        """Return the tasks that have not ended, in the order of starting."""
        self._take()
        found = {id(entry.task): entry for entry in self._alive()}
        running = self._running
        if running is not None:
            found[id(running.task)] = running
        for task in tasks_of(self._loop):  # those made by asyncio.Task(...)
            if id(task) not in found:
                with suppress(Exception):  # one that cannot be kept
                    number = self._young.next_number()
                    self._watch(task, number, None)
                    found[id(task)] = Started(task, number, None)
        return sorted([each for each in found.values() if not is_done(each.task)], key=attrgetter("number"))

    def ended(self) -> list[Ended]:
        """Return the last tasks that have ended, in the order of ending, without those that were freed at once."""
        with Held(then_raise=True):
            self._young.settle(HISTORY)
        for task, number, at in self._watched():
            if is_done(task):
                self._let_go(task, number, at)
        return list(self._past)

    def main_begins(self, task: asyncio.Task[Any]) -> None:
        """Note that *task*, which others hold, begins a new run: until :meth:`main_ends` it is listed as a task."""
        follow_patches(self._loop)
        with Held(then_raise=True):
            self._running = Started(task, self._young.next_number(), time.monotonic())

    def main_ends(self, *, given_up: bool = False) -> None:
        """Note that the main task's run has ended; *given_up*: it has not, and the task is now one like any other."""
        if given_up and self._running is not None:
            self._mains.add(self._running.task)
            self._watch(*self._running)
        self._running = None

    def _pending(self) -> list[asyncio.Task[Any]]:
        running = [] if self._running is None else [self._running.task]
        return [*running, *(task for task, _, _ in self._alive())]

    def settle(self) -> None:
        """At the end of a cell: report the failures that it can no longer look at."""
        with Held(then_raise=True):
            self._young.settle()
            self._unretrieved.look()

    def holder_of(self, exc: BaseException) -> asyncio.Task[Any] | None:
        """Return the task that has ended with *exc*."""
        refs: list[Callable[[], asyncio.Task[Any] | None]] = [
            *self._young.refs(),
            *self._live,
            *self._unretrieved.suspects(),
        ]
        held = [ref() for ref in refs]
        return next((task for task in held if task is not None and exception_of(task) is exc), None)

    def rest(self) -> None:
        """Before a cell without await."""
        follow_patches(self._loop)
        with Held(then_raise=True):
            self._young.rest()

    def resume(self) -> None:
        """After a cell without await."""
        self._young.resume()

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call *watcher* with each task that is started from now on; return a function that ends this."""
        self._watchers.append(watcher)
        self._choose()

        def end() -> None:
            self._watchers.remove(watcher)
            self._choose()

        return end

    # -- starting

    def start(
        self,
        coro: Coroutine[Any, Any, _T],
        *,
        name: str | None,
        context: contextvars.Context | None = None,
        main: bool = False,
    ) -> asyncio.Task[_T]:
        """Start *coro*, a cell, without the user's task factory. *main*: forget the task when it has ended."""
        if not self._young.new:
            self._young.begin()
        task: asyncio.Task[_T] = asyncio.tasks.Task(coro, loop=self._loop, name=name, context=context)
        self._young.new.append(weakref.ref(task))
        if main:
            self._mains.add(task)
        for watcher in tuple(self._watchers):
            watcher(task, context)
        return task

    def _make_create_task(self, make: Any) -> Callable[..., asyncio.Task[Any]]:
        loop, watchers, new, begin = self._loop, self._watchers, self._young.new, self._young.begin
        append, size, ref, refs = new.append, new.__len__, weakref.ref, weakref.getweakrefs
        module: Any = asyncio.tasks  # its Task is looked up each time, as there: nest_asyncio puts another one in

        def make_task(coro: Any, *, name: Any = None, context: Any = None, **options: Any) -> asyncio.Task[Any]:
            task: Any
            if not 0 < size() < FEW:
                begin()
            if context is None and not options:  # as asyncio does: a factory need not know names
                task = make(coro) if name is None else make(coro, name=name)
            else:
                if context is not None:
                    options["context"] = context
                if name is not None:
                    options["name"] = name
                task = make(coro, **options)
            if type(task) is module.Task and not is_done(task):
                append(ref(task))
            else:
                self._take_in(task)
            hide_frames(task, __file__)
            if watchers and asyncio.isfuture(task):
                for watcher in tuple(watchers):
                    watcher(task, context)  # type: ignore[arg-type]
            return task  # type: ignore[no-any-return]

        has_options = takes_other_options(make)
        if has_options is None:
            make_task.__name__ = make_task.__qualname__ = "create_task"
            return make_task
        is_plain = shares = False
        room = 0  # how many tasks may be appended before make_first() is to be called; 0 if not plain

        # What asyncio's own does without a factory and debug mode, without another function call: tasks are made in
        # great numbers, and each bit of work for one adds up.
        if not has_options:

            def create_task(coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
                nonlocal room
                if not room:
                    return make_first(coro, name=name, context=context)
                room -= 1
                if name is None and context is None:  # parsing arguments that are None takes longer
                    task = module.Task(coro, loop=loop)
                else:
                    task = module.Task(coro, loop=loop, name=name, context=context)
                found = refs(task) if shares else ()
                append(found[0] if len(found) == 1 else ref(task))
                return task  # type: ignore[no-any-return]
        else:

            def create_task(  # type: ignore[misc]
                coro: Any, *, name: Any = None, context: Any = None, **options: Any
            ) -> asyncio.Task[Any]:
                nonlocal room
                if options or not room:
                    return make_first(coro, name=name, context=context, **options)
                room -= 1
                if name is None and context is None:  # to parse what is not given takes longer
                    task = module.Task(coro, loop=loop)
                else:
                    task = module.Task(coro, loop=loop, name=name, context=context)
                if shares:
                    found = refs(task)
                    append(found[0] if len(found) == 1 else ref(task))
                else:
                    append(ref(task))
                return task  # type: ignore[no-any-return]

        def make_first(coro: Any, **options: Any) -> asyncio.Task[Any]:
            nonlocal room, shares
            if not is_plain or len(options) > 2:
                return make_task(coro, **options)
            begin()
            room, shares = FEW, module.Task is _SHARED
            return create_task(coro, **options)

        def emptied() -> None:
            nonlocal room
            room = 0

        def choose() -> None:
            nonlocal is_plain, room
            room = 0
            is_plain = not (
                self._is_over or watchers or loop.get_debug() or loop.is_closed() or loop.get_task_factory() is not None
            )

        self._stop_telling = when_changed(loop, choose)
        if self._stop_telling is not None:
            self._choose, self._young.emptied = choose, emptied
            choose()
        return create_task

    def _take_in(self, task: asyncio.Task[Any]) -> None:
        """Keep what a user's factory has made, if it can be kept: it may be anything."""
        with suppress(Exception):
            if is_done(task):  # eager
                self._unretrieved.add(task)
            else:
                self._watch(task, self._young.next_number(), time.monotonic())

    # -- watching

    def _take(self) -> None:
        """Sort all new tasks."""
        with Held(then_raise=True):
            self._young.sort()

    def _watched(self) -> list[Started]:
        refs = tuple(self._live.items())
        return [Started(task, each.number, each.at) for ref, each in refs if (task := ref()) is not None]

    def _alive(self) -> list[Started]:
        return [*self._watched(), *self._young.alive()]

    def _watch(self, task: asyncio.Task[Any], number: int, at: float | None) -> None:
        """Watch the task until it has ended."""
        ref = weakref.ref(task)
        if ref in self._live:
            return  # an interrupt came before the task was removed from the young ones
        if is_done(task):
            self._let_go(task, number, at)
            return
        entry = _Entry(self, ref, number, at)
        self._keep(entry, task)
        # Last: if an interrupt comes before this, the task is still a young one.
        self._live[ref] = entry

    def _keep(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        """Keep the task until it is woken, and later on until it has ended."""
        entry.anchor = task  # in case the following raises
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
            return  # an exception came while this entry was made; there is another one
        if is_done(task):
            self._let_go(task, entry.number, entry.at)
        else:
            self._keep(entry, task)

    def _let_go(self, task: asyncio.Task[Any], number: int, at: float | None) -> None:
        # First; and again if an interrupt comes before the rest is done: a failure added twice is reported once.
        self._unretrieved.add(task)
        self._live.pop(weakref.ref(task), None)
        if task not in self._mains:
            self._past.append(remember(task, number, at, time.monotonic()))

    def _suspect(self, task: asyncio.Task[Any]) -> None:
        self._unretrieved.add(task)

    def is_reported(self, task: asyncio.Task[Any]) -> None:
        """Remember *task*, which nobody held: asyncio reports its failure, and it vanishes."""
        if not is_done(task):
            return
        entry, young = self._live.get(weakref.ref(task)), self._young.find(task)
        if entry is not None:
            self._let_go(task, entry.number, entry.at)
        elif young is not None:
            self._let_go(*young)
