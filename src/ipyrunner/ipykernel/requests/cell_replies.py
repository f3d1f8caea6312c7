"""Correct replies where several cells run: the number, the value and the error of a cell, and the builtin ``input``.

The problem: ipykernel and IPython take these from the shell when the cell has ended, and the shell has only one of
each: that of the cell that began last, or failed last. The builtin ``input`` is put back when any cell has ended.

The solution: each cell has a record, which its Context refers to. Replies are corrected by this record.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...aio.introspection.exceptions import is_a
from ...aio.replacements import Replacements
from ...aio.sigint.handlers import on_main_thread
from .cell_count import CellCount
from .cell_record import CellRecord, present_record, recorded
from .request_status import display_failed, set_display_failed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CellReplies"]


class CellReplies:
    """Correct the replies of the kernel of *shell* to its cells, until :meth:`restore`; without a kernel do nothing."""

    def __init__(self, shell: InteractiveShell, count: CellCount) -> None:
        self._shell: Any = shell
        self._count = count
        kernel = getattr(shell, "kernel", None)
        self._replacements = Replacements()
        # How many cells run that have the builtin input.
        self._asking = 0
        if kernel is None:
            return
        replace = self._replacements.replace
        replace(kernel, "do_execute", self._do_execute)
        for name, make in (("_forward_input", self._forward_input), ("_restore_input", self._restore_input)):
            if hasattr(kernel, name):  # private, since IPython 1; without them input() fails once any cell has ended
                replace(kernel, name, make)
        if hasattr(shell, "_showtraceback"):  # private, since IPython 0.11; else a reply may have another cell's lines
            replace(shell, "_showtraceback", self._show_traceback)
        if hasattr(kernel, "shell_main"):  # where requests are handled while a cell awaits
            replace(kernel, "set_parent", self._set_parent)
        self._publisher = shell.display_pub
        self._replacements.subclass(shell.displayhook, self._recording)
        self._replacements.subclass(shell.payload_manager, _recording_payloads)
        # The cells whose code runs; and the excepthook of before them, since each puts back the one that it has found.
        self._running: weakref.WeakSet[CellRecord] = weakref.WeakSet()
        self._excepthook = sys.excepthook

    def restore(self) -> None:
        """Leave replies as the kernel makes them."""
        self._replacements.restore()

    def _do_execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def do_execute(code: str, silent: bool, store_history: bool = True, *args: Any, **kwargs: Any) -> Any:
            if not on_main_thread():  # a subshell runs its own cells
                return await original(code, silent, store_history, *args, **kwargs)
            record = present_record()
            by_cell = record is not None and record.begun
            if record is None or by_cell:
                record = CellRecord()
            self._count.announced(record, counts=store_history and not silent)
            try:
                with recorded(record):
                    reply = original(code, silent, store_history, *args, **kwargs)
                    if isinstance(reply, Awaitable):
                        reply = await reply
            except BaseException as exc:
                # When the error has been shown, the kernel asks it for its text once more. A class of the user's may
                # raise SystemExit then, after it has answered several times.
                if is_a(exc, asyncio.CancelledError, GeneratorExit) or (
                    record.error is None and (by_cell or is_a(exc, SystemExit))
                ):
                    raise
                # What has shown nothing is no error of the cell, but of what runs cells and shows their errors.
                error = record.error or self._shown(exc)
                counted = {"execution_count": self._shell.execution_count - 1, "user_expressions": {}, "payload": []}
                reply = {"status": "error", **error, **counted}
            finally:
                self._count.ended(record)
            return _put_right(reply, record)

        return do_execute

    def _shown(self, exc: BaseException) -> dict[str, Any]:
        """Show *exc*, and the exceptions before it, by Python's own means; return its part of the reply."""
        error: dict[str, Any] = {"traceback": [], "ename": "Error", "evalue": _text(exc)}
        with suppress(BaseException):  # a class of the user's is among them
            error["ename"] = str(type(exc).__name__)
            error["traceback"] = traceback.format_exception(exc)
        with suppress(Exception):
            self._shell.kernel.send_response(self._shell.kernel.iopub_socket, "error", error)
        return error

    def _set_parent(self, original: Callable[..., None]) -> Callable[..., None]:
        def set_parent(ident: Any, parent: dict[str, Any], channel: str = "shell") -> None:
            try:
                original(ident, parent, channel)
            except AttributeError:
                # A cell that awaits has replaced the publisher and the streams (capture_output).
                outputs: tuple[Any, ...] = (self._publisher, sys.stdout, sys.stderr)
                for output in outputs:
                    with suppress(AttributeError):
                        output.set_parent(parent)

        return set_parent

    def _show_traceback(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _showtraceback(etype: Any, evalue: Any, stb: list[str]) -> Any:
            shell, record = self._shell, present_record()
            result = original(etype, evalue, stb)
            if record is not None:
                record.error = {
                    "traceback": stb,
                    "ename": _text(getattr(etype, "__name__", etype)),
                    "evalue": _text(evalue),
                }
                record.has_shown_own = record.shows_own
                record.display_failed = display_failed(shell)
                set_display_failed(shell, False)  # the kernel reads it when any cell ends
            return result

        return _showtraceback

    def _forward_input(self, original: Callable[..., None]) -> Callable[..., None]:
        def _forward_input(*args: Any, **kwargs: Any) -> None:
            self._asking += 1
            if self._asking == 1:
                original(*args, **kwargs)

        return _forward_input

    def _restore_input(self, original: Callable[[], None]) -> Callable[[], None]:
        def _restore_input() -> None:
            self._asking = max(self._asking - 1, 0)  # the cell that loads the extension was not counted
            if self._asking == 0:
                original()

        return _restore_input

    def _recording(self, own: Any) -> type:
        replies = self

        class RecordingDisplayHook(own):  # type: ignore[misc]
            @property
            def prompt_count(self) -> int:
                record = present_record()
                count: int | None = None if record is None else record.own_count
                return own.prompt_count.fget(self) if count is None else count  # type: ignore[no-any-return]

            def quiet(self) -> bool:
                record = present_record()
                if record is None or record.own_count is None:
                    return own.quiet(self)  # type: ignore[no-any-return]
                inputs = self.shell.history_manager.input_hist_parsed
                source = inputs[record.own_count] if record.own_count < len(inputs) else ""
                return self.semicolon_at_end_of_expression(source)  # type: ignore[no-any-return]

            @property
            def msg(self) -> Any:
                # The message that is being displayed; an interrupt may leave it behind.
                record = present_record()
                return self.__dict__.get("msg") if record is None else record.displayed

            @msg.setter
            def msg(self, message: Any) -> None:
                record = present_record()
                if record is None:
                    self.__dict__["msg"] = message
                else:
                    record.displayed = message

            @property
            def exec_result(self) -> Any:
                record = present_record()
                return None if record is None or record.has_ended else record.result

            @exec_result.setter
            def exec_result(self, result: Any) -> None:
                # IPython sets it when the code of a cell begins, and None when it has ended.
                record = present_record()
                if record is not None:
                    record.has_ended = result is None
                    record.result = result or record.result
                    replies._note(record)

        return RecordingDisplayHook

    def _note(self, record: CellRecord) -> None:
        if not record.has_ended:
            if not self._running:
                self._excepthook = sys.excepthook
            self._running.add(record)
            return
        self._running.discard(record)
        if not self._running and sys.excepthook == self._shell.excepthook:
            sys.excepthook = self._excepthook


def _recording_payloads(own: Any) -> type:
    class RecordingPayloadManager(own):  # type: ignore[misc]
        @property
        def _payload(self) -> list[Any]:
            record = present_record()
            return self.__dict__.setdefault("_payloads", []) if record is None else record.payloads

        @_payload.setter
        def _payload(self, payloads: list[Any]) -> None:
            record = present_record()
            if record is None:
                self.__dict__["_payloads"] = payloads
            else:
                record.payloads = payloads

    return RecordingPayloadManager


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException:  # a user's class may raise anything, also at the second call only
        return ""


def _put_right(reply: Any, record: CellRecord) -> Any:
    if isinstance(reply, dict) and record.begun:
        if record.own_count is not None and "execution_count" in reply:
            reply["execution_count"] = record.own_count
        if record.error is not None and record.display_failed and reply.get("status") == "ok":
            reply.update(record.error, status="error")
        elif record.error is not None and reply.get("status") == "error":
            reply["traceback"] = record.error["traceback"]
    return reply
