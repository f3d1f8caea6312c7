"""``NotebookRunner.slow_callback``: a callback that holds the loop is named, where it was started."""

from __future__ import annotations

import re

import pytest

from kernels import Kernel
from setups import SETUPS

ON = "%config NotebookRunner.slow_callback = 0.1"
REPORT = re.compile(
    r"ipyrunner: (.*?) blocked the event loop for (\d+\.\d\d) s, so that nothing else ran: (.*)  \((.*)\)"
)
# What the thread has to say comes before what the loop does afterwards.
SETTLE = "await asyncio.sleep(0.01)\nprint('settled')"
FIND_THREAD = "import threading; watcher, = [t for t in threading.enumerate() if t.name == 'ipyrunner: slow callbacks']"

WORKER = """\
import sys, time
async def worker(seconds):
    for i in range(3):
        time.sleep(seconds)
        await asyncio.sleep(0.01)
    sys.stderr.flush()
    print("worked")
"""


def start(kernel: Kernel, setup: str) -> None:
    if SETUPS[setup]:
        kernel.ok(SETUPS[setup])
        kernel.ok("%arunner restart")
    kernel.ok(ON)


@pytest.mark.parametrize("setup", SETUPS)
def test_told_once_where_it_was_started(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    fresh.ok(WORKER)
    starter = fresh.ok(
        "go = asyncio.Event()\n"
        "async def wait():\n"
        "    await go.wait()\n"
        "    began = time.monotonic()\n"
        "    await worker(0.3)\n"
        "    return time.monotonic() - began\n"
        "task = asyncio.create_task(wait())\n"
        "await asyncio.sleep(0)"
    )
    other = fresh.ok("go.set()\nprint(await task)\n")
    fresh.wait_for(starter, "worked")
    ((name, seconds, line, place),) = REPORT.findall(starter.stderr)
    assert (name, line) == ("worker()", "time.sleep(seconds)")
    assert 0.1 <= float(seconds) <= float(other.stdout) - 0.6
    assert ", line 4; NotebookRunner.slow_callback: 0.1 s" in place
    assert other.stderr == ""


@pytest.mark.parametrize("setup", ["asyncio", "uvloop"])
def test_a_task_that_ends_by_it(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    starter = fresh.ok(
        "import sys, time\n"
        "go = asyncio.Event()\n"
        "async def last():\n"
        "    await go.wait()\n"
        "    time.sleep(0.3)\n"
        "async def after():\n"
        "    await task\n"
        "    await asyncio.sleep(0.01)\n"
        "    sys.stderr.flush()\n"
        "    print('after')\n"
        "task, then = asyncio.create_task(last()), asyncio.create_task(after())\n"
        "await asyncio.sleep(0)"
    )
    other = fresh.ok("go.set()\nawait then")
    fresh.wait_for(starter, "after")
    assert [name for name, *_ in REPORT.findall(starter.stderr)] == ["last()"]
    assert other.stderr == ""


@pytest.mark.parametrize("setup", SETUPS)
def test_the_cell_itself(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    cell = fresh.ok("import time\nawait asyncio.sleep(0)\ntime.sleep(0.3)\n" + SETTLE)
    ((name, _, line, place),) = REPORT.findall(cell.stderr)
    assert (name, line) == ("the cell", "time.sleep(0.3)")
    assert "line 3;" in place


def test_a_callback(fresh: Kernel) -> None:
    start(fresh, "asyncio")
    cell = fresh.ok(
        "import time\ndef outer():\n    def callback():\n        sorted([0], key=lambda _: time.sleep(0.3))\n"
        "    return callback\nasyncio.get_running_loop().call_soon(outer())\n" + SETTLE
    )
    assert REPORT.findall(cell.stderr)[0][0] == "callback.<locals>.<lambda>()"
    cell = fresh.ok(
        "def outer():\n    class Client:\n        def fetch(self): time.sleep(0.3)\n"
        "    return Client().fetch\nasyncio.get_running_loop().call_soon(outer())\n" + SETTLE
    )
    assert REPORT.findall(cell.stderr)[0][0] == "Client.fetch()"


@pytest.mark.parametrize("setup", ["asyncio", "uvloop"])
def test_off_is_nothing(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    fresh.ok(FIND_THREAD)
    fresh.ok("%config NotebookRunner.slow_callback = 0")
    assert fresh.ok("watcher.join(10); watcher.is_alive()").value == "False"
    fresh.ok(WORKER)
    assert fresh.ok("await worker(0.2)\n" + SETTLE).stderr == ""
    # And on again.
    fresh.ok(ON)
    assert "worker() blocked" in fresh.ok("await worker(0.2)\n" + SETTLE).stderr


def test_off_by_default(fresh: Kernel) -> None:
    fresh.ok(WORKER)
    assert fresh.ok("await worker(0.2)\n" + SETTLE).stderr == ""
    assert fresh.ok("import threading; [t for t in threading.enumerate() if 'slow' in t.name]").value == "[]"
    fresh.ok(ON)
    fresh.ok(FIND_THREAD)


@pytest.mark.parametrize("setup", SETUPS)
def test_a_loop_at_rest_is_left_alone(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    fresh.ok(FIND_THREAD)
    cell = fresh.ok(
        "loop, calls = asyncio.get_running_loop(), []\n"
        "loop.call_soon_threadsafe = lambda *args, **options: calls.append(args) or type(loop).call_soon_threadsafe(loop, *args, **options)\n"
        "await asyncio.sleep(1)\n"
        "del loop.call_soon_threadsafe\n"
        "len(calls)"
    )
    # One look may have found the cell itself, of forty.
    assert int(cell.value or "99") <= 1


@pytest.mark.parametrize("setup", SETUPS)
def test_many_short_callbacks_are_nothing(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    fresh.ok("%config NotebookRunner.slow_callback = 0.8")  # a machine under load may take a tenth of a second for one
    cell = fresh.ok(
        "import time\n"
        "async def short():\n"
        "    for _ in range(6):\n"
        "        time.sleep(0.002)\n"
        "        await asyncio.sleep(0)\n"
        "await asyncio.gather(*(short() for _ in range(100)))\n"
        # One coroutine that is never at rest, in many steps.
        "end = time.monotonic() + 1.2\n"
        "while time.monotonic() < end:\n"
        "    time.sleep(0.002)\n"
        "    await asyncio.sleep(0)\n" + SETTLE
    )
    assert cell.stderr == ""
    # It would have been told.
    assert "the cell blocked" in fresh.ok("import time\nawait asyncio.sleep(0)\ntime.sleep(1.2)\n" + SETTLE).stderr


@pytest.mark.parametrize("setup", SETUPS)
def test_cells_without_await_are_nothing(fresh: Kernel, setup: str) -> None:
    start(fresh, setup)
    fresh.ok(WORKER)
    assert fresh.ok("time.sleep(0.3)").stderr == ""
    assert fresh.ok("asyncio.run(worker(0.2))").stderr == ""
    assert fresh.ok(SETTLE).stderr == ""
    assert (
        "worker() blocked"
        in fresh.ok(
            "async def settled():\n    await worker(0.2)\n    await asyncio.sleep(0.01)\n%arun settled()"
        ).stderr
    )


@pytest.mark.parametrize("setup", ["asyncio", "uvloop"])
def test_the_end(fresh: Kernel, setup: str) -> None:
    """The thread ends with its loop; the next loop has one of its own; unloading leaves none."""
    start(fresh, setup)
    fresh.ok(FIND_THREAD)
    fresh.ok("%arunner restart")
    assert fresh.ok("watcher.join(10); watcher.is_alive()").value == "False"
    assert (
        "the cell blocked"
        in fresh.ok("import time, asyncio\nawait asyncio.sleep(0)\ntime.sleep(0.3)\n" + SETTLE).stderr
    )
    fresh.ok(FIND_THREAD)
    fresh.ok("%unload_ext ipyrunner")
    assert fresh.ok("watcher.join(10); watcher.is_alive()").value == "False"


def test_a_loop_that_is_closed(fresh: Kernel) -> None:
    start(fresh, "asyncio")
    fresh.ok(FIND_THREAD)
    assert fresh.ok("asyncio.get_event_loop().close(); watcher.join(10); watcher.is_alive()").value == "False"


def test_a_c_function_has_no_line_to_show(fresh: Kernel) -> None:
    start(fresh, "asyncio")
    cell = fresh.ok("import time\nasyncio.get_running_loop().call_soon(time.sleep, 0.3)\n" + SETTLE)
    assert cell.stderr == ""
    assert "the cell blocked" in fresh.ok("import time\nawait asyncio.sleep(0)\ntime.sleep(0.3)\n" + SETTLE).stderr


def test_frames_are_let_go(fresh: Kernel) -> None:
    start(fresh, "uvloop")
    fresh.ok(
        "import time, weakref\nclass Large: pass\nasync def hold():\n    large = Large()\n    time.sleep(0.3)\n    return weakref.ref(large)"
    )
    cell = fresh.ok("ref = await asyncio.create_task(hold())\n" + SETTLE + "\nprint(ref())")
    assert "hold() blocked" in cell.stderr
    assert cell.stdout == "settled\nNone\n"


@pytest.mark.parametrize("value", ["-1", "float('nan')", "float('inf')"])
def test_what_is_no_number_of_seconds(fresh: Kernel, value: str) -> None:
    cell = fresh.run(f"import ipyrunner; ipyrunner.get_runner().slow_callback = {value}")
    assert cell.ename == "TraitError"
    assert fresh.ok("ipyrunner.get_runner().slow_callback").value == "0.0"
