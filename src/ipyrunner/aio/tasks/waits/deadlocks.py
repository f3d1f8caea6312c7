"""Tasks that wait for each other in a circle: none of them can go on unless somebody cancels one, or makes one fail.

The problem: asyncio knows which task waits for which, but not who holds a lock. And a wait may end by itself.

The solution: follow what tasks wait for, link by link (``wait_graph``): ``await task``, ``gather``, ``shield``,
``asyncio.wait``, the end of a ``TaskGroup``, and a ``Lock`` that a task holds. Only what is certain counts:

* A task holds a locked lock if it is in an ``async with`` block of that lock, or of its ``Condition``
  (``entered_contexts``). Exceptions: the task is in ``Condition.wait``, which has released the lock; code in its chain
  names ``release``; a second task is in such a block, so that somebody has released a lock that another task held.
  (Code that releases a lock of others and then calls ``acquire()`` goes unnoticed.) A task that has called
  ``acquire()`` counts as holding nothing, because asyncio does not record it. Semaphores, events and queues have no
  owner: any task may release, set or put.
* A task that may go on by itself is in no circle: it is in a block that may have a deadline, or in ``wait_for`` or
  ``asyncio.wait`` with a timeout (``certain_waits``). The same holds for a task that may be cancelled because a task
  that waits for it has such a deadline, and for a task of a ``TaskGroup`` in which any task may go on, and fail.
* ``asyncio.wait`` for the first of several, or until one fails, ``gather`` without ``return_exceptions`` and
  ``TaskGroup`` are stuck only if all tasks that they wait for are.

At most *most* tasks are looked at; all others count as able to go on.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from ...introspection.exceptions import suppressed
from ...introspection.private_api import is_task
from ...introspection.task_state import coro_of
from ...introspection.wait_graph import Step, Wait, awaits, chain_of, innermost, is_asyncios, wait_of
from .certain_waits import cancellers_of, groups_around, members_of
from .entered_contexts import entered

__all__ = ["Deadlock", "Link", "Waits", "deadlock_of"]

# How many tasks are looked at before an interrupt, which must not be delayed.
_MOST = 1000
_CONDITION_WAIT = asyncio.Condition.wait.__code__


class Link(NamedTuple):
    """*task* waits at *step* for the task *other*, or for the lock that it holds (*locked*)."""

    task: asyncio.Task[Any]
    other: asyncio.Task[Any]
    locked: bool
    step: Step | None


# Each link's other task is the next one's task, and the last one's other task the first one's.
Deadlock = tuple[Link, ...]


class Waits:
    """What *tasks*, and those that they wait for, wait for at this moment.

    *others* returns further tasks that may hold a lock.
    """

    def __init__(
        self,
        tasks: Iterable[asyncio.Task[Any]],
        *,
        others: Callable[[], Iterable[asyncio.Task[Any]]] = tuple,
        most: int = sys.maxsize,
    ) -> None:
        # By the ids of the tasks, which may be of a class of the user's: in the order in which they were found.
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self._waits: dict[int, Wait] = {}
        self._holders: dict[int, asyncio.Task[Any] | None] = {}
        self._most = most
        self._known: dict[int, Wait | None] = {}
        self._follow(tasks)
        if any(wait.lock is not None for wait in self._waits.values()):
            self._find_holders(self.tasks.values())
            if len(self.tasks) < most:
                rest = (task for task in others() if id(task) not in self.tasks)
                self._find_holders(islice(rest, most - len(self.tasks)))
            self._follow(self._holder_for(wait) for wait in tuple(self._waits.values()))

    def of(self, task: asyncio.Task[Any]) -> Wait | None:
        """Return what *task* waits for; None if it is not known to wait for a task or a lock."""
        return self._waits.get(id(task))

    def holder(self, lock: asyncio.Lock) -> asyncio.Task[Any] | None:
        """Return the task that holds *lock*, if that is certain. None if no task waits for any lock."""
        return self._holders.get(id(lock))

    def _follow(self, tasks: Iterable[asyncio.Task[Any] | None]) -> None:
        pending = deque(tasks)
        followed: set[int] = set()  # all that await a gather share one Wait
        while pending and len(self.tasks) < self._most:
            task = pending.popleft()
            if task is None or id(task) in self.tasks:
                continue
            self.tasks[id(task)] = task
            with suppressed():
                if (wait := wait_of(task, most=self._most, known=self._known)) is not None:
                    self._waits[id(task)] = wait
                    if id(wait) not in followed:
                        followed.add(id(wait))
                        pending += [*wait.tasks, self._holder_for(wait)]

    def _find_holders(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Note which locks each of *tasks* holds."""
        for task in tasks:
            locks, certain = _held_by(task)
            for lock in locks:
                # A second holder contradicts the first: then neither is known to hold the lock.
                known = certain and self._holders.get(id(lock), task) is task
                self._holders[id(lock)] = task if known else None

    def _holder_for(self, wait: Wait) -> asyncio.Task[Any] | None:
        return None if wait.lock is None else self.holder(wait.lock)

    # -- deadlocks

    def deadlocks(self) -> list[Deadlock]:
        """Return the circles; each task is in one of them at most."""
        stuck = self._stuck()
        order = {task: i for i, task in enumerate(self.tasks)} if stuck else {}
        circles: list[Deadlock] = []
        seen: set[int] = set()
        for start in stuck:
            path: dict[int, None] = {}
            at = start
            while at not in seen:
                seen.add(at)
                path[at] = None
                at = stuck[at]
            if at in path:
                ids = list(path)
                circle = ids[ids.index(at) :]
                first = circle.index(min(circle, key=order.__getitem__))
                circles.append(tuple(self._link(each, stuck[each]) for each in circle[first:] + circle[:first]))
        return circles

    def deadlock_of(self, task: asyncio.Task[Any]) -> Deadlock | None:
        """Return the circle that *task* is in, or waits for."""
        stuck, path, at = self._stuck(), dict[int, None](), id(task)
        while at in stuck and at not in path:
            path[at] = None
            at = stuck[at]
        ids = list(path)
        return tuple(self._link(each, stuck[each]) for each in ids[ids.index(at) :]) if at in path else None

    def _stuck(self) -> dict[int, int]:
        """Return the tasks that cannot go on by themselves, each with one that it waits for and that cannot either."""
        # All that await a gather share one Wait. See _Free for the keys.
        free, needs = _Free(), dict[int, list[int]]()
        for task, wait in self._waits.items():
            if id(wait) not in needs:
                others = needs[id(wait)] = self._needs(wait)
                free.after(id(wait), others, all=wait.all and not wait.fails)
            free.after(task, [id(wait)])
        free.add(wait for wait, others in needs.items() if not others)
        free.add(task for others in needs.values() for task in others if task not in self._waits)
        stuck = [task for task in self._waits if task not in free.keys]
        if stuck:  # hardly ever, and it takes longer
            self._add_cancellations(free, stuck)
        ends = {wait: next((each for each in others if each not in free.keys), None) for wait, others in needs.items()}
        found = ((task, ends[id(self._waits[task])]) for task in stuck if task not in free.keys)
        return {task: other for task, other in found if other is not None}

    def _needs(self, wait: Wait) -> list[int]:
        if wait.lock is not None:
            holder = self._holder_for(wait)
            return [] if holder is None else [id(holder)]
        if wait.timed or (wait.others and (wait.fails or not wait.all)):
            return []
        return list(dict.fromkeys(map(id, wait.tasks)))

    def _add_cancellations(self, free: _Free, stuck: list[int]) -> None:
        """Set those of *stuck* free that may be cancelled, themselves or through a task that waits for them."""
        tasks = frozenset(stuck)
        seen: dict[int, object] = {}  # keeps the objects alive, so that their ids stay theirs
        pending = deque[Any](self.tasks[task] for task in stuck)
        while pending:
            future = pending.popleft()
            if id(future) in seen:
                continue
            if len(seen) == self._most:
                free.add(stuck)
                return
            seen[id(future)] = future
            canceled, certain = ~id(future), False
            with suppressed():
                futures, groups, others = cancellers_of(future)
                around = groups_around(future) if is_task(future) else []
                if around is not None and not others:
                    certain = True
                    for group in (*groups, *around):
                        if id(group) not in seen:
                            seen[id(group)] = group
                            members = list(map(id, members_of(group)))
                            free.after(id(group), members)
                            free.add(member for member in members if member not in tasks)
                        free.after(canceled, [id(group)])
                    free.after(canceled, [~id(each) for each in futures])
                    pending += futures
            free.after(id(future), [canceled])
            if not certain:
                free.add([canceled])

    def _link(self, task: int, other: int) -> Link:
        waiting = self.tasks[task]
        return Link(
            waiting, self.tasks[other], locked=self._waits[task].lock is not None, step=innermost(awaits(waiting))
        )


class _Free:
    """What can go on, in :attr:`keys`, and what can go on because of that.

    The key of a task, a wait or a group is its id; the key ``~id`` says that a task or a ``gather`` may be cancelled.
    """

    def __init__(self) -> None:
        self.keys: set[int] = set()
        self._then: dict[int, list[int]] = {}
        self._left: dict[int, int] = {}

    def after(self, key: int, others: list[int], *, all: bool = False) -> None:
        """Set *key* free when one of *others* is; *all*: when all of them are."""
        for other in others:
            self._then.setdefault(other, []).append(key)
        self._left[key] = len(others) if all else 1
        for other in others:
            if other in self.keys:
                self._count(key)

    def add(self, keys: Iterable[int]) -> None:
        """Set *keys* free, and all that depend on them."""
        pending = [key for key in dict.fromkeys(keys) if key not in self.keys]
        self.keys.update(pending)
        while pending:
            for key in self._then.get(pending.pop(), ()):
                self._left[key] -= 1
                if self._left[key] <= 0 and key not in self.keys:
                    self.keys.add(key)
                    pending.append(key)

    def _count(self, key: int) -> None:
        self._left[key] -= 1
        if self._left[key] <= 0:
            self.add([key])


def deadlock_of(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> Deadlock | None:
    """Return the circle that *task* of *loop* is in, or waits for, if it is found quickly. Also in signal handlers."""
    try:
        return Waits((task,), others=lambda: asyncio.all_tasks(loop), most=_MOST).deadlock_of(task)
    except BaseException:  # RecursionError, if the interrupted code is deep in a recursion
        return None


def _held_by(task: asyncio.Task[Any]) -> tuple[list[asyncio.Lock], bool]:
    """Return the locks that *task* holds, and whether that is certain."""
    held: list[asyncio.Lock] = []
    certain = True
    with suppressed():
        # Coroutines further down the chain than the block may have released the lock.
        for awaited, frame in chain_of(coro_of(task)):
            if frame.f_code is _CONDITION_WAIT:
                lock = _lock_of(frame.f_locals.get("self"))
                held = [each for each in held if each is not lock]
            elif not is_asyncios(frame.f_code):
                certain = certain and "release" not in frame.f_code.co_names
                locks = map(_lock_of, entered(awaited))
                held += [each for each in locks if each is not None and each.locked()]
    return held, certain


def _lock_of(context: object) -> asyncio.Lock | None:
    if type(context) is asyncio.Condition:  # its methods are the lock's
        context = getattr(context.acquire, "__self__", None)
    return context if type(context) is asyncio.Lock else None
