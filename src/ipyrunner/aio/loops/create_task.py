"""``asyncio.create_task`` while no loop runs: the call gets the notebook's loop, which is at rest.

Old notebooks call ``asyncio.create_task(...)`` in plain cells, often deep in a library. ``Lender`` makes that work for
the length of a block and patches nothing: on Python 3.12 and later a ``sys.monitoring`` CALL event on ``create_task``'s
own code object sees it ask for the running loop. The loop is lent for that one call of ``get_running_loop`` and taken
back at C_RETURN, however ``create_task`` ends. The event is local: other code does not get slower. Neither does
``create_task`` while a loop of asyncio's runs: its first call there turns the events off until that loop has ended.

Python 3.11 has no ``sys.monitoring``. There, and only for the length of the block, the function runs other code: a
wrapper put in its place would not reach ``from asyncio import create_task``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..introspection import monitoring_tool
from ..introspection.running_callback import is_left_running
from ..introspection.running_loop import NOTHING, Running, exchange, running_loop

__all__ = ["Lender"]

_create_task: Any = asyncio.create_task
_get_running_loop = asyncio.get_running_loop
_RUN_FOREVER = asyncio.BaseEventLoop.run_forever
# Private: the code at the end of run_forever that unsets the running loop; _run_forever_cleanup since 3.13.0. If it
# calls no _set_running_loop, the events stay off.
_CLEANUP: Any = getattr(asyncio.BaseEventLoop, "_run_forever_cleanup", asyncio.BaseEventLoop.run_forever)
_SAYS_ENDED = "_set_running_loop"


class Lender:
    """Lend *get_loop*'s loop to ``asyncio.create_task`` inside :meth:`lending`, on the thread that made the Lender.

    Where no tool id is free, nothing is lent and ``create_task`` raises its own RuntimeError.
    """

    def __init__(self, get_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._get_loop = get_loop
        self._thread = threading.get_ident()
        self._depth = 0
        self._tool: int | None = None
        self._code: Any = None
        self._lent: asyncio.AbstractEventLoop | None = None
        self._aside = NOTHING
        # The last loop without frames (uvloop) that was found to run a caller, until the end of the block.
        self._known: asyncio.AbstractEventLoop | None = None
        # Where in its code create_task asks for the running loop.
        self._offset: int | None = None

    @contextmanager
    def lending(self) -> Iterator[None]:
        """Lend for the length of the block; blocks nest."""
        self._depth += 1
        try:
            if self._depth == 1:
                self._begin()
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._end()

    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the loop to lend; None if a loop runs the caller, and on other threads."""
        running = running_loop()
        if threading.get_ident() != self._thread or (running is not None and not is_left_running(running)):
            return None
        return self._get_loop()

    if sys.version_info >= (3, 12):

        def _begin(self) -> None:
            monitoring = sys.monitoring
            self._tool = monitoring_tool.take()
            if self._tool is None:
                return
            events = monitoring.events
            monitoring.register_callback(self._tool, events.CALL, self._on_call)
            monitoring.register_callback(self._tool, events.C_RETURN, self._on_return)
            self._watch(create_task=True)

        def _watch(self, *, create_task: bool = False, end: bool = False) -> None:
            monitoring, tool = sys.monitoring, self._tool
            if tool is not None and monitoring_tool.is_ours(tool):
                call = monitoring.events.CALL
                monitoring.set_local_events(tool, _create_task.__code__, call * create_task)
                monitoring.set_local_events(tool, _CLEANUP.__code__, call * end)

        def _end(self) -> None:
            self._known = None
            if self._tool is not None:
                monitoring, tool, self._tool = sys.monitoring, self._tool, None
                if not monitoring_tool.is_ours(tool):
                    return  # somebody has freed our id, and may have taken it
                for code in (_create_task.__code__, _CLEANUP.__code__):
                    monitoring.set_local_events(tool, code, 0)
                for event in (monitoring.events.CALL, monitoring.events.C_RETURN):
                    monitoring.register_callback(tool, event, None)
                monitoring_tool.give_back(tool)

        def _on_call(self, code: object, offset: int, function: object, argument: object) -> Any:
            if function is _get_running_loop and code is _create_task.__code__:
                self._offset = offset
                running = running_loop()
                if running is self._known and running is not None:
                    return None
                if (loop := self.loop()) is not None:
                    self._lent = loop
                    self._aside = exchange(Running(loop, None))
                elif threading.get_ident() == self._thread:
                    if _tells_end(running):
                        self._watch(end=True)
                    elif not isinstance(running, asyncio.BaseEventLoop):  # then it runs the caller: see self.loop()
                        self._known = running
            elif code is _create_task.__code__:
                if self._offset not in (None, offset):  # somebody may have replaced that function for one call
                    return sys.monitoring.DISABLE  # until they are watched again
            else:
                if getattr(function, "__name__", None) != _SAYS_ENDED:
                    return sys.monitoring.DISABLE
                if threading.get_ident() == self._thread:
                    self._watch(create_task=True)
            return None

        def _on_return(self, code: object, offset: int, function: object, argument: object) -> None:
            # Only what was lent is taken back, and on the thread that it was lent to.
            if self._lent is not None and running_loop() is self._lent:
                self._lent = None
                aside, self._aside = self._aside, NOTHING
                exchange(aside)

    else:

        def _begin(self) -> None:
            global _lender
            _lender = self
            self._code, _create_task.__code__ = _create_task.__code__, _create_task_lent.__code__

        def _end(self) -> None:
            global _lender
            if _lender is self:
                _lender = None
                if _create_task.__code__ is _create_task_lent.__code__:
                    _create_task.__code__ = self._code


def _tells_end(loop: asyncio.AbstractEventLoop | None) -> bool:
    # Not nest_asyncio's loops, nor uvloop's. A loop on a stack of its own (sync Playwright) still counts as running
    # after it has switched away, though it has not ended: there the events have to stay on.
    greenlet = sys.modules.get("greenlet")
    return getattr(type(loop), "run_forever", None) is _RUN_FOREVER and (
        greenlet is None or greenlet.getcurrent().parent is None
    )


_lender: Lender | None = None
_current_tasks: Any = ()


def _create_task_lent(coro: Any, *, name: Any = None, context: Any = None) -> Any:
    # Runs with the globals of asyncio.tasks, in place of create_task's own code on Python 3.11. Private, there:
    # _current_tasks, the task that each loop is in (3.7 to 3.13). A loop that is in a task runs the caller.
    loop: Any
    try:
        loop = events.get_running_loop()
    except RuntimeError:
        loop = None
    modules: Any = events.sys.modules  # type: ignore[attr-defined]
    if loop is None or loop not in _current_tasks or "greenlet" in modules:  # see _tells_end
        from ipyrunner.aio.loops import create_task as lending

        loop = (lending._lender.loop() if lending._lender is not None else None) or events.get_running_loop()
    if context is None:
        return loop.create_task(coro, name=name)
    return loop.create_task(coro, name=name, context=context)
