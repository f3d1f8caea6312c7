"""What the user sees of an exception: their own lines, KeyboardInterrupt for an interrupt, and help on mistakes."""

from __future__ import annotations

import asyncio
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import IPython
from IPython.core.error import UsageError

from ..aio.introspection.exceptions import (
    add_note,
    inner_of,
    is_a,
    links_of,
    notes_of,
    set_traceback,
    traceback_from,
    traceback_of,
)
from ..aio.introspection.frames import OURS
from ..aio.introspection.loop_class import is_call_soon
from ..aio.introspection.private_api import is_await_of_future
from ..aio.introspection.running_loop import running_loop
from ..aio.notices import Forced
from ..aio.replacements import Override
from ..aio.sigint.interruption import take_seen
from ..aio.tasks.safe_names import short
from ..cells.cancelled_scopes import cancelled_note
from ..cells.deadlock_notes import deadlock_note
from ..cells.inner_cells import InnerCells
from ..cells.interrupted_tasks import interrupted_note
from ..cells.mistake_notes import hint
from ..ipykernel.kernel_loop import kernel_loop
from ..ipykernel.requests.cell_record import present_record
from ..notebook import NotebookRunner
from .exception_groups import chain_of, format_exception, text_of
from .top_level_await import compile_body, compile_expression

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

__all__ = ["MACHINERY", "Tracebacks", "forced_note", "name_file", "without_machinery"]

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
# IPython 7 calls magics through the decorator package.
_MAGIC_MACHINERY = tuple(
    os.path.dirname(module.__file__ or "") + os.sep
    for module in (IPython, sys.modules.get("decorator"))
    if module is not None and os.path.basename(module.__file__ or "") == "__init__.py"
)

# The files of code that runs cells, whose frames are not shown to the user.
MACHINERY = (OURS, *_MAGIC_MACHINERY)

_COMPILING = (compile_body.__code__, compile_expression.__code__)


class _NotFormatted(BaseException):
    """IPython's formatting has raised. Not an Exception, nor KeyboardInterrupt: IPython catches these."""


class Tracebacks:
    """Prepare exceptions for ``shell.showtraceback``."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner, inner: InnerCells) -> None:
        self._shell = shell
        self._inner = inner
        self._runner = runner

    def showtraceback(self, original: Callable[..., None]) -> Callable[..., None]:
        """Return the replacement."""

        def showtraceback(exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
            exc = sys.exc_info()[1] if exc_tuple is None else exc_tuple[1]
            if exc is None or not is_a(exc, BaseException):
                original(exc_tuple, *args, **kwargs)
                return
            record = present_record()
            own = None if record is None else record.own_error
            if record is not None and own is not None and record.result.error_before_exec is exc:
                # So IPython marks what it, or an interrupt, has raised while the error of the cell's code was shown.
                record.result.error_before_exec = None
                if record.own_error_shown:
                    return
                exc = own
            if record is not None:
                record.shows_own = exc is own  # and not another one, which the cell has caught and shown before
            if is_a(exc, asyncio.CancelledError) and self._is_given_up():
                return  # the cell has ended long ago, with KeyboardInterrupt
            if self._inner.passes_on(exc):
                return  # the cell that awaits this one shows it
            if is_a(exc, SyntaxError) and _is_of_a_body(traceback_of(exc)):
                kwargs["running_compiled_code"] = False  # three lines, as for a plain cell: nothing has run
                args = args[:3]
            exc = self._prepare(exc)
            failure = type(exc), exc, traceback_of(exc)
            # The lines of what was shown: one traceback.
            shown: list[Any] = []
            if any(is_a(link, BaseExceptionGroup) for link in chain_of(exc)) and not kwargs.get("exception_only"):
                shown.append(self._show(*failure, tb_offset=kwargs.get("tb_offset")))
            else:
                try:
                    with self._not_dropped(original, exc, shown):
                        original(failure, *args, **kwargs)
                    self._check()
                except BaseException as error:
                    # The class of the exception raises. Or IPython's formatting does (7.34: TypeError, where inspect
                    # finds no frames), and its error would take the place of the user's.
                    if not (shown and is_a(error, KeyboardInterrupt)):
                        shown[:] = [self._show(*failure, tb_offset=kwargs.get("tb_offset"))]
            with suppress(KeyboardInterrupt):  # what it would interrupt has ended, and the next traceback would name it
                self._print_hidden_notes(exc, shown)

        return showtraceback

    @contextmanager
    def _not_dropped(self, original: object, exc: BaseException, shown: list[Any]) -> Iterator[None]:
        """Put what IPython's *original* shows into *shown*, when it has; raise where it would show nothing.

        It drops a KeyboardInterrupt. Ours is forced into its formatting if that takes longer than interrupt_grace: on a
        machine under load, in the first traceback. Of any other exception there it prints all that led to it, which may
        be the user's own: that would be shown twice, and its notes.
        """

        def noting(show: Callable[..., Any]) -> Callable[..., Any]:
            def _showtraceback(etype: Any, evalue: Any, stb: Any) -> None:
                ended = False
                try:
                    show(etype, evalue, stb)
                    ended = True
                finally:
                    # What ipykernel does when it has sent them: an interrupt that comes later costs nothing.
                    if ended or getattr(self._shell, "_last_traceback", None) is stb:
                        shown.append(stb)

            return _showtraceback

        def raising(structured_traceback: Callable[..., Any]) -> Callable[..., Any]:
            def formatted(*args: Any, **kwargs: Any) -> Any:
                try:
                    return structured_traceback(*args, **kwargs)
                except BaseException as error:
                    raise _NotFormatted from error

            return formatted

        with ExitStack() as stack:
            # Private: since IPython 0.11; others (rich) have replaced it, too.
            stack.callback(Override(self._shell, "_showtraceback", noting).restore)
            stack.callback(Override(self._shell.InteractiveTB, "structured_traceback", raising).restore)
            yield
        # A usage error is a line on stderr. Whoever has replaced showtraceback shows what they like.
        is_ipythons = str(getattr(original, "__module__", "")).startswith("IPython.")
        if is_ipythons and not shown and not is_a(exc, UsageError):
            raise KeyboardInterrupt

    def _check(self) -> None:
        # ipykernel joins the lines for the reply; a user's `_render_traceback_` may have returned anything.
        lines = getattr(self._shell, "_last_traceback", None)
        if lines is not None:
            "\n".join(lines)

    def stored(self, original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """Return the replacement of the function that formats an exception for IPython's history."""

        def format_exception_for_storage(exc: BaseException, *args: Any, **kwargs: Any) -> dict[str, Any]:
            try:
                return original(exc, *args, **kwargs)
            except BaseException:
                lines = format_exception(self._shell, exc, traceback_of(exc))
                return {"ename": type(exc).__name__, "evalue": text_of(exc), "traceback": lines}

        return format_exception_for_storage

    def _show(
        self, kind: type[BaseException], exc: BaseException, tb: TracebackType | None, *, tb_offset: int | None
    ) -> list[str]:
        """As IPython's showtraceback, of whose parts these are: private since IPython 0.11. Return the lines."""
        shell: Any = self._shell
        shell._get_exc_info((kind, exc, tb))  # tells sys of the last exception
        lines = format_exception(shell, exc, tb, tb_offset=tb_offset)
        # The text, and not the exception: ipykernel calls str() of it.
        shell._showtraceback(kind, text_of(exc), lines)
        if shell.call_pdb:
            shell.debugger(force=True)
        return lines

    def show(self, exc: BaseException) -> None:
        """Show *exc* where ``showtraceback`` has raised it, without that."""
        with suppress(BaseException):
            shell: Any = self._shell
            shell._showtraceback(type(exc), text_of(exc), format_exception(shell, exc, traceback_of(exc)))

    def _prepare(self, exc: BaseException) -> BaseException:
        present = self._runner.present
        task = None if running_loop() is None else asyncio.current_task()
        running = None if present is None else present.interrupts.of_task(task)
        if running is not None and running.claims(exc):
            interrupt = running.reason()
            set_traceback(interrupt, traceback_of(interrupt) or traceback_of(exc))
            if running.forced is not None:
                add_note(interrupt, forced_note(running.forced))
            if (record := present_record()) is not None:
                record.shown = exc, interrupt
            exc = interrupt
        if (deadlock := take_seen(exc)) is not None:
            add_note(exc, deadlock_note(deadlock, partial(name_file, self._shell)))
        _clean(exc)
        if is_a(exc, asyncio.CancelledError) and present is not None and (requests := present.requests):
            add_note(exc, cancelled_note(requests))
        # Tasks and frames may hold anything. And what an interrupt would end has ended.
        with suppress(BaseException):
            if present is not None and is_a(exc, KeyboardInterrupt) and running_loop() is None:
                note = interrupted_note(present.tasks.holder_of(exc))
                if note is not None:
                    add_note(exc, note)
        with suppress(BaseException):
            if (note := hint(exc, chain_of(exc), self._runner, kernel_loop(self._shell))) is not None:
                add_note(exc, note)
        return exc

    def _is_given_up(self) -> bool:
        present = self._runner.present
        task = None if running_loop() is None else asyncio.current_task()
        return present is not None and task in present.given_up

    def _print_hidden_notes(self, exc: BaseException, shown: list[Any]) -> None:
        # IPython 8.10, say, and all before it, show no notes.
        ours = [note for note in notes_of(exc) if note.startswith("ipyrunner:")]
        if ours and not shown:  # by others, who have replaced showtraceback: what IPython shows, they do
            with suppress(Exception):  # the user's code, in a class of their own
                shown = [self._shell.InteractiveTB.get_exception_only(type(exc), exc)]
        text = "".join(line for lines in shown if type(lines) is list for line in lines if type(line) is str)
        for note in ours:
            if note not in text:
                print(note, file=sys.stderr)

    def settle(self, result: ExecutionResult) -> ExecutionResult:
        """Replace the cancellation in *result* by the KeyboardInterrupt that was shown instead."""
        present, record = self._runner.present, present_record()
        error, last = result.error_in_exec, None if present is None else present.interrupts.last
        if record is not None and record.shown is not None and error is record.shown[0]:
            result.error_in_exec = record.shown[1]
        elif error is not None and last is not None and last.claims(error):
            result.error_in_exec = last.reason()  # a handler of the user's (set_custom_exc) has shown the cancellation
        return result

    def harmless(self, result: ExecutionResult) -> ExecutionResult:
        """Replace an error in *result* whose ``str()`` raises by an Exception of the same name."""
        for name in ("error_before_exec", "error_in_exec"):
            error = getattr(result, name)
            if error is not None:
                try:
                    str(error)
                except BaseException:
                    setattr(result, name, type(type(error).__name__, (Exception,), {})(text_of(error)))
        return result


def name_file(shell: InteractiveShell, filename: str) -> str:
    """Return the name of a file for the user: of a cell's file, its number."""
    # Private, since 8.0: by this map IPython names cells in tracebacks. Without it the name of a cell's file is shown.
    number = getattr(shell.compile, "_filename_map", {}).get(filename)
    return os.path.basename(filename) if number is None else f"In[{number}]"


def forced_note(forced: Forced) -> str:
    """Return the note on a forced interrupt."""
    place = "the cell" if forced.function is None else f"{short(forced.function)}()"
    time = "" if forced.seconds is None else f" for {forced.seconds:.2f} s"
    return (
        f"ipyrunner: KeyboardInterrupt was raised in {place}, which did not return to the event loop{time}: "
        f"{short(forced.line, 200)}"
    )


def pointing_records(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the replacement of ``InteractiveTB.get_records``: each points at the line that the traceback names.

    IPython formats some frames without stack_data: those of long files (since 8.0), and all of a kernel's cells (9.18).
    There it shows the line where the frame is now, ``f_lineno``: after a ``finally`` that is the end of the clean-up.
    """

    def get_records(etb: TracebackType, *args: Any, **kwargs: Any) -> Any:
        records = original(etb, *args, **kwargs)
        tb: TracebackType | None = etb
        for record in records or ():
            # Private, since IPython 8.0: None for a record without stack_data, which would have the right line. Before
            # 8.0 records are tuples, with the right line.
            if getattr(record, "_sd", record) is None:
                while tb is not None and tb.tb_frame is not record.frame:
                    tb = tb.tb_next
                if tb is None:
                    break
                # An exception that was caught and raised again has several entries of one frame.
                record.lineno, tb = tb.tb_lineno, tb.tb_next
        return records

    return get_records


def without_machinery(exc: BaseException) -> TracebackType | None:
    """Return the traceback of *exc*, which came out of a task, without the frames of asyncio and of this package."""
    _clean(exc)
    tb = traceback_of(exc)
    while tb is not None and tb.tb_next is not None and tb.tb_frame.f_code.co_filename.startswith(_ASYNCIO):
        tb = tb.tb_next
    return tb


def _clean(exc: BaseException) -> None:
    """Remove our frames from the tracebacks of *exc* and of all its causes, contexts and inner exceptions."""
    seen: set[int] = set()
    pending = [exc]
    while pending:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        set_traceback(link, _without_ours(traceback_of(link)))
        pending += [*links_of(link), *inner_of(link)]


def _without_ours(tb: TracebackType | None) -> TracebackType | None:
    """Drop our frames, the frames of IPython's magic machinery before them and of asyncio's runner after them."""
    entries: list[TracebackType] = []
    after_ours = changed = magic_call = False
    while tb is not None:
        filename = tb.tb_frame.f_code.co_filename
        if is_call_soon(tb.tb_frame.f_code):
            changed = True
        elif filename.startswith(OURS):
            # The first entry is IPython's own, which IPython itself drops.
            while len(entries) > 1 and entries[-1].tb_frame.f_code.co_filename.startswith(_MAGIC_MACHINERY):
                entries.pop()
            # In a cell that begins with %%arun show the body, and not the call that IPython makes of the cell.
            magic_call = len(entries) == 2 and _is_arun_cell(entries[1])
            after_ours = changed = True
        elif is_await_of_future(tb.tb_frame.f_code):  # with nest-asyncio in Python: this and asyncio's next are no help
            after_ours = changed = True
        elif not (after_ours and filename.startswith(_ASYNCIO)):
            after_ours = False
            changed = changed or tb.tb_lineno is None
            entries.append(tb)
        tb = tb.tb_next
    if not changed:
        return entries[0] if entries else None
    if magic_call:
        del entries[1]
        if len(entries) == 1:
            return None  # no line of the body is there, and IPython does not drop its own frame if that is the only one
    return traceback_from(entries)


def _is_of_a_body(tb: TracebackType | None) -> bool:
    """Return whether an error was raised by compiling the body of ``%%arun``, or the expression of ``%arun``."""
    while tb is not None and tb.tb_frame.f_code not in _COMPILING:
        tb = tb.tb_next
    return tb is not None


def _is_arun_cell(entry: TracebackType) -> bool:
    # The body has the name of the cell, and replaces its text.
    line = linecache.getline(entry.tb_frame.f_code.co_filename, 1)
    return line.startswith(("%%arun", "get_ipython().run_cell_magic('arun',"))
