"""Runs inside runs, opt-in: ``asyncio.run`` and ``run_until_complete`` where the loop runs already.

This is the only module that patches asyncio, and it does so for the whole process. nest-asyncio (nest-asyncio2, which
ipykernel 7 installs, or nest_asyncio, with ipykernel 6) replaces methods of asyncio's loop classes, and before Python
3.14 also C tasks and futures by those written in Python. This module adds what it lacks: an interrupted run cleans up
after itself, and ``asyncio.run`` stays asyncio's own while no loop runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

from ..introspection.frames import uninterruptible
from ..introspection.running_callback import is_left_running, is_lent
from ..introspection.running_loop import running_loop
from ..runner import as_coroutine
from ..sigint.handlers import handler_of, on_main_thread

__all__ = ["allow", "is_allowed", "is_applied", "library", "run_inside"]

_T = TypeVar("_T")
# nest-asyncio replaces asyncio.run, but not this one.
_run: Any = asyncio.runners.run
_is_applied = False
# The loop classes whose run_until_complete is ours, around nest-asyncio's.
_classes: set[type] = set()


def library() -> Any:
    """Return the module nest_asyncio2 or nest_asyncio: the one in use, if any. ImportError if neither is installed."""
    names = ["nest_asyncio2"]
    if sys.version_info < (3, 14):  # since then nest_asyncio, which is no longer maintained, loses the current task
        names.insert(
            0 if hasattr(asyncio, "_nest_patched") and not hasattr(asyncio, "_nest_asyncio2") else 1, "nest_asyncio"
        )
    for name in names:
        with suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError("this needs nest-asyncio2, which is not installed: run `%pip install 'ipyrunner[nested]'`")


def is_allowed(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether *loop* may run inside itself: by :func:`allow`, or because the user has applied nest-asyncio."""
    return hasattr(type(loop), "_nest_patched")


def is_applied() -> bool:
    """Return whether :func:`allow` was called in this process: it cannot be taken back."""
    return _is_applied


def allow(loop: asyncio.AbstractEventLoop) -> None:
    """Let *loop* run inside itself, also by ``asyncio.run``. This patches asyncio and cannot be undone.

    ValueError if the loop is not one of asyncio's, ImportError as :func:`library` raises it.
    """
    global _is_applied
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise ValueError(f"a {type(loop).__module__}.{type(loop).__qualname__} cannot run inside itself")
    library().apply(loop)
    if not _is_applied:
        asyncio.run = run
        _is_applied = True
    # The class of a notebook's loop is a subclass of the one that is patched.
    cls: Any = next(
        cls for cls in type(loop).__mro__ if "run_until_complete" in vars(cls) and "_tells_changes" not in vars(cls)
    )
    if cls not in _classes:
        _classes.add(cls)
        cls.run_until_complete = _cleaning_up(cls.run_until_complete)


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None, loop_factory: Any = None) -> _T:
    """As ``asyncio.run``; but if a loop runs that may run inside itself, run *main* in that loop.

    KeyboardInterrupt after one SIGINT, when *main* was cancelled and has ended. Tasks that it has started and does not
    wait for go on, as the loop does. RuntimeError with a *loop_factory* there: that would make another loop.
    """
    loop = running_loop()
    if loop is None or not is_allowed(loop) or _is_elsewhere(loop):
        options = {} if loop_factory is None else {"loop_factory": loop_factory}  # since Python 3.12
        result: _T = _run(main, debug=debug, **options)
        return result
    coro = as_coroutine(main)
    if loop_factory is not None:
        coro.close()
        raise RuntimeError(
            "asyncio.run(loop_factory=...) would make another event loop while one runs here. Leave out loop_factory, "
            "to use the loop that runs (NotebookRunner.nested is on), or call it in a cell without await"
        )
    before = loop.get_debug()
    if debug is not None:
        loop.set_debug(debug)
    try:
        return run_inside(loop, coro)
    finally:
        loop.set_debug(before)


def _is_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether *loop* was left running on another stack, and does not run the caller."""
    # In a greenlet (a portal's) the frames of the loop cannot be seen, but there is a current task.
    return is_left_running(loop) and not is_lent(sys._getframe()) and asyncio.current_task(loop) is None


def run_inside(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[_T]) -> _T:
    """Run *awaitable* in *loop*, which runs, and for which :func:`is_allowed`; return its result.

    KeyboardInterrupt after one SIGINT, when it was cancelled and has ended.
    """
    return _run_until_complete(loop, loop.run_until_complete, as_coroutine(awaitable))


def _cleaning_up(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_until_complete(self: asyncio.AbstractEventLoop, future: Awaitable[_T]) -> _T:
        inner = functools.partial(original, self)
        return _run_until_complete(self, inner, future) if self.is_running() else inner(future)

    return run_until_complete


def _run_until_complete(
    loop: asyncio.AbstractEventLoop, original: Callable[[asyncio.Future[_T]], _T], future: Awaitable[_T]
) -> _T:
    """Run *future* inside *loop*, which runs already. An interrupt cancels a coroutine and waits for its end."""
    task = asyncio.ensure_future(future, loop=loop)
    try:
        with _raising(loop):
            return original(task)
    except (KeyboardInterrupt, SystemExit):
        if task is not future:  # else somebody else has made it, and may go on waiting for it
            task.cancel()
            with suppress(asyncio.CancelledError), _raising(loop):
                original(task)
        raise


@contextmanager
def _raising(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let SIGINT end the inner run where ``asyncio.Runner`` handles it: that would cancel a task on the stack."""
    before = handler_of(signal.SIGINT)
    if not isinstance(getattr(getattr(before, "func", None), "__self__", None), asyncio.Runner) or (
        not on_main_thread()
    ):
        yield
        return
    pressed = False

    def on_sigint(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        # Raised between two callbacks, so that none is lost.
        loop.call_soon_threadsafe(_interrupt, context=contextvars.Context())

    signal.signal(signal.SIGINT, on_sigint)
    try:
        yield
    finally:
        if handler_of(signal.SIGINT) is on_sigint:
            signal.signal(signal.SIGINT, before)


@uninterruptible
def _interrupt() -> None:
    raise KeyboardInterrupt
