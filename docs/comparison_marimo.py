"""What cells of marimo do: its column in comparison.md. `pip install marimo anyio`, then

    python docs/comparison_marimo.py

It starts marimo's server and runs cells as its editor does, by HTTP and a websocket.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

DEADLINE, PATIENCE = 60.0, 5.0


class Server:
    """A server of marimo's with one notebook; a new kernel for each `begin`."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.directory, self.completed = directory, False
        notebook = directory / "notebook.py"
        notebook.write_text("import marimo\napp = marimo.App()\n")
        command = [sys.executable, "-m", "marimo", "-q", "edit", "--headless", "--no-token", "--no-skew-protection"]
        command += ["--skip-update-check", "--port", str(self.port), str(notebook)]
        self.process = subprocess.Popen(command, env={**os.environ, "HOME": str(directory), "PYTHONWARNINGS": "ignore"})
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.cells: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                self.socket = connect(f"ws://127.0.0.1:{self.port}/ws?session_id=one", max_size=None)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        threading.Thread(target=self._read, daemon=True).start()
        self.post("instantiate", {"objectIds": [], "values": []})

    def _read(self) -> None:
        try:
            for message in self.socket:
                self.messages.put(json.loads(message))
        except ConnectionClosed:
            pass

    def post(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "Marimo-Session-Id": "one"}
        url = f"http://127.0.0.1:{self.port}/api/kernel/{path}"
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).read()

    def begin(self, code: str) -> str:
        cell = f"cell{len(self.cells)}"
        self.cells[cell] = {"status": "queued", "console": "", "output": ""}
        self.post("run", {"cellIds": [cell], "codes": [code]})
        return cell

    def look(self, done: Callable[[], bool], seconds: float) -> bool:
        """Take in what comes until *done*, or for so long; return whether it is."""
        end = time.monotonic() + seconds
        while not done() and (left := end - time.monotonic()) > 0:
            try:
                message = self.messages.get(timeout=left)
            except queue.Empty:
                break
            if os.environ.get("SHOW"):
                print(message, file=sys.stderr)
            self.completed |= message["op"] == "completion-result"
            data = message.get("data", {})
            if message["op"] == "cell-op" and (cell := self.cells.get(data["cell_id"])):
                cell["status"] = data.get("status") or cell["status"]
                cell["console"] += json.dumps(data.get("console")) if data.get("console") else ""
                cell["output"] = json.dumps(data["output"]) if data.get("output") else cell["output"]
        return done()

    def run(self, code: str, seconds: float = DEADLINE) -> dict[str, Any] | None:
        """Run a cell; None if it does not end."""
        cell = self.begin(code)
        return self.cells[cell] if self.ended(cell, seconds) else None

    def ended(self, cell: str, seconds: float) -> bool:
        return self.look(lambda: self.cells[cell]["status"] == "idle", seconds)

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def outcome(cell: dict[str, Any] | None) -> str:
    """Return what has become of a cell."""
    if cell is None:
        return "does not end"
    output = json.loads(cell["output"] or "{}")
    if output.get("channel") != "marimo-error":
        return "works"
    return str(output["data"][0].get("exception_type") or output["data"][0]["type"])


def between_cells(s: Server) -> str:
    s.run("seen = []\nasync def tick():\n    while True:\n        await asyncio.sleep(0.01)\n        seen.append(1)")
    s.run("ticker = asyncio.create_task(tick())")
    s.look(lambda: False, 1)
    return "goes on" if ticks(s, "ticked = len(seen)\nprint('ticks', ticked)") > 1 else "rests"


def beside_computing(s: Server) -> str:
    code = "before = len(seen)\nend = time.monotonic() + 1\nwhile time.monotonic() < end:\n    pass\n"
    return "goes on" if ticks(s, code + "print('ticks', len(seen) - before)") > 1 else "rests"


def ticks(s: Server, code: str) -> int:
    cell = s.begin(code)
    s.look(lambda: "ticks" in s.cells[cell]["console"] and s.cells[cell]["status"] == "idle", DEADLINE)
    return int(s.cells[cell]["console"].split("ticks ")[1].split("\\n")[0].split('"')[0])


def failing(s: Server) -> str:
    s.run("async def fails():\n    raise ValueError('told')")
    cell = s.begin("task = asyncio.create_task(fails())")
    told = s.look(lambda: "told" in s.cells[cell]["console"], PATIENCE)
    return "is reported below its cell" if told else "is not reported"


def context(s: Server) -> str:
    s.run("var = contextvars.ContextVar('var', default='lost')\nasync def set_it():\n    var.set('kept')")
    s.run("await set_it()")
    cell = s.begin("print('it is ' + var.get())")
    s.look(lambda: "it is" in s.cells[cell]["console"], DEADLINE)
    return "kept" if "kept" in s.cells[cell]["console"] else "lost"


def scope(s: Server) -> str:
    s.run("import anyio")
    s.run("group = anyio.create_task_group()\nawait group.__aenter__()")
    return outcome(s.run("await group.__aexit__(None, None, None)"))


def completion(s: Server) -> str:
    cell = s.begin("print('begun')\nawait asyncio.sleep(3)")
    s.look(lambda: "begun" in s.cells[cell]["console"], DEADLINE)
    s.post("code_autocomplete", {"id": "one", "document": "asyncio.sle", "cellId": cell})
    answered = s.look(lambda: s.completed or s.cells[cell]["status"] == "idle", DEADLINE)
    at_once = answered and s.cells[cell]["status"] != "idle"
    s.ended(cell, DEADLINE)
    return "answered at once" if at_once else "waits for its end"


def interrupted(s: Server, code: str) -> str:
    cell = s.begin(code)
    s.look(lambda: "begun" in s.cells[cell]["console"], DEADLINE)
    s.post("interrupt", {})
    if not s.ended(cell, PATIENCE):
        return "nothing happens"
    cleans_up = s.look(lambda: "cleaned up" in s.cells[cell]["console"], 1)
    end = outcome(s.cells[cell]) + ("; cleans up" if cleans_up else "")
    return end if s.run("await asyncio.sleep(0)", PATIENCE) else f"{end}; the loop hangs"


def interrupt(s: Server) -> str:
    code = "try:\n    print('begun')\n    await asyncio.sleep(60)\n"
    return interrupted(s, code + "finally:\n    await asyncio.sleep(0)\n    print('cleaned up')")


def stuck(s: Server) -> str:
    s.run("async def stuck():\n    print('begun')\n    while True:\n        pass")
    return interrupted(s, "await stuck()")


def shutdown(s: Server) -> str:
    path = s.directory / "cleaned"
    path.unlink(missing_ok=True)
    s.run(
        "from pathlib import Path\nasync def serves():\n    try:\n        await asyncio.sleep(600)\n    finally:\n"
        f"        Path({str(path)!r}).touch()"
    )
    s.run("serving = asyncio.create_task(serves())")
    s.look(lambda: False, 0.5)
    s.post("restart_session", {})
    s.process.terminate()
    s.process.wait()
    s.look(path.exists, PATIENCE)
    return "cleans up" if path.exists() else "does not clean up"


RUN = "async def main():\n    await asyncio.sleep(0)\nasyncio.run(main())"
NESTED = "def library():\n    asyncio.run(asyncio.sleep(0))\nasync def outer():\n    library()\nawait outer()"
# In the order of comparison.py.
QUESTIONS: list[Callable[[Server], str]] = [
    lambda s: outcome(s.run(RUN)),
    lambda s: outcome(s.run(NESTED)),
    lambda s: "no" if ticks(s, "print('ticks', int(asyncio.run.__module__ == 'asyncio.runners'))") else "yes",
    between_cells,
    beside_computing,
    failing,
    context,
    scope,
    completion,
    shutdown,
    interrupt,
    stuck,
]


if __name__ == "__main__":
    print("marimo", version("marimo"))
    for question in QUESTIONS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            s = Server(Path(directory))
            try:
                s.run("import asyncio, contextvars, time")
                if question is beside_computing:
                    between_cells(s)
                print(question(s), flush=True)
            finally:
                s.close()
