"""What a part of the extension gets: the shell, its runner, and a place for what undoes its changes."""

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

# Private: what ``%autoawait asyncio`` chooses, since IPython 7.0; ipykernel compares with it too. Without it no cell is
# taken over.
_asyncio_runner = getattr(interactiveshell, "_asyncio_runner", None)


class Installation:
    """What is changed on *shell*, whose cells *runner* runs, until :meth:`restore`."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner) -> None:
        self.shell = shell
        self.runner = runner
        # Who looks at what comes after its cell.
        self.audience = Audience()
        self._undo = ExitStack()

    def undo(self, step: Callable[[], object]) -> None:
        """Let :meth:`restore` call *step*, before those of earlier changes."""
        self._undo.callback(_report_failure, step)

    def replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace a method, see ``Replacement``, until :meth:`restore`."""
        self.undo(Replacement(owner, name, make).restore)

    def restore(self) -> None:
        """Undo all changes. A step that fails is reported, and the others are still taken. Idempotent."""
        self._undo.close()

    def in_charge(self) -> bool:
        """Return whether a cell that begins now is one that the extension runs."""
        # Another %autoawait (trio, curio, sync) and ipykernel's subshells, which have threads of their own, stay as
        # they are.
        return (
            on_main_thread()
            and self.shell.loop_runner is _asyncio_runner is not None
            and self.shell.trio_runner is None
        )


def _report_failure(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as exc:
        print(
            f"ipyrunner: %unload_ext could not undo one of its changes: {describe(exc)}. Restart the kernel to undo it",
            file=sys.stderr,
        )
