"""Loops by name: asyncio's own, uvloop, and asyncio's own by turns as where there is no pollable fd."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels import BEFORE, RUNNER_KERNEL, Kernel, kernel

SETUPS = {
    "asyncio": "",
    "uvloop": "%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'\n",
    "turns": "%config NotebookRunner.poll = True\n",
}
if sys.platform == "win32":
    del SETUPS["uvloop"]


@contextmanager
def kernel_on(setup: str, directory: Path) -> Iterator[Kernel]:
    """A fresh kernel on this loop, with a short grace period; on "message": one of our own, interrupted by message."""
    by_message = setup == "message"
    with kernel(directory, *[RUNNER_KERNEL] * by_message, by_message=by_message) as started:
        started.ok(SETUPS.get(setup, "") + "%config NotebookRunner.interrupt_grace = 0.3")
        started.ok("%arunner restart")
        started.ok(BEFORE)
        yield started
