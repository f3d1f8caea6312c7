"""The tasks that a piece of code starts, directly or indirectly; and a scope that none of them outlives.

``asyncio.TaskGroup`` knows the tasks that are started through it. This module knows all those that ``create_task``
starts anywhere in the code or in what it calls, by a ContextVar: a task copies the Context of the code that starts it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..introspection.exceptions import is_a
from ..introspection.private_api import exception_of, unseen
from ..introspection.task_state import cancel, cancelling, retrieve
from ..introspection.wait_graph import awaited
from .exception_handler import report

__all__ = ["Brood", "Scope", "leave"]

# How many iterations of the loop code that waits for a task has to retrieve its exception: wait_for and asyncio.wait
# need one after they are woken.
_LOOKS = 3
# Seconds until the next look at a task that somebody gathers.
_AGAIN = 0.05

_broods: contextvars.ContextVar[tuple[Brood, ...]] = contextvars.ContextVar("ipyrunner broods", default=())


def leave(context: contextvars.Context) -> None:
    """Take *context*, a copy of one in which a block has not ended, out of that block."""
    context.run(_broods.set, ())


class Brood:
    """The tasks that the code in a ``with`` block starts: those :attr:`running`; how many are done, and have failed.

    *watch* is ``Tasks.watch`` of the loop; *ended* is called with each task that ends.
    """

    def __init__(
        self,
        watch: Callable[[Callable[..., None]], Callable[[], None]],
        ended: Callable[[asyncio.Task[Any]], None] = lambda task: None,
    ) -> None:
        self._watch = watch
        self._on_ended = ended
        self.running: set[asyncio.Task[Any]] = set()
        self.done = 0
        self.failed = 0

    def __enter__(self) -> Brood:
        self._token = _broods.set((*_broods.get(), self))
        self._unwatch = self._watch(self._on_started)
        return self

    def __exit__(self, *exc: object) -> None:
        self._unwatch()
        _broods.reset(self._token)

    def is_here(self) -> bool:
        """Return whether the caller is in the block, or was started by code in it."""
        return self in _broods.get()

    def _on_started(self, task: asyncio.Task[Any], context: contextvars.Context | None) -> None:
        if self in (_broods.get() if context is None else context.get(_broods, ())):
            task.add_done_callback(self._on_done)
            self.running.add(task)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self.running.discard(task)
        self.done += 1
        self.failed += exception_of(task) is not None
        self._on_ended(task)


class Scope:
    """An asynchronous context manager: its end waits for all tasks that the block has started, directly or indirectly.

    The first exception, of the block or of a task whose exception nobody else has retrieved, cancels all other tasks.
    When all have ended, the exceptions are raised as an ExceptionGroup, as by ``asyncio.TaskGroup``. KeyboardInterrupt
    and SystemExit are raised as they are. Cancelling the block cancels the tasks, and waits for them.
    """

    def __init__(self, watch: Callable[[Callable[..., None]], Callable[[], None]]) -> None:
        self._brood = Brood(watch, self._on_ended)
        self._loop = asyncio.get_running_loop()
        self._parent: asyncio.Task[Any] | None = None
        self._errors: list[BaseException] = []
        self._closing = False
        self._inside = False
        self._cancelled_parent = False
        self._changed = asyncio.Event()
        # How many tasks have failed whose exception somebody may still retrieve.
        self._undecided = 0
        # Of these, the ones whose iterations are over. One look at what is awaited serves all of them.
        self._doubted: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Scope:
        self._parent = asyncio.current_task()
        assert self._parent is not None
        self._cancels_before = self._parent.cancelling()
        self._brood.__enter__()
        self._inside = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool:
        parent = self._parent
        assert parent is not None
        self._inside = False
        # A cancellation from outside; not the one that we have asked for.
        cancelled: asyncio.CancelledError | None = None

        def take(exc: asyncio.CancelledError) -> None:
            nonlocal cancelled
            if parent.cancelling() - self._cancels_before > self._cancelled_parent or not self._cancelled_parent:
                cancelled = cancelled or exc
            self._abort()

        try:
            if is_a(exc, asyncio.CancelledError):
                take(exc)
            elif exc is not None:
                self._errors.append(exc)
                self._abort()
            while self._brood.running or self._undecided:
                self._changed.clear()
                try:
                    await self._changed.wait()
                except asyncio.CancelledError as again:
                    take(again)
        finally:
            self._brood.__exit__()
        if self._cancelled_parent:
            parent.uncancel()
        fatal = next((error for error in self._errors if is_a(error, KeyboardInterrupt, SystemExit)), None)
        if fatal is not None:
            raise fatal
        if cancelled is not None:
            # An interrupt or a timeout is raised as such; errors in the clean-up are reported besides.
            for error in self._errors:
                report(self._loop, {"message": "an error while a scope was cancelled", "exception": error})
            raise cancelled
        if self._errors:
            raise BaseExceptionGroup("unhandled errors in a scope", self._errors) from None
        return False

    def _on_ended(self, task: asyncio.Task[Any]) -> None:
        if unseen([task]):
            self._undecided += 1
            self._decide(task, _LOOKS)
        self._changed.set()

    def _decide(self, task: asyncio.Task[Any], looks: int) -> None:
        if unseen([task]) and looks:
            self._loop.call_soon(self._decide, task, looks - 1)
            return
        self._doubted.append(task)
        if len(self._doubted) == 1:
            self._loop.call_soon(self._judge)

    def _judge(self) -> None:
        begin = self._loop.time()
        doubted, self._doubted = self._doubted, []
        looked_at = set(awaited({*self._brood.running, *self._blocks()})) if unseen(doubted) else set()
        for task in doubted:
            if unseen([task]) and task in looked_at:
                self._doubted.append(task)  # gathered: its exception is retrieved when all have ended
            else:
                self._settle(task)
        if self._doubted:
            self._loop.call_later(max(_AGAIN, 20 * (self._loop.time() - begin)), self._judge)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._undecided -= 1
        if unseen([task]):
            error = retrieve(task)
            assert error is not None
            self._errors.append(error)
            self._abort()
            if self._inside and self._parent is not None and not self._cancelled_parent:
                self._cancelled_parent = True
                self._parent.cancel()
        self._changed.set()

    def _blocks(self) -> set[asyncio.Task[Any]]:
        return {self._parent} if self._inside and self._parent is not None else set()

    def _abort(self) -> None:
        for task in tuple(self._brood.running):
            if (not self._closing or not cancelling(task)) and cancel(task) is not None:  # it may never end
                self._brood.running.discard(task)
        self._closing = True
