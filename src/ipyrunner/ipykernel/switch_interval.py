"""How soon a thread that waits for the GIL gets it: the kernel's own threads, beside tasks that are always ready.

The problem: ipykernel reads requests and sends output on threads of its own. A loop that always has callbacks ready
releases the GIL in each iteration, to look at its sockets, and takes it back before a waiting thread has woken up. Such
a thread takes it by force only if it was not released at all for ``sys.getswitchinterval()``, 5 ms (``take_gil`` in
CPython's ceval_gil.c). So beside twenty tasks whose iterations take 0.8 ms a trivial cell was answered after 5 to 30
seconds, with and without ipyrunner.

The solution: an interval of 0.2 ms. Loops with shorter iterations release the GIL so often that a thread soon gets it.
"""

from __future__ import annotations

import sys

from ..installation import Installation

__all__ = ["install"]

# Seconds: Python's default, in place of which ours is set.
_DEFAULT = 0.005
_OURS = 0.0002


def install(extension: Installation) -> None:
    """Put the part in place, unless somebody has chosen an interval."""
    before = sys.getswitchinterval()
    if getattr(extension.shell, "kernel", None) is None or abs(before - _DEFAULT) > 1e-6:
        return
    sys.setswitchinterval(_OURS)
    ours = sys.getswitchinterval()  # in whole microseconds

    def restore() -> None:
        if sys.getswitchinterval() == ours:
            sys.setswitchinterval(before)

    extension.undo(restore)
