"""The sockets that have something to read when ipykernel's own threads are about to be busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING

from ..aio.loops.other_threads import ThreadFds

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["thread_fds"]

# Attributes of the kernel. Public: its two streams, and the thread of output. Private: the pair of sockets that brings
# replies to the thread of the shell channel, since ipykernel 7.0; the stream of the thread of output, since 5.0. One
# that is missing is left out.
_REQUESTS = (
    "shell_stream.socket",
    "control_stream.socket",
    "shell_channel_thread.manager._main_to_shell_channel.to_socket",
)
_OUTPUT = ("iopub_thread._event_puller.socket",)


def thread_fds(shell: InteractiveShell) -> ThreadFds:
    """Return the fds of these sockets; none in a terminal."""
    return ThreadFds(list(_fds(shell, _REQUESTS)), list(_fds(shell, _OUTPUT)))


def _fds(shell: InteractiveShell, sockets: tuple[str, ...]) -> Iterator[int]:
    for socket in sockets:
        with suppress(Exception):  # missing, or closed
            # To ask for it touches nothing else of the socket, which belongs to its thread.
            yield attrgetter(socket)(shell.kernel).FD
