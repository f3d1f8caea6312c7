"""How soon other threads get the GIL while the notebook's loop runs: the kernel's own, beside tasks that never rest.

The problem: ipykernel reads requests and sends output on threads of its own. A loop that always has callbacks ready
releases the GIL in each iteration, to look at its sockets, and takes it back before a waiting thread has woken up. Such
a thread takes it by force only if it was not released at all for ``sys.getswitchinterval()``, 5 ms (``take_gil`` in
CPython's ceval_gil.c). So beside twenty tasks whose iterations take 0.8 ms a trivial cell was answered after many
seconds, with and without ipyrunner.

The solution: an interval of 0.25 ms while the loop runs. It helps where an iteration takes longer than that, above all
the thread that sends output. With shorter iterations a thread gets the GIL sooner or later, and at once when a request
has come (``OtherThreads``). Not all the time: while the kernel handles a request its threads would often change
places, which made an empty cell 5 to 11 % slower. Not shorter: at 0.02 ms cells were answered at once beside any tasks,
but threads that compute took a fifth longer, up to a third beside a busy loop (at 0.25 ms 4 %, up to 20 %).
"""

from __future__ import annotations

import sys

from ..exit_and_fork import in_forked_children

__all__ = ["ShortInterval"]

# Seconds: Python's default, and what is set in its place. A number of microseconds that code of the user's can read and
# set again: 200 would become 199.
_DEFAULT = 0.005
_OURS = 0.00025


class ShortInterval:
    """Let threads that wait for the GIL ask for it soon, for the length of the block; unless somebody has set another.

    An interval that is set in the block stays. In a child process made in the block it is the default.
    """

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        in_forked_children(self)

    def __enter__(self) -> None:
        if _is_set(_DEFAULT):
            sys.setswitchinterval(_OURS)

    def __exit__(self, *_: object) -> None:
        if _is_set(_OURS):
            sys.setswitchinterval(_DEFAULT)

    def after_fork(self) -> None:
        """In a child process: restore the interval."""
        self.__exit__()


def _is_set(seconds: float) -> bool:
    return abs(sys.getswitchinterval() - seconds) < 1e-7
