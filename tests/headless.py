"""Notebooks that are run by commands, and what is left of the runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from traitlets.config import Config

from kernels import sockets
from quick import quick_path

# Seconds that a command may take.
DEADLINE = 100.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
OWN, STOCK = "ipyrunner", "python3"
KERNELS = {"stock": STOCK, "own": OWN}


def notebook(
    kernel: str, *cells: str, parameters: str = "", tags: dict[str, str] | None = None
) -> nbformat.NotebookNode:
    """Return a notebook that loads the extension where the kernel does not. *tags*: by a text of the cell."""
    first = "%load_ext ipyrunner" if kernel == STOCK else "import ipyrunner"
    codes = [nbformat.v4.new_code_cell(code) for code in (first, *cells)]
    for cell in codes:
        cell.metadata["tags"] = [tag for text, tag in (tags or {}).items() if text in cell.source]
    if parameters:
        codes.insert(1, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made = nbformat.v4.new_notebook(cells=codes)
    made.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    return made


def client(made: nbformat.NotebookNode, directory: Path, **options: Any) -> nbclient.NotebookClient:
    """Return what executes the notebook here; the kernel's sockets are in *directory*."""
    return nbclient.NotebookClient(made, config=Config(KernelManager=sockets(directory)), **options)


# Cells of notebooks, each of which is found by a text that it alone contains.
SETUP = """
import asyncio, contextvars, time  # set up
from IPython.display import display
var = contextvars.ContextVar("var"); var.set("set")
def leave(text):
    with open("left", "a") as file: file.write(text + "\\n")
async def lasting():
    try: await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        leave("task")
async def generator():
    try: yield 1
    finally: leave("generator")
kept = asyncio.create_task(lasting()); g = generator(); await anext(g)
"""
STARTS = """
async def fail(kind):  # starts
    await events[kind].wait()
    raise ValueError("kind " + kind)
async def fail_at_the_end():
    try: await asyncio.sleep(60)
    finally: raise KeyError("kind e")
async def talk():
    await events["b"].wait()
    print("printed late"); display({"text/plain": "shown late"}, raw=True); print("and more")
async def told(task):
    while not task.done() or task._log_traceback: await asyncio.sleep(0.01)
    await asyncio.sleep(0)
events = {kind: asyncio.Event() for kind in "abcd"}
tasks = {kind: asyncio.create_task(fail(kind), name="task " + kind) for kind in "abcd"}
others = [asyncio.create_task(fail_at_the_end(), name="task e"), asyncio.create_task(talk())]
events["a"].set(); await told(tasks["a"])
"""
# The task of this one fails when the cell has ended: no loop runs meanwhile.
BETWEEN = "events['c'].set()"
SLEEPING = [
    SETUP,
    "try: await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.05)\n    leave('cell')",
    "leave('never')",
]


@dataclass
class Saved:
    """A notebook as a command has saved it."""

    notebook: nbformat.NotebookNode

    def cell(self, text: str) -> nbformat.NotebookNode:
        """Return the one cell whose code contains *text*."""
        (found,) = (c for c in self.notebook.cells if text in c.source)
        return found

    def output(self, text: str, kind: str = "stdout") -> str:
        """Return what that cell has printed to *kind*, without colours; or its value, displays or errors."""
        parts = []
        for output in self.cell(text).get("outputs", []):
            if output.output_type == "stream" and output.name == kind:
                parts.append(output.text)
            elif output.output_type == kind == "error":
                parts += [output.ename, "\n", *output.traceback]
            elif output.output_type == kind:
                parts.append(output.data["text/plain"])
        return _ANSI.sub("", "".join(parts))

    def number(self, text: str) -> int:
        """Return the cell's number."""
        number: int = self.cell(text).execution_count
        return number


@dataclass
class Run:
    """A command that has ended, in a directory of its own."""

    code: int
    stdout: str
    stderr: str
    directory: Path

    @property
    def left(self) -> list[str]:
        """What the notebook has written into the file ``left``."""
        return self.read_left(self.directory)

    @staticmethod
    def read_left(directory: Path) -> list[str]:
        path = directory / "left"
        return sorted(path.read_text().split()) if path.exists() else []

    @property
    def saved(self) -> Saved | None:
        """The notebook that the command has saved, or None."""
        path = self.directory / "saved.ipynb"
        return Saved(nbformat.read(path, 4)) if path.exists() else None


def command(tool: str, kernel: str, *options: str) -> list[str]:
    """Return the command that runs ``given.ipynb`` into ``saved.ipynb``."""
    python = [sys.executable, "-m"]
    if tool == "execute":
        return [*python, "jupyter", "execute", "given.ipynb", "--output=saved", *options]
    if tool == "nbconvert":
        return [
            *python,
            "jupyter",
            "nbconvert",
            "--execute",
            "--to=notebook",
            "--output=saved",
            "given.ipynb",
            *options,
        ]
    if tool == "papermill":
        return [*python, "papermill", "given.ipynb", "saved.ipynb", *options]
    # nbmake overwrites what it is given. -rP: shows what the kernels of notebooks that pass have logged.
    return [*python, "pytest", "-rP", "-p", "no:cacheprovider", "--nbmake", "--overwrite", "saved.ipynb", *options]


def run(
    tool: str,
    made: nbformat.NotebookNode,
    directory: Path,
    *options: str,
    stop: signal.Signals | None = None,
) -> Run:
    """Write the notebook, run the command to its end. *stop*: send it this when the notebook has left "begun"."""
    directory.mkdir(parents=True)
    # jupyter execute and nbconvert are asked to wait for the end of a kernel before they kill it, longer than five seconds.
    settings = {"shutdown_wait_time": 60, **sockets(directory)}
    (directory / "jupyter_config.json").write_text(json.dumps({"KernelManager": settings}))
    nbformat.write(made, directory / ("saved.ipynb" if tool == "nbmake" else "given.ipynb"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    env.update(
        JUPYTER_DATA_DIR=str(directory / "data"),
        IPYTHONDIR=str(directory / "ipython"),
        JUPYTER_CONFIG_DIR=str(directory),
        PYTHONPATH=quick_path(),
    )
    process = subprocess.Popen(
        command(tool, made.metadata.kernelspec.name, *options),
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if stop is not None:
            deadline = time.monotonic() + DEADLINE
            while "begun" not in Run.read_left(directory):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise TimeoutError(f"the notebook did not begin: {process.poll()}")
                time.sleep(0.05)
            process.send_signal(stop)
        stdout, stderr = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    return Run(process.returncode, stdout, _ANSI.sub("", stderr), directory)
