"""Call functions when the frames of given code objects begin or go on, and when they end or pause.

Nothing is patched, and on Python 3.12 and later other code does not get slower: the events of ``sys.monitoring`` are
local to the code objects. Two of them cannot be local: a coroutine goes on with an exception, or an exception leaves
it. Where coroutines are watched, these are on for all code, and raising takes a little longer.

Python 3.11 has no ``sys.monitoring``. There a profile function of the thread does it, which slows every call down.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from ...introspection import monitoring_tool

__all__ = ["CodeEvents"]

_On = Callable[[FrameType], object]


class CodeEvents:
    """The events of some code objects, on this thread on Python 3.11, on all threads since. Functions must not raise.

    *coroutines*: the code is of coroutines, which pause and go on.
    """

    def __init__(self, *, coroutines: bool = False) -> None:
        # By id: if a cell is run again its code is another object, but equal to the one before, whatever the file.
        self._codes: dict[int, CodeType] = {}
        self._enter: dict[int, _On] = {}
        self._leave: dict[int, _On] = {}
        self._coroutines = coroutines
        # Whether events come, so far as is known.
        self.is_on = False
        self._tool: int | None = None
        self._thread = threading.get_ident()

    def watch(self, code: CodeType, enter: _On, leave: _On | None = None) -> None:
        """Call *enter* and *leave* with the frames of *code* from now on."""
        key = id(code)
        known = key in self._codes
        self._codes[key] = code
        self._enter[key] = enter
        if leave is not None:
            self._leave[key] = leave
        if not known:
            self._set(code, leave is not None)

    def _forget(self) -> None:
        self._codes.clear()
        self._enter.clear()
        self._leave.clear()

    if sys.version_info >= (3, 12):

        def start(self) -> None:
            """Begin. RuntimeError if no tool id is free."""
            monitoring, events = sys.monitoring, sys.monitoring.events
            self._tool = tool = monitoring_tool.take()
            if tool is None:
                names = ", ".join(str(monitoring.get_tool(i)) for i in (3, 4, 5))
                raise RuntimeError(
                    "a trace needs a tool id of sys.monitoring, and those that it may take (3, 4 and 5) are taken by "
                    f"{names}: free one of them with sys.monitoring.free_tool_id()"
                )
            get_frame, entering, leaving = sys._getframe, self._enter.get, self._leave.get

            # All that these need is in local variables, since they are called for each callback of the loop.

            def on_enter(code: CodeType, offset: object, exception: object = None) -> None:
                enter = entering(id(code))
                if enter is not None:
                    enter(get_frame(1))

            def on_leave(code: CodeType, offset: object, value: object) -> None:
                leave = leaving(id(code))
                if leave is not None:
                    leave(get_frame(1))

            self._functions: dict[int, Any] = {events.PY_START: on_enter, events.PY_RETURN: on_leave}
            if self._coroutines:
                self._functions |= {
                    events.PY_RESUME: on_enter,
                    events.PY_THROW: on_enter,
                    events.PY_YIELD: on_leave,
                    events.PY_UNWIND: on_leave,
                }
            for event, callback in self._functions.items():
                monitoring.register_callback(tool, event, callback)
            for key, code in self._codes.items():
                self._set(code, key in self._leave)
            if self._coroutines:
                monitoring.set_events(tool, events.PY_THROW | events.PY_UNWIND)
            self.is_on = True

        def check(self) -> str:
            """Return why events are missing; nothing if none are."""
            if not self.is_on or (self._tool is not None and monitoring_tool.is_ours(self._tool)):
                return ""
            self.is_on = False
            return "the tool id of sys.monitoring was taken away from it"

        def stop(self) -> None:
            """End. Idempotent."""
            self.is_on = False
            tool, self._tool = self._tool, None
            if tool is not None and monitoring_tool.is_ours(tool):  # else somebody has freed it, and may have taken it
                if self._coroutines:
                    sys.monitoring.set_events(tool, 0)
                for code in self._codes.values():
                    sys.monitoring.set_local_events(tool, code, 0)
                for event in self._functions:
                    sys.monitoring.register_callback(tool, event, None)
                monitoring_tool.give_back(tool)
            self._forget()

        def _set(self, code: CodeType, leaves: bool) -> None:
            if self._tool is not None and monitoring_tool.is_ours(self._tool):
                events = sys.monitoring.events
                local = events.PY_START | events.PY_RETURN * leaves
                if self._coroutines:
                    local |= events.PY_RESUME | events.PY_YIELD
                sys.monitoring.set_local_events(self._tool, code, local)

    else:
        _profile: Any = None

        def start(self) -> None:
            """Begin. RuntimeError if the thread has a profile function."""
            present = sys.getprofile()
            if present is not None:
                raise RuntimeError(
                    "on Python 3.11 a trace needs the thread's profile function, and there is one already "
                    f"({getattr(present, '__qualname__', type(present).__qualname__)!s:.60}): end what has set it, "
                    "such as cProfile, or call sys.setprofile(None)"
                )
            entering, leaving = self._enter.get, self._leave.get

            def profile(frame: FrameType, event: str, value: object) -> None:
                if event == "call":
                    if (enter := entering(id(frame.f_code))) is not None:
                        enter(frame)
                elif event == "return" and (leave := leaving(id(frame.f_code))) is not None:
                    leave(frame)

            self._profile = profile
            sys.setprofile(profile)
            self.is_on = True

        def check(self) -> str:
            """Return why events are missing; nothing if none are. Put the profile function back if there is none.

            Python removes a profile function in which an interrupt is raised, and a profiler replaces it.
            """
            if self._profile is None or threading.get_ident() != self._thread:
                return ""
            present = sys.getprofile()
            if present is self._profile:
                self.is_on = True  # somebody has put it back
                return ""
            self.is_on = present is None
            if self.is_on:
                sys.setprofile(self._profile)
            return "its profile function was taken away, by an interrupt or a profiler"

        def stop(self) -> None:
            """End. Idempotent."""
            self.is_on = False
            if self._profile is not None and sys.getprofile() is self._profile:
                sys.setprofile(None)
            self._profile = None
            self._forget()

        def _set(self, code: CodeType, leaves: bool) -> None:
            """Do nothing: all code is profiled."""
