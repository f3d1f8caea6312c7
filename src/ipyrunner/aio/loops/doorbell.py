"""Know when somebody on this thread gives work to a loop that is at rest: it makes no fd readable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..replacements import Override

__all__ = ["Doorbell"]


class Doorbell:
    """From :meth:`hang` to :meth:`take`, call *ring* before a callback or a timer is put on *loop*."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._hung: list[Override] = []

    def hang(self) -> None:
        """Begin to ring."""
        self._hung = [Override(self._loop, name, self._ringing) for name in ("call_soon", "call_at")]

    def take(self) -> None:
        """Ring no more. Idempotent."""
        while self._hung:
            self._hung.pop().restore()

    def _ringing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def schedule(*args: Any, **kwargs: Any) -> Any:
            if self._hung:  # else somebody has wrapped this since, and calls it after the end
                self._ring()
            return original(*args, **kwargs)

        return schedule
