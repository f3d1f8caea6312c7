"""The main task of a run, and on whose behalf it was cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["MainTask"]


class MainTask:
    """Cancel *task* on behalf of an interrupt, and know that cancellation again when it comes out."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self._cancels = 0
        self._reason: BaseException | None = None

    def cancel(self) -> None:
        """Cancel the main task on behalf of SIGINT."""
        assert self.task is not None
        self._cancels += 1
        self.task.cancel()

    def fail(self, exc: BaseException) -> None:
        """Cancel the main task because of *exc*, which is to come out in the place of KeyboardInterrupt."""
        if self.task is not None and not self.task.done():
            self._reason = exc
            self.cancel()

    def reason(self) -> BaseException:
        """Return what takes the place of a cancellation that :meth:`claims` has claimed."""
        reason, self._reason = self._reason, None
        return KeyboardInterrupt() if reason is None else reason

    def claims(self, exc: BaseException | None) -> bool:
        """Return whether *exc* is the cancellation that SIGINT asked for, and nobody else did.

        It is answered once: the cancellation counts as handled from then on (``Task.uncancel``).
        """
        if not isinstance(exc, asyncio.CancelledError) or not self._cancels or self.task is None:
            return False
        left = 0
        for _ in range(self._cancels):
            left = self.task.uncancel()
        self._cancels = 0
        return left == 0
