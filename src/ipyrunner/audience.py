"""Who looks at what is printed after its cell has ended."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Audience", "has_audience"]


def has_audience(shell: InteractiveShell) -> bool:
    """Return whether somebody looks at the output while it comes.

    nbclient, and so nbconvert and papermill, say that nobody can be asked for input (``allow_stdin``); front ends with
    people in front of them do not.
    """
    kernel: Any = getattr(shell, "kernel", None)
    if kernel is None:
        return True
    content = kernel.get_parent("shell").get("content", {}) if hasattr(kernel, "get_parent") else {}
    return bool(content.get("allow_stdin", True))


class Audience:
    """What is told of each cell, so that no output is lost: here all of it is seen where it comes."""

    def prepare(self, *, in_charge: bool) -> None:
        """Before the kernel begins a cell; *in_charge*: we shall be told by :meth:`begin`."""

    def begin(self, context: contextvars.Context, *, silent: bool) -> None:
        """A cell begins, whose output goes where it does in *context*. That of a silent one is not shown."""

    def end(self) -> None:
        """The code of the cell has ended."""

    def is_stray(self) -> bool:
        """Return whether what is printed in the present Context is missed by who runs the cells."""
        return False

    def is_logged(self) -> bool:
        """Return whether all that is printed at the end of the process is logged, by :meth:`tell`."""
        return False

    def tell(self, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        """At the end of the process: log what nobody has seen."""
