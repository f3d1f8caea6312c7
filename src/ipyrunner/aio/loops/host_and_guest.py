"""One loop (the guest) inside another (the host), both on one thread.

The problem: the kernel's loop runs on the main thread and has to stay live, and the user's loop has to run on the
main thread too (signals, GUI toolkits), at its own speed, with one of them running at any moment.

The solution: turns. Code that the host calls runs ``guest.run_forever()``, and something stops the guest when the host
has something to do. When a turn begins and what ends it is the matter of three subclasses: ``GuestLeads`` wherever it
is possible, ``HostLeads`` and ``Slices`` elsewhere. The guest needs nothing but the public API for that, so uvloop is
as good a guest as asyncio's own.

A call of ``host.call_soon`` while the guest runs makes no fd readable. Two instance attributes, which exist only for
that time, notice it (``Doorbell``).
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from ..introspection.private_api import has_ready, next_timer
from ..introspection.running_callback import drives_loop, runs_nested
from ..introspection.running_loop import NOTHING, RunningAs, put_back, running_loop
from ..replacements import Replacement
from ..sigint.main_task import MainTask
from .blocking_run import Faults
from .doorbell import Doorbell
from .switch_interval import ShortInterval

__all__ = ["Hosting"]

# Seconds until a guest that a callback runs inside itself is asked once more to give way.
_PAUSE = 0.05
# Seconds: no system call waits for ever, or for some weeks. asyncio has the same limit.
_LONGEST = 24 * 3600


class Hosting:
    """Run *guest* inside *host* from :meth:`start` to :meth:`stop`. All methods: on the thread of both loops.

    *escaped* is called with each exception that comes out of the guest: SystemExit and KeyboardInterrupt of callbacks,
    and what signal handlers raise in the guest's own code; it must not raise, since none may reach the host. A guest
    that cannot run any more is left alone.
    *stop* stops the guest, in one of its callbacks.
    *between* makes a context manager for each turn, *asleep* one for the time that both loops sleep; *left* is called
    before and after each turn.
    *ended* is called when the host is told to stop, before it stops, while threads can still be started (since 3.12
    not at exit). *aside*: the host postpones work until its queue is empty, as prompt_toolkit does with drawing; put
    nothing into the queue while there is something in it. *thread_fds*: what other threads of the host wait for, which
    are to run beside a guest that never rests; only ``GuestLeads`` does it.
    """

    # Whether the loops take turns in slices, since there is no fd to watch.
    polls: ClassVar[bool] = False

    def __init__(
        self,
        host: asyncio.AbstractEventLoop,
        guest: asyncio.AbstractEventLoop,
        *,
        escaped: Callable[[BaseException], None],
        stop: Callable[[], None] | None = None,
        between: Callable[[], AbstractContextManager[object]] = nullcontext,
        asleep: Callable[[], AbstractContextManager[object]] = nullcontext,
        left: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
        aside: bool = False,
        thread_fds: Collection[int] = (),
    ) -> None:
        self.host = host
        self.guest = guest
        self._escaped = escaped
        self._stop_guest = guest.stop if stop is None else stop
        self._between, self._asleep = between, asleep
        self._left = left
        self._ended = ended
        self._aside = aside
        self._thread_fds = thread_fds
        # Empty: in the Context of the caller, the guest's error reports would always go to the cell that starts us.
        self._context = contextvars.Context()
        self._doorbell = Doorbell(host, self._give_way)
        self._own_stop: Replacement | None = None
        self._active = False
        self._gives_way = False
        # Whether the guest is about to run; whether the doorbell has rung since. Whether it runs because we run it.
        self._begins = self._rung = self._in_turn = False
        self._waiters: set[Callable[[], None]] = set()
        self._slow: float | None = None
        self._faults = Faults(guest)
        self._interval = ShortInterval()

    @property
    def active(self) -> bool:
        """Whether the guest is led: from :meth:`start` to :meth:`stop`, or until it cannot run any more."""
        return self._active

    def start(self) -> None:
        """Begin to take turns. Idempotent."""
        if self._active:
            return
        self._active = True
        if self.host.get_debug() and hasattr(self.host, "slow_callback_duration"):
            # To the host the guest may be one slow callback; in debug mode it would say so in the user's cells.
            self._slow, self.host.slow_callback_duration = self.host.slow_callback_duration, math.inf
        self._own_stop = Replacement(self.host, "stop", self._stop_host)
        self._begin()

    def stop(self) -> None:
        """Leave both loops alone from now on; whoever is in :meth:`wait` is released. Idempotent."""
        if not self._active:
            return
        self._active = False
        if self._own_stop is not None:
            self._own_stop.restore()
        self.pause()
        self._end()
        if self._slow is not None and self.host.slow_callback_duration == math.inf:  # type: ignore[attr-defined]
            self.host.slow_callback_duration = self._slow  # type: ignore[attr-defined]
        for release in tuple(self._waiters):
            release()

    def pause(self) -> None:
        """Watch nothing until the next turn: somebody else is about to run the guest."""

    async def wait(self, end: asyncio.Future[Any], interrupt: MainTask) -> None:
        """In the host: wait until the guest's *end* has run its done callbacks, or the run was given up.

        If the wait is cancelled, it cancels the main task, as SIGINT does, and goes on waiting: ipykernel's handler
        cancels the wait if SIGINT comes before our handler is in place.
        """
        over = False
        woken = self.host.create_future()

        # Not for end.done(): the guest may be stopped between that and the callbacks, and then nobody wakes us.
        def release(_: object = None) -> None:
            nonlocal over
            over = True
            if not woken.done():
                woken.set_result(None)

        def release_now() -> None:
            release()
            if self._in_turn:  # the callback that would end the turn may have been set aside
                self._give_way()

        end.add_done_callback(release)
        interrupt.on_release, interrupt.is_last = release_now, lambda: self._in_turn
        self._waiters.add(release)
        try:
            while not over:
                try:
                    await woken
                except asyncio.CancelledError:
                    interrupt.cancel()
                    woken = self.host.create_future()
        finally:
            self._waiters.discard(release)

    # -- what the subclasses add

    def _begin(self) -> None:
        """Arrange that there will be turns."""
        raise NotImplementedError

    def _end(self) -> None:
        """Undo that."""

    def _watch(self) -> None:
        """In a turn that is to last: have :meth:`_give_way` called in the guest when the host has something to do."""

    # -- a turn

    def _can_lead(self) -> bool:
        """Return whether the guest can run; a closed one is left alone from now on."""
        if self._active and self.guest.is_closed():
            self.stop()
        return self._active

    @drives_loop
    def _turn(self, seconds: float | None) -> None:
        """Run the guest, for *seconds* at most (0: one iteration)."""
        guest = self.guest
        end: asyncio.Handle | None = None
        rung: asyncio.Handle | None = None
        self._gives_way = self._rung = False
        try:
            # Before the doorbell hangs: a signal handler may ring it at once, which has to end this turn.
            self._begins = True
            if seconds == 0:
                end = guest.call_soon(self._give_way)  # one iteration, without waiting
            else:
                self._watch()
                if seconds is not None:
                    end = guest.call_later(seconds, self._give_way)
                self._doorbell.hang()
                self._rung = self._rung or has_ready(self.host)  # what has come just before
            with RunningAs(NOTHING), self._between(), self._interval:
                self._begins, self._in_turn = False, True
                if self._rung:  # not stopped at once: if the handler raises, a run of the user's would find it stopped
                    rung = guest.call_soon(self._give_way)
                guest.run_forever()
        except (KeyboardInterrupt, SystemExit) as exc:
            put_back(self.host)
            self._escaped(exc)
        except BaseException as exc:
            put_back(self.host)
            # A signal handler of the user's has raised in the loop's own code. Or the loop is broken (its selector, its
            # self-pipe), and to lead again and again would spin.
            if self._faults.add():
                self.stop()
            self._escaped(exc)
        finally:
            self._begins = self._in_turn = False
            self._doorbell.take()
            for handle in (end, rung):
                if handle is not None:
                    handle.cancel()
        self._left()

    def _seconds(self) -> float | None:
        """Return for how long the host has nothing to do: None if it has no timer, 0 if it has something now."""
        if has_ready(self.host):
            return 0
        due = next_timer(self.host)
        return None if due is None else min(max(0, due - self.host.time()), _LONGEST)

    def _give_way(self) -> None:
        if self._begins:
            self._rung = True
            return
        if not self._in_turn:  # a cell without await runs the guest itself
            self.pause()
            return
        # Once a turn: uvloop keeps a second stop() for its next run, which may be a run_until_complete() of the user's.
        if self._gives_way:
            return
        if runs_nested(sys._getframe()):
            # A callback has run the guest inside itself (nest_asyncio): stop() would end that run, with an error. The
            # host waits for it, as for any callback that blocks.
            self.pause()
            # Not in our Context, which is entered while the guest leads.
            self.guest.call_later(_PAUSE, self._give_way, context=contextvars.Context())
            return
        self._gives_way = True
        try:
            self._stop_guest()
        except BaseException:  # a signal handler's, and nothing else may come that stops the guest
            self._gives_way = False
            self.guest.call_soon(self._give_way, context=contextvars.Context())
            raise

    def _stop_host(self, original: Callable[[], None]) -> Callable[[], None]:
        def stop() -> None:
            if running_loop() is self.host and not self.guest.is_running():
                self._ended()
            original()

        return stop
