"""Photograph a notebook as JupyterLab shows it, all its cells executed.

    python docs/pictures/make.py NOTEBOOK OUT.png [--theme dark]

The interrupt button is pressed in cells that are tagged `interrupt`, once they have printed something; those that are
tagged `runs` go on beside the next ones then. It needs what the browser tests need: the dependency group `test`, and
Chromium.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
try:
    from playwright.sync_api import Page, TimeoutError, expect

    import browser
except ImportError as error:
    sys.exit(f"{error.name} is not installed for {sys.executable}: pip install --group test")

THEMES = "@jupyterlab/apputils-extension:themes"
# JavaScript: `jupyterapp` is there because of --expose-app-in-browser.
START = """index => { const {commands, shell} = jupyterapp; shell.collapseLeft(); shell.collapseRight();
    shell.currentWidget.content.activeCellIndex = index; commands.execute("notebook:run-cell") }"""
OUTPUTS = "index => jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel.getOutputs()"
HEIGHT = "e => e.getBoundingClientRect().bottom - e.closest('.jp-NotebookPanel').getBoundingClientRect().top"
FITS = "(panel => panel.scrollHeight == panel.clientHeight)(document.querySelector('.jp-WindowedPanel-outer'))"


def execute(page: Page, cells: list[dict[str, Any]], timeout: float) -> None:
    """Execute the code cells one after the other, each when the one before has its prompt number."""
    outputs = []
    running = False
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code" or not (source := "".join(cell["source"]).strip()):
            continue
        tags = cell["metadata"].get("tags", ())
        page.evaluate(START, index)
        seen = browser.Cell(page, index)
        try:
            if "interrupt" in tags:
                seen.expect(re.compile("."))
                browser.press_interrupt(page)
            if "runs" in tags:
                running = True
                seen.expect(re.compile("."))
                continue
            seen.expect_end()
        except AssertionError:
            sys.exit(f"Cell {index + 1} has not ended within {timeout:g} s (see --timeout):\n{source}")
        if not running:
            browser.expect_idle(page)  # what comes after an error at once, the kernel aborts
        outputs = page.evaluate(OUTPUTS, index)
        for output in outputs:
            failed = output["output_type"] == "error"
            text = "\n".join(output["traceback"]) if failed else "".join(output.get("text", ""))
            failed |= text.startswith("UsageError: ")  # of which IPython sends no traceback
            if failed and not {"raises-exception", "interrupt"} & set(tags):
                text = re.sub(r"\x1b\[[\d;]*m", "", text)
                sys.exit(f"Cell {index + 1} failed (tag it raises-exception if it should):\n{source}\n\n{text}")
    if not outputs:
        sys.exit("The last code cell has no output")
    expect(seen.seen.locator(".jp-OutputArea-output").last).to_be_visible()
    if running and (views := page.locator(".ipyrunner-live").all()):  # of %atasks --live
        expect(views[0].locator("tr[data-kind=cell]")).to_be_visible()


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
    parser.add_argument("--browser", help="its name or its path (default: the first of those that the tests know)")
    arguments = parser.parse_args()
    if not (path := browser.find_browser(*filter(None, [arguments.browser]))):
        parser.error(f"no browser: {browser.INSTALL}, or name another one with --browser")
    if not arguments.notebook.is_file():
        parser.error(f"no notebook at {arguments.notebook}")
    content = json.loads(arguments.notebook.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as directory, browser.browsing(path) as chromium:
        root, name = Path(directory), arguments.notebook.name
        browser.write_settings(root, {THEMES: {"theme": f"JupyterLab {arguments.theme.capitalize()}"}})
        browser.write_notebook(root / name, content, "python3")
        with browser.serving(root, timeout=arguments.timeout) as server:
            page = chromium.new_page()
            page.set_default_timeout(arguments.timeout * 1000)
            expect.set_options(arguments.timeout * 1000)
            try:
                browser.open_notebook(page, server.url(name), arguments.theme)
            except TimeoutError:
                sys.exit(f"No page in the theme with a kernel within {arguments.timeout:g} s (see --timeout)")
            page.add_style_tag(content=".jp-cell-toolbar, .jp-Notebook-footer, .Toastify { display: none !important }")
            execute(page, content["cells"], arguments.timeout)
            page.screenshot(path=arguments.picture, clip=fit(page, arguments.width))


if __name__ == "__main__":
    main()
