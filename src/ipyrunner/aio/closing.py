"""The end of a loop: cancel what is left, report its errors, finalize, close."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import warnings
from asyncio import constants
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["EXECUTOR_TIMEOUT", "finalize"]

# asyncio.constants.THREAD_JOIN_TIMEOUT, in seconds; Python 3.11 does not have it.
EXECUTOR_TIMEOUT = 300.0


def finalize(loop: asyncio.AbstractEventLoop, *, timeout: float | None = None) -> set[asyncio.Task[Any]]:
    """Cancel the loop's tasks, close its asynchronous generators, join its executor; the caller closes the loop.

    Errors of cancelled tasks go to the loop's exception handler. *timeout* is in seconds, for each of the three
    steps; None is what ``asyncio.Runner.close`` does: wait for the tasks and the generators without a limit, and
    five minutes for the executor. Past the executor's limit a RuntimeWarning is emitted. Returns the tasks that had
    not ended in time: always none without *timeout*.

    https://docs.python.org/3.14/library/asyncio-runner.html#asyncio.Runner.close
    """
    late = _cancel_all_tasks(loop, timeout)
    if timeout is None:
        loop.run_until_complete(loop.shutdown_asyncgens())
        limit = getattr(constants, "THREAD_JOIN_TIMEOUT", EXECUTOR_TIMEOUT)
    else:
        try:
            loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), timeout))
        except TimeoutError:
            warnings.warn(
                f"asynchronous generators did not close within {timeout} seconds", RuntimeWarning, stacklevel=2
            )
        limit = timeout
    loop.run_until_complete(_shutdown_executor(loop, limit))
    return late


def _cancel_all_tasks(loop: asyncio.AbstractEventLoop, timeout: float | None) -> set[asyncio.Task[Any]]:
    to_cancel = asyncio.all_tasks(loop)
    if not to_cancel:
        return set()
    for task in to_cancel:
        with suppress(RecursionError):  # tasks that wait for each other in a circle
            task.cancel()
    if timeout is None:
        loop.run_until_complete(asyncio.gather(*to_cancel, return_exceptions=True))
    else:
        loop.run_until_complete(asyncio.wait(to_cancel, timeout=timeout))
    late = set()
    for task in to_cancel:
        if not task.done():
            late.add(task)
        elif not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    # The wording is asyncio's own: people search for it.
                    "message": "unhandled exception during asyncio.run() shutdown",
                    "exception": task.exception(),
                    "task": task,
                }
            )
    return late


def _shutdown_executor(loop: asyncio.AbstractEventLoop, limit: float) -> Coroutine[Any, Any, None]:
    if sys.version_info < (3, 13) and isinstance(loop, asyncio.BaseEventLoop):
        return _join_executor(loop, limit)
    # Python 3.11 knows no limit; loops of others (uvloop) may have it there as well.
    if sys.version_info < (3, 12) and "timeout" not in inspect.signature(loop.shutdown_default_executor).parameters:
        return loop.shutdown_default_executor()
    shutdown: Any = loop.shutdown_default_executor
    return shutdown(limit)  # type: ignore[no-any-return]


async def _join_executor(loop: asyncio.BaseEventLoop, limit: float) -> None:
    """``BaseEventLoop.shutdown_default_executor(timeout)`` as of Python 3.13.

    3.11 has no limit, and 3.12's begins only when the threads have ended. ``_default_executor`` and
    ``_executor_shutdown_called`` are BaseEventLoop's own since 3.9; this runs on 3.11 and 3.12 alone, where they stay.
    """
    loop._executor_shutdown_called = True  # type: ignore[attr-defined]
    executor = loop._default_executor  # type: ignore[attr-defined]
    if executor is None:
        return
    joined = loop.create_future()

    def join() -> None:
        error: Exception | None = None
        try:
            executor.shutdown(wait=True)
        except Exception as exc:
            error = exc
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, error)

    def settle(error: Exception | None) -> None:
        if not joined.done():
            joined.set_result(None) if error is None else joined.set_exception(error)

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(limit):
            await joined
    except TimeoutError:
        warnings.warn(
            f"The executor did not finishing joining its threads within {limit} seconds.",
            RuntimeWarning,
            stacklevel=2,
        )
        executor.shutdown(wait=False)
    else:
        thread.join()
