"""ipykernel 6: output goes to the cell that started the task.

ipykernel 7 finds the cell of an output by ContextVars, which tasks inherit. Version 6 has one "last parent" on each of
stdout, stderr and the display publisher (6.30 has the ContextVar on the streams already): a background task prints
into whichever cell ran last. There, a ContextVar of ours remembers the cell, and the parent is set around each output
that comes from another cell than the last. Tasks that print nothing do not get slower.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..aio.replacements import Replacements

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Routing", "present_cell", "request_of"]

# The request of the cell that the Context belongs to; not set where the kernel itself knows it.
_cell: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("ipyrunner cell")


def present_cell() -> dict[str, Any] | None:
    """Return the request of the cell that the current Context belongs to; None where the kernel itself knows it."""
    return _cell.get(None)


def request_of(shell: InteractiveShell, output: Any) -> str | None:
    """Return the id of the request that *output*, a stream or the publisher, goes to in the present Context."""
    parent: Any = output.parent_header if _follows_context(output) else _cell.get(shell.parent_header)  # type: ignore[attr-defined]
    request: str | None = parent.get("msg_id") or parent.get("header", {}).get("msg_id")
    return request


class Routing:
    """Route output by cell on kernels that do not do so themselves; on others do nothing."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._replacements = Replacements()
        self._restored = False
        if getattr(shell, "kernel", None) is None:
            return
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "set_parent") and not _follows_context(stream):
                self._route_stream(stream)
        publisher = shell.display_pub
        if hasattr(publisher, "set_parent") and not _follows_context(publisher):
            for name in ("publish", "clear_output"):
                self._replacements.replace(publisher, name, self._publish)

    def prepare(self) -> None:
        """Before the kernel begins a cell: after a plain cell IPython 9 may have put a ``write`` over ours."""
        self._replacements.uncover("write")

    def set_cell(self) -> None:
        """Note in the current Context which cell begins; tasks inherit it."""
        if self._replacements:
            _cell.set(self._shell.parent_header)

    def restore(self) -> None:
        """Leave the streams and the publisher as they were."""
        self._replacements.restore()
        self._restored = True

    def _route_stream(self, stream: Any) -> None:
        # A class, and not methods on the stream: IPython 9 replaces stream.write for the length of each plain cell.
        # The parent that the kernel has set last, for output that belongs to no cell.
        last: dict[str, Any] = self._shell.parent_header  # type: ignore[attr-defined]
        shown: dict[str, Any] = last
        routing = self

        def routed(own: Any) -> type:
            class RoutedStream(own):  # type: ignore[misc]
                def set_parent(self, parent: dict[str, Any]) -> None:
                    nonlocal last, shown
                    self.flush()  # buffered text belongs to the previous parent
                    last = shown = parent
                    own.set_parent(self, parent)

                def write(self, text: str) -> Any:
                    nonlocal shown
                    parent = _cell.get(last)
                    if parent is not shown and not routing._restored:
                        self.flush()
                        shown = parent
                        own.set_parent(self, parent)
                    return own.write(self, text)

            return RoutedStream

        self._replacements.subclass(stream, routed)

    def _publish(self, original: Callable[..., Any]) -> Callable[..., Any]:
        publisher: Any = self._shell.display_pub

        def publish(*args: Any, **kwargs: Any) -> Any:
            parent = _cell.get(None)
            if parent is None:
                return original(*args, **kwargs)
            before = publisher.parent_header
            publisher.set_parent(parent)
            try:
                return original(*args, **kwargs)
            finally:
                publisher.parent_header = before

        return publish


def _follows_context(output: Any) -> bool:
    # Private: ipykernel's ContextVar of the parent, on streams since 6.30, on the publisher since 7.0.
    return isinstance(getattr(output, "_parent_header", None), contextvars.ContextVar)
