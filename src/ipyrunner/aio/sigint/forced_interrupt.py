"""A KeyboardInterrupt that was forced, and what it was forced into."""

from __future__ import annotations

import asyncio
import contextvars
import linecache
from types import FrameType
from typing import NamedTuple

from ..introspection.frames import function_name, is_ours
from ..introspection.private_api import task_context
from ..introspection.running_callback import tasks_on_stack
from ..introspection.wait_graph import is_library

__all__ = ["Forced", "forced_interrupt", "inner_run", "is_forced"]

_MARK = "_forced_by_ipyrunner"


def forced_interrupt() -> KeyboardInterrupt:
    """Return what is raised in code that does not yield."""
    forced = KeyboardInterrupt()
    vars(forced)[_MARK] = True
    return forced


def is_forced(exc: BaseException | None) -> bool:
    """Return whether *exc* was raised by an interrupt of ours, and not by the code that it came out of."""
    return type(exc) is KeyboardInterrupt and _MARK in vars(exc)


class Forced(NamedTuple):
    """The function that did not yield, the text of the line that it was at, and its Context. A cell has no function."""

    function: str | None
    line: str
    context: contextvars.Context

    @classmethod
    def into(cls, frame: FrameType) -> Forced:
        """Return what is known of *frame*, which runs in the present Context."""
        code = frame.f_code
        return cls(
            function_name(code), linecache.getline(code.co_filename, frame.f_lineno).strip(), contextvars.copy_context()
        )


def inner_run(frame: FrameType | None, loop: asyncio.AbstractEventLoop) -> Forced | None:
    """Return what runs *loop* inside itself: *frame* is a callback's of the innermost run. None if it is not known."""
    task = next(iter(tasks_on_stack(frame, loop)), None)
    while frame is not None and (is_library(frame.f_code.co_filename) or is_ours(frame.f_code.co_filename)):
        frame = frame.f_back
    if frame is None or task is None or (context := task_context(task)) is None:
        return None
    return Forced.into(frame)._replace(context=context)
