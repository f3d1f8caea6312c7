"""Which loop and which task this thread counts as running, and exchanging them.

``asyncio._get_running_loop``, ``_set_running_loop``, ``_enter_task`` and ``_leave_task`` are low-level names that
asyncio keeps for event loop implementations. The first two have been there since 3.5.3, the other two since 3.7;
without them no loop but asyncio's own could exist, so there is no fallback. They are used in this module alone, as are
``_register_task`` and ``_unregister_task`` (3.7), documented for those who write tasks of their own, and
``BaseEventLoop._thread_id`` (3.4 to 3.15), by which other threads see whether a loop runs.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NamedTuple

__all__ = [
    "NOTHING",
    "Running",
    "RunningAs",
    "RunningAtRest",
    "exchange",
    "put_back",
    "register_task",
    "running_loop",
    "unregister_task",
]


class Running(NamedTuple):
    """What a thread counts as running: a loop, and the task that the loop is in."""

    loop: asyncio.AbstractEventLoop | None
    task: asyncio.Task[Any] | None


NOTHING = Running(None, None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that this thread counts as running, or None."""
    return asyncio._get_running_loop()


def exchange(new: Running) -> Running:
    """Make *new* what this thread counts as running, and return what it was.

    A loop that is put aside this way still is inside its ``run_forever``; it goes on when it is put back.
    """
    loop = asyncio._get_running_loop()
    task = asyncio.current_task(loop) if loop is not None else None
    if loop is not None and task is not None:
        asyncio._leave_task(loop, task)
    asyncio._set_running_loop(new.loop)
    # Python 3.14 keeps the current task per thread and checks it against the running loop: the loop comes first.
    if new.loop is not None and new.task is not None:
        asyncio._enter_task(new.loop, new.task)
    return NOTHING if loop is None else Running(loop, task)


class RunningAs:
    """Count *new* as running for the length of the block."""

    # Not by contextlib.contextmanager, which takes several calls for each block: the loops take turns in such blocks.
    __slots__ = ("_aside", "_new")

    def __init__(self, new: Running) -> None:
        self._new = new

    def __enter__(self) -> None:
        self._aside = exchange(self._new)

    def __exit__(self, *exc: object) -> None:
        exchange(self._aside)


class RunningAtRest(RunningAs):
    """As :class:`RunningAs` for *loop*, which is not inside its ``run_forever``: for all threads it runs meanwhile.

    Code in threads asks ``loop.is_running()`` whether it may run the loop itself.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.BaseEventLoop) -> None:
        super().__init__(Running(loop, None))
        self._loop: Any = loop

    def __enter__(self) -> None:
        super().__enter__()
        self._loop._thread_id = threading.get_ident()

    def __exit__(self, *exc: object) -> None:
        self.end()
        super().__exit__(*exc)

    def end(self) -> None:
        """Let *loop* count as running no more, for other threads. Idempotent."""
        self._loop._thread_id = None


def put_back(loop: asyncio.AbstractEventLoop) -> None:
    """Make *loop*, which is in no task, what this thread counts as running.

    For when a signal handler may have raised in the middle of :func:`exchange`.
    """
    if asyncio._get_running_loop() is not loop:
        exchange(Running(loop, None))


def register_task(task: asyncio.Task[Any]) -> None:
    """Let ``asyncio.all_tasks`` know *task*, as every new task is known."""
    asyncio._register_task(task)


def unregister_task(task: asyncio.Task[Any]) -> None:
    """Let ``asyncio.all_tasks`` forget *task*, until it is registered again."""
    asyncio._unregister_task(task)
