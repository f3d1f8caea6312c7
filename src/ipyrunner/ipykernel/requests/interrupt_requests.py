"""An interrupt by message that names a cell interrupts only that cell.

The protocol's ``interrupt_request`` has no content. One whose content has a ``msg_id``, that of a cell's execute
request, interrupts this cell: in the loop, while the kernel's own handler sends SIGINT. So it does not end code that
does not yield.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...aio.replacements import ItemReplacement
from ...notebook import NotebookRunner

__all__ = ["InterruptRequests"]


class InterruptRequests:
    """Handle the interrupt requests of *kernel* that name a cell of *runner*, until :meth:`restore`."""

    def __init__(self, kernel: Any, runner: NotebookRunner) -> None:
        self._kernel = kernel
        self._runner = runner
        handlers: dict[str, Callable[..., Any]] = getattr(kernel, "control_handlers", {})
        self._replacement = (
            ItemReplacement(handlers, "interrupt_request", self._make) if "interrupt_request" in handlers else None
        )

    def restore(self) -> None:
        """Put the kernel's own handler back."""
        if self._replacement is not None:
            self._replacement.restore()

    def _make(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def interrupt_request(stream: Any, ident: Any, parent: dict[str, Any]) -> Any:
            """On the control thread."""
            msg_id = parent.get("content", {}).get("msg_id")
            present = self._runner.present
            if not msg_id or present is None:
                return original(stream, ident, parent)
            content: dict[str, Any] = {"status": "ok"}
            if not self._interrupt(msg_id):
                if self._is_plain(msg_id):  # SIGINT interrupts the cell that has the thread
                    present.interrupts.alone = True
                    return original(stream, ident, parent)
                message = f"no cell runs whose execute request has the msg_id {msg_id!r}"
                content = {"status": "error", "ename": "RuntimeError", "evalue": message, "traceback": []}
            self._kernel.session.send(stream, "interrupt_reply", content, parent, ident=ident)
            return None

        return interrupt_request

    def _interrupt(self, msg_id: object) -> bool:
        present = self._runner.present
        for run in () if present is None else present.interrupts.runs():
            if (
                run.context is not None
                and self._msg_id(run.context.copy().run(self._kernel.get_parent, "shell")) == msg_id
            ):
                present.loop.call_soon_threadsafe(lambda run=run: run.press(alone=True))  # type: ignore[union-attr,misc]
                return True
        return False

    def _is_plain(self, msg_id: object) -> bool:
        """Return whether the request is that of a plain cell, which blocks the kernel."""
        present = self._runner.present
        blocks = present is not None and present.is_entered and not present.awaits
        return blocks and self._msg_id(self._kernel.get_parent("shell")) == msg_id

    @staticmethod
    def _msg_id(request: dict[str, Any]) -> object:
        return request.get("header", {}).get("msg_id")
