"""What is shown of the runner and of wrong settings."""

from __future__ import annotations

from kernels import Kernel


def test_the_runner_says_what_it_is(fresh: Kernel) -> None:
    fresh.ok("import asyncio, ipyrunner\nrunner = ipyrunner.get_runner()\nrunner.close()")
    fresh.ok(
        "import threading\ntext = []\nt = threading.Thread(target=lambda: text.append(repr(runner))); t.start(); t.join()"
    )
    assert fresh.ok("%arunner close\nt = asyncio.create_task(asyncio.sleep(60))").ename is None
    text = fresh.ok("runner").value or ""
    assert text.startswith("<NotebookRunner: asyncio.")
    assert "SelectorEventLoop, 1 task;" in text

    assert fresh.ok("text").value != "[]"


def test_a_setting_that_there_is_not(fresh: Kernel) -> None:
    for wrong, near in (("debgu = True", ", but 'debug'"), ("xyz = 1", "")):
        cell = fresh.run(f"%config NotebookRunner.{wrong}")
        name = wrong.split()[0]
        assert cell.ename == "TraitError"
        assert (
            f"TraitError: NotebookRunner has no setting '{name}'{near}: `%config NotebookRunner` lists"
            in cell.traceback
        )
    assert fresh.ok("%config NotebookRunner.debug = True\nawait asyncio.sleep(0, 1)").value == "1"
