"""One loop (the guest) inside another (the host) that has to keep the thread: the reverse of ``GuestLeads``.

The problem: a host whose selector runs something else while it waits, as prompt_toolkit's does with a GUI's event loop
(an input hook), never comes to rest. A guest that leads would keep that from running.

The solution: the host leads. It watches the guest's selector fd and holds a timer for the guest's next timer; when one
of them fires, the guest runs until it has nothing ready, or for 5 ms. A callback that is scheduled on the guest
meanwhile makes no fd readable: a ``Doorbell`` notices it.

A guest without a pollable fd (uvloop) is visited every 50 ms, for 5 ms.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..introspection.private_api import has_ready, is_stopping, next_timer, selector_fd
from .doorbell import Doorbell
from .host_and_guest import Hosting

__all__ = ["HostLeads"]

# Seconds: the longest visit while the guest has more to do; the pause before visiting a guest that cannot be watched.
_VISIT = 0.005
_PAUSE = 0.05


class HostLeads(Hosting):
    """As :class:`Hosting`; the host leads. Nobody can :meth:`wait` for the guest."""

    def __init__(self, host: asyncio.AbstractEventLoop, guest: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(host, guest, **options)
        self._fd = selector_fd(guest)
        self._guests_doorbell = Doorbell(guest, self._ring)
        self._next: asyncio.Handle | None = None
        self._watching = False

    def _begin(self) -> None:
        self.host.call_soon(self._lead, context=self._context)

    def pause(self) -> None:
        """Let somebody else run the guest: stop watching it until the next visit."""
        self._guests_doorbell.take()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._watching:
            self._watching = False
            if not self.host.is_closed():
                self.host.remove_reader(self._fd)  # type: ignore[arg-type]

    def _lead(self) -> None:
        if not self._active:
            return
        self.pause()
        self._left()
        if not self._can_lead():
            return
        if not is_stopping(self.host):
            self._visit()
        if self._active:
            self._rest()

    def _visit(self) -> None:
        if self._fd is None:
            self._turn(_VISIT)
            return
        end = self.host.time() + _VISIT
        self._turn(0)
        while self._active and has_ready(self.guest) and self.host.time() < end:
            self._turn(0)

    def _rest(self) -> None:
        """Leave the thread to the host until the guest has something to do."""
        # First: what a signal handler puts on the guest after the next lines would not be seen.
        self._guests_doorbell.hang()
        # Never by call_soon(): a host that has callbacks ready does not run its hook.
        due = self.guest.time() if has_ready(self.guest) else next_timer(self.guest)
        seconds = None if due is None else max(0, due - self.guest.time())
        if self._fd is None:
            seconds = _PAUSE
        else:
            self._watching = True
            self.host.add_reader(self._fd, self._lead)
        if seconds is not None:
            self._next = self.host.call_later(seconds, self._lead, context=self._context)

    def _ring(self) -> None:
        self._guests_doorbell.take()  # once
        self.host.call_soon_threadsafe(self._lead, context=self._context)
