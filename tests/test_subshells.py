"""Cells of ipykernel's subshells, which run on threads of their own, beside the notebook's loop."""

from __future__ import annotations

import ipykernel
import pytest

from kernels import BEFORE, Cell, Kernel

pytestmark = pytest.mark.skipif(ipykernel.version_info < (7,), reason="subshells came with ipykernel 7.0")

WORKER = """
async def work():
    try: await asyncio.sleep(3600)
    finally: print("cleaned")
class Watched(asyncio.Task):
    def cancel(self, msg=None):
        print("on", threading.current_thread().name)
        return super().cancel(msg)
import threading
worker = Watched(work(), name="worker"); await asyncio.sleep(0)
"""


class Subshell:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._id = kernel.create_subshell()

    def begin(self, code: str) -> Cell:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self.kernel.client.session.msg("execute_request", {**content, "stop_on_error": False})
        message["header"]["subshell_id"] = self._id
        return self.kernel.track(message)

    def run(self, code: str) -> Cell:
        return self.kernel.finish(self.begin(code))


@pytest.fixture
def subshell(fresh: Kernel) -> Subshell:
    fresh.ok(BEFORE)
    return Subshell(fresh)


def test_a_task_is_cancelled_on_the_loops_thread(subshell: Subshell) -> None:
    # At rest, and while a cell awaits. On another thread it would not wake the loop.
    done = "on MainThread\ncancelling 1 task (worker)\n"
    starter = subshell.kernel.ok(WORKER)
    assert subshell.run("%atasks cancel worker").stdout == done
    subshell.kernel.wait_for(starter, "cleaned")
    cell = subshell.kernel.begin(WORKER + "print('go'); await worker")
    subshell.kernel.wait_for(cell, "go")
    assert subshell.run("%atasks cancel worker").stdout == done
    assert subshell.kernel.finish(cell).ename == "CancelledError"
    subshell.kernel.expect_alive()


def test_a_cell_is_sent_to_the_background(subshell: Subshell) -> None:
    cell = subshell.kernel.begin("print('go'); await asyncio.sleep(3600)")
    subshell.kernel.wait_for(cell, "go")
    listed = subshell.run("%atasks").value or ""
    (name,) = [word for word in listed.split() if word.startswith("In[") and ":" not in word][:1]
    assert "goes on in the background" in subshell.run(f"%atasks background {name}").stdout
    subshell.kernel.finish(cell)
    refused = subshell.run(f"%atasks background {name}")
    assert refused.ename == "UsageError"
    subshell.kernel.expect_alive()


def test_nothing_is_done_while_the_loop_is_blocked(subshell: Subshell) -> None:
    subshell.kernel.ok(WORKER + "go_on = threading.Event()")
    cell = subshell.kernel.begin("print('go'); go_on.wait(60)")
    subshell.kernel.wait_for(cell, "go")
    assert "worker" in (subshell.run("%atasks").value or "")
    refused = subshell.run("%atasks cancel worker")
    assert refused.ename == "UsageError"
    assert "the event loop does not answer" in refused.stderr
    subshell.run("go_on.set()")
    subshell.kernel.finish(cell)
    assert subshell.kernel.ok("await asyncio.sleep(0); worker.cancelling()").value == "0"
    subshell.kernel.expect_alive()


@pytest.mark.parametrize(
    "code",
    [
        "%arun work()",
        "%%arun\nawait work()",
        "%%arun --background\nawait work()",
        "%atasks wait worker",
        "%arunner restart",
    ],
)
def test_what_runs_the_loop_is_refused_there(subshell: Subshell, code: str) -> None:
    subshell.kernel.ok(WORKER)
    cell = subshell.run(code)
    assert cell.ename == "RuntimeError"
    assert "belongs to the main thread" in cell.traceback
    assert cell.traceback.rstrip().endswith("or await coro here")
    assert "never awaited" not in cell.stderr
    subshell.kernel.expect_alive()


def test_what_to_write_there_instead_of_asyncio_run(subshell: Subshell) -> None:
    cell = subshell.run("import asyncio; asyncio.run(asyncio.sleep(0))")
    assert cell.ename == "RuntimeError"
    assert "already runs in an event loop. Write `await main()` instead of `asyncio.run(main())`" in cell.traceback
    assert subshell.run("await asyncio.sleep(0, 'slept')").value == "'slept'"
    subshell.kernel.expect_alive()


def test_a_loop_of_its_own_is_refused_there_too(subshell: Subshell) -> None:
    cell = subshell.run("%%arun --fresh\nawait asyncio.sleep(0)")
    assert cell.ename == "RuntimeError"
    assert "Write `await main()`" in cell.traceback
    assert cell.stderr == ""
    subshell.kernel.expect_alive()


def test_tasks_of_a_closed_loop_are_not_said_to_be_busy(subshell: Subshell) -> None:
    subshell.kernel.ok(WORKER)
    subshell.kernel.ok("asyncio.get_event_loop().close()")
    assert "worker cannot be cancelled (RuntimeError)" in subshell.run("%atasks cancel worker").stdout
