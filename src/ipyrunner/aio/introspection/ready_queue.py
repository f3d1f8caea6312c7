"""The callbacks of a loop that wait for their turn, and moving urgent ones before them.

The problem: a loop calls what is ready in the order in which it came. Behind forty tasks that each compute for a third
of a second the wakeup of a cancelled task comes after twelve seconds, and the loop runs to the end of its iteration
even when it was told to stop.

The solution: the queue is a deque, of which an iteration takes as many callbacks as there were at its beginning, one by
one. What has just been put at its end may be moved to the front, and what is left may be set aside, with as many
cancelled handles in its place; nothing is lost, and the order of the others stays.

uvloop's own callbacks, for connections that are made or closed, must run before what was scheduled after them:
otherwise one cancelled connection of thirty ended in a segmentation fault. While there are any, nothing goes first.

Where a loop does not show its queue nothing goes first, and nothing is set aside.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from .private_api import is_pythons, may_step, ready_callbacks, step_of

__all__ = ["ReadyQueue"]

# Through how many callbacks a short look goes: 100,000 would take as long as a user notices.
_LOOKED_AT = 1000


class ReadyQueue:
    """The queue of *loop*. On the loop's thread; :meth:`set_aside` and :meth:`put_back` not in signal handlers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue = ready_callbacks(loop)
        self._context = contextvars.Context()
        # What was set aside.
        self.aside: list[Any] = []
        self._filler: Any = None

    def __len__(self) -> int:
        return 0 if self._queue is None else len(self._queue)

    def _movable(self) -> deque[Any] | None:
        if self._queue is None or isinstance(self._loop, asyncio.BaseEventLoop):
            return self._queue
        return self._queue if all(map(is_pythons, tuple(self._queue))) else None

    def call_first(self, callback: Callable[[], object]) -> bool:
        """Call *callback* before all that waits; return False, and do nothing, if that cannot be done."""
        if self._movable() is None:
            return False
        self.put_first(lambda: self._loop.call_soon(callback, context=self._context))
        return True

    def put_first(self, schedule: Callable[[], object], *, waiting: int | None = None) -> None:
        """Call *schedule*, and put the callbacks that it schedules before all that wait.

        *waiting*: how many callbacks count as waiting; those behind them go first as well.
        """
        queue, before = self._movable(), len(self) if waiting is None else waiting
        schedule()
        if queue is not None and len(queue) > before:
            queue.rotate(len(queue) - before)

    def may_have_steps(self) -> bool:
        """Return whether a step of any task waits, so far as a short look can tell; if it cannot, True."""
        if self._queue is None or len(self._queue) > _LOOKED_AT:
            return self._queue is not None
        try:
            return any(step_of(handle, None) for handle in tuple(self._queue))
        except Exception:  # the class of what a callback belongs to may be anything
            return True

    def promote(self, tasks: Collection[asyncio.Task[Any]]) -> int:
        """Put the steps of *tasks* that wait before all that waits, in their order; return how many."""
        queue, found = self._movable(), list[Any]()
        owners = {id(task) for task in tasks if may_step(task)}
        if queue is None or not owners:
            return 0
        steps = [handle for handle in tuple(queue) if step_of(handle, owners)]
        wanted = {id(handle) for handle in steps}
        try:
            # One by one, since other threads append meanwhile, and a signal handler of ours may change the order.
            for _ in range(len(queue) if wanted else 0):
                if id(queue[0]) in wanted:
                    found.append(queue.popleft())
                else:
                    queue.rotate(-1)
        finally:
            queue.extendleft(reversed(found))
        return len(found)

    def take(self, owner: object) -> list[Any]:
        """Remove the waiting calls of *owner*'s methods from the queue, and return them for :meth:`give`."""
        queue, taken = self._movable(), list[Any]()
        if queue:
            filler = self._get_filler()
            for _ in range(len(queue)):  # other threads may append meanwhile
                handle = queue.popleft()
                if step_of(handle, (id(owner),)):
                    taken.append(handle)
                    handle = filler
                queue.append(handle)
        return taken

    def has(self, owner: object) -> bool:
        """Return whether a call of one of *owner*'s methods waits; False if that is not known."""
        return self._queue is not None and any(step_of(handle, (id(owner),)) for handle in tuple(self._queue))

    def give(self, handles: list[Any]) -> None:
        """Put what :meth:`take` has returned at the end of the queue."""
        if handles and self._queue is not None and not self._loop.is_closed():
            self._queue.extend(handles)
            self._loop.call_soon(_nothing, context=self._context)  # makes uvloop look at its queue

    def set_aside(self) -> None:
        """Let the loop call nothing more before :meth:`put_back`, which the code that runs it calls. In a callback."""
        if self.aside or not self._movable() or self._queue is None:
            return
        filler, popleft = self._get_filler(), self._queue.popleft
        self.aside += [popleft() for _ in range(len(self._queue))]  # other threads may append meanwhile
        self._queue.extendleft([filler] * len(self.aside))

    def _get_filler(self) -> Any:
        # An iteration calls a fixed number of handles: for each one that is removed, one that does nothing is put in.
        if self._filler is None and isinstance(self._loop, asyncio.BaseEventLoop):
            self._filler = asyncio.Handle(_nothing, (), self._loop, self._context)
            self._filler.cancel()
        elif self._filler is None and self._queue is not None:
            self._filler = self._loop.call_soon(_nothing, context=self._context)  # only uvloop can make its handles
            self._filler.cancel()
            self._queue.remove(self._filler)  # other threads may have appended since
        return self._filler

    def put_back(self) -> None:
        """Put back what was set aside. Outside of the loop; idempotent."""
        if self.aside and self._queue is not None:
            for _ in range(len(self._queue)):
                handle = self._queue.popleft()
                if handle is not self._filler:
                    self._queue.append(handle)
            aside, self.aside = self.aside, []
            self._queue.extendleft(reversed(aside))
            if not self._loop.is_closed():
                self._loop.call_soon(_nothing, context=self._context)  # makes uvloop look at its queue


def _nothing() -> None:
    pass
