"""A host without a pollable fd, or a guest that cannot watch one (both on Windows): turns in short slices.

The guest leads for a millisecond, and longer while the host has nothing to do. A callback of the host's comes back in
each of its iterations to begin the next slice.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..introspection.private_api import is_stopping
from .host_and_guest import Hosting

__all__ = ["Slices"]

# Seconds. The longest slice bounds how late the host is, while somebody waits for the guest and while nobody does.
_SHORTEST = 0.001
_LONGEST = 0.02
_LONGEST_IDLE = 0.05
# A host that has callbacks ready goes first, for up to this many iterations: a kernel request takes about ten.
_PASSES = 10


class Slices(Hosting):
    """As :class:`Hosting`, by turns that end after some time."""

    polls = True

    def __init__(self, host: asyncio.AbstractEventLoop, guest: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(host, guest, **options)
        self._slice = _SHORTEST
        self._passed = 0

    def _begin(self) -> None:
        self.host.call_soon(self._lead, context=self._context)

    def _lead(self) -> None:
        self._left()  # does not come back in a child process
        if not self._can_lead():
            return
        passes = False
        try:
            if not is_stopping(self.host):
                seconds = self._seconds()
                passes = seconds == 0 and self._passed < _PASSES
                self._passed = self._passed + 1 if passes else 0
                if not passes:
                    self._turn(seconds)
        finally:
            if self._active and passes and self._aside:
                self.host.call_later(_SHORTEST, self._lead, context=self._context)
            elif self._active:
                self.host.call_soon(self._lead, context=self._context)

    def _seconds(self) -> float:
        """Return for how long the guest may lead: 0 if the host has something to do."""
        seconds = super()._seconds()
        if seconds == 0:
            self._slice = _SHORTEST
            return 0
        self._slice = min(2 * self._slice, _LONGEST if self._waiters else _LONGEST_IDLE)
        return self._slice if seconds is None else min(seconds, self._slice)
