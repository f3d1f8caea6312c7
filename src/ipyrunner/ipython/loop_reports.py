"""Show what has happened in the notebook's loop, in the output of the cell that it comes from.

A failure is shown on stderr, and not as the error of a cell: the cell has not failed, but programs that run notebooks
would believe so.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ..aio.introspection.exceptions import is_a
from ..aio.introspection.loop_class import own_method
from ..aio.introspection.private_api import is_task
from ..aio.introspection.task_origin import context_of, origin_of
from ..aio.notices import Cancelled, ChildEnds, Failure, Forced, GivenUp, Notice, Slow
from ..aio.tasks.safe_names import function_of, label_of, short
from ..cells.cancelled_scopes import kept_notice
from ..installation import Installation
from .exception_groups import format_exception
from .tracebacks import forced_note, name_file, without_machinery

__all__ = ["Reports"]


class Reports:
    """Show failures with the shell's traceback formatter, in the present ``%xmode`` and colours; print the rest."""

    def __init__(self, extension: Installation) -> None:
        self._extension = extension
        self._shell = extension.shell

    def show(self, notice: Notice) -> None:
        """Print *notice*, in the present Context."""
        match notice:
            case Failure():
                self._show_failure(notice)
            case Forced():
                print(forced_note(notice))
            case GivenUp(task):
                print(
                    f"ipyrunner: the task of {label_of(task)} ignored its cancellation and still runs. `%atasks` lists "
                    "it. `%arunner restart` stops it, together with all other tasks; the variables stay."
                )
            case Cancelled(request):
                print(kept_notice(request), file=sys.stderr)
            case ChildEnds():
                print(
                    "ipyrunner: this child process, made by os.fork(), ends here, because its cell awaits and the "
                    "event loop belongs to the parent. Use asyncio.run() in the child, or the multiprocessing module."
                )
            case Slow():
                name = "the cell" if notice.function is None else f"{short(notice.function)}()"
                print(
                    f"ipyrunner: {name} blocked the event loop for {notice.seconds:.2f} s, so that nothing else ran: "
                    f"{short(notice.line, 200)}  ({name_file(self._shell, notice.filename)}, line {notice.number}; "
                    f"NotebookRunner.slow_callback: {notice.limit:g} s)",
                    file=sys.stderr,
                )

    def _show_failure(self, failure: Failure) -> None:
        # The message is asyncio's own, unless there is a better one.
        exc = failure.report.get("exception")
        if exc is None or not is_a(exc, BaseException):
            own_method(asyncio.get_event_loop(), "default_exception_handler")(failure.report)
            return
        lines = [self._headline(failure.report, exc)]
        tb = without_machinery(exc)
        lines += format_exception(self._shell, exc, tb, tb_offset=0)
        if failure.more:
            lines.append(
                f"ipyrunner: {failure.more} more failed at the same line, with an exception of the same type. "
                "`%atasks -a` lists the last ones"
            )
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _headline(self, report: dict[str, Any], exc: BaseException) -> str:
        # If this is shown in the output of another cell, say which cell it comes from.
        origin = origin_of(context_of(report)) if self._extension.audience.is_stray() else None
        of = "" if origin is None else f" of {origin.label}"
        task = report.get("task", report.get("future"))
        message = short(str(report.get("message", "Unhandled exception in the event loop")), 1000)
        if not is_task(task):
            return f"ipyrunner: {message}" + ("" if origin is None else f" (started by {origin.label})")
        if message != "Task exception was never retrieved":
            return f"ipyrunner: {message}: the task {label_of(task)}{of} ({short(function_of(task))})"
        if is_a(exc, SystemExit):
            return f"ipyrunner: SystemExit in the task {label_of(task)}{of} ended the task, and not the kernel"
        failed = f"the task {label_of(task)}{of} ({short(function_of(task))}) failed"
        return f"ipyrunner: {failed}, and nobody awaits it ({message})"
