"""A KeyboardInterrupt that is forced into code that does not yield, and that code."""

from __future__ import annotations

import contextvars
import linecache
from types import FrameType
from typing import NamedTuple

from ..introspection.frames import function_name, line_of

__all__ = ["Forced", "forced_interrupt", "is_forced"]

_MARK = "_forced_by_ipyrunner"


def forced_interrupt() -> KeyboardInterrupt:
    """Return the exception to raise in code that does not yield."""
    forced = KeyboardInterrupt()
    vars(forced)[_MARK] = True
    return forced


def is_forced(exc: BaseException | None) -> bool:
    """Return whether *exc* was raised by an interrupt of ours, and not by the code that it came out of."""
    return type(exc) is KeyboardInterrupt and _MARK in vars(exc)


class Forced(NamedTuple):
    """The function that did not return to the loop, the line that it was at, its Context, and for how long, if known.

    A cell has no function.
    """

    function: str | None
    line: str
    context: contextvars.Context
    seconds: float | None = None

    @classmethod
    def into(cls, frame: FrameType) -> Forced:
        """Return what is known of *frame*, which runs in the present Context."""
        code = frame.f_code
        line = linecache.getline(code.co_filename, line_of(frame)).strip()
        return cls(function_name(code), line, contextvars.copy_context())
