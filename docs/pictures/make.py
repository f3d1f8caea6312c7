"""Photograph a notebook as JupyterLab shows it, all its cells executed.

    python docs/pictures/make.py NOTEBOOK OUT.png [--theme dark]

It needs Chromium, and beside ipyrunner: pip install jupyterlab playwright. The server, its settings and a copy of the
notebook are in a temporary directory. What it waits for is seen in the page, never slept for.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

try:
    from playwright.sync_api import Page, TimeoutError, expect, sync_playwright
except ImportError as error:
    sys.exit(f"{error.name} is not installed for {sys.executable}: pip install jupyterlab playwright")

DIRECTORIES = """JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR
    JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR IPYTHONDIR"""
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/notebook-extension:tracker": {"scrollPastEnd": False, "windowingMode": "none"},  # no cell is left out
}
# JavaScript: `jupyterapp` is there because of --expose-app-in-browser.
READY = """theme => document.body.dataset.jpThemeName == theme && !document.getElementById("jupyterlab-splash")
    && window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus == "connected" """
START = """index => { const {commands, shell} = jupyterapp; shell.collapseLeft(); shell.collapseRight();
    shell.currentWidget.content.activeCellIndex = index; commands.execute("notebook:run-cell") }"""
OUTPUTS = "index => jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel.getOutputs()"
HEIGHT = "e => e.getBoundingClientRect().bottom - e.closest('.jp-NotebookPanel').getBoundingClientRect().top"
FITS = "(panel => panel.scrollHeight == panel.clientHeight)(document.querySelector('.jp-WindowedPanel-outer'))"


def prepare(notebook: Path, root: Path, theme: str) -> list[dict[str, Any]]:
    """Put a copy of the notebook without outputs, and the settings, below `root`. Return the notebook's cells."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    content["metadata"].setdefault("kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"})
    (root / notebook.name).write_text(json.dumps(content), encoding="utf-8")
    overrides = root / "JUPYTER_CONFIG_DIR" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(SETTINGS | {"@jupyterlab/apputils-extension:themes": {"theme": theme}}))
    return content["cells"]


def find_address(server: subprocess.Popen[str], timeout: float) -> str:
    """Read what the server says until it names its address. A thread reads on, lest the server block."""
    said, watchdog = "", threading.Timer(timeout, server.kill)
    watchdog.start()
    try:
        for line in server.stderr:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+(?=/lab)", line):
                threading.Thread(target=server.stderr.read, daemon=True).start()
                return found[0]
    finally:
        watchdog.cancel()
    sys.exit(f"JupyterLab has ended, or was not ready within {timeout:g} s. It said:\n{said}")


@contextmanager
def serving(root: Path, name: str, timeout: float) -> Iterator[str]:
    """Run JupyterLab for the files below `root`; the value is the URL of the file `name`. End it with the block."""
    token = secrets.token_hex()
    options = "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", "--expose-app-in-browser"
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root}"],
        env=os.environ | {name: str(root / name) for name in DIRECTORIES.split()} | {"JUPYTER_TOKEN": token},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this script, which ends the server in good order
    )
    try:
        yield f"{find_address(server, timeout)}/doc/tree/{quote(name)}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(30)  # a kernel that hangs takes it more than ten
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def execute(page: Page, cells: list[dict[str, Any]], timeout: float) -> None:
    """Execute the code cells one after the other, each when the one before has its prompt number."""
    outputs = []
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code" or not (source := "".join(cell["source"]).strip()):
            continue
        page.evaluate(START, index)
        seen = page.locator(".jp-Notebook .jp-Cell").nth(index)
        try:
            expect(seen.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))
        except AssertionError:
            sys.exit(f"Cell {index + 1} has not ended within {timeout:g} s (see --timeout):\n{source}")
        outputs = page.evaluate(OUTPUTS, index)
        for output in outputs:
            failed = output["output_type"] == "error"
            text = "\n".join(output["traceback"]) if failed else "".join(output.get("text", ""))
            failed |= text.startswith("UsageError: ")  # of which IPython sends no traceback
            if failed and "raises-exception" not in cell["metadata"].get("tags", ()):
                text = re.sub(r"\x1b\[[\d;]*m", "", text)
                sys.exit(f"Cell {index + 1} failed (tag it raises-exception if it should):\n{source}\n\n{text}")
    if not outputs:
        sys.exit("The last code cell has no output")
    expect(seen.locator(".jp-OutputArea-output").last).to_be_visible()


def fit(page: Page, width: int) -> Any:
    """Make the window so large that all of the notebook is seen, `width` wide. Return the part of it to take."""
    panel = page.locator(".jp-NotebookPanel")
    size = {"width": width + panel.evaluate("e => innerWidth - e.clientWidth"), "height": 800}
    page.set_viewport_size(size)
    expect(panel).to_have_css("width", f"{width}px")
    size["height"] += page.locator(".jp-WindowedPanel-outer").evaluate("e => e.scrollHeight - e.clientHeight")
    page.set_viewport_size(size)
    page.wait_for_function(FITS)
    return (panel.bounding_box() or {}) | {"height": 10 + page.locator(".jp-Notebook .jp-Cell").last.evaluate(HEIGHT)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path, metavar="OUT.png")
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    parser.add_argument("--width", type=int, default=1100, help="of the picture, in pixels (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for a cell, and for the server to be ready")
    parser.add_argument("--browser", default="chromium", help="its name or its path (default: %(default)s)")
    arguments = parser.parse_args()
    if not (browser := shutil.which(arguments.browser)):
        parser.error(f"no browser {arguments.browser}: apt-get install chromium, or name another one with --browser")
    if not arguments.notebook.is_file():
        parser.error(f"no notebook at {arguments.notebook}")
    theme = f"JupyterLab {arguments.theme.capitalize()}"
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        cells = prepare(arguments.notebook, Path(directory), theme)
        with serving(Path(directory), arguments.notebook.name, arguments.timeout) as url:
            chromium = playwright.chromium.launch(executable_path=browser)
            page = chromium.new_page()
            page.set_default_timeout(arguments.timeout * 1000)
            expect.set_options(arguments.timeout * 1000)
            page.goto(url)
            try:
                page.wait_for_function(READY, arg=theme)
            except TimeoutError:
                sys.exit(f"No page in {theme} with a kernel within {arguments.timeout:g} s (see --timeout)")
            page.add_style_tag(content=".jp-cell-toolbar, .jp-Notebook-footer, .Toastify { display: none !important }")
            execute(page, cells, arguments.timeout)
            page.screenshot(path=arguments.picture, clip=fit(page, arguments.width))
            chromium.close()


if __name__ == "__main__":
    main()
