"""``ipyrunner.input``: ask the user, and let the loop go on meanwhile.

The builtin ``input`` blocks: in a kernel it waits for the front end's reply, in a terminal for a line; no task runs.

In a kernel the question is sent as the kernel sends its own, and the loop looks for the reply twenty times a second:
the file descriptor of a zmq socket is edge-triggered, and not every loop can watch one. A cancelled question cannot be
withdrawn, because the protocol has no message for that: its box stays open in some front ends. A reply that says which
question it answers (JupyterLab's do) is not used for another one; replies that came before a question are dropped.

In a terminal the loop watches stdin. If it cannot (a file, Windows' console), the line is read as ``input`` reads it.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import getpass
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.error import StdinNotImplementedError

from ..aio.introspection.task_origin import Origin, origin_of
from ..ipykernel.output_routing import present_cell
from ..ipykernel.requests.request_status import idents_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Asking"]

_LOOK = 0.05  # seconds
_END_OF_FILE = "\x04"  # what front ends send for Ctrl-D


class Asking:
    """Ask the user of *shell*, one question after the other."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, prompt: object, *, password: bool) -> str:
        """Return the user's answer; see ``ipyrunner.input``."""
        text = str(prompt)  # may run user code, and raise: before anything is sent
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the questions of another loop are gone with it
            self._loop, self._lock = loop, asyncio.Lock()
        kernel: Any = getattr(self._shell, "kernel", None)
        origin = origin_of(contextvars.copy_context())
        async with self._lock:
            _refuse_ended(origin)
            if kernel is None:
                return await _ask_terminal(loop, origin, text, password)
            return await self._ask_front_end(kernel, origin, text, password)

    async def _ask_front_end(self, kernel: Any, origin: Origin | None, prompt: str, password: bool) -> str:
        # Private, since IPython 1: whether the request of the last cell allows input.
        if not kernel._allow_stdin:
            raise StdinNotImplementedError(
                "ipyrunner.input() was called, but this front end cannot ask the user, as in papermill and nbconvert: "
                "set the value in a cell instead"
            )
        session, socket = kernel.session, kernel.stdin_socket
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        while self._receive(session, socket) is not None:
            pass  # replies to earlier questions
        question = session.send(
            socket,
            "input_request",
            {"prompt": prompt, "password": password},
            parent=present_cell() or kernel.get_parent("shell"),
            ident=idents_of(kernel),
        )
        while True:
            reply = self._receive(session, socket)
            if reply is None:
                await asyncio.sleep(_LOOK)
                _refuse_ended(origin)  # then no answer will come, and the next question waits for this one
                continue
            to = reply.get("parent_header", {}).get("msg_id")
            if to is None or to == question["header"]["msg_id"]:
                break
        answer = str(reply["content"].get("value", ""))
        if answer == _END_OF_FILE:
            raise EOFError
        return answer

    def _receive(self, session: Any, socket: Any) -> dict[str, Any] | None:
        while True:
            try:
                reply: dict[str, Any] | None = session.recv(socket)[1]  # without waiting
                return reply
            except Exception:  # not signed, or not JSON: log it, as the kernel itself does
                self._shell.log.warning("ipyrunner: an invalid message on the stdin channel", exc_info=True)


def _refuse_ended(origin: Origin | None) -> None:
    if origin is not None and origin.over:
        raise RuntimeError(
            f"{origin.label} has ended, and front ends show no questions of a cell that has ended. Ask in a cell that "
            "still runs, for example by awaiting this task there"
        )


async def _ask_terminal(loop: asyncio.AbstractEventLoop, origin: Origin | None, prompt: str, password: bool) -> str:
    if password:
        return getpass.getpass(prompt)  # blocks: it takes the terminal over
    if not sys.stdin.isatty():  # input from a pipe may be in Python's buffer already, which no loop can watch
        return builtins.input(prompt)  # noqa: ASYNC250
    answered = asyncio.Event()
    try:
        fd = sys.stdin.fileno()
        loop.add_reader(fd, answered.set)
    except (OSError, ValueError, NotImplementedError, AttributeError):
        return builtins.input(prompt)  # noqa: ASYNC250
    try:
        print(prompt, end="", flush=True)
        while not answered.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(answered.wait(), _LOOK)
            _refuse_ended(origin)  # then the prompt reads the keys again
    finally:
        loop.remove_reader(fd)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
