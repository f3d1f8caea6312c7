"""A program in a real pseudo-terminal, and what a terminal emulator shows of it."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pyte

DEADLINE = 60.0
ROWS, COLUMNS = 60, 110
CONTROL_C, CONTROL_D, ESCAPE_ENTER = "\x03", "\x04", "\x1b\r"

IPYTHON = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor", "--HistoryManager.enabled=False"]


# What makes the pseudo-terminal the program's own. Signals as a terminal has them, whoever has started the tests.
_BEGIN = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.chdir(sys.argv[1])
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class _Screen(pyte.Screen):
    """Answers what the program asks the terminal: where the cursor is."""

    def __init__(self, fd: int) -> None:
        super().__init__(COLUMNS, ROWS)
        self._fd = fd

    def write_process_input(self, data: str) -> None:
        os.write(self._fd, data.encode())

    def select_graphic_rendition(self, *attributes: int, **kwargs: Any) -> None:
        # pyte takes the "private" form of this for an error; it sets keyboard modes, and nothing to be seen.
        if not kwargs.get("private"):
            super().select_graphic_rendition(*attributes)


class Terminal:
    """Python with *arguments* in a pseudo-terminal. Every wait has a deadline."""

    def __init__(self, home: Path, *arguments: str, prompt: str = "In [{}]: ", **env: str) -> None:
        here = {"IPYTHONDIR": str(home), "TERM": "xterm", "PYTHONWARNINGS": "ignore", "PROMPT_TOOLKIT_NO_CPR": ""}
        self._fd, child = os.openpty()
        # Not by pty.fork(): Python 3.15 warns of it in a process with threads.
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _BEGIN, str(home), *arguments],
            {**os.environ, **here, **env},
            file_actions=[(os.POSIX_SPAWN_DUP2, child, fd) for fd in range(3)],
        )
        os.close(child)
        ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.screen = _Screen(self._fd)
        self._stream = pyte.ByteStream(self.screen)
        self._prompt = prompt
        self._is_plain = "--simple-prompt" in arguments
        self._number = 1
        # All that was written, without what moves the cursor.
        self.log = ""
        self.status: int | None = None
        self.wait_for_prompt()

    # -- what is seen

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, to the last one with something in it."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.lines)

    @property
    def prompt(self) -> str:
        """The present prompt."""
        return self._prompt.format(self._number).rstrip()

    def line_of_prompt(self) -> int:
        """Return the number of the last line that begins with the present prompt; -1 if there is none."""
        numbers = [n for n, line in enumerate(self.lines) if line.startswith(self.prompt)]
        return numbers[-1] if numbers else -1

    def cursor(self) -> tuple[int, int]:
        """Where the cursor is: line and column."""
        return self.screen.cursor.y, self.screen.cursor.x

    def has_signals(self) -> bool:
        """Return whether Ctrl-C is a signal at the moment, and no key."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ISIG)

    # -- what is done

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def begin(self, code: str) -> None:
        """Enter a cell, and do not wait for it. Pasted: nothing is indented or completed on the way."""
        if "\n" not in code:
            self.type(code + "\r")
        elif self._is_plain:
            self.type(code + "\n")
        else:
            self.type(f"\x1b[200~{code}\x1b[201~{ESCAPE_ENTER}")

    def run(self, code: str) -> str:
        """Run a cell; return what is on the screen from its prompt to the next one."""
        self.begin(code)
        return self.finish()

    def finish(self) -> str:
        """Wait for the next prompt; return what is on the screen from the last one to it."""
        before = self.prompt
        self._number += 1
        self.wait_for_prompt()
        lines = self.lines
        begins = [n for n, line in enumerate(lines) if line.startswith(before)]
        return "\n".join(lines[begins[-1] if begins else 0 : self.line_of_prompt()])

    def wait_for_prompt(self) -> None:
        """Wait until the present prompt waits: the cursor is behind it."""

        def waits() -> bool:
            line = self.line_of_prompt()
            return line >= 0 and self.cursor()[0] == line and self.lines[-1].startswith(self.prompt)

        self.wait(waits, f"the prompt {self.prompt!r}")

    def wait_for(self, text: str) -> None:
        """Wait until *text* is on the screen."""
        self.wait(lambda: text in self.text, repr(text))

    def wait(self, condition: Callable[[], bool], what: str, *, every: float = DEADLINE) -> None:
        """Wait until *condition* is true of the screen; of what is not seen there, ask after so many seconds again."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self.look(min(every, max(0, deadline - time.monotonic())))
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {DEADLINE} s for {what} on the screen:\n{self.text}")

    def look(self, seconds: float) -> bool:
        """Take in what comes within so many seconds; return whether something did."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if ready:
            try:
                data = os.read(self._fd, 65536)
            except OSError as exc:  # the program has ended
                raise EOFError(f"the terminal was closed, with this on its screen:\n{self.text}") from exc
            self.log += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r", "", data.decode(errors="replace"))
            self._stream.feed(data)
        return bool(ready)

    def wait_for_exit(self) -> int:
        """Take in everything until the program has ended; return its exit status, as ``os.waitpid`` gives it."""
        deadline = time.monotonic() + DEADLINE
        try:
            while self.look(max(0, deadline - time.monotonic())):
                pass
            raise TimeoutError(f"the program did not end:\n{self.text}")
        except EOFError:
            _, self.status = os.waitpid(self.pid, 0)
        return self.status

    def close(self) -> None:
        """End the program, whatever it does."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


BEFORE = "import asyncio; loop = asyncio.get_event_loop(); kept = 'kept'"


def out(text: str) -> str:
    """The value of a cell, of what :meth:`Terminal.run` has returned."""
    assert "Out[" in text, text
    return text.split("Out[", 1)[1].split(":", 1)[1].strip()


def expect_alive(terminal: Terminal) -> None:
    """The next cells run, on the same loop, with the variables of :data:`BEFORE`."""
    assert out(terminal.run("await asyncio.sleep(0.01); kept, asyncio.get_running_loop() is loop")) == "('kept', True)"
    assert out(terminal.run("kept, asyncio.get_event_loop() is loop")) == "('kept', True)"


class Trigger:
    """Sets ``event`` in the program, or in its kernel, from here, by a file that its loop watches."""

    CODE = (
        "import os; pipe = os.open('trigger', os.O_RDONLY | os.O_NONBLOCK); event = asyncio.Event()\n"
        "def pull(): os.read(pipe, 1); loop.remove_reader(pipe); event.set()\n"
        "loop.add_reader(pipe, pull)\n"
    )

    def __init__(self, home: Path) -> None:
        self._path = home / "trigger"
        os.mkfifo(self._path)

    def pull(self) -> None:
        self._path.write_text("x")
