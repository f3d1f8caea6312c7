"""JupyterLab and Notebook 7 in a real browser, used by mouse and keys as a user does.

The picture script (docs/pictures/make.py) uses it too. It waits for what is seen in the page, and never sleeps.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, Page, expect, sync_playwright

from kernels import free_port
from quick import quick_path

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
INSTALL = "apt-get install chromium"
# Playwright adds --no-sandbox, without which Chromium refuses root.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DIRECTORIES = [
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
]
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/notebook-extension:tracker": {"scrollPastEnd": False, "windowingMode": "none"},  # no cell is left out
}
# What the two say is their address, and where a notebook is below it.
PATHS = {"jupyterlab": ("/lab", "/doc/tree/"), "notebook": ("/tree", "/notebooks/")}
CELLS = ".jp-Notebook .jp-Cell"
# JavaScript: `jupyterapp` is there because of --expose-app-in-browser.
READY = """theme => document.body.dataset.jpThemeName == theme && !document.getElementById("jupyterlab-splash")
    && window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus == "connected" """


def find_browser(*names: str) -> str | None:
    """Return the path of the first browser that is installed."""
    return next(filter(None, map(shutil.which, names or BROWSERS)), None)


@contextmanager
def browsing(path: str) -> Iterator[Browser]:
    """Run the browser for the length of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def write_settings(root: Path, settings: dict[str, dict[str, Any]]) -> None:
    """Write settings, by plugin, of the server below *root*, which reads them for each page."""
    overrides = root / "JUPYTER_CONFIG_DIR" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text(json.dumps(SETTINGS | settings), encoding="utf-8")


def write_notebook(path: Path, content: dict[str, Any], kernel: str) -> None:
    """Write a notebook without outputs, for that kernel."""
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    content["metadata"]["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    path.write_text(json.dumps(content), encoding="utf-8")


@dataclass
class Server:
    """JupyterLab or Notebook 7, which serves the files below `root`."""

    application: str
    root: Path
    address: str
    token: str

    def url(self, name: str) -> str:
        """Return where the notebook of that name is shown."""
        return f"{self.address}{PATHS[self.application][1]}{quote(name)}?token={self.token}"


def find_address(server: subprocess.Popen[str], application: str, timeout: float) -> str:
    """Read what the server says until it names its address. A thread reads on, lest the server block."""
    said, watchdog = "", threading.Timer(timeout, server.kill)
    watchdog.start()
    try:
        assert server.stderr is not None
        for line in server.stderr:
            said += line
            if found := re.search(rf"http://127\.0\.0\.1:\d+(?={PATHS[application][0]})", line):
                threading.Thread(target=server.stderr.read, daemon=True).start()
                return found[0]
    finally:
        watchdog.cancel()
    raise RuntimeError(f"{application} has ended, or was not ready within {timeout:g} s. It said:\n{said}")


@contextmanager
def serving(root: Path, application: str = "jupyterlab", timeout: float = 60) -> Iterator[Server]:
    """Run the application for the files below *root*, where its settings are too. End it with the block."""
    token = secrets.token_hex()
    options = "--no-browser", "--ip=127.0.0.1", f"--port={free_port()}", "--allow-root", "--expose-app-in-browser"
    process = subprocess.Popen(
        [sys.executable, "-m", application, *options, f"--ServerApp.root_dir={root}"],
        env=os.environ
        | {name: str(root / name) for name in DIRECTORIES}
        | {"JUPYTER_TOKEN": token, "PYTHONPATH": quick_path()},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends the server in good order
    )
    try:
        yield Server(application, root, find_address(process, application, timeout), token)
    finally:
        process.terminate()
        try:
            process.wait(30)  # a kernel that hangs takes it more than ten
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


class Cell:
    """A cell as it is seen in the page."""

    def __init__(self, page: Page, index: int) -> None:
        self.seen = page.locator(CELLS).nth(index)
        self.outputs = self.seen.locator(".jp-Cell-outputArea")
        self.prompt = self.seen.locator(".jp-InputPrompt")

    def expect(self, *texts: str | re.Pattern[str]) -> Cell:
        """Wait until all of this is in the cell's outputs."""
        for text in texts:
            expect(self.outputs).to_contain_text(text)
        return self

    def expect_outputs(self, *texts: str) -> Cell:
        """Wait until these are the cell's outputs, and there are no others."""
        expect(self.outputs.locator(".jp-OutputArea-output")).to_have_text(list(texts))
        return self

    def expect_end(self) -> Cell:
        """Wait until the cell has its number."""
        expect(self.prompt).to_have_text(re.compile(r"\[\d+\]:"))
        return self

    def expect_running(self) -> Cell:
        """Wait until the cell has its star."""
        expect(self.prompt).to_have_text("[*]:")
        return self


def open_notebook(page: Page, url: str, theme: str = "light") -> None:
    """Go to a notebook, and wait until it is shown and its kernel does nothing."""
    page.goto(url)
    page.wait_for_function(READY, arg=f"JupyterLab {theme.capitalize()}")
    expect_idle(page)


def expect_idle(page: Page) -> None:
    """Wait until the kernel's indicator says that it does nothing."""
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible()


def expect_busy(page: Page) -> None:
    """Wait until the kernel's indicator, which counts the cells, and the tab's icon, the kernel's word, say it is busy."""
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=busy]")).to_be_visible()
    expect(page.locator("link[rel=icon][href*=favicon-busy]")).to_be_attached()


def press_interrupt(page: Page) -> None:
    """Click on the toolbar's interrupt button."""
    page.locator("[data-command='notebook:interrupt-kernel']").click()


def press_restart(page: Page) -> None:
    """Click on the toolbar's restart button, and on the dialog's."""
    page.locator("[data-command='notebook:restart-kernel']").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()


class Notebook:
    """A new notebook in a page of the browser."""

    def __init__(self, page: Page, server: Server, name: str, kernel: str) -> None:
        self.page = page
        self.kernel = kernel
        empty = {"cell_type": "code", "id": "first", "metadata": {}, "source": ""}
        content = {"cells": [empty], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        write_notebook(server.root / name, content, kernel)
        open_notebook(page, server.url(name))

    def run(self, code: str) -> Cell:
        """Type a cell at the end of the notebook, press shift-enter, and do not wait for it."""
        cells = self.page.locator(CELLS)
        last = cells.count() - 1
        cell = Cell(self.page, last)
        cell.seen.locator(".cm-content").fill(code)
        self.page.keyboard.press("Shift+Enter")
        expect(cells).to_have_count(last + 2)  # the next, empty one
        return cell
