"""Every snippet and every notebook, as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import save

from kernels import Kernel
from side_by_side import concurrent_only

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
SNIPPET = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
TICK = re.compile(r'\[✓\]\(\.\./\.\./(tests/\w+\.py) "(test_\w+)"\)')


def test_the_readmes_snippets_run_as_printed(stock: Kernel) -> None:
    snippets = SNIPPET.findall((ROOT / "README.md").read_text())
    assert len(snippets) > 5
    for code, expected in snippets:
        cell = stock.ok(code.rstrip("\n"))
        if expected:
            assert cell.stdout + (cell.value or "") == expected.rstrip("\n"), code


@pytest.mark.parametrize(
    "page",
    [
        "explanation/main.md",
        "explanation/contexts.md",
        "howto/nesting.md",
        pytest.param("howto/concurrent.md", marks=concurrent_only),
    ],
)
def test_the_snippets_run_as_printed(fresh: Kernel, page: str) -> None:
    for code, expected in SNIPPET.findall((ROOT / "docs" / page).read_text()):
        assert fresh.ok(code.rstrip("\n")).value == (expected.rstrip("\n") or None)


def test_the_readmes_first_cell_fails_without_the_extension(stock: Kernel) -> None:
    snippets = SNIPPET.findall((ROOT / "README.md").read_text())
    assert len(snippets[1][0].splitlines()) <= 10
    assert stock.run(snippets[1][0]).ename == "RuntimeError"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


# The reference quotes the help of the magics.
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent.name != "reference"],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_page_imports_what_its_cells_use(page: Path) -> None:
    imported: set[str] = set()
    for code, _ in SNIPPET.findall(page.read_text()):
        for names in re.findall(r"^import ([\w, ]+)", code, re.MULTILINE):
            imported.update(names.split(", "))
        assert set(re.findall(r"\b(asyncio|ipyrunner)\.\w", code)) <= imported, code


def test_a_tick_stands_where_a_test_holds_it() -> None:
    text = (ROOT / "docs" / "frontends" / "index.md").read_text()
    ticks = TICK.findall(text)
    assert len(ticks) == text.count("✓") > 20
    for path, name in ticks:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, TUTORIAL], ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    document = save.executed(notebook)
    for cell in document.cells:
        # IPython prints an ExceptionGroup.
        failed = any(
            o["output_type"] == "error" or "Exception Group" in o.get("text", "") for o in cell.get("outputs", [])
        )
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), cell.source
    # Python's, IPython's and ipykernel's versions change tracebacks; the build of the site executes the tutorial.
    if os.environ.get("TEST_GROUP") == "test" and sys.version_info[:2] == (3, 13) and notebook != TUTORIAL:
        saved = nbformat.read(notebook, as_version=4)
        assert save.essence(saved) == save.essence(document), "python notebooks/save.py saves what comes out now"
        assert len(list(filter(None, save.essence(saved)))) > 5


def test_the_tutorial_is_committed_without_output() -> None:
    document = nbformat.read(TUTORIAL, as_version=4)
    assert not save.outputs(document)


@pytest.mark.slow
def test_the_demo_prints_cell_by_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # ipykernel 6 says that modules are frozen
    command = [sys.executable, ROOT / "notebooks" / "run.py", ROOT / "notebooks" / "quickstart.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "requests served" in done.stdout
    assert re.search(r"Out \[(\d+)\], while cell (?!\1)\d+ runs:\n    \d+ requests served", done.stdout)
    assert "cleaned up, with an await" in done.stdout
    assert done.stdout.count("\n    KeyboardInterrupt: ") == 2
    assert "ran as they should" in done.stdout


def test_the_house_names_files_that_are_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "explanation" / "architecture.md").read_text()))
    assert len(named) > 20
    for path in named:
        assert (ROOT / "src" / "ipyrunner" / path).exists(), path
