"""The pages of the documentation site that are made from the code, or say what it does: `make docs` builds them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernels import CONCURRENT, DEADLINE, Cell, Kernel

DOCS = Path(__file__).parent.parent / "docs"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_generated_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "reference")
    import generate

    for name, text in generate.pages().items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, "python docs/reference/generate.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
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


@pytest.mark.parametrize("page", ["faq.md", "index.md"])
def test_the_snippets_run(fresh: Kernel, page: str) -> None:
    for code in SNIPPET.findall((DOCS / page).read_text(encoding="utf-8")):
        fresh.ok(code)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not CONCURRENT, reason="older versions of ipykernel answer fewer requests while a cell awaits")
def test_the_comparison_says_what_ipyrunner_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import comparison

    monkeypatch.setattr(comparison, "PATIENCE", DEADLINE)
    lines = (DOCS / "comparison.md").read_text(encoding="utf-8").split("\n\n")[2].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    column = head.index("ipyrunner")
    assert [row[0] for row in rows] == [*comparison.QUESTIONS]
    assert [row[column] for row in rows] == comparison.answers(comparison.SETUPS[-1])
