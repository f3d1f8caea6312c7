"""The stack of another thread, taken while that thread cannot go on; and the variables of its functions.

The problem: Python makes frame objects, and on 3.11 and 3.12 the dicts of their variables, only when they are asked
for. On 3.11 making one may begin a garbage collection, which calls ``gc.callbacks`` and finalizers, and these let other
threads run. If the function has returned when they are done, Python reads where its variables were: the kernel ended
with a segmentation fault, once in a hundred interrupts of a thousand tasks.

The solution: all that is needed is taken in one call of a function written in C, with the collector off. Only Python
code lets other threads run, so they cannot see that it is off, unless an audit hook written in Python is called. What
is taken stays valid when its function returns.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from itertools import accumulate, chain, compress, repeat, takewhile
from operator import call, truth
from types import FrameType
from typing import Any

__all__ = ["callers", "frames_of", "local_of"]

# Their declared types say less than what they do.
_get: Any = dict.get
_getattr: Any = getattr


def frames_of(thread: int | None) -> list[FrameType]:
    """Return the frames of the thread with this ident, the innermost first; none if there is no such thread."""
    innermost = map(_get, map(call, (sys._current_frames,)), (thread,))
    return _at_once(takewhile(truth, accumulate(chain(innermost, repeat("f_back")), _getattr)))


def local_of(frame: FrameType, name: str) -> Any:
    """Return the value of a variable of the frame's function, None if it has none; *frame* may be another thread's.

    Up to 3.12 it is to be a function that never replaces a variable: what an earlier look has found is dropped then.
    """
    return _at_once(map(getattr, (frame,), ("f_locals",)))[0].get(name)


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame*, of the calling thread, and the frames that have called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _at_once(steps: Iterator[Any]) -> list[Any]:
    """Return what *steps* yields, without None; it is not to run Python code."""
    found: list[Any] = []
    was_on: list[bool] = []
    look, turn_off, turn_on = (
        map(call, (gc.isenabled,)),
        map(call, (gc.disable,)),
        map(call, compress((gc.enable,), was_on)),
    )
    try:
        found.extend(chain(map(was_on.append, look), turn_off, steps, turn_on))
    except BaseException:
        if any(was_on):
            gc.enable()
        raise
    return [each for each in found if each is not None]
