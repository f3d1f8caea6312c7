"""ipykernel's kernel with the extension loaded, and what only a kernel can do: answer on its control thread."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ipykernel.ipkernel import IPythonKernel

from .. import __version__
from ..aio.tasks.safe_names import describe
from ..extension import load_for_kernel, runner_of
from ..ipykernel.kernel_loop import kernel_loop
from ..ipykernel.sigterm import CLEAN_UP, interrupt_until_idle

__all__ = ["RunnerKernel"]

_HELP = {
    "text": "asyncio Reference",
    "url": f"https://docs.python.org/{sys.version_info[0]}.{sys.version_info[1]}/library/asyncio.html",
}


class RunnerKernel(IPythonKernel):
    """ipykernel's kernel with the extension loaded: it gives a notebook its own asyncio event loop.

    The extension is loaded before the first cell. If that fails, this is ipykernel's plain kernel, and the first cell
    says why. It is also the plain kernel between ``%unload_ext ipyrunner`` and ``%load_ext ipyrunner``.

    Interrupts work by signal and by message (``"interrupt_mode": "message"`` in the kernelspec), which Windows and
    remote kernels need. A shutdown interrupts code that is stuck, so that tasks are cleaned up; it takes
    ``NotebookRunner.shutdown_timeout`` seconds at most.
    """

    # Front ends use language_info, which stays IPython's.
    implementation = "ipyrunner"
    implementation_version = __version__

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.help_links: list[dict[str, str]] = [*self.help_links, _HELP]
        try:
            load_for_kernel(self.shell)
        except Exception as exc:  # most likely an invalid setting; the kernel has to live to report it
            self._do_without(exc)

    @property
    def banner(self) -> str:
        """The text that consoles print first."""
        banner: str = super().banner
        if runner_of(self.shell) is None:
            return banner
        return f"{banner}ipyrunner {__version__} -- All cells share one asyncio event loop: `%arunner` shows it.\n"

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Interrupt what runs. On the control thread.

        SIGINT is sent to the main thread alone, and simulated on Windows: a plain cell, and code that does not yield,
        can only be interrupted by that thread's signal handler.
        """
        runner = runner_of(self.shell)
        if runner is None:
            await super().interrupt_request(stream, ident, parent)
            return
        runner.interrupt()
        if os.name == "posix":
            # Child processes get it too, as when the manager signals the process group. Private: since ipykernel 6.10;
            # psutil is optional since 7.4, and without it they get nothing.
            self._signal_children(signal.SIGINT)
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    def do_shutdown(self, restart: bool) -> Any:
        """Interrupt code that keeps the kernel's loop from stopping, until it stops. On the control thread."""
        host = kernel_loop(self.shell)
        if host is not None:
            interrupt_until_idle(host, after=CLEAN_UP)
        return super().do_shutdown(restart)

    def _do_without(self, exc: Exception) -> None:
        text = (
            f"ipyrunner: the extension could not be loaded ({describe(exc)}). Cells run as in a plain Python kernel. "
            "Fix the cause and restart the kernel; or run `%load_ext ipyrunner` to try again in this one."
        )
        self.log.error(text, exc_info=exc)
        events = self.shell.events

        def tell(info: object) -> None:
            # Front ends do not show what is printed before the first cell.
            events.unregister("pre_run_cell", tell)
            print(text, file=sys.stderr)

        events.register("pre_run_cell", tell)
