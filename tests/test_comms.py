"""Comm messages, as JupyterLab sends them for widgets: to the main shell, and to a subshell, which is another thread."""

from __future__ import annotations

import ipykernel
import pytest

from kernels import Cell, Kernel

BEFORE_COMM = """
import asyncio, threading
from comm import get_comm_manager

main, log = threading.main_thread(), []

def target(comm, message):
    comm.on_msg(lambda message: on_message(message["content"]["data"]))

get_comm_manager().register_target("target", target)
"""
needs_subshells = pytest.mark.skipif(ipykernel.version_info < (7,), reason="subshells came with ipykernel 7.0")
needs_concurrency = pytest.mark.skipif(
    ipykernel.version_info < (7, 4), reason="before ipykernel 7.4 comm messages wait until the running cell has ended"
)


class Comm:
    """A comm that the front end has opened; on a subshell, or on the main shell."""

    def __init__(self, kernel: Kernel, *, subshell: bool) -> None:
        self.kernel = kernel
        self.subshell = kernel.create_subshell() if subshell else None
        kernel.ok(BEFORE_COMM)
        opened = self._send("comm_open", target_name="target", data={})
        kernel.wait_until(lambda: opened.idle)

    def send(self, data: object) -> Cell:
        return self._send("comm_msg", data=data)

    def _send(self, msg_type: str, **content: object) -> Cell:
        return self.kernel.send_comm(msg_type, {"comm_id": "a comm", **content}, subshell=self.subshell)


@pytest.fixture(
    params=[
        pytest.param(False, marks=needs_concurrency, id="main shell"),
        pytest.param(True, marks=needs_subshells, id="subshell"),
    ]
)
def comm(request: pytest.FixtureRequest, fresh: Kernel) -> Comm:
    return Comm(fresh, subshell=request.param)


@pytest.fixture
def on_subshell(fresh: Kernel) -> Comm:
    return Comm(fresh, subshell=True)


def test_a_callback_completes_a_future_that_a_cell_awaits(comm: Comm) -> None:
    comm.kernel.ok("def on_message(data): future.set_result((data, threading.current_thread() is main))")
    # In debug mode asyncio refuses calls of other threads; nothing else wakes the loop.
    cell = comm.kernel.begin(
        "loop = asyncio.get_running_loop(); loop.set_debug(True); future = loop.create_future(); print('go'); await future"
    )
    comm.kernel.wait_for(cell, "go")
    comm.send(7)
    assert comm.kernel.finish(cell).value == "(7, True)"


def test_a_task_of_a_callback_is_one_of_the_notebook(comm: Comm) -> None:
    comm.kernel.ok("""
def on_message(data):
    asyncio.create_task(work(data))

async def work(data):
    await asyncio.sleep(0.01)
    future.set_result((data, id(asyncio.get_running_loop()) == loop_id))
""")
    comm.kernel.ok("future = asyncio.get_event_loop().create_future()")
    comm.send(8)  # between cells
    assert comm.kernel.ok("await future").value == "(8, True)"
    cell = comm.kernel.begin("future = asyncio.get_running_loop().create_future(); print('go'); await future")
    comm.kernel.wait_for(cell, "go")
    comm.send(9)
    assert comm.kernel.finish(cell).value == "(9, True)"


def test_messages_go_idle_while_a_cell_awaits_and_the_kernel_stays_busy(comm: Comm) -> None:
    """The front end of ipywidgets sends the next change of a widget when the one before has gone idle."""
    kernel = comm.kernel
    kernel.ok("def on_message(data): print('got', data)")
    cell = kernel.begin("over = asyncio.Event(); print('go'); await asyncio.sleep(600)")
    kernel.wait_for(cell, "go")
    for n in range(2):
        sent = comm.send(n)
        kernel.wait_until(lambda sent=sent: sent.idle)
        assert sent.stdout == f"got {n}\n"
        assert sent.statuses == ["busy", "idle"]
    assert not cell.idle
    if comm.subshell is None:  # what a front end shows is the last status of the main shell
        kernel.wait_until(lambda: cell.statuses == ["busy"] * 3)
    kernel.interrupt()
    assert kernel.finish(cell).ename == "KeyboardInterrupt"
    kernel.expect_alive()


@needs_subshells
def test_while_a_plain_cell_blocks_callbacks_run_on_the_subshell(on_subshell: Comm) -> None:
    kernel = on_subshell.kernel
    kernel.ok("%config NotebookRunner.interrupt_grace = 100")  # at once, and not when that is over
    kernel.ok("""
blocked = threading.Event()
waiting = asyncio.get_event_loop().create_future()

def on_message(data):
    log.append((data, threading.current_thread() is main))
    waiting.set_result(data)
    blocked.set()
""")
    cell = kernel.begin("print('go'); blocked.wait(60)")
    kernel.wait_for(cell, "go")
    on_subshell.send(1)
    assert kernel.finish(cell).value == "True"
    assert kernel.ok("print(log, await waiting)").stdout == "[(1, False)] 1\n"


@needs_subshells
def test_a_loop_that_is_stuck_leaves_callbacks_to_the_subshell(on_subshell: Comm) -> None:
    kernel = on_subshell.kernel
    kernel.ok("""
blocked = threading.Event()

def on_message(data):
    log.append(threading.current_thread() is main)
    if len(log) == 100: blocked.set()
""")
    cell = kernel.begin("await asyncio.sleep(0); print('go'); blocked.wait(60)")
    kernel.wait_for(cell, "go")
    for n in range(100):
        on_subshell.send(n)
    # After interrupt_grace: not each of them waits for so long, and each is called once.
    assert kernel.finish(cell).value == "True"
    assert kernel.ok("await asyncio.sleep(0.01); print(log == [False] * 100)").stdout == "True\n"
    sent = on_subshell.send(1)
    kernel.wait_until(lambda: sent.idle)
    assert kernel.ok("print(log[100:])").stdout == "[True]\n"  # it runs again


@needs_subshells
def test_the_loop_wakes_for_what_a_callback_on_the_subshell_has_completed(on_subshell: Comm) -> None:
    kernel = on_subshell.kernel
    kernel.ok("""
import sys, time
begun, resting = threading.Event(), threading.Event()
loop = asyncio.get_event_loop()
waiting = loop.create_future()

async def wait():
    print("completed", await waiting)

task = asyncio.create_task(wait())

def on_message(data):
    begun.set()
    resting.wait(60)
    # Until it sleeps, and no timer will wake it.
    while loop._scheduled or sys._current_frames()[main.ident].f_code.co_name != "select":
        time.sleep(0.05)
    waiting.set_result(data)
""")
    cell = kernel.begin("print('go'); begun.wait(60)")
    kernel.wait_for(cell, "go")
    sent = on_subshell.send(1)
    kernel.finish(cell)
    # The loop comes to rest, and only then the callback, which has begun meanwhile, completes the future.
    kernel.ok("loop.call_later(0.1, resting.set); await task")
    kernel.wait_until(lambda: sent.idle)
    kernel.expect_alive()


@needs_subshells
def test_a_callback_that_never_ends_is_interrupted(on_subshell: Comm) -> None:
    kernel = on_subshell.kernel
    kernel.ok("def on_message(data):\n    print('stuck')\n    while data: pass")
    sent = on_subshell.send(1)
    kernel.wait_for(sent, "stuck")
    kernel.interrupt()
    kernel.wait_until(lambda: sent.idle)
    kernel.expect_alive()
    sent = on_subshell.send(0)
    kernel.wait_for(sent, "stuck")
    kernel.wait_until(lambda: sent.idle)
