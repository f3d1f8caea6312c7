"""IPython in a real terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals on Windows", allow_module_level=True)
import pty

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """IPython with a plain prompt in a pseudo-terminal."""

    def __init__(self, home: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(IPYTHONDIR=str(home), TERM="dumb", PYTHONWARNINGS="ignore")
            options = ["--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor"]
            os.execv(sys.executable, [sys.executable, "-m", "IPython", *options])
        self.seen = ""
        self._number = 1
        self.wait_for("In [1]: ")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def run(self, line: str) -> str:
        """Type a line or a block; return what came until the next prompt."""
        self.seen = ""
        self.type(line + "\n")
        return self.finish()

    def finish(self) -> str:
        """Wait for the next prompt."""
        self._number += 1
        self.wait_for(f"In [{self._number}]: ")
        return self.seen

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.seen:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"waited for {text!r} in {self.seen!r}")
            self.seen += _ANSI.sub("", os.read(self._fd, 65536).decode(errors="replace"))

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    started = Terminal(tmp_path)
    started.run("%load_ext ipyrunner")
    started.run("import asyncio; loop = asyncio.get_event_loop(); kept = 'kept'")
    yield started
    started.close()


def test_cells_share_loop_and_context(terminal: Terminal) -> None:
    assert "True" in terminal.run("await asyncio.sleep(0.01); asyncio.get_running_loop() is loop")
    assert "42" in terminal.run("asyncio.run(asyncio.sleep(0.01, 42))")
    assert "43" in terminal.run("%arun asyncio.sleep(0.01, 43)")
    terminal.run("import contextvars; v = contextvars.ContextVar('v'); v.set(1);")
    terminal.run("await asyncio.sleep(0); v.set(v.get() + 1);")
    assert "2" in terminal.run("v.get()").split("Out", 1)[1]


def test_control_c_ends_the_await_and_nothing_else(terminal: Terminal) -> None:
    terminal.seen = ""
    terminal.type(
        "try: print('g' + 'o'); await asyncio.sleep(60)\nfinally: await asyncio.sleep(0.01); print('cle' + 'an')\n\n"
    )
    terminal.wait_for("go\n")
    terminal.type("\x03")
    output = terminal.finish()
    assert "KeyboardInterrupt" in output
    assert "clean\n" in output
    assert "kept" in terminal.run("kept")
    assert "True" in terminal.run("await asyncio.sleep(0.01); asyncio.get_running_loop() is loop")


def test_exit_finalizes_tasks(terminal: Terminal) -> None:
    terminal.run(
        "async def left():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0); print('final' + 'ized')\n"
    )
    terminal.run("t = asyncio.create_task(left()); await asyncio.sleep(0)")
    terminal.run("await asyncio.sleep(0)")
    terminal.type("exit\n")
    terminal.wait_for("finalized")
