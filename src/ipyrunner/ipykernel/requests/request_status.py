"""The request that the kernel handles: whom its replies go to, and its status beside a cell that awaits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = [
    "abort",
    "display_failed",
    "flush",
    "idents_of",
    "is_aborting",
    "publish",
    "set_display_failed",
    "status_published",
]


def idents_of(kernel: Any) -> Any:
    """Return whom the replies to the present request of the shell channel go to."""
    # Private: since ipykernel 6; on 7 by ContextVar, as the parent.
    return kernel._parent_ident["shell"]


def display_failed(shell: Any) -> bool:
    """Return whether the kernel takes the cell that ends next for one that has failed in what it has displayed."""
    # Private: since ipykernel 7.1; without it there is no such thing.
    return bool(getattr(shell, "_last_traceback_during_displayhook", False))


def set_display_failed(shell: Any, failed: bool) -> None:
    """Set what :func:`display_failed` returns, where that is known."""
    if display_failed(shell) is not failed:
        shell._last_traceback_during_displayhook = failed


def is_aborting(kernel: Any) -> bool:
    """Return whether a cell has failed, and those that were sent before it had are not to run."""
    # Private: since ipykernel 5; without it they run.
    return bool(getattr(kernel, "_aborting", False))


def abort(kernel: Any, stream: Any, request: dict[str, Any], idents: Any) -> None:
    """Reply that *request* was aborted."""
    # Private: since ipykernel 5.
    kernel._send_abort_reply(stream, request, idents)


@contextmanager
def status_published(kernel: Any, request: dict[str, Any], cell: dict[str, Any]) -> Iterator[None]:
    """Publish that *kernel* is busy with *request*, for the length of the block, and then with *cell*, which awaits."""
    publish(kernel, "busy", request)
    try:
        yield
    finally:
        flush()
        publish(kernel, "idle", request)
        # Front ends show the last status that came, and the cell still runs.
        publish(kernel, "busy", cell)


def flush() -> None:
    """Send what was printed: before idle, after which front ends look for nothing more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the user's, which may be anything
            stream.flush()


def publish(kernel: Any, status: str, parent: dict[str, Any]) -> None:
    """Publish the execution state of *kernel*, as an effect of the request *parent*."""
    topic = f"kernel.{kernel.ident}.status".encode()
    kernel.session.send(kernel.iopub_socket, "status", {"execution_state": status}, parent=parent, ident=topic)
