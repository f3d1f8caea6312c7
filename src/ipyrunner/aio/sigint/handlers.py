"""SIGINT to the main thread, and who handles it outside of the notebook's runs."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..introspection.stacks import frames_of, local_of

__all__ = [
    "Outside",
    "handler_of",
    "in_thread",
    "interrupts_at_once",
    "is_default_handler",
    "on_main_thread",
    "signal_main_thread",
    "take_blocked",
]


# Asked dozens of times in each cell: threading and signal would take several calls each time.
_main_thread = threading.main_thread().ident
_NAMED = {int(signal.SIG_DFL): signal.SIG_DFL, int(signal.SIG_IGN): signal.SIG_IGN}


def _after_fork() -> None:
    global _main_thread
    _main_thread = threading.main_thread().ident


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def on_main_thread() -> bool:
    """Return whether the caller runs on the main thread."""
    return threading.get_ident() == _main_thread


def handler_of(signum: int) -> Any:
    """As ``signal.getsignal``, which in Python 3.11 calls repr() of the handler, and so perhaps user code."""
    handler = _signal.getsignal(signum)  # since Python 3.3
    return _NAMED.get(handler, handler) if type(handler) is int else handler


def interrupts_at_once() -> bool:
    """Return whether Python's own handler is in place, which raises KeyboardInterrupt in any code."""
    return _signal.getsignal(signal.SIGINT) is signal.default_int_handler  # see handler_of


def is_default_handler(handler: object) -> bool:
    """Return whether *handler* is Python's own for SIGINT: what ``asyncio.Runner`` replaces."""
    return handler is signal.default_int_handler


def signal_main_thread() -> None:
    """Send SIGINT to the main thread: it ends a system call there, and runs the handler. From any thread.

    On Windows it is simulated: the only system call that it ends is that of a loop.
    """
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
        _wake_main_thread()


def _wake_main_thread() -> None:
    """Wake the loop that runs on the main thread, if one does: the notebook's, or the one of an ``asyncio.run``."""
    for frame in frames_of(threading.main_thread().ident):
        loop = local_of(frame, "self") if frame.f_code.co_name == "run_forever" else None
        if isinstance(loop, asyncio.AbstractEventLoop):
            with suppress(RuntimeError):  # closed since
                loop.call_soon_threadsafe(lambda: None, context=contextvars.Context())
            return


def take_blocked() -> bool:
    """Take a SIGINT that is pending because it is blocked; return whether there was one. On the main thread."""
    if not hasattr(signal, "sigpending") or signal.SIGINT not in signal.sigpending():
        return False
    signal.sigwait([signal.SIGINT])
    return True


def in_thread(function: Callable[..., object], *args: object) -> None:
    """Call in a new thread, which nobody waits for. Safe in signal handlers.

    ``threading.Thread.start`` is not: it takes a lock that the interrupted code may hold.
    """
    _thread.start_new_thread(function, args)


class Outside:
    """Who handles SIGINT while no run does: here Python's default handler, in a kernel the guard of its requests."""

    def replaces(self, handler: object) -> bool:
        """Return whether a run that begins takes SIGINT over from *handler*, the present one."""
        return is_default_handler(handler)

    def rests(self, handler: object) -> bool:
        """Return whether SIGINT is taken over from *handler* while no cell runs, to end a stuck background callback."""
        return handler is signal.SIG_IGN

    def begin_peers(self, press: Callable[[], None]) -> None:
        """From now on call *press* on each SIGINT that nobody else handles: concurrent runs have begun."""

    def end_peers(self) -> None:
        """Stop calling *press*."""

    def keep(self) -> None:
        """Keep a SIGINT for the cell that is about to begin: the loop got it between two runs, and did nothing."""

    def take(self) -> bool:
        """Return, once, whether a SIGINT came before the run that begins."""
        return False
