"""A concurrent main task: the same SIGINT interrupts it, but the handler belongs to another run."""

from __future__ import annotations

import asyncio

from ..introspection.frames import uninterruptible
from ..introspection.private_api import is_stepping
from .main_task import MainTask

__all__ = ["Peer"]


class Peer(MainTask):
    """As ``Interrupt``, whose handler calls :meth:`press` at each SIGINT, and forces what does not yield."""

    def press(self, *, alone: bool = False) -> None:
        """Do what SIGINT does. On the main thread, also in a signal handler."""
        if self._over or self._loop.is_closed():
            return
        self.presses += 1
        self._due = self.task is not None
        # This wakes the loop, and is also called where nothing can go first.
        self._loop.call_soon_threadsafe(self._answer, context=self._context)
        if asyncio.current_task(self._loop) is None and not is_stepping(self.task):
            self._cancel_due()
        elif self._queue is not None:
            self._queue.call_first(self._take_effect)

    @uninterruptible
    def _answer(self) -> None:
        self._answered()
