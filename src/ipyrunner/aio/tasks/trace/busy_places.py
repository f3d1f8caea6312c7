"""Where a callback that holds the loop is: a thread looks at the frames of the loop's thread, which does not slow down.

C code that keeps the GIL keeps the thread from looking.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from time import perf_counter_ns
from types import FrameType

from ...introspection.stacks import frames_of
from ..slow_callbacks import place_of
from .tracer import Open, Tracer

__all__ = ["BusyPlaces"]

# Seconds between two looks: ten of them in the time that counts as blocking.
_PAUSE = 0.005


class BusyPlaces:
    """Record where the long callbacks of *tracer* are, until :meth:`stop`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # Not an Event: its inner lock may be taken at the moment of a fork, for ever.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._over = False
        with suppress(RuntimeError):  # an interpreter that exits starts no threads
            threading.Thread(target=self._watch, name="ipyrunner: trace", daemon=True).start()

    def stop(self) -> None:
        """End. Idempotent."""
        if not self._over:
            self._over = True
            self._gate.release()

    def _watch(self) -> None:
        seen = None
        while not self._gate.acquire(timeout=_PAUSE):
            present = self._present()
            if present is not None and present is seen:
                now, frames = perf_counter_ns(), frames_of(self._tracer.thread)
                place = place_of(frames)
                if self._is_in(present, frames) and self._present() is present:
                    present.seen = now
                    if place is not None:
                        if present.places is None:
                            present.places = Counter()
                        present.places[place] += 1
                del frames
            seen = present
            del present

    def _is_in(self, present: Open, frames: list[FrameType]) -> bool:
        """Return whether the thread is in *present*: an exception may have ended that without an event.

        If its frame is not found, and the loop is not at rest, it is on the stack of another greenlet.
        """
        is_at_rest = not self._tracer.loop.is_running()
        for frame in frames:
            if frame is present.frame:
                return True
            is_at_rest = is_at_rest or frame.f_code.co_name == "_run_once"
        return not is_at_rest

    def _present(self) -> Open | None:
        try:
            return self._tracer.stack[-1]
        except IndexError:
            return None
