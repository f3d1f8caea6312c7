"""The request that the kernel handles: whom its replies go to, and its status beside a cell that awaits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["idents_of", "status_published"]


def idents_of(kernel: Any) -> Any:
    """Return whom the replies to the present request of the shell channel go to."""
    # Private: since ipykernel 6; on 7 by ContextVar, as the parent.
    return kernel._parent_ident["shell"]


@contextmanager
def status_published(kernel: Any, request: dict[str, Any], cell: dict[str, Any]) -> Iterator[None]:
    """Publish that *kernel* is busy with *request*, for the length of the block, and then with *cell*, which awaits."""
    _publish(kernel, "busy", request)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):  # before idle, after which front ends look for nothing more
            with suppress(Exception):  # the user's, which may be anything
                stream.flush()
        _publish(kernel, "idle", request)
        # Front ends show the last status that came, and the cell still runs.
        _publish(kernel, "busy", cell)


def _publish(kernel: Any, status: str, parent: dict[str, Any]) -> None:
    topic = f"kernel.{kernel.ident}.status".encode()
    kernel.session.send(kernel.iopub_socket, "status", {"execution_state": status}, parent=parent, ident=topic)
