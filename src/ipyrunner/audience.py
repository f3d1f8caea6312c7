"""Who sees output that is printed after its cell has ended."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Audience", "has_audience"]


def has_audience(shell: InteractiveShell) -> bool:
    """Return whether somebody sees output as it comes.

    nbclient, and so nbconvert and papermill, say that nobody can be asked for input (``allow_stdin``); front ends that
    people use do not.
    """
    kernel: Any = getattr(shell, "kernel", None)
    if kernel is None:
        return True
    content = kernel.get_parent("shell").get("content", {}) if hasattr(kernel, "get_parent") else {}
    return bool(content.get("allow_stdin", True))


class Audience:
    """Is told of each cell, so that no output is lost. This class is for clients that see all output as it comes."""

    def prepare(self, *, in_charge: bool) -> None:
        """Before the kernel begins a cell; *in_charge*: :meth:`begin` will be called."""

    def begin(self, context: contextvars.Context, *, silent: bool) -> None:
        """When a cell begins, whose output goes where *context* says. Output of a *silent* cell is not shown."""

    def end(self) -> None:
        """When the code of the cell has ended."""

    def is_stray(self) -> bool:
        """Return whether the client that runs the cells would miss output of the present Context."""
        return False

    def is_logged(self) -> bool:
        """Return whether :meth:`tell` logs what is printed at the end of the process."""
        return False

    def tell(self, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        """At the end of the process: log the output that nobody has seen."""
