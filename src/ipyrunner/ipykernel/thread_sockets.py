"""The sockets that have something to read when ipykernel's own threads are about to be busy: requests and replies."""

from __future__ import annotations

from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["thread_fds"]

# Attributes of the kernel. Public: its two streams. Private: the pair of sockets that brings replies to the thread of
# the shell channel, since ipykernel 7.0. One that is missing is left out.
_SOCKETS = (
    "shell_stream.socket",
    "control_stream.socket",
    "shell_channel_thread.manager._main_to_shell_channel.to_socket",
)


def thread_fds(shell: InteractiveShell) -> list[int]:
    """Return the fds of these sockets; none in a terminal."""
    found: list[int] = []
    for socket in _SOCKETS:
        with suppress(Exception):  # missing, or closed
            # To ask for it touches nothing else of the socket, which belongs to its thread.
            found.append(attrgetter(socket)(shell.kernel).FD)
    return found
