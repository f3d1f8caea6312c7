"""The pages of the documentation site that are made from the code, or say what it does: `make docs` builds them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from kernels import Cell, Kernel

DOCS = Path(__file__).parent.parent / "docs"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date() -> None:
    generate = script(DOCS / "reference" / "generate.py")
    for name, text in generate.pages().items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, "python docs/reference/generate.py"


def test_errors_come_as_written_and_what_to_do_works(fresh: Kernel) -> None:
    """The cells of a section give its title, whose parts "..." separates; the last one does not fail."""
    start, *sections = re.split(r"^## ", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(sections) >= 10
    for code in SNIPPET.findall(start):
        fresh.ok(code)
    for section in sections:
        title = section.splitlines()[0].strip("`")
        *cells, last = SNIPPET.findall(section)
        done = [fresh.run(code) for code in cells]
        missing = title.split("...")

        def says_it(done: list[Cell] = done, missing: list[str] = missing) -> bool:
            said = "".join(cell.stdout + cell.stderr + cell.traceback for cell in done)
            missing[:] = [part for part in missing if part.strip() not in said]
            return not missing

        try:
            fresh.wait_until(says_it)
        except TimeoutError:
            pytest.fail(f"{title}: no {missing} in {done}")
        fresh.ok(last)
