"""Film a notebook in JupyterLab: its cells executed one after the other, as an animated GIF.

    python docs/pictures/film.py docs/pictures/film.ipynb OUT.gif [--theme dark]

The interrupt button is pressed in cells that are tagged `interrupt`, once they have printed something. A cell that is
tagged `until:TEXT` is followed by a wait until TEXT is seen on the page; one that is tagged `live` is filmed when the
live view of a cell before shows it. It needs what make.py needs, and Pillow.
"""

import argparse
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
try:
    from make import START, THEMES
    from PIL import Image
    from playwright.sync_api import Page, expect

    import browser
except ImportError as error:
    sys.exit(f"{error.name} is not installed for {sys.executable}: pip install --group test")

# Milliseconds that a frame is seen.
BRIEF, LONG, LAST = 700, 2000, 4000
SIZE = {"width": 990, "height": 640}
STYLE = """.jp-cell-toolbar, .jp-Notebook-footer, .Toastify, .jp-LabShell > .jp-SideBar, #jp-top-panel, #jp-menu-panel,
    #jp-bottom-panel { display: none !important }"""
BUTTON = "[data-command='notebook:interrupt-kernel']"
# JavaScript: a traceback's paths without the place where this machine keeps Python.
PATHS = r"""() => document.querySelectorAll(".jp-OutputArea-output pre span:not(:has(*))").forEach(span => {
    span.textContent = span.textContent.replace(/[~/][\w./~-]*?\/(?=lib\/python3)/, ".../") })"""
END = "document.querySelector('.jp-WindowedPanel-outer').scrollTop = 1e6"


class Film:
    """Frames of a page, and how long each is seen."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[Image.Image] = []
        self._durations: list[int] = []

    def take(self, duration: int) -> None:
        self._page.evaluate(PATHS)
        self._page.evaluate(END)
        box: Any = self._page.locator(".jp-NotebookPanel").bounding_box()
        picture = Image.open(io.BytesIO(self._page.screenshot(clip=box)))
        self._frames.append(picture.convert("RGB").quantize(96, dither=Image.Dither.NONE))
        self._durations.append(duration)

    def save(self, path: Path) -> None:
        first, *others = self._frames
        first.save(path, save_all=True, append_images=others, duration=self._durations, loop=0, optimize=True)


def play(page: Page, cells: list[dict[str, Any]], film: Film) -> None:
    """Execute the cells, and take a frame before and after each."""
    film.take(LONG)
    for index, cell in enumerate(cells):
        tags = cell["metadata"].get("tags", ())
        page.evaluate(START, index)
        seen = browser.Cell(page, index)
        if "interrupt" in tags:
            seen.expect(re.compile("."))
            film.take(LONG)
            page.locator(BUTTON).first.hover()
            film.take(BRIEF)
            browser.press_interrupt(page)
        elif "live" in tags:
            expect(page.locator(".ipyrunner-live tr[data-kind=cell]")).to_be_visible()
            film.take(LONG)
        elif "await" in "".join(cell["source"]):
            film.take(BRIEF)
        seen.expect_end()
        browser.expect_idle(page)
        for tag in tags:
            if tag.startswith("until:"):
                expect(page.get_by_text(tag.removeprefix("until:")).first).to_be_visible()
        film.take(LAST if index == len(cells) - 1 else LONG)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("film", type=Path, metavar="OUT.gif")
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    arguments = parser.parse_args()
    if not (path := browser.find_browser()):
        parser.error(f"no browser: {browser.INSTALL}")
    content = json.loads(arguments.notebook.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as directory, browser.browsing(path) as chromium:
        root, name = Path(directory), arguments.notebook.name
        browser.write_settings(root, {THEMES: {"theme": f"JupyterLab {arguments.theme.capitalize()}"}})
        browser.write_notebook(root / name, content, "ipyrunner")
        with browser.serving(root) as server:
            page = chromium.new_page(viewport=SIZE)
            page.set_default_timeout(60_000)
            expect.set_options(60_000)
            browser.open_notebook(page, server.url(name), arguments.theme)
            page.evaluate("() => { jupyterapp.shell.collapseLeft(); jupyterapp.shell.collapseRight() }")
            page.add_style_tag(content=STYLE)
            film = Film(page)
            play(page, content["cells"], film)
            film.save(arguments.film)


if __name__ == "__main__":
    main()
