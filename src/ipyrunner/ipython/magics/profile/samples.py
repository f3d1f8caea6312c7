"""The samples of a profile: which ones belong to the cell, and where the cell waits while none of its code runs.

pyinstrument takes a sample of the thread's stack each millisecond in which Python runs. Its own asyncio mode is made
for one task: as soon as another task has ended, it assigns the time in which all wait to the event loop. So that mode
is not used, and the samples are sorted here. If the running code was started by the cell, which a ContextVar says, the
sample is its stack, without the kernel and the loop below it. If not, the cell waits, and the sample is the place where
one of its tasks waits: each task in turn, so that they share the time.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Callable, Iterator
from itertools import islice
from types import FrameType
from typing import Any

from ....aio.introspection.frames import OURS
from ....aio.introspection.task_state import coro_of
from ....aio.introspection.wait_graph import awaited, chain_of
from ....aio.tasks.safe_names import short
from ....aio.tasks.task_scope import Brood
from ...top_level_await import run_body

__all__ = ["Samples"]

# Functions in all samples together, which limits their memory and the size of the output.
_MOST = 10_000
# Functions in one sample.
_DEEPEST = 100
# Tasks that are looked at to find one that waits for no other task of the cell.
_LOOKS = 10
# How many tasks take turns before others do.
_PART = 100
# pyinstrument's name for it.
_AWAIT = "[await]"
_ASYNCIO = os.path.dirname(asyncio.__file__)
_LOOP_FUNCTIONS = ("run_forever\x00", "run_until_complete\x00", "_run_once\x00", "_run\x00", "__step\x00")


class Samples:
    """The samples of the current task and of a brood's tasks, as ``(functions, seconds)``, outermost function first.

    *below* is the frame that runs the body of the cell; *named* returns the name of a file for the user.
    """

    def __init__(self, brood: Brood, root: str, below: FrameType | None, named: Callable[[str], str]) -> None:
        self.root = _safe(short(root, 100))
        self.records: list[tuple[list[str], float]] = []
        self.count = 0
        self._size = 0
        self._least = 0.0  # the seconds of a record: the more samples there are, the more of them share one
        self._brood = brood
        self._named = named
        self._names: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._turn: Iterator[asyncio.Task[Any] | None] = iter(())
        self._last = [self.root, _AWAIT]
        self._random = random.Random(0)
        code = run_body.__code__
        self._body = f"{code.co_name}\x00{code.co_filename}\x00{code.co_firstlineno}"
        self._below = set()
        while below is not None:
            self._below.add(_function(below))
            below = below.f_back

    def take(self, stack: list[str], seconds: float, _async_state: object = None) -> None:
        """Take a sample of pyinstrument's. Called in the middle of any code, and raises nothing there."""
        try:
            own = self._own(stack) if self._brood.is_here() else []
            sample = [self.root, *own] if own else self._waiting()
        except Exception:
            return
        self.count += 1
        self._add(sample, seconds)
        while self._size > _MOST:
            records, self.records, self._size = self.records, [], 0
            self._least = 2 * self._least or 0.002
            for record in records:
                self._add(*record)

    def _add(self, sample: list[str], seconds: float) -> None:
        last, total = self.records[-1] if self.records else ([], math.inf)
        if last != sample and total >= self._least:
            self.records.append((sample, seconds))
            self._size += len(sample)
            return
        total += seconds
        # Of the samples that share a record one is kept, with a probability in proportion to its time.
        if last != sample and self._random.random() * total < seconds:
            self._size += len(sample) - len(last)
            last = sample
        self.records[-1] = last, total

    def _own(self, stack: list[str]) -> list[str]:
        """Return the user's part of *stack*: the functions above the kernel and the loop, without this package's."""
        functions = [info.partition("\x01")[0] for info in stack]
        below, start = self._below, 0
        if self._body in functions:  # functions that the body runs may also be among its callers
            below, start = set(), len(functions) - functions[::-1].index(self._body)
        while start < len(functions) and (functions[start] in below or _is_machinery(functions[start])):
            start += 1
        shown = (
            self._shown(info) for info, name in zip(stack[start:], functions[start:], strict=True) if not _is_ours(name)
        )
        return list(islice(shown, _DEEPEST))

    def _waiting(self) -> list[str]:
        """Return where a task of the cell waits; if that is not known at this moment, where one has waited last."""
        running = self._brood.running
        for _ in range(_LOOKS):
            task = next(self._turn, None)
            if task is None:
                # Only a part of them at a time, since this keeps those that end meanwhile.
                first = self._random.randrange(max(1, len(running) - _PART))
                self._turn = iter([self._task, *islice(running, first, first + _PART)])
                continue
            if task.done() or task is asyncio.current_task(self._loop):
                continue
            if running and any(future in running for future in awaited([task])):
                continue
            functions = [_function(frame) for _, frame in chain_of(coro_of(task))]
            if task is self._task and running and self._body not in functions:
                continue  # the cell's code has ended, and --scope waits for its tasks
            self._last = [self.root, *self._own(functions), _AWAIT]
            break
        return self._last

    def _shown(self, info: str) -> str:
        """Return pyinstrument's text for a function as the user sees it: in ``In[5]``, and without line attributes."""
        known = self._names.get(info)
        if known is None:
            function, _, attributes = info.partition("\x01")
            name, filename, line, *more = [*function.split("\x00"), "", ""]
            known = short(name, 100)
            if line.isdigit() and not any(more):
                known += f"\x00{short(self._named(filename), 200)}\x00{line}"
                # The attributes that are kept: its class, and whether it is to be hidden.
                known += "".join(f"\x01{short(a, 100)}" for a in attributes.split("\x01") if a[:1] in ("c", "h"))
            known = self._names[info] = _safe(known)
        return known


def _safe(text: str) -> str:
    """Escape *text* so that it does not end the script element of the page that contains it."""
    return text.replace("</", "<\\/").replace("<!", "<\\!")


def _function(frame: FrameType) -> str:
    """Return pyinstrument's name for the function of a frame."""
    code = frame.f_code
    return f"{code.co_name}\x00{code.co_filename}\x00{code.co_firstlineno}"


def _is_ours(function: str) -> bool:
    return function.partition("\x00")[2].startswith(OURS)


def _is_machinery(function: str) -> bool:
    """Return whether *function* is the thread, a function of this package, or one by which asyncio runs callbacks."""
    filename = function.partition("\x00")[2]
    loop = filename.startswith(_ASYNCIO) and function.startswith(_LOOP_FUNCTIONS)
    return loop or filename.startswith(("<thread>", OURS))
