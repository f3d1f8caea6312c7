"""Exceptions that Python drops: raised in ``__del__``, in a weakref's callback, in a generator that is collected."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["when_dropped"]


def when_dropped(exc: BaseException, call: Callable[[], None]) -> Callable[[], None]:
    """Call *call*, and print nothing, if Python drops *exc*; return what ends that, and may be called again.

    By ``sys.unraisablehook``, until then. One that somebody puts there meanwhile stays.
    """
    previous = sys.unraisablehook

    def unraisablehook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_value is exc:
            call()
        else:
            previous(unraisable)

    def unhook() -> None:
        if sys.unraisablehook is unraisablehook:
            sys.unraisablehook = previous

    sys.unraisablehook = unraisablehook
    return unhook
