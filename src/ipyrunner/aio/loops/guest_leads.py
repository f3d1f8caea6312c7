"""The guest runs whenever the host would sleep: what ``Hosting`` does wherever it is possible.

The problem: a callback that runs the guest would have to come back in each iteration of the host, which has about ten
for each request, only to see that the host is still busy.

The solution: a loop sleeps in its selector's ``select``, and only there, so that is where the guest leads. One
instance attribute of the host's selector does it, as prompt_toolkit's input hooks do. An iteration of the host's that
has callbacks ready, and does not sleep, is as in a kernel without us. The guest watches the host's selector fd (an
epoll or kqueue fd is itself pollable), holds a timer for the host's next timer, and gives way the moment one of them
fires.

While the guest has no timer and nothing ready either, both loops sleep in one ``select`` of the two fds: to run a loop
that only waits takes longer than all that the host does for a small request.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..exit_and_fork import in_forked_children
from ..introspection.private_api import (
    can_watch,
    has_ready,
    is_stopping,
    next_timer,
    selector_fd,
    selector_of,
)
from ..introspection.running_loop import RunningAtRest, put_back
from ..replacements import Override
from .host_and_guest import Hosting
from .other_threads import OtherThreads

__all__ = ["GuestLeads"]

# A host that always has callbacks ready goes first for this many iterations.
_PASSES = 10
# The loops no longer sleep together when that has failed so often in a row.
_MOST_FAILURES = 5

_Select = Callable[["float | None"], Any]


class GuestLeads(Hosting):
    """As :class:`Hosting`; the guest leads while the host is at rest."""

    def __init__(self, host: asyncio.AbstractEventLoop, guest: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(host, guest, **options)
        self._fd: Any = selector_fd(host)
        # The guest's selector, and its fd; what both loops can sleep in. A loop or a selector of the user's own class
        # may do something in its select(): then the guest sleeps alone.
        self._guests_selector: Any = selector_of(guest)
        self._guests_fd: Any = selector_fd(guest)
        self._both: selectors.BaseSelector | None = None
        # What a signal handler and other threads see while both sleep.
        self._guest_runs: RunningAtRest | None = None
        if isinstance(guest, asyncio.BaseEventLoop) and all(map(_is_pythons, type(guest).__mro__)):
            self._guest_runs = RunningAtRest(guest)
        self._failed_sleeps = 0
        self._threads: OtherThreads | None = None
        self._select: Override | None = None
        self._watching = False
        # How often the host has gone first though the guest's fd was ready, too.
        self._put_off = 0
        # How many iterations of the host's have gone first; whether the guest leads at this moment.
        self._passed, self._leads = 0, False
        in_forked_children(self)

    @staticmethod
    def is_possible(host: asyncio.AbstractEventLoop, guest: asyncio.AbstractEventLoop) -> bool:
        """Return whether the host sleeps where it can be noticed, and the guest can be woken when the host wakes."""
        return selector_fd(host) is not None and hasattr(selector_of(host), "__dict__") and can_watch(guest)

    def after_fork(self) -> None:
        """In a child process: let :meth:`_lead` end it at the host's next iteration."""
        self._passed = _PASSES

    def pause(self) -> None:
        """Stop watching the host until the guest leads again: somebody else is about to run the guest."""
        if self._watching:
            self._watching = False
            if not self.guest.is_closed():
                self.guest.remove_reader(self._fd)

    def _begin(self) -> None:
        if self._guest_runs is not None and type(self._guests_selector) is selectors.DefaultSelector:
            try:
                self._both = selectors.DefaultSelector()
                for fd in (self._fd, self._guests_fd):
                    self._both.register(fd, selectors.EVENT_READ)
            except (OSError, ValueError):  # no file descriptor is left, or the guest is closed
                self._close_both()
        with suppress(OSError, ValueError):  # closed, or no file descriptor is left
            self._threads = OtherThreads(self.guest, self._thread_fds)
        self._select = Override(selector_of(self.host), "select", self._selecting)

    def _end(self) -> None:
        if self._select is not None:
            self._select.restore()
        self._close_both()
        if self._threads is not None:
            self._threads.close()

    def _close_both(self) -> None:
        if self._both is not None:
            self._both.close()
            self._both = None

    def _watch(self) -> None:
        if self._threads is not None:
            self._threads.watch()
        if not self._watching:
            self.guest.add_reader(self._fd, self._give_way)
            self._watching = True

    def _selecting(self, original: _Select) -> _Select:
        def select(timeout: float | None = None) -> Any:
            # By far the most common case, and so the shortest.
            if timeout == 0 and (self._passed < _PASSES or is_stopping(self.host)):
                self._passed += 1
                return original(0)
            # The host runs inside the guest (nest_asyncio); or the selector is wrapped by others, who still call this.
            if self._leads or self.guest.is_running() or not self._active:
                return original(timeout)
            self._leads, self._passed = True, 0
            try:
                self._left()  # does not come back in a child process
                if self._can_lead():
                    self._context.run(self._lead, timeout != 0)
                    timeout = 0
            except BaseException as exc:  # a signal handler's, in our own code: it would end the host
                timeout = 0
                self._recover(exc)
            finally:
                self._leads = False
            # What stop() releases is ready at once.
            return original(0 if has_ready(self.host) else timeout)

        return select

    def _lead(self, at_rest: bool) -> None:
        """Run the guest until the host has something to do, or for one iteration if that is not *at_rest*."""
        # Asked once more: a signal handler may have put something on the host since that has asked.
        seconds = self._seconds() if at_rest else 0
        if at_rest and seconds == 0:
            return
        both, guest_runs = self._both, self._guest_runs
        if seconds != 0 and both is not None and guest_runs is not None and self._is_idle():
            if not self._sleep(both, guest_runs):
                return
            seconds = 0  # the host asks again, with what is left of its time
        self._turn(seconds)

    def _recover(self, exc: BaseException) -> None:
        if self._guest_runs is not None:
            self._guest_runs.end()
        put_back(self.host)
        self._escaped(exc)

    def _is_idle(self) -> bool:
        """Return whether the guest has nothing to do before one of its fds is ready, and nobody waits for it."""
        guest = self.guest
        return not (
            self._waiters
            or has_ready(guest)
            or next_timer(guest) is not None
            or is_stopping(guest)
            # The user has replaced it on the selector, to do something in there.
            or getattr(self._guests_selector.select, "__func__", None) is not selectors.DefaultSelector.select
        )

    def _sleep(self, both: selectors.BaseSelector, guest_runs: RunningAtRest) -> bool:
        """Sleep in *both* until one of the loops has something to do; return whether the guest has."""
        found: list[object] = []
        try:
            if self._threads is not None:
                self._threads.rest()
            if selector_of(self.guest) is not self._guests_selector or selector_fd(self.guest) != self._guests_fd:
                raise ValueError("the selector of the notebook's loop was closed or replaced")
            with guest_runs, self._asleep():
                self._doorbell.hang()
                # From here on a signal ends the sleep; what a handler has done before is seen now.
                seconds = self._seconds()
                if self._is_idle() and seconds != 0:
                    found = [key.fd for key, _ in both.select(seconds)]
            self._failed_sleeps = 0
        except BaseException as exc:  # raised by a signal handler, or one of the fds is broken
            self._failed_sleeps += 1
            if self._failed_sleeps == _MOST_FAILURES:
                self._close_both()  # the guest sleeps alone from now on, and counts its faults
            self._recover(exc)
        finally:
            self._doorbell.take()
        if not self._is_idle() or found == [self._guests_fd]:
            return True
        # The guest may watch the host, so its own fd is ready as well when the host's is. Or it has something to do.
        if self._guests_fd not in found:
            return False
        self._put_off = (self._put_off + 1) % _PASSES
        return self._put_off == 0


def _is_pythons(cls: type) -> bool:
    """Return whether the class is of asyncio, or the subclass that ``loop_class`` makes of it, which does no more."""
    return cls.__module__.partition(".")[0] in ("asyncio", "builtins")
