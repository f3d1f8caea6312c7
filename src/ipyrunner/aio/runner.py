"""``Runner`` and ``run``: asyncio's own as documented for Python 3.14, on 3.11 and later.

https://docs.python.org/3.14/library/asyncio-runner.html
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import inspect
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, TypeVar, cast

from .introspection.running_loop import running_loop
from .loops.shutdown import finalize

__all__ = ["Runner", "as_coroutine", "run"]

_T = TypeVar("_T")


class _State(enum.Enum):
    CREATED = "created"
    INITIALIZED = "initialized"
    CLOSED = "closed"


class Runner:
    """Keep one event loop and one Context over several runs; a context manager that closes them.

    Nothing is created before the ``with`` body, the first :meth:`run` or :meth:`get_loop`. Use it from one thread.

    Parameters
    ----------
    debug : True or False sets the loop's debug mode; None leaves it as it is (``PYTHONASYNCIODEBUG``, ``-X dev``).
    loop_factory : called without arguments for the loop. Only without one is the loop made the thread's current
        loop (``asyncio.set_event_loop``, once).
    """

    def __init__(
        self, *, debug: bool | None = None, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        self._state = _State.CREATED
        self._debug = debug
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context | None = None
        self._set_event_loop = False

    def __enter__(self) -> Runner:
        self._lazy_init()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the remaining tasks, finalize asynchronous generators, join the executor, close the loop.

        Idempotent. Errors of the cancelled tasks go to the loop's exception handler. The executor has five minutes;
        past them a RuntimeWarning is emitted. The Context is released.
        """
        if self._state is not _State.INITIALIZED:
            return
        assert self._loop is not None
        try:
            finalize(self._loop)
        finally:
            self._discard()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, created now if need be. RuntimeError after :meth:`close`."""
        self._lazy_init()
        assert self._loop is not None
        return self._loop

    def run(self, coro: Awaitable[_T], *, context: contextvars.Context | None = None) -> _T:
        """Run *coro*, any awaitable, in the loop until it is done; return its result or raise its exception.

        *context* is the Context it runs in; the runner's own by default, which later runs see.

        On the main thread, over Python's default SIGINT handler, the first SIGINT cancels the main task and
        KeyboardInterrupt is raised once the cancellation comes out, unless somebody else cancelled the task too;
        the second SIGINT raises KeyboardInterrupt at once. A handler of one's own stays in charge.

        TypeError for what cannot be awaited. RuntimeError while a loop runs in this thread, and after ``close``.
        """
        if running_loop() is not None:
            raise RuntimeError("Runner.run() cannot be called from a running event loop")
        self._lazy_init()
        assert self._loop is not None
        main = as_coroutine(coro)
        with _Sigint(self._loop) as sigint:
            task: asyncio.Task[_T] = self._loop.create_task(main, context=self._context if context is None else context)
            sigint.task = task
            try:
                return self._loop.run_until_complete(task)
            except asyncio.CancelledError:
                if sigint.count > 0:
                    # A task factory may make tasks that know nothing of uncancel (gh-95097).
                    uncancel = getattr(task, "uncancel", None)
                    if uncancel is not None and uncancel() == 0:
                        raise KeyboardInterrupt()  # noqa: B904 - as asyncio does: the context tells where it was
                raise

    def _lazy_init(self) -> None:
        if self._state is _State.CLOSED:
            raise RuntimeError("Runner is closed")
        if self._state is _State.INITIALIZED:
            return
        if self._loop_factory is None:
            self._loop = asyncio.new_event_loop()
            if not self._set_event_loop:
                asyncio.set_event_loop(self._loop)
                self._set_event_loop = True
        else:
            self._loop = self._loop_factory()
        if self._debug is not None:
            self._loop.set_debug(self._debug)
        self._context = contextvars.copy_context()
        self._state = _State.INITIALIZED

    def _discard(self) -> None:
        assert self._loop is not None
        if self._set_event_loop:
            asyncio.set_event_loop(None)
        self._loop.close()
        self._loop = self._context = None
        self._state = _State.CLOSED


class _Sigint:
    """SIGINT for the length of one run, as asyncio documents it.

    Installed before user code (task factories are user code), on the main thread, over the default handler;
    handed back only if it is still ours.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.count = 0

    def __enter__(self) -> _Sigint:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            handler = functools.partial(self._on_sigint)
            try:
                signal.signal(signal.SIGINT, handler)
            except ValueError:
                # The main thread of an embedded interpreter may not support signals (gh-91880).
                return self
            self._handler = handler
        return self

    def __exit__(self, *exc: object) -> None:
        if self._handler is not None and signal.getsignal(signal.SIGINT) is self._handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1 and self.task is not None and not self.task.done():
            self.task.cancel()
            # Wake the loop: it may be in a select() with a long timeout.
            self._loop.call_soon_threadsafe(lambda: None)
            return
        raise KeyboardInterrupt()


def run(
    main: Awaitable[_T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """Run *main* in a new loop, close the loop and return the result: ``asyncio.run`` of Python 3.14.

    *debug* and *loop_factory* are as for :class:`Runner`; SIGINT as in :meth:`Runner.run`. RuntimeError while a
    loop runs in this thread, TypeError for what cannot be awaited.
    """
    if running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)


def as_coroutine(awaitable: Awaitable[_T]) -> Coroutine[Any, Any, _T]:
    """Return a coroutine that awaits *awaitable*; the same object if it is one. TypeError if it cannot be awaited."""
    if asyncio.iscoroutine(awaitable):
        return cast("Coroutine[Any, Any, _T]", awaitable)
    if not inspect.isawaitable(awaitable):
        raise TypeError("An asyncio.Future, a coroutine or an awaitable is required")

    async def wait() -> _T:
        return await awaitable

    return wait()
