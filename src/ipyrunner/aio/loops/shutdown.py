"""The end of a loop: cancel what is left, report its errors, finalize, close."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import warnings
from contextlib import suppress
from typing import Any

from ..introspection.exceptions import is_a
from ..introspection.frames import uninterruptible
from ..introspection.private_api import selector_of, unseen
from ..introspection.task_state import cancel, cancelling, is_cancelled, is_done, retrieve, tasks_of
from ..tasks.exception_handler import report
from ..tasks.safe_names import in_seconds

__all__ = ["wind_up"]

# asyncio's own words: people search for them.
_UNHANDLED = "unhandled exception during asyncio.run() shutdown"
_INTERRUPTED = "ipyrunner has interrupted a clean-up that did not yield, or took too long"
_NOT_JOINED = "The executor did not finishing joining its threads"
_Tasks = set[asyncio.Task[Any]]

# When each step has to be over, as a share of the whole time: whatever the tasks do, the later steps have some left.
_TASKS, _GENERATORS, _CANCELLED = 0.8, 0.9, 0.95


@uninterruptible
async def wind_up(timeout: float, late: _Tasks) -> None:
    """In the loop that is to be closed: end its tasks, servers, generators and executor in *timeout* seconds.

    Tasks that are being cancelled already, and those that clean-up starts, are cancelled only if they have not ended
    when half of their time is over. Tasks have four fifths of the seconds, the generators what is left of nine tenths,
    the executor the rest. What has not ended by then is left behind: tasks are put into *late*, the others cause a
    RuntimeWarning. Cancelling this coroutine ends the waiting at once; generators and executor are left as they are.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    tasks = _others()
    seen = set(tasks)
    try:
        # Kernel managers interrupt before they shut down: let a cell that has been cleaning up since then go on.
        cancelled = {task for task in tasks if cancelling(task)}
        _cancel(tasks - cancelled)
        pending = await _wait(seen, late, begin + timeout * _TASKS / 2)
        _cancel(pending - (tasks - cancelled))
        await _wait(seen, late, begin + timeout * _TASKS)
    finally:
        _close_servers(loop)
        late |= _others()
        _report_errors(loop, (tasks | set(unseen(seen))) - late)
    seen.clear()
    generators = asyncio.Task(loop.shutdown_asyncgens(), loop=loop)
    pending = await _wait(seen, late, begin + timeout * _GENERATORS)
    if generators in pending:
        warnings.warn("asynchronous generators did not end before their loop was closed", RuntimeWarning, stacklevel=2)
    _cancel(pending)
    late |= await _wait(seen, late, begin + timeout * _CANCELLED) - {generators}
    _report_errors(loop, set(unseen(seen - late)))
    await _shutdown_executor(loop, max(0.0, begin + timeout - loop.time()))


def _cancel(tasks: _Tasks) -> None:
    for task in tasks:
        cancel(task)


def _others() -> _Tasks:
    me = asyncio.current_task()
    return {task for task in tasks_of(asyncio.get_running_loop()) if task is not me and not is_done(task)}


def _close_servers(loop: asyncio.AbstractEventLoop) -> None:
    """Close the servers that still listen: otherwise clients would connect, and never get an answer.

    No loop names its servers: uvloop has them in a set, and asyncio among the arguments of a callback for each socket.
    """
    classes = (asyncio.AbstractServer, getattr(sys.modules.get("uvloop.loop"), "Server", asyncio.AbstractServer))
    with suppress(Exception):  # the loop and its selector may be the user's
        watched: Any = getattr(selector_of(loop), "get_map", dict)()
        callbacks = gc.get_referents(*[key.data for key in watched.values()])
        for held in gc.get_referents(loop, *callbacks):
            for each in tuple(held) if type(held) in (set, tuple) else ():
                if issubclass(type(each), classes):
                    with suppress(BaseException):  # so may the server: its class may raise SystemExit, too
                        each.close()


async def _wait(seen: _Tasks, late: _Tasks, until: float) -> _Tasks:
    """Wait for all other tasks but *late*, also those that are started meanwhile; return those that have not ended.

    All that it has waited for are put into *seen*.
    """
    loop = asyncio.get_running_loop()
    while pending := _others() - late:
        seen |= pending
        left = until - loop.time()
        await _wait_for_all(pending, max(0.0, left))
        if left <= 0:
            break
    return _others() - late


async def _wait_for_all(tasks: _Tasks, timeout: float) -> None:
    """As ``asyncio.wait``, which would raise if the class of a task raises when it is asked for its state."""
    loop = asyncio.get_running_loop()
    ended, left = loop.create_future(), len(tasks)

    def count(_: object = None) -> None:
        nonlocal left
        left -= 1
        if not left and not ended.done():
            ended.set_result(None)

    for task in tasks:
        with suppress(Exception):
            task.add_done_callback(count)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await ended
    for task in tasks:
        with suppress(Exception):
            task.remove_done_callback(count)


def _report_errors(loop: asyncio.AbstractEventLoop, tasks: _Tasks) -> None:
    for task in tasks:
        if not is_cancelled(task) and (exception := retrieve(task)) is not None:
            message = _INTERRUPTED if is_a(exception, KeyboardInterrupt) else _UNHANDLED
            report(loop, {"message": message, "exception": exception, "task": task})


async def _shutdown_executor(loop: asyncio.AbstractEventLoop, limit: float) -> None:
    shutdown: Any = loop.shutdown_default_executor
    is_asyncios = getattr(shutdown, "__func__", None) is asyncio.BaseEventLoop.shutdown_default_executor
    if is_asyncios and isinstance(loop, asyncio.BaseEventLoop):
        await (shutdown(limit) if sys.version_info >= (3, 13) else _join_executor(loop, limit))
        return
    # A user's own method may take no timeout. uvloop's timeout begins only when the threads have ended; if cancelled,
    # it waits for them that long in a blocking call.
    its_limit = limit if isinstance(loop, asyncio.BaseEventLoop) else 0.01
    arguments = [its_limit] if "timeout" in inspect.signature(shutdown).parameters else []
    try:
        async with asyncio.timeout(limit):
            await shutdown(*arguments)
    except TimeoutError:
        warnings.warn(f"{_NOT_JOINED} within {in_seconds(round(limit, 3))}.", RuntimeWarning, stacklevel=2)


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
    try:
        thread.start()
    except RuntimeError:  # the interpreter exits, and joins them itself
        executor.shutdown(wait=False)
        return
    try:
        async with asyncio.timeout(limit):
            await joined
    except TimeoutError:
        warnings.warn(
            f"{_NOT_JOINED} within {in_seconds(round(limit, 3))}.",
            RuntimeWarning,
            stacklevel=2,
        )
        executor.shutdown(wait=False)
    else:
        thread.join()
