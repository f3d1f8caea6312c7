"""What is shown of the runner and of wrong settings."""

from __future__ import annotations

import pytest

from kernels import Kernel


def test_the_runner_says_what_it_is(fresh: Kernel) -> None:
    fresh.ok("import asyncio, threading, ipyrunner\nrunner = ipyrunner.get_runner()")
    fresh.ok("t = asyncio.create_task(asyncio.sleep(60)); texts = []")
    text = fresh.ok("runner").value or ""
    assert text.startswith("<NotebookRunner: asyncio.")
    assert "SelectorEventLoop, 1 task;" in text
    fresh.ok("thread = threading.Thread(target=lambda: texts.append(repr(runner)))\nthread.start(); thread.join()")
    assert fresh.ok("print(*texts)").stdout == text + "\n"
    assert "no event loop yet" in fresh.ok("runner.close(); print(repr(runner))").stdout


@pytest.mark.parametrize(
    ("wrong", "near"),
    {"debgu": " Did you mean 'debug'?", "xyz": "", "x" * 1000: ""}.items(),
    ids=["near", "far", "long"],
)
def test_a_setting_that_there_is_not(fresh: Kernel, wrong: str, near: str) -> None:
    said = fresh.run(f"%config NotebookRunner.{wrong} = True").stderr
    assert f"NotebookRunner has no setting '{wrong[:50]}" in said
    assert f".{near} `%config NotebookRunner` lists the settings" in said
    assert len(said) < 300
    for name in ("NotebookRuner", "NoteBookRunner"):
        said = fresh.run(f"%config {name}.debug = True").stderr
        assert said.count(f"there is no {name}. Did you mean `%config NotebookRunner`?") == 1
    assert fresh.run("%config InteractiveShell.xmode = 'Context'").stderr == ""
    fresh.ok("%config NotebookRunner.debug = True")
    assert fresh.ok("import asyncio\nawait asyncio.sleep(0)\nasyncio.get_running_loop().get_debug()").value == "True"
