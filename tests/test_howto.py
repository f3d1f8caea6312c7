"""The how-to pages that need servers, files or a profile: each snippet as printed, in order, in one kernel."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import BEFORE, Cell, Kernel, kernel

PAGES = Path(__file__).parent.parent / "docs" / "howto"
# What each page needs beside the package.
NEEDED = {
    "background": [],
    "crawl": ["aiohttp", "tqdm"],
    "fastapi": ["fastapi", "uvicorn", "httpx"],
    "live": ["anywidget"],
    "logging": [],
    "mcp": ["mcp", "anyio"],
    "pools": ["websockets", "aiohttp", "sqlalchemy", "aiosqlite"],
    "profiling": ["pyinstrument"],
    "settings": [],
    "timeouts": [],
    "tracing": [],
    "uvloop": ["uvloop"],
}
SNIPPET = re.compile(r"^```python\n(.*?)\n```\n(?:```text\n(.*?)\n```\n)?", re.MULTILINE | re.DOTALL)
# A file of IPython's profile, whose name its first line says.
PROFILE = re.compile(r"^```py\n# (\w+\.py).*?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INTERRUPTED = "\nKeyboardInterrupt"


def shown(cell: Cell) -> str:
    """What a page prints of a cell: output, value, and the last line of an error."""
    pieces = [cell.stdout, cell.stderr, cell.value or ""]
    pieces += [": ".join(filter(None, (e["ename"], e["evalue"]))) for e in errors(cell)]
    # Where an exception has no notes (IPython 7), they are printed.
    return re.sub(r"^ipyrunner: this cell could not go on.*\n", "", "".join(pieces), flags=re.MULTILINE).rstrip("\n")


def errors(cell: Cell) -> Iterator[dict[str, str]]:
    return (m["content"] for m in cell.messages if m["msg_type"] == "error")


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page == "mcp")) for page in NEEDED])
def test_the_snippets_run_as_printed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in NEEDED[page]:
        pytest.importorskip(module)
    if page == "mcp" and not hasattr(importlib.import_module("mcp"), "Client"):
        pytest.skip("this page is about version 2")
    text = (PAGES / f"{page}.md").read_text()
    profile = tmp_path / "profile_default"
    profile.mkdir()
    for name, code in PROFILE.findall(text):
        (profile / name).write_text(code)
    monkeypatch.chdir(tmp_path)  # some write files
    with kernel(tmp_path, load="InteractiveShellApp.extensions" not in text) as k:
        cells = [(run(k, code, expected), expected) for code, expected in SNIPPET.findall(text)]
        assert len(cells) > 1
        for cell, expected in cells:
            if expected:  # tasks print after their cell
                k.wait_until(lambda: shown(cell).count("\n") >= expected.count("\n"))
                assert shown(cell) == expected
        k.ok(BEFORE)
        k.expect_alive()
        assert k.ok("%atasks").value == "no tasks"


def run(k: Kernel, code: str, expected: str) -> Cell:
    cell = k.begin(code)
    if expected.endswith(INTERRUPTED):
        k.interrupted(cell, expected.partition("\n")[0])
    k.finish(cell)
    failed = list(errors(cell))
    assert not failed or expected, failed
    return cell


def test_every_page_that_needs_it_is_run() -> None:
    elsewhere = {"concurrent", "debugging", "headless", "nesting", "widgets"}
    assert {path.stem for path in PAGES.glob("*.md")} - elsewhere == set(NEEDED)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupt_leaves_the_server_of_fastapi_running(fresh: Kernel) -> None:
    for module in NEEDED["fastapi"]:
        pytest.importorskip(module)
    app, start, call, *_, stop = (code for code, _ in SNIPPET.findall((PAGES / "fastapi.md").read_text()))
    fresh.ok(app)
    started = fresh.begin(f"{start}\nprint('go'); await asyncio.sleep(60)")
    fresh.interrupted(started, "go")
    assert started.ename == "KeyboardInterrupt"
    assert fresh.ok(call).stdout == "['lamp']\n['lamp', 'desk']\n"
    stopped = fresh.begin(f"{stop}\nprint('go'); await asyncio.sleep(60)")
    fresh.interrupted(stopped, "go")
    assert stopped.ename == "KeyboardInterrupt"
    fresh.wait_for(started, "the app has cleaned up")
    fresh.expect_alive()
