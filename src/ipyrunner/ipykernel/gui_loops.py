"""``%gui tk`` and ``%gui qt``: the toolkit's events are handled between the loops' callbacks.

The problem: ipykernel runs the toolkit's own main loop inside its loop until the next request arrives. No background
task runs meanwhile, and a cell that awaits does not end before the front end sends something, with or without the
extension.

The solution: fifty times a second a timer of the kernel's loop handles the toolkit's events, between cells and while a
cell awaits. In the toolkit's callbacks the notebook's loop is the running one, as in a widget's.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..aio.introspection.running_loop import NOTHING, RunningAs
from ..installation import Installation
from ..notebook import NotebookRunner

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Gui", "install"]

_PAUSE = 0.02  # seconds


def install(extension: Installation) -> None:
    """Put the part in place."""
    gui = Gui(extension.shell, extension.runner)
    extension.undo(gui.stop)
    extension.replace(extension.shell, "enable_gui", gui.enable_gui)


class Gui:
    """Handle the events of one toolkit in the kernel's loop, from ``%gui NAME`` until ``%gui`` or :meth:`stop`."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner) -> None:
        self._kernel: Any = getattr(shell, "kernel", None)
        self._runner = runner
        self._handle_events: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def enable_gui(self, original: Callable[..., None]) -> Callable[..., None]:
        """Return the replacement of ``shell.enable_gui``, which ``%gui`` and ``%matplotlib`` call."""

        def enable_gui(gui: str | None = None) -> None:
            original(gui)
            self.stop()
            # In a terminal, and in a kernel whose loop is on another thread, windows are left to IPython.
            hosting = self._runner.current.hosting
            if hosting is None or self._kernel.eventloop is None:
                return
            if gui == "asyncio":
                self._kernel.eventloop = None  # there is a loop, and it runs
            elif gui is not None and (gui == "tk" or gui.startswith("qt")):
                self._kernel.eventloop = None  # before it has begun
                self._handle_events = _handle_tk if gui == "tk" else _handle_qt
                self._wait(hosting.host)
            else:
                print(
                    f"ipyrunner: the event loop of {gui} blocks the notebook's until you run another cell. Meanwhile "
                    "background tasks stop, and cells that await may not end. `%gui tk` and `%gui qt` do not block."
                )

        return enable_gui

    def stop(self) -> None:
        """Handle no more events. Idempotent."""
        self._handle_events = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        # In an empty Context: prints go where the kernel sends them, and not always to the cell of `%gui`.
        self._timer = loop.call_later(_PAUSE, self._handle, loop, context=contextvars.Context())

    def _handle(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self._handle_events is not None and self._runner.present is not None:
                self._runner.lend(self._handle_events)
            elif self._handle_events is not None:  # after `%arunner close`: do not make a new loop for this
                with RunningAs(NOTHING):
                    self._handle_events()
        except (SystemExit, KeyboardInterrupt) as exc:  # as with callbacks of the notebook's loop
            print(
                f"ipyrunner: {type(exc).__name__} in a callback of the toolkit is ignored: it does not end the kernel",
                file=sys.stderr,
            )
        finally:
            if self._handle_events is not None:
                self._wait(loop)


def _handle_tk() -> None:
    # Private: what IPython's own hook in terminals uses; without it no window has been made.
    root = getattr(sys.modules.get("tkinter"), "_default_root", None)
    if root is not None:
        root.update()


def _handle_qt() -> None:
    from IPython.external.qt_for_kernel import QtCore

    app = QtCore.QCoreApplication.instance()
    if app is not None:
        app.processEvents()
