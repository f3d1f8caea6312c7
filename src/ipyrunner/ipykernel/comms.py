"""Comm messages: the callbacks of widgets run on the main thread, with the notebook's loop as the running one.

ipykernel calls the handlers of comm messages on two threads, which the front end and the history of the comm choose:
the main one, or since version 7 a subshell's. JupyterLab asks for a subshell, and ipykernel 7.4 sends the first
message of a widget to the main thread and all others to the subshell's. There ``future.set_result()`` does not wake
the notebook's loop, and ``asyncio.create_task()`` uses the subshell's loop, which cells know nothing of.

So a message that arrives on another thread is handled by the notebook's loop. If a cell without ``await``, or code that
does not yield, blocks that loop, the message is handled on its own thread, as without the extension: this is what
subshells are for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..aio.loops.threadsafe_call import hand_over
from ..aio.replacements import ItemReplacement
from ..aio.sigint.handlers import on_main_thread
from ..notebook import NotebookRunner
from .contained_calls import contained
from .requests.request_status import status_published
from .widget_events import comm_closed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Comms"]

_MESSAGES = ("comm_open", "comm_msg", "comm_close")


class Comms:
    """Wrap the comm handlers of the kernel that *shell* belongs to; without a kernel there are none."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner) -> None:
        self._kernel: Any = getattr(shell, "kernel", None)
        self._runner = runner
        # Whether a message has waited too long for the loop, which has not run since: the next ones do not wait.
        self._late = False
        # The kernel's table of message handlers; ipykernel itself puts the comm manager's in there the same way.
        self._handlers: dict[str, Callable[..., Any]] = getattr(self._kernel, "shell_handlers", {})
        self._replacements = [
            ItemReplacement(self._handlers, name, partial(self._wrap, name))
            for name in _MESSAGES
            if name in self._handlers
        ]

    def restore(self) -> None:
        """Put the kernel's own handlers back."""
        for replacement in self._replacements:
            replacement.restore()

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def handle(stream: Any, ident: Any, message: dict[str, Any]) -> Any:
            def call() -> Any:
                result = contained(lambda: original(stream, ident, message), "a callback of a widget")
                if name == "comm_close":
                    comm_closed(message["content"].get("comm_id"))
                return result

            if not on_main_thread():
                return self._handle_elsewhere(call)
            with self._status(message):
                return self._runner.lend(call)

        return handle

    def _handle_elsewhere(self, call: Callable[[], Any]) -> Any:
        present = self._runner.present
        if present is None:
            return call()
        if present.takes_calls and not self._late:
            if hand_over(present.loop, call, patience=self._runner.interrupt_grace):
                return None  # as the kernel's own handlers do
            self._late = True
        try:
            return call()
        finally:
            # The call may have completed a future of the loop, which has gone to sleep meanwhile.
            with suppress(RuntimeError):  # closed
                present.loop.call_soon_threadsafe(self._on_time)

    def _on_time(self) -> None:
        self._late = False

    @contextmanager
    def _status(self, message: dict[str, Any]) -> Iterator[None]:
        """Publish the status of a message that is handled while a cell awaits.

        ipykernel 7.4 handles such messages, and says neither busy nor idle for them. ipywidgets sends the next change
        of a widget when the kernel is idle after the one before: the cell would only see the first step of a slider.
        """
        present = self._runner.present
        if present is None or not present.in_cell:
            yield
            return
        with status_published(self._kernel, message, self._runner.context.copy().run(self._kernel.get_parent)):
            yield
