"""Run a loop until something in it has ended, and block, whatever exceptions come out of the loop meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..introspection.frames import uninterruptible
from ..introspection.running_callback import drives_loop, runs_nested
from ..sigint.main_task import MainTask

__all__ = ["Faults", "drive"]

# A loop that raises this many times without running a callback in between is broken.
_MOST_FAULTS = 5
# Seconds: how often a run that has ended looks whether the loop still runs inside itself.
_PAUSE = 0.02


class Faults:
    """Count the exceptions that come out of ``loop.run_forever``; from zero again once the loop has made progress."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._count = 0
        self._context = contextvars.Context()

    def add(self) -> bool:
        """Count one more; return whether the loop cannot run."""
        self._count += 1
        with suppress(RuntimeError):  # closed
            self._loop.call_soon(self._forget, context=self._context)
        return self._count >= _MOST_FAULTS

    @uninterruptible
    def _forget(self) -> None:
        self._count = 0


@drives_loop
def drive(
    loop: asyncio.AbstractEventLoop,
    end: asyncio.Future[Any],
    interrupt: MainTask,
    *,
    stop: Callable[[], None],
    escaped: Callable[[BaseException], None],
    left: Callable[[], None],
) -> None:
    """Run *loop* until *end* is done, or *interrupt* gives the run up.

    *stop* stops the loop, in one of its callbacks. *escaped* is called with each exception that comes out of the loop;
    if the loop cannot run any more, the exception is raised here. *left* is called whenever the loop has stopped.
    """
    finished, faults = False, Faults(loop)

    @uninterruptible
    def finish(_: object = None) -> None:
        nonlocal finished
        if finished:  # uvloop keeps a second stop() for its next run
            return
        if runs_nested(sys._getframe()):  # stop() would end the nested run with an error: wait for it
            loop.call_later(_PAUSE, finish, context=contextvars.Context())
            return
        finished = True
        stop()

    end.add_done_callback(finish)
    interrupt.on_release = finish
    while not finished:
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit) as exc:
            escaped(exc)
        except BaseException as exc:  # as in Hosting
            if faults.add():
                raise
            escaped(exc)
        left()
