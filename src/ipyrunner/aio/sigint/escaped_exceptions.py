"""Exceptions that come out of ``run_forever``: where they come from, and who gets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..introspection.exceptions import is_a
from ..introspection.running_callback import is_from_callback
from .forced_interrupt import is_forced
from .interrupt import Interrupt
from .main_task import MainTask

__all__ = ["settle_escaped", "settle_signal"]


def settle_escaped(
    exc: BaseException,
    *,
    loop: asyncio.AbstractEventLoop,
    run: Interrupt | None,
    peers: Iterable[MainTask],
    holder_of: Callable[[BaseException], asyncio.Task[object] | None],
) -> None:
    """Handle *exc*, which has come out of *loop* during *run* (None: there is none) and *peers*.

    *holder_of* returns the task that has ended with an exception. Raises nothing.
    """
    if is_forced(exc):
        for interrupt in (*([] if run is None else [run]), *peers):
            interrupt.came_out(exc)
    elif not is_from_callback(exc, loop):
        settle_signal(exc, loop, run)
    elif is_a(exc, KeyboardInterrupt):
        # Raised by a task, which keeps it; or by a SIGINT handler that the user has put in the place of ours.
        if run is not None and not run.handles_signals:
            run.fail(exc)
    elif not is_a(exc, SystemExit):
        settle_signal(exc, loop, run)  # no other exception of a callback comes out of the loop
    elif holder_of(exc) is None:  # else it is reported as any other failure of a task
        _report("SystemExit in a callback of the notebook's loop is ignored: it does not end the kernel", exc, loop)


def settle_signal(exc: BaseException, loop: asyncio.AbstractEventLoop, run: Interrupt | None) -> None:
    """Raise *exc* in the cell that runs: a signal handler of the user's has raised it in the loop's code or in ours."""
    if run is not None and run.task is not None and not run.is_done:
        run.fail(exc)
    elif not is_a(exc, KeyboardInterrupt):
        _report("an exception in the notebook's event loop itself, most likely raised by a signal handler", exc, loop)


def _report(message: str, exc: BaseException, loop: asyncio.AbstractEventLoop) -> None:
    # Not call_exception_handler: a handler of the user's may raise SystemExit again.
    loop.default_exception_handler({"message": message, "exception": exc})
