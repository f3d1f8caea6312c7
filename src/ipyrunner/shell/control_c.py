"""Ctrl-C at a prompt whose thread a background callback holds.

The problem: at the prompt the terminal is in raw mode, where Ctrl-C is no signal but a key, which prompt_toolkit reads. A
callback that never yields keeps it from reading, and nothing would stop that callback.

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

from ..aio.signalling import in_thread

try:
    import termios
except ImportError:
    termios = None  # type: ignore[assignment]

__all__ = ["ControlC"]

# Seconds that a prompt has to answer.
_PATIENCE = 0.2
# How often a key that is not read is looked at: the prompt may have laid its input aside, to print something.
_RETRY = 0.05


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
        # The terminal's mode before and since.
        self._turned: tuple[int, int] | None = None
        self._wake = -1

    def start(self) -> None:
        """Begin to watch, if it is a terminal."""
        if termios is None:
            return
        with suppress(NotImplementedError):  # an input that has no file
            self._fd = self._terminal.fileno()
        if os.isatty(self._fd):
            wait, self._wake = os.pipe()
            in_thread(self._watch, wait)

    def stop(self) -> None:
        """Let the thread end, which nobody waits for; the terminal is as it was. Idempotent."""
        with self._lock:
            if not self._over:
                self._over = True
                self._turn_off()
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
        with self._lock:
            if not self._over and self._held():
                self._turn_on()
        while not answered.wait(_PATIENCE) and not self._over:
            pass
        with self._lock:
            if not self._over:
                self._turn_off()

    def _turn_on(self) -> None:
        with suppress(termios.error):
            attributes = termios.tcgetattr(self._fd)
            before = attributes[3]
            attributes[3] |= termios.ISIG
            termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
            self._turned = before, attributes[3]

    def _turn_off(self) -> None:
        turned, self._turned = self._turned, None
        with suppress(termios.error):
            attributes = termios.tcgetattr(self._fd)
            # Whoever has set another mode since means that one.
            if turned is not None and turned[1] == attributes[3]:
                attributes[3] = turned[0]
                termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
