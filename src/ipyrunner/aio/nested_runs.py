"""Runs inside runs, opt-in: ``asyncio.run`` and ``run_until_complete`` where the loop runs already.

This is the one place that patches asyncio, and it does so for the whole process. nest-asyncio (nest-asyncio2, which
ipykernel 7 brings, or nest_asyncio, of ipykernel 6) gives the classes of asyncio's own loops other functions, and below
Python 3.14 takes tasks and futures that are written in Python. What it leaves open is done here: a run that is
interrupted cleans up behind itself, and where no loop runs ``asyncio.run`` stays asyncio's own.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .introspection.running_callback import is_left_running
from .introspection.running_loop import running_loop
from .replacements import Override
from .runner import as_coroutine

__all__ = ["allow", "is_allowed", "is_applied", "library", "run_inside"]

_T = TypeVar("_T")
# nest-asyncio puts another function at asyncio.run, and leaves this one alone.
_run: Any = asyncio.runners.run


def library() -> Any:
    """Return the module nest_asyncio2 or nest_asyncio: the one in use, if one is. ImportError if there is none."""
    names = ["nest_asyncio2"]
    if sys.version_info < (3, 14):  # there nest_asyncio, which is not kept any more, loses the current task
        names.insert(
            0 if hasattr(asyncio, "_nest_patched") and not hasattr(asyncio, "_nest_asyncio2") else 1, "nest_asyncio"
        )
    for name in names:
        with suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError("runs inside runs need nest-asyncio2, which is not installed: %pip install 'ipyrunner[nested]'")


def is_allowed(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether *loop* may run inside itself: by :func:`allow`, or because the user has applied nest-asyncio."""
    return hasattr(type(loop), "_nest_patched")


def is_applied() -> bool:
    """Return whether :func:`allow` was called in this process: it cannot be taken back."""
    return asyncio.run is run


def allow(loop: asyncio.AbstractEventLoop) -> None:
    """Let *loop* run inside itself, and ``asyncio.run`` run in it where it runs. For good: asyncio is patched.

    ValueError if it is no loop of asyncio's own, ImportError as of :func:`library`.
    """
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise ValueError(f"a {type(loop).__module__}.{type(loop).__qualname__} cannot run inside itself")
    library().apply(loop)
    asyncio.run = run
    if not isinstance(loop.run_until_complete, functools.partial):
        Override(loop, "run_until_complete", lambda original: functools.partial(_run_until_complete, loop, original))


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None, loop_factory: Any = None) -> _T:
    """Be ``asyncio.run``; where a loop runs that may run inside itself, run *main* in it.

    KeyboardInterrupt after one SIGINT, when *main* was cancelled and has ended. The tasks that it has started, and does
    not wait for, go on: the loop does. RuntimeError with a *loop_factory* there: it would be another loop.
    """
    loop = running_loop()
    if loop is None or not is_allowed(loop) or is_left_running(loop):
        options = {} if loop_factory is None else {"loop_factory": loop_factory}  # since Python 3.12
        result: _T = _run(main, debug=debug, **options)
        return result
    coro = as_coroutine(main)
    if loop_factory is not None:
        coro.close()
        raise RuntimeError(
            "asyncio.run(loop_factory=...) makes another loop, and the notebook's runs here: leave loop_factory out, "
            "since with NotebookRunner.nested it runs in the notebook's loop; or call it in a cell without await"
        )
    before = loop.get_debug()
    if debug is not None:
        loop.set_debug(debug)
    try:
        return run_inside(loop, coro)
    finally:
        loop.set_debug(before)


def run_inside(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[_T]) -> _T:
    """Run *awaitable* in *loop*, which runs, and for which :func:`is_allowed`; return its result.

    KeyboardInterrupt after one SIGINT, when it was cancelled and has ended.
    """
    return _run_until_complete(loop, loop.run_until_complete, as_coroutine(awaitable))


def _run_until_complete(
    loop: asyncio.AbstractEventLoop, original: Callable[[asyncio.Future[_T]], _T], future: Awaitable[_T]
) -> _T:
    """Be the loop's ``run_until_complete``: a coroutine that is interrupted is cancelled, and has ended on return."""
    task = asyncio.ensure_future(future, loop=loop)
    try:
        return original(task)
    except (KeyboardInterrupt, SystemExit):
        if task is not future:  # else it is somebody's, who may go on waiting for it
            task.cancel()
            with suppress(asyncio.CancelledError):
                original(task)
        raise
