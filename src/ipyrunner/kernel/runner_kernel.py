"""ipykernel's kernel with the extension loaded, and what only a kernel can do: answer on its control thread."""

from __future__ import annotations

import os
import signal
from typing import Any

from ipykernel.ipkernel import IPythonKernel

from ..shell.cells import kernel_loop
from ..shell.extension import get_runner
from ..shell.terminating import CLEAN_UP, interrupt_until_idle

__all__ = ["RunnerKernel"]


class RunnerKernel(IPythonKernel):
    """The kernel of a notebook whose cells run in one persistent ``asyncio.Runner``.

    The extension is loaded before the first cell. Interrupts work by message (``"interrupt_mode": "message"`` in the
    kernelspec) as by signal: this is what Windows and remote kernels need. A shutdown interrupts what is stuck, so that
    tasks are cleaned up; it takes ``NotebookRunner.shutdown_timeout`` seconds at most.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shell.extension_manager.load_extension("ipyrunner")
        self._runner = get_runner()

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Interrupt what runs. On the control thread.

        An awaiting cell is cancelled without any signal. A plain one, and code that does not yield, need the main
        thread's signal handler: SIGINT is sent to that thread alone, on Windows it is simulated.
        """
        self._runner.interrupt()
        if os.name == "posix":
            # As they are when the manager signals the process group. Private: since ipykernel 6.10; psutil is optional
            # since 7.4, and without it children are left alone.
            self._signal_children(signal.SIGINT)
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    def do_shutdown(self, restart: bool) -> Any:
        """Interrupt what keeps the kernel's loop from stopping, as often as it takes. On the control thread."""
        host = kernel_loop(self.shell)
        if host is not None:
            interrupt_until_idle(host, after=CLEAN_UP)
        return super().do_shutdown(restart)
