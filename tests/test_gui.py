"""Figures and windows: matplotlib's inline backend, and %gui."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernels import Cell, Kernel, kernel
from setups import SETUPS

# -- matplotlib inline


pytestmark = pytest.mark.slow


@pytest.fixture
def plotting(shared: Kernel) -> Kernel:
    pytest.importorskip("matplotlib", reason="matplotlib is in the dependency group `frontends`")
    shared.ok("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.close('all')")
    return shared


def images(cell: Cell) -> int:
    return sum(m["msg_type"] == "display_data" and "image/png" in m["content"]["data"] for m in cell.messages)


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.sleep(0.01)\nplt.plot([1])",
        "async def draw():\n    await asyncio.sleep(0.01)\n    plt.plot([1])\nawait asyncio.create_task(draw())",
        "%%arun\nawait asyncio.sleep(0.01)\nplt.plot([1])",
    ],
    ids=["await", "task", "arun"],
)
def test_figures_of_awaiting_cells(plotting: Kernel, code: str) -> None:
    assert images(plotting.ok(code)) == 1
    assert images(plotting.ok("1")) == 0


def test_figures_of_background_cells_appear_in_their_own(plotting: Kernel) -> None:
    cell = plotting.ok(
        "%%arun --background -o job\nawait asyncio.sleep(0.1)\nplt.figure(); plt.plot([1]); print('drawn')"
    )
    plotting.wait_for(cell, "drawn")
    plotting.wait_for_message(cell, "display_data")
    assert images(cell) == 1
    # While a cell awaits, the figures may be that cell's: they wait for its end, or for plt.show().
    plotting.ok("gate = asyncio.Event()")
    other = plotting.ok("%%arun --background -o job\nawait gate.wait()\nplt.figure(); plt.plot([1])")
    assert images(plotting.ok("gate.set(); await job")) == 1
    assert images(other) == 0
    plotting.ok("gate.clear()")
    shown = plotting.ok("%%arun --background -o job\nawait gate.wait()\nplt.figure(); plt.plot([1])\nplt.show()")
    assert images(plotting.ok("gate.set(); await job")) == 0
    assert images(shown) == 1


def test_show_in_a_task_whose_cell_has_ended(plotting: Kernel) -> None:
    cell = plotting.ok(
        "async def late():\n    await asyncio.sleep(0.1)\n    plt.figure(); plt.plot([1]); plt.show(); print('shown')\n"
        "task = asyncio.create_task(late())"
    )
    plotting.wait_for(cell, "shown")
    assert images(cell) == 1
    assert images(plotting.ok("1")) == 0


# -- %gui


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    pytest.importorskip("tkinter", reason="this Python was built without tkinter")
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb (apt-get install xvfb)")
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x8"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        yield ":" + server.stdout.readline().decode().strip()
        server.terminate()


@pytest.fixture
def windows(display: str, tmp_path: Path) -> Any:
    with kernel(tmp_path, env={"DISPLAY": display}) as started:
        yield started


WINDOW = """
import tkinter
root = tkinter.Tk()
fired = ticks = 0
def fire():
    global fired
    fired += 1
    root.after(5, fire)
fire()
async def tick():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.005)
async def both(number):
    after = fired + number, ticks + number
    while fired < after[0] or ticks < after[1]:
        await asyncio.sleep(0.005)
ticking = asyncio.create_task(tick())
"""


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_windows_and_tasks_live_side_by_side(windows: Kernel, setup: str) -> None:
    windows.ok(setup + "%arunner restart\n%gui tk")
    windows.ok("import asyncio\nkept = 'kept'\nloop_id = id(asyncio.get_event_loop())")
    windows.ok(WINDOW)
    # While a cell awaits.
    windows.ok("await both(20)")
    # Between cells.
    cell = windows.ok("async def say():\n    await both(20); print('both')\ntask = asyncio.create_task(say())")
    windows.wait_for(cell, "both")
    # A callback of the window starts a task, and completes a cell's future.
    assert (
        windows.ok(
            "answer = asyncio.get_running_loop().create_future()\n"
            "async def reply(): answer.set_result(42)\n"
            "root.after(1, lambda: asyncio.create_task(reply()))\n"
            "await answer"
        ).value
        == "42"
    )
    for code in ["print('go'); await asyncio.sleep(60)", "print('go')\nwhile True: pass"]:
        cell = windows.begin(code)
        windows.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        windows.expect_alive()
    windows.ok("await both(5)")
    # A stuck callback of the window.
    cell = windows.begin(
        "def stuck():\n    print('stuck')\n    while True: pass\nroot.after(1, stuck); await asyncio.sleep(60)"
    )
    windows.interrupted(cell, "stuck")
    assert cell.ename == "KeyboardInterrupt"
    windows.expect_alive()
    windows.ok("%gui")
    assert windows.ok("before = fired; await asyncio.sleep(0.1); fired == before").value == "True"


def test_gui_asyncio_changes_nothing(shared: Kernel) -> None:
    shared.ok("%gui asyncio")
    assert shared.ok("get_ipython().kernel.eventloop is None").value == "True"
    cell = shared.ok(
        "async def say():\n    await asyncio.sleep(0.05); print('said')\ntask = asyncio.create_task(say())"
    )
    shared.wait_for(cell, "said")
    shared.expect_alive()


def test_another_toolkit_is_left_to_the_kernel_and_said(shared: Kernel) -> None:
    # It is not installed: the kernel logs that its loop cannot begin.
    assert "the event loop of gtk3 blocks the notebook's" in shared.ok("%gui gtk3").stdout
    shared.ok("%gui")
    assert shared.run("%gui nonsense").ename is None  # a UsageError, on stderr
    shared.expect_alive()


def test_unload_leaves_gui_to_the_kernel(windows: Kernel) -> None:
    windows.ok("%gui tk")
    windows.ok(WINDOW)
    windows.ok("await both(5); ticking.cancel()")
    # A closed loop stays closed until its next use; the window goes on.
    windows.ok(
        "import ipyrunner\nrunner = ipyrunner.get_runner()\nclosed = []\n"
        "def note():\n    closed.append(runner.present is None); root.after(5, note)\nnote()"
    )
    windows.ok("%arunner close")
    windows.look(0.2)
    assert windows.ok("closed[-1]").value == "True"
    windows.ok("%unload_ext ipyrunner")
    assert windows.ok("'enable_gui' in vars(get_ipython())").value == "False"
    windows.ok("before = fired")
    windows.look(0.2)  # between cells, forty times as long as the window's timer
    assert windows.ok("fired == before").value == "True"


def test_qt(tmp_path: Path) -> None:
    pytest.importorskip("PySide6", reason="PySide6-Essentials is in no dependency group, for its size")
    with kernel(tmp_path, env={"QT_QPA_PLATFORM": "offscreen"}) as started:
        started.ok("%gui qt")
        started.ok(
            "from PySide6.QtCore import QTimer\nfired = 0\ndef fire():\n    global fired\n    fired += 1\n"
            "timer = QTimer(); timer.timeout.connect(fire); timer.start(5)\n"
            "async def both():\n    after = fired + 20\n    while fired < after: await asyncio.sleep(0.005)"
        )
        started.ok("await both()")
        cell = started.ok("async def say():\n    await both(); print('both')\ntask = asyncio.create_task(say())")
        started.wait_for(cell, "both")
        started.expect_alive()
