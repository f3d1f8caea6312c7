"""A kernel as on Windows, as far as another system can tell: for ``test_windows_fallback.py``.

What Windows has not is taken away before anything is imported: POSIX signals, fork, and all that waits for many fds and
has one itself. Its loop that watches no fds is one more loop factory. Nobody sends it signals: as there, a thread of the
kernel's process waits for an event, and simulates SIGINT. On Windows itself nothing is taken away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels import BEFORE, RUNNER_KERNEL, Kernel, kernel

# Runs first of all in each Python that has it on its path.
LIKE_WINDOWS = """
import os, select, signal, sys, threading

def take_away():
    kept = {"CTRL_BREAK_EVENT", "CTRL_C_EVENT", "Handlers", "NSIG", "SIGABRT", "SIGBREAK", "SIGFPE", "SIGILL", "SIGINT",
            "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN", "Signals", "default_int_handler", "getsignal", "raise_signal",
            "set_wakeup_fd", "signal", "strsignal", "valid_signals"}
    kept.add("SIGKILL")  # ipykernel imports it where sys.platform says nothing of Windows
    for name in [name for name in vars(signal) if name[0] != "_" and name not in kept and name != "enum"]:
        delattr(signal, name)
    for name in ("fork", "forkpty", "register_at_fork", "setsid"):
        delattr(os, name)
    for name in ("epoll", "kqueue", "devpoll", "poll"):
        vars(select).pop(name, None)

def wait_for_events(path):
    # As ipykernel's ParentPollerWindows.
    with open(path, "rb", buffering=0) as events:
        while events.read(1):
            if callable(signal.getsignal(signal.SIGINT)):
                import ipykernel.parentpoller
                ipykernel.parentpoller.interrupt_main()

if sys.platform != "win32":
    take_away()
    if (path := os.environ.pop("INTERRUPT_EVENTS", None)) is not None:
        threading.Thread(target=wait_for_events, args=(path,), daemon=True).start()
"""

# A module of which loops are: of Windows' own class there.
PROACTOR = """
import asyncio, signal, sys, threading

if sys.platform == "win32":
    from asyncio import ProactorEventLoop
else:
    class ProactorEventLoop(asyncio.SelectorEventLoop):
        # As in asyncio.proactor_events: the wakeup fd is its own from the first moment to the last.
        def __init__(self):
            super().__init__()
            if threading.current_thread() is threading.main_thread():
                signal.set_wakeup_fd(self._csock.fileno())

        def close(self):
            if not self.is_closed() and threading.current_thread() is threading.main_thread():
                signal.set_wakeup_fd(-1)
            super().close()

    for name in ("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"):
        setattr(ProactorEventLoop, name, getattr(asyncio.AbstractEventLoop, name))
"""
SELECTOR, BY_MESSAGE, ON_PROACTOR = SETUPS = ("selector", "message", "proactor")


def modules_like_windows(directory: Path) -> str:
    """Put both modules into a folder below *directory*; return the PYTHONPATH that has it first."""
    (modules := directory / "modules").mkdir()  # IPython takes its own folder out of sys.path
    (modules / "sitecustomize.py").write_text(LIKE_WINDOWS)
    (modules / "proactor.py").write_text(PROACTOR)
    return os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def windows_kernel(directory: Path, setup: str = SELECTOR) -> Iterator[Kernel]:
    """A kernel as on Windows: as ipykernel makes it, our own, interrupted by message, or with the notebook on a proactor."""
    env, events = {"PYTHONPATH": modules_like_windows(directory)}, -1
    if sys.platform != "win32" and setup != BY_MESSAGE:
        env["INTERRUPT_EVENTS"] = str(directory / "events")
        os.mkfifo(directory / "events")
        events = os.open(directory / "events", os.O_RDWR)
    arguments = [RUNNER_KERNEL] if setup == BY_MESSAGE else []
    with kernel(directory, *arguments, env=env, by_message=setup == BY_MESSAGE) as started:

        def interrupt() -> None:
            os.write(events, b"!")

        if events != -1:
            started.interrupt = interrupt
        started.ok("%config NotebookRunner.interrupt_grace = 0.3")
        if setup == ON_PROACTOR:
            started.ok("%config NotebookRunner.loop_factory = 'proactor.ProactorEventLoop'")
        started.ok("%arunner restart")
        started.ok(BEFORE)
        try:
            yield started
        finally:
            if events != -1:
                os.close(events)
