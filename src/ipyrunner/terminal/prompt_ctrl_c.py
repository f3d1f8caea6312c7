"""Ctrl-C at a prompt whose thread a background callback holds.

The problem: at the prompt the terminal is in raw mode, where Ctrl-C is no signal but a key, which prompt_toolkit reads.
A callback that never yields keeps it from reading, and nothing would stop that callback.

The solution: a thread watches the terminal as well. If a key is there that is not read within a moment, and the
notebook's loop has the thread, it turns the terminal's signals on (termios' ISIG) until the prompt answers again: the
next Ctrl-C is SIGINT. At a prompt that answers nothing is different, and a prompt that nobody types at costs nothing.

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
# How often a key that is not read is looked at: the prompt may have laid its input aside, to print something.
_RETRY = 0.05
# How often signals are turned off again.
_TIMES = 4


class HasFileno(Protocol):
    """A file, or what stands for one."""

    def fileno(self) -> int:
        """Return its descriptor."""


class ControlC:
    """From :meth:`start` to :meth:`stop`: signals from *terminal* whenever *host* does not answer for *held*.

    *terminal* is what the prompt reads from. *held* returns whether it is the notebook's loop that keeps *host*, the
    prompt's, from answering; it is called in a thread.
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
        """Let the thread end, which nobody waits for: the prompt leaves the raw mode by itself. Idempotent."""
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
        # Several times: whoever has laid the input aside in between restores what was there before.
        done = 0
        while done < _TIMES:
            done = done + 1 if self._set_signals(on=False) else 0
            time.sleep(_RETRY)

    def _set_signals(self, *, on: bool) -> bool:
        """Turn the terminal's signals on or off; return whether that is done, or nobody's business any more."""
        with self._lock, suppress(termios.error):
            if self._over or (on and not self._held()):
                return not on
            mode = termios.tcgetattr(self._fd)
            if mode[3] & termios.ICANON:
                # Not raw: the prompt prints, and will set the mode that it has found before. Look again then.
                return False
            mode[3] = mode[3] | termios.ISIG if on else mode[3] & ~termios.ISIG
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        return True
