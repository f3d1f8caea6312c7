"""jupyter console in a real terminal, in front of a kernel with the extension."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals on Windows", allow_module_level=True)
pytest.importorskip("jupyter_console", reason="jupyter-console is not installed (dependency group frontends)")
from terminals import BEFORE, CONTROL_C, CONTROL_D, Terminal, Trigger, expect_alive

CONSOLE = ["-m", "jupyter_console", "--kernel", "python3", "--no-confirm-exit"]


def start(home: Path, *options: str) -> Terminal:
    here = {"JUPYTER_CONFIG_DIR": str(home), "JUPYTER_DATA_DIR": str(home / "data")}
    # The kernel writes to the same terminal, at any moment: here it has nothing to say.
    started = Terminal(home, *CONSOLE, *options, **here, PYDEVD_DISABLE_FILE_VALIDATION="1")
    started.run("%load_ext ipyrunner")
    started.run(BEFORE)
    return started


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Terminal]:
    started = start(tmp_path)
    yield started
    started.close()


def test_control_c_once_and_twice(console: Terminal) -> None:
    console.run("bystander = asyncio.create_task(asyncio.sleep(3600), name='bystander'); await asyncio.sleep(0)")
    console.begin("try: print('go', 1); await asyncio.sleep(60)\nfinally: await asyncio.sleep(0.01); print('clean', 1)")
    console.wait_for("\ngo 1")
    console.type(CONTROL_C)
    output = console.finish()
    assert "clean 1\n" in output
    assert "KeyboardInterrupt" in output
    expect_alive(console)
    console.begin(
        "for n in range(2):\n    try: print('try', n); await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError: print('swallowed', n)\nawait asyncio.sleep(60)"
    )
    console.wait_for("\ntry 0")
    console.type(CONTROL_C)
    console.wait_for("\ntry 1")
    console.type(CONTROL_C)
    output = console.finish()
    assert "KeyboardInterrupt" in output
    assert "still runs" in output
    expect_alive(console)
    listed = console.run("%atasks")
    assert "bystander" in listed
    assert "cancelling" in listed


TICKS = """\
async def tick():
    try:
        print('tick', 0); open('ticked', 'w').close()
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.01); open('clean', 'w').close()
async def begin(): await event.wait(); await tick()
task = asyncio.create_task(begin())
await asyncio.sleep(0)
"""


def test_tasks_go_on_at_the_prompt_and_their_output_comes_with_the_next_cell(console: Terminal, tmp_path: Path) -> None:
    trigger = Trigger(tmp_path)
    console.run(Trigger.CODE + TICKS)
    trigger.pull()
    console.wait((tmp_path / "ticked").exists, "the file of the task", every=0.05)
    assert "tick 0" in console.run("1 + 1")


def test_the_console_can_show_output_at_once(tmp_path: Path) -> None:
    console = start(tmp_path, "--ZMQTerminalInteractiveShell.include_other_output=True")
    try:
        trigger = Trigger(tmp_path)
        console.run(Trigger.CODE + TICKS)
        trigger.pull()
        console.wait_for("tick 0")
    finally:
        console.close()


@pytest.mark.parametrize("last", ["exit\r", CONTROL_D])
def test_the_end_finalizes_the_kernels_tasks(console: Terminal, tmp_path: Path, last: str) -> None:
    trigger = Trigger(tmp_path)
    console.run(Trigger.CODE + TICKS)
    trigger.pull()
    console.wait((tmp_path / "ticked").exists, "the file of the task", every=0.05)
    console.type(last)
    assert console.wait_for_exit() == 0
    assert (tmp_path / "clean").exists()
