"""The rest of the plain cell that loads the extension: what follows ``%load_ext ipyrunner`` in a newcomer's first cell.

The problem: such a cell has begun in the kernel's loop. ``asyncio.run`` would raise there, and tasks and sessions would
end up on the kernel's loop.

The solution: when its next statement begins, the cell becomes a plain cell like later ones. The running loop is put
aside until IPython says that the cell has ended, however it ends. The cell keeps the kernel's Context, and what it
changes there is carried over to the notebook's.

A cell that awaits is a task of the kernel's loop, and goes on there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from IPython.core import interactiveshell

from ..aio.introspection.running_loop import running_loop
from ..aio.replacements import Replacement
from ..ipykernel.kernel_loop import kernel_loop
from ..notebook import NotebookRunner

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["FirstCell"]

# Private, since IPython 7.0: the function that runs each cell without ``await``. Without it no such cell is recognised.
_RUN_PLAIN = getattr(getattr(interactiveshell, "_pseudo_sync_runner", None), "__code__", None)


class FirstCell:
    """Make the cell that runs now, if it is a plain one, a plain cell of *runner*'s from its next statement on."""

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner) -> None:
        self._runner = runner
        self._end: Callable[[], None] = lambda: None
        self._replacement: Replacement | None = None
        self._frame = _find(sys._getframe(), lambda frame: frame.f_code is _RUN_PLAIN)
        # A kernel that does not run yet (exec_lines) must start on its own loop.
        starts = hasattr(shell, "kernel") and kernel_loop(shell) is None
        if self._frame is not None and not starts and running_loop() is kernel_loop(shell):
            self._replacement = Replacement(shell, "run_code", self._begin_before)

    def _begin_before(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def run_code(*args: Any, **kwargs: Any) -> Any:
            self._restore()
            with suppress(OSError):  # no file descriptor is left to make a loop with
                self._end = self._runner.begin_plain()
            return original(*args, **kwargs)

        return run_code

    def end_if_over(self) -> None:
        """When some cell has ended: if it is this one, call :meth:`end`."""
        if self._frame is not None and _find(sys._getframe(), lambda frame: frame is self._frame) is None:
            self.end()

    def end(self) -> None:
        """Put the running loop back. Idempotent."""
        self._frame = None
        self._restore()
        end, self._end = self._end, lambda: None
        end()

    def _restore(self) -> None:
        if self._replacement is not None:
            self._replacement.restore()
            self._replacement = None


def _find(frame: FrameType | None, is_it: Callable[[FrameType], bool]) -> FrameType | None:
    while frame is not None and not is_it(frame):
        frame = frame.f_back
    return frame
