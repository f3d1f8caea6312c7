"""Notice calls that schedule something on a loop at rest without waking it: they make no fd readable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from ..replacements import Override

__all__ = ["Doorbell"]


class Doorbell:
    """From :meth:`hang` to :meth:`take`, call *ring* before a callback or a timer is put on *loop*.

    Only on the thread that has called :meth:`hang`. What another thread schedules, which asyncio does not allow, wakes
    *loop* instead: at shutdown ipykernel 7's control thread puts a timer on the kernel's loop.

    Both are called many times in each cell: they do without an ``Override`` unless somebody has replaced the methods.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._is_hung = False
        self._thread = 0
        self._overrides: list[Override] = []
        cls = type(loop)
        # For each name the function of the class, and the method that rings and calls it.
        self._bells = [
            (name, getattr(cls, name), self._ringing(getattr(loop, name))) for name in ("call_soon", "call_at")
        ]

    def hang(self) -> None:
        """Begin to call *ring*."""
        self._thread = threading.get_ident()
        loop, self._is_hung = self._loop, True
        for name, function, bell in self._bells:
            if getattr(getattr(loop, name), "__func__", None) is function:
                setattr(loop, name, bell)
            else:
                self._overrides.append(Override(loop, name, self._ringing))

    def take(self) -> None:
        """Stop calling *ring*. Idempotent."""
        if not self._is_hung:
            return
        loop, self._is_hung = self._loop, False
        while self._overrides:
            self._overrides.pop().restore()
        for name, _, bell in self._bells:
            if getattr(loop, name) is bell:
                delattr(loop, name)

    def _ringing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def schedule(*args: Any, **kwargs: Any) -> Any:
            if not self._is_hung:  # somebody has wrapped this since, and calls it after the end
                return original(*args, **kwargs)
            if threading.get_ident() == self._thread:
                self._ring()
                return original(*args, **kwargs)
            handle = original(*args, **kwargs)
            self._loop.call_soon_threadsafe(_nothing)
            return handle

        return schedule


def _nothing() -> None:
    """Do nothing: this callback is scheduled to wake the loop."""
