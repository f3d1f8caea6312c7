"""The prompt of a terminal: the notebook's loop runs while the prompt waits.

The problem: terminal IPython has no loop that stays. prompt_toolkit runs one for the length of each prompt; outside of
the prompt and of cells that await, nothing could run a background task.

The solution: the prompt's loop is a host like a kernel's, see ``Hosting``, from the moment that the prompt waits until
it has its line. prompt_toolkit calls ``Application.pre_run_callables`` when it begins to wait: a public name since
version 2. Since version 3 it waits in an asyncio loop. IPython shows all prints above the prompt (``patch_stdout``).

With a user's GUI hook (``%gui tk``) the host leads: see ``HostLeads``.

Tasks do not run at a prompt without prompt_toolkit (``--simple-prompt``, ``input()``), which is a blocking call, nor in
a dumb terminal (``TERM=dumb``), whose prompt does not say when it begins.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..aio.introspection.private_api import selector_of
from ..aio.introspection.running_loop import running_loop
from ..aio.sigint.handlers import Outside, handler_of
from ..installation import Installation
from ..notebook import NotebookRunner
from .prompt_ctrl_c import ControlC

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["install"]


def install(extension: Installation) -> None:
    """Put the part in place, if the shell has prompts."""
    if hasattr(extension.shell, "prompt_for_code"):
        prompting = Prompting(extension.shell, extension.runner)
        extension.runner.outside = prompting
        extension.runner.when_host_stops = prompting.leave
        extension.undo(prompting.leave)
        extension.replace(extension.shell, "prompt_for_code", prompting.prompt_for_code)


class Prompting(Outside):
    """Run the notebook's loop at the prompts of *shell*; know who handles SIGINT there."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner) -> None:
        self._shell: Any = shell
        self._runner = runner
        self._handler: object = None
        self._control_c: ControlC | None = None

    def rests(self, handler: object) -> bool:
        """Return whether *handler* is in place while no cell runs: the prompt's own, or none."""
        return super().rests(handler) or (self._handler is not None and handler is self._handler)

    def keep(self) -> None:
        """Pass a SIGINT on to the prompt, whose handler is in place again: the loop got it and did nothing."""
        if self._handler is not None:
            signal.raise_signal(signal.SIGINT)

    def prompt_for_code(self, original: Callable[..., str]) -> Callable[..., str]:
        """Return the replacement of ``shell.prompt_for_code``."""

        def prompt_for_code(*args: Any, **kwargs: Any) -> str:
            app = getattr(getattr(self._shell, "pt_app", None), "app", None)
            self._keep_loops_apart()
            begins: list[Callable[[], None]] = getattr(app, "pre_run_callables", [])
            begins.append(begin := lambda: self._enter(app))
            try:
                return original(*args, **kwargs)
            finally:
                if begin in begins:  # it never began
                    begins.remove(begin)
                self.leave()

        return prompt_for_code

    def _keep_loops_apart(self) -> None:
        # IPython before 8.18 keeps a loop for its prompts. With ``%gui asyncio`` that is the current loop, the
        # notebook's, which `%arunner restart` closes.
        loop = getattr(self._shell, "pt_loop", None)
        if loop is not None and (loop.is_closed() or loop is self._present_loop()):
            self._shell.pt_loop = asyncio.new_event_loop()

    def _present_loop(self) -> asyncio.AbstractEventLoop | None:
        present = self._runner.present
        return None if present is None else present.loop

    def _enter(self, app: Any) -> None:
        host = running_loop()
        if host is None:
            return
        self._handler = handler_of(signal.SIGINT)
        # Imported here, since a kernel needs no prompt_toolkit. Before 3.0 there is no asyncio loop here.
        from prompt_toolkit.eventloop.inputhook import InputHookSelector

        self._runner.attach(host, host_leads=isinstance(selector_of(host), InputHookSelector), aside=True)
        self._control_c = ControlC(app.input, host, self._holds_thread)
        self._control_c.start()

    def leave(self) -> None:
        """Let the loop rest: the prompt has its line."""
        self._handler = None
        if self._control_c is not None:
            self._control_c.stop()
            self._control_c = None
        self._runner.detach()

    def _holds_thread(self) -> bool:
        loop = self._present_loop()
        return loop is not None and loop.is_running()
