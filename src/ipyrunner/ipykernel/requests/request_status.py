"""The request that the kernel handles: where its replies go, and its status while a cell awaits."""

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
    """Return the identities that replies to the present request of the shell channel are sent to."""
    # Private: since ipykernel 6; in 7 it is in a ContextVar, as the parent is.
    return kernel._parent_ident["shell"]


def display_failed(shell: Any) -> bool:
    """Return whether the kernel will report the cell that ends next as failed while its value was displayed."""
    # Private: since ipykernel 7.1; before that a kernel never does so.
    return bool(getattr(shell, "_last_traceback_during_displayhook", False))


def set_display_failed(shell: Any, failed: bool) -> None:
    """Set what :func:`display_failed` returns, where that is known."""
    if display_failed(shell) is not failed:
        shell._last_traceback_during_displayhook = failed


def is_aborting(kernel: Any) -> bool:
    """Return whether a cell has failed, so that cells which were sent before that must not run."""
    # Private: since ipykernel 5; without it they run.
    return bool(getattr(kernel, "_aborting", False))


def abort(kernel: Any, stream: Any, request: dict[str, Any], idents: Any) -> None:
    """Reply that *request* was aborted."""
    # Private: since ipykernel 5.
    kernel._send_abort_reply(stream, request, idents)


@contextmanager
def status_published(kernel: Any, request: dict[str, Any], cell: dict[str, Any]) -> Iterator[None]:
    """Publish that *kernel* is busy with *request*, and after the block that it is busy with *cell*, which awaits."""
    publish(kernel, "busy", request)
    try:
        yield
    finally:
        flush()
        publish(kernel, "idle", request)
        # Front ends show the last status that came, and the cell still runs.
        publish(kernel, "busy", cell)


def flush() -> None:
    """Send what was printed. Before "idle": front ends expect no more output after that."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the user may have replaced it by anything
            stream.flush()


def publish(kernel: Any, status: str, parent: dict[str, Any]) -> None:
    """Publish the execution state of *kernel*, as an effect of the request *parent*."""
    topic = f"kernel.{kernel.ident}.status".encode()
    kernel.session.send(kernel.iopub_socket, "status", {"execution_state": status}, parent=parent, ident=topic)
