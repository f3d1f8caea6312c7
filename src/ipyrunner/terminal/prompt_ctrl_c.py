"""Ctrl-C at a prompt while a background callback blocks its thread.

The problem: at the prompt the terminal is in raw mode, where Ctrl-C is not a signal but a key, which prompt_toolkit
reads. A callback that never yields prevents that, and nothing would stop the callback.

The solution: a thread watches the terminal as well. If a key is not read within a moment, and the notebook's loop has
the main thread, it turns the terminal's signals on (termios' ISIG) until the prompt answers again: the next Ctrl-C is
SIGINT. Nothing changes at a prompt that answers, and nothing is done while nobody types.

Not on Windows, whose consoles have no such mode.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..aio.sigint.handlers import in_thread

try:
    import termios
except ImportError:
    termios = None  # type: ignore[assignment]

__all__ = ["ControlC"]

# Seconds that a prompt has to answer.
_PATIENCE = 0.2
# Seconds between two looks at an unread key: the prompt may have detached its input in order to print something.
_RETRY = 0.05
# How many times signals are turned off again.
_TIMES = 4


class HasFileno(Protocol):
    """A file, or an object that has a file descriptor."""

    def fileno(self) -> int:
        """Return its descriptor."""


class ControlC:
    """From :meth:`start` to :meth:`stop`, turn *terminal*'s signals on while the notebook's loop blocks *host*.

    The prompt reads from *terminal*, in the loop *host*. *held* returns whether the notebook's loop has the thread of
    *host*; it is called in another thread.
    """

    def __init__(self, terminal: HasFileno, host: asyncio.AbstractEventLoop, held: Callable[[], bool]) -> None:
        self._terminal = terminal
        self._fd = -1
        self._host = host
        self._held = held
        self._lock = threading.Lock()
        self._over = False
        self._wake = -1

    def start(self) -> None:
        """Begin to watch, if it is a terminal."""
        if termios is None:
            return
        with suppress(NotImplementedError):  # an input that has no file
            self._fd = self._terminal.fileno()
        if os.isatty(self._fd):
            wait, self._wake = os.pipe()
            try:
                in_thread(self._watch, wait)
            except RuntimeError:  # no more threads
                os.close(wait)

    def stop(self) -> None:
        """Let the thread end, without waiting: the prompt leaves the raw mode by itself. Idempotent."""
        with self._lock:
            if not self._over:
                self._over = True
                if self._wake != -1:
                    os.close(self._wake)

    def _watch(self, wait: int) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(wait, selectors.EVENT_READ)
                selector.register(self._fd, selectors.EVENT_READ)
                while not any(key.fd == wait for key, _ in selector.select()):
                    self._ask()
        except OSError:  # the terminal is gone
            pass
        finally:
            os.close(wait)

    def _ask(self) -> None:
        answered = threading.Event()
        try:
            self._host.call_soon_threadsafe(answered.set)
        except RuntimeError:  # closed: the prompt has ended
            return
        if answered.wait(_PATIENCE):
            time.sleep(_RETRY)
            return
        if not self._set_signals(on=True):
            return
        while not answered.wait(_PATIENCE) and not self._over:
            pass
        # Several times: code that has detached the input in between restores the mode that it has found.
        done = 0
        while done < _TIMES:
            done = done + 1 if self._set_signals(on=False) else 0
            time.sleep(_RETRY)

    def _set_signals(self, *, on: bool) -> bool:
        """Turn the terminal's signals on or off; return whether that is done, or no longer needed."""
        with self._lock, suppress(termios.error):
            if self._over or (on and not self._held()):
                return not on
            mode = termios.tcgetattr(self._fd)
            if mode[3] & termios.ICANON:
                # Not raw: the prompt is printing, and will restore the mode that it had found. Look again then.
                return False
            mode[3] = mode[3] | termios.ISIG if on else mode[3] & ~termios.ISIG
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        return True
