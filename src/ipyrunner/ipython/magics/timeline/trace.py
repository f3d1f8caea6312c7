"""``ipyrunner.trace()``: begin, end, show, write."""

from __future__ import annotations

import asyncio
import os
import stat
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any

from ....aio.introspection.exceptions import add_note
from ....aio.main import Main
from ....aio.persistent_runner import PersistentRunner
from ....aio.sigint.defer_sigint import Held
from ....aio.sigint.handlers import on_main_thread
from ....aio.tasks.safe_names import describe, short
from ....aio.tasks.trace import start
from ....aio.tasks.trace.session import Session
from ....aio.tasks.trace.tracer import keys
from .chrome_trace import write
from .picture import picture
from .rows import Timeline
from .summary import summary

__all__ = ["Trace", "checked"]


def checked(file: str | os.PathLike[str]) -> str:
    """Return the absolute path of *file*; OSError if it cannot be written."""
    path = os.path.abspath(os.path.expanduser(os.fspath(file)))
    if os.path.exists(path) and not os.path.isdir(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path!r} is not a regular file")
    is_new = not os.path.exists(path)
    with open(path, "ab"):  # keeps the old content until there is something to write
        pass
    if is_new:
        with suppress(OSError):
            os.remove(path)
    return path


def _end(loop: asyncio.AbstractEventLoop, session: Session) -> None:
    # The garbage collector calls this, on any thread.
    with suppress(RuntimeError):  # the loop is closed, and the session has ended with it
        loop.call_soon_threadsafe(start.end, session)


class Trace:
    """A timeline of the notebook's event loop: what each task did, and what it waited for.

    ``start()`` begins, ``stop()`` ends and returns the trace itself; a ``with`` block does both. Displayed, it is a
    picture, also while it goes on. ``summary`` says the same in words. ``save(file)`` writes the trace as JSON, which
    https://ui.perfetto.dev and chrome://tracing open. The last 100,000 events are kept. A trace ends when nothing
    refers to it any more, and when the loop is closed. ``start()`` after the end begins a new session.
    """

    def __init__(
        self,
        get_current: Callable[[], PersistentRunner],
        name_file: Callable[[str], str],
        *,
        file: str | os.PathLike[str] | None = None,
        cell: str | None = None,
    ) -> None:
        """*cell*: the name of the cell that calls :meth:`start`; then only this cell and its tasks are traced."""
        self._get_current = get_current
        self._name_file = name_file
        self._cell = cell
        self._file = None if file is None else checked(file)
        self._session: Session | None = None
        # The session that was not written to the file yet.
        self._unwritten: Session | None = None
        self._ending: weakref.finalize[..., Trace] | None = None
        self._token: Token[tuple[object, ...]] | None = None

    def start(self) -> None:
        """Begin. RuntimeError if it has begun already, or if a profiler or tool uses what tracing needs."""
        if self._session is not None and not self._session.is_over:
            raise RuntimeError("this trace is already running: stop() ends it")
        before = self._session
        try:
            with Held(then_raise=True):
                self._begin()
        except BaseException:  # it has not begun
            with Held(then_raise=True):
                begun, self._session = self._session, before
                self._reset()
                if begun is not None and begun is not before:
                    start.end(begun)
            raise

    def _begin(self) -> None:
        key, own = None, None
        current = self._get_current()
        if self._cell is not None:
            key, own = object(), asyncio.current_task()
            self._token = keys.set((*keys.get(), key))
        self._session = self._unwritten = session = start.begin(current, Main.run.__code__, key=key, own=own)

        # Not a weak reference with a callback: in a cycle it would be collected as well, and not call it.
        self._ending = weakref.finalize(self, _end, current.loop, session)
        self._ending.atexit = False

    def stop(self) -> Trace:
        """End, and write the file, if there is one; return the trace. OSError if it cannot be written. Idempotent."""
        session = self._session
        if session is None:
            raise RuntimeError("this trace has not begun: call start() first")
        if not session.is_over and not on_main_thread():
            raise RuntimeError("a trace can only be ended in the main thread, and this code runs in another one")
        self._reset()
        start.end(session)
        if self._file is not None and self._unwritten is session:  # also if it has ended with its loop
            self.save(self._file)
            self._unwritten = None
        return self

    def _reset(self) -> None:
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.detach()
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # in another Context
                keys.reset(token)

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended, and sees the loop: on Python 3.11 a profiler may prevent that."""
        return self._session is not None and start.goes_on(self._session)

    @property
    def summary(self) -> str:
        """The content of the picture in words, on one line."""
        return "a trace that has not begun" if self._session is None else summary(self._timeline())

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the trace as JSON of Chrome's trace-event format. RuntimeError if it has not begun."""
        if self._session is None:
            raise RuntimeError("this trace has not begun: call start() first")
        timeline = self._timeline()
        with open(os.path.expanduser(os.fspath(file)), "w", encoding="utf-8") as opened:
            write(timeline, opened)

    def __enter__(self) -> Trace:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except OSError as error:
            if exc is None:
                raise
            add_note(exc, f"ipyrunner: the trace could not be written: {describe(error)}")

    def _timeline(self) -> Timeline:
        assert self._session is not None
        session = self._session
        title = "trace" if self._cell is None else short(self._cell)
        return Timeline(session, start.pending(session), time.perf_counter_ns(), title, self._name_file)

    def __repr__(self) -> str:
        return self.summary

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        if self._session is None:
            return {"text/plain": repr(self)}
        timeline = self._timeline()
        return {"text/plain": summary(timeline), "image/svg+xml": picture(timeline)}
