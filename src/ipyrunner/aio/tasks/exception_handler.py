"""A loop's error reports, shown in the cell that has started the failed task or callback.

A loop reports errors to its exception handler. A handler of the user's stays in charge; without one, and when that
calls ``loop.default_exception_handler``, this module is called. It replaces that method on the loop, and leaves
``set_exception_handler`` to the user. Reports are kept until the loop's next iteration, since many come at once: a
hundred tasks that fail at the same line are shown as one traceback and a number.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ..introspection.exceptions import is_a, traceback_of
from ..introspection.loop_class import own_method, replace_method
from ..introspection.private_api import is_task
from ..introspection.task_origin import context_of, origin_of
from ..sigint.forced_interrupt import is_forced

__all__ = ["Failure", "Failures", "report"]


class Failure(NamedTuple):
    """A report, how many more are like it, and the Context to show it in."""

    report: dict[str, Any]
    more: int
    context: contextvars.Context


# uvloop's message (0.14 to 0.22) for an exception of a signal handler, which it calls in a callback of its own. With
# another message such an exception is reported as one of a callback.
_UVLOOP_SIGNALS = "Exception in callback Loop._read_from_self"


class Failures:
    """Call *show* with each error that *loop* reports, in the Context of what has failed, until :meth:`close`.

    *raised* is called with exceptions of signal handlers in the loop's own code, which uvloop reports; *failed* with
    each task whose failure is reported.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        show: Callable[[Failure], object],
        *,
        raised: Callable[[BaseException], None] = lambda exc: None,
        failed: Callable[[asyncio.Task[Any]], None] = lambda task: None,
    ) -> None:
        self._loop = loop
        self._raised = raised
        self._failed = failed
        self._show = show
        self._reports: list[tuple[dict[str, Any], contextvars.Context]] = []
        self._context = contextvars.Context()
        self._restore = replace_method(loop, "default_exception_handler", lambda original, report: self._take(report))

    def close(self) -> None:
        """Show what is left; leave the loop its own handler."""
        self.flush()
        self._restore()

    def flush(self) -> None:
        """Show the errors reported since the last call."""
        reports, self._reports = self._reports, []
        grouped: dict[object, Failure] = {}
        for report, context in reports:
            key = _kind(report, context)
            first = grouped.get(key)
            grouped[key] = Failure(report, 0, context) if first is None else first._replace(more=first.more + 1)
        for failure in grouped.values():
            try:
                failure.context.run(self._show, failure)
            except BaseException:  # what is shown is user code as well: __str__ and __repr__
                with suppress(BaseException):
                    own_method(self._loop, "default_exception_handler")(failure.report)

    def _take(self, report: dict[str, Any]) -> None:
        exc = report.get("exception")
        if report.get("message") == _UVLOOP_SIGNALS and isinstance(exc, BaseException):
            self._raised(exc)
            return
        if is_task(task := report.get("task", report.get("future"))):
            self._failed(task)
        context = context_of(report)
        # A copy: the Context may be entered at this moment.
        self._reports.append((report, contextvars.copy_context() if context is None else context.copy()))
        if len(self._reports) > 1:
            return
        try:
            self._loop.call_soon_threadsafe(self.flush, context=self._context)
        except RuntimeError:  # closed
            self.flush()


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As ``loop.call_exception_handler``, which lets SystemExit and KeyboardInterrupt of a user's handler through."""
    try:
        loop.call_exception_handler(context)
    except BaseException as exc:
        if is_forced(exc):
            raise
        with suppress(BaseException):
            # asyncio's own words for all other exceptions.
            loop.default_exception_handler({"message": "Unhandled error in exception handler", "exception": exc})


def _kind(report: dict[str, Any], context: contextvars.Context) -> object:
    exc = report.get("exception")
    if exc is None or not is_a(exc, BaseException):
        return id(report)
    tb = traceback_of(exc)
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    place = None if tb is None else (tb.tb_frame.f_code, tb.tb_lineno)
    message = report.get("message")
    return message if type(message) is str else id(message), type(exc), place, origin_of(context)
