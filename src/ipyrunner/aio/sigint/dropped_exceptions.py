"""Exceptions that Python drops: raised in ``__del__``, in a weakref's callback, in a generator that is collected."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..replacements import Replacement

__all__ = ["call_at_next_line", "when_dropped"]


def when_dropped(exc: BaseException, call: Callable[[], None]) -> Callable[[], None]:
    """If Python drops *exc*, call *call* and print nothing; return a function that ends this, idempotent.

    Replaces ``sys.unraisablehook`` until then.
    """

    def make(previous: Callable[[sys.UnraisableHookArgs], object]) -> Callable[[sys.UnraisableHookArgs], None]:
        def unraisablehook(unraisable: sys.UnraisableHookArgs) -> None:
            if unraisable.exc_value is exc:
                call()
            else:
                previous(unraisable)

        return unraisablehook

    return Replacement(sys, "unraisablehook", make).restore


def call_at_next_line(frame: FrameType | None, call: Callable[[FrameType], None]) -> None:
    """Call *call* at the next line of *frame*, which runs, or of its caller: what *call* raises is raised there.

    Does nothing where a debugger traces already, or without a frame.
    """
    if frame is None or sys.gettrace() is not None:
        return
    traced = frame

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal traced
        if frame is not traced or event not in ("line", "return"):
            return trace if frame is traced else None
        frame.f_trace = None
        if event == "return" and frame.f_back is not None:
            traced = frame.f_back
            traced.f_trace = trace
            return None
        if sys.gettrace() is trace:  # else somebody traces from this line on
            sys.settrace(None)
        if event == "line":
            call(frame)
        return None

    frame.f_trace = trace
    sys.settrace(trace)
