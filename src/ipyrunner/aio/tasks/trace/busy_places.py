"""Where a callback is that holds the loop: a thread looks at the frames of the loop's, and the loop pays nothing.

C code that keeps the GIL keeps the thread from looking.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import suppress

from ..slow_callbacks import place_of
from .recorder import Open, Recorder

__all__ = ["BusyPlaces"]

# Seconds between two looks: ten of them in the time that counts as blocking.
_PAUSE = 0.005


class BusyPlaces:
    """Note where the callbacks of *recorder* are that take long, until :meth:`stop`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
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
                place = place_of(sys._current_frames().get(self._recorder.thread))
                if place is not None and self._present() is present:
                    if present.places is None:
                        present.places = Counter()
                    present.places[place] += 1
            seen = present
            del present

    def _present(self) -> Open | None:
        try:
            return self._recorder.stack[-1]
        except IndexError:
            return None
