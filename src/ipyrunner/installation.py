"""What each part of the extension gets: the shell, its runner, and a list of steps that undo its changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from IPython.core import interactiveshell

from .aio.replacements import Replacement
from .aio.sigint.handlers import on_main_thread
from .aio.tasks.safe_names import describe
from .audience import Audience
from .notebook import NotebookRunner

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Installation"]

# Private, since IPython 7.0: the loop runner that ``%autoawait asyncio`` chooses; ipykernel compares with it too.
# Without it no cell is run by the extension.
_asyncio_runner = getattr(interactiveshell, "_asyncio_runner", None)


class Installation:
    """The changes to *shell*, whose cells *runner* runs, until :meth:`restore`."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner) -> None:
        self.shell = shell
        self.runner = runner
        # Who sees output that comes after its cell.
        self.audience = Audience()
        self._undo = ExitStack()
        # Kept, since a trait takes several calls to read, and each cell asks five times.
        self._loop_runner: object = shell.loop_runner
        shell.observe(self._on_loop_runner, "loop_runner")
        self.undo(lambda: shell.unobserve(self._on_loop_runner, "loop_runner"))

    def _on_loop_runner(self, change: Any) -> None:
        self._loop_runner = change["new"]

    def undo(self, step: Callable[[], object]) -> None:
        """Let :meth:`restore` call *step*, before the steps of earlier changes."""
        self._undo.callback(_report_failure, step)

    def replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace a method, see ``Replacement``, until :meth:`restore`."""
        self.undo(Replacement(owner, name, make).restore)

    def restore(self) -> None:
        """Undo all changes. A step that fails is reported, and the other steps are still called. Idempotent."""
        self._undo.close()

    def in_charge(self) -> bool:
        """Return whether a cell that begins now is one that the extension runs."""
        # Not with another %autoawait (trio, curio, sync), nor in ipykernel's subshells, which have their own threads.
        return on_main_thread() and self._loop_runner is _asyncio_runner is not None and self.shell.trio_runner is None


def _report_failure(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as exc:
        print(
            f"ipyrunner: %unload_ext could not undo one of its changes: {describe(exc)}. Restart the kernel to undo it",
            file=sys.stderr,
        )
