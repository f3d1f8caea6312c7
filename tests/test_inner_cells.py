"""Cells that code in the notebook's loop awaits, as agents do: by ``run_cell_async`` and by the kernel's ``do_execute``."""

from __future__ import annotations

import pytest

from kernels import Kernel

AGENT = """
import asyncio, contextvars
shell = get_ipython()
var = contextvars.ContextVar('var', default='unset')
async def by_shell(source):
    return await shell.run_cell_async(source, transformed_cell=shell.transform_cell(source))
async def by_kernel(source):
    reply = await shell.kernel.do_execute(source, silent=False, store_history=False)
    return reply['status'] if reply['status'] == 'ok' else reply['ename']
async def from_callback(run, source):
    done = asyncio.get_running_loop().create_future()
    async def main(): done.set_result(await run(source))
    asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.create_task(main())))
    return await done
def error(result): return result if isinstance(result, str) else type(result.error_in_exec).__name__
tasks = []
async def tick():
    while True: await asyncio.sleep(0.01)
"""


WAYS = ["by_shell", "by_kernel"]


PLACES = {
    "cell": "await {}({!r})",
    "task": "await asyncio.create_task({}({!r}))",
    "callback": "await from_callback({}, {!r})",
}


SOURCES = {
    "awaits": "await asyncio.sleep(0.01); inner = asyncio.get_running_loop(); 'shown'",
    "plain": "inner = asyncio.get_event_loop(); asyncio.run(asyncio.sleep(0)); 'shown'",
    "arun": "%%arun --name inner --timeout 20\nawait asyncio.sleep(0.01); inner = asyncio.get_running_loop()\n'shown'",
    "copy": "%%arun --context copy\nvar.set('copy'); await asyncio.sleep(0.01); inner = asyncio.get_running_loop(); 'shown'",
    "fresh": "%%arun --fresh\nawait asyncio.sleep(0.01); inner = asyncio.get_event_loop(); 'shown'",
}


@pytest.fixture
def k(shared: Kernel) -> Kernel:
    shared.ok(AGENT)
    shared.run("1 / 0")  # the first traceback of a kernel takes long to format
    return shared


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_an_inner_cell_is_awaited_where_it_is_called(k: Kernel, way: str, place: str, source: str) -> None:
    cell = k.ok(
        f"result = {PLACES[place].format(way, SOURCES[source])}\n"
        "print(result if isinstance(result, str) else result.success, id(inner) == loop_id, asyncio.current_task().get_name())"
    )
    name = cell.stdout.rsplit(" ", 1)[1]
    assert cell.stdout == f"{'ok' if way == 'by_kernel' else True} {source != 'fresh'} {name}"
    assert name.startswith("In[")
    if way == "by_shell":
        assert k.ok("result.result").value == "'shown'"
    assert cell.value == "'shown'"
    assert k.ok("var.get()").value == "'unset'"
    k.expect_alive()


@pytest.mark.parametrize("awaits", ["", "; await asyncio.sleep(0.01)"])
def test_an_inner_cell_has_the_context_of_its_caller(k: Kernel, awaits: str) -> None:
    cell = k.ok(
        f"var.set('outer'); await by_shell(\"print(var.get()); var.set('inner'){awaits}\"); print(var.get(), "
        "await asyncio.create_task(by_shell('print(var.get()); var.set(1)')) and var.get())"
    )
    assert cell.stdout == "outer\ninner\ninner inner\n"
    k.expect_alive()


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_an_inner_cell_is_in_its_result(k: Kernel, way: str) -> None:
    cell = k.run(f"result = await {way}('await asyncio.sleep(0); 1 / 0')\nprint('went on')")
    assert cell.stdout.endswith("went on\n")
    assert "ZeroDivisionError" in cell.traceback
    assert cell.reply is not None
    assert cell.reply["status"] == "ok"
    assert k.ok("error(result)").value == "'ZeroDivisionError'"
    # Also a cancellation that was not of the task.
    code = "f = asyncio.get_running_loop().create_future(); f.cancel(); result = await {}('await f'); 'went on'"
    assert k.run(code.format(way)).value == "'went on'"
    assert k.ok("error(result)").value == "'CancelledError'"
    k.expect_alive()


INNER = {
    "waits": "await asyncio.sleep(60)",
    # No await between "go" and the computing: an interrupt there is answered before it begins, and it is not forced.
    "computes": "import time; time.sleep(60); await asyncio.sleep(0)",
    "plain": "import time; time.sleep(60)",
    "arun": "%%arun\nawait asyncio.sleep(60)",
    "copy": "%%arun --context copy\nawait asyncio.sleep(60)",
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_cancels_the_inner_and_the_outer_cell(k: Kernel, way: str, place: str, inner: str) -> None:
    if (way, inner) == ("by_kernel", "plain"):
        pytest.skip("do_execute runs it by run_cell, in whose result KeyboardInterrupt is, also in a plain kernel")
    k.ok("%config NotebookRunner.interrupt_grace = 0.3\nticker = asyncio.create_task(tick())")
    first, _, rest = INNER[inner].rpartition("\n")
    source = f"{first}\nprint('go'); {rest}".lstrip()
    cell = k.begin(
        f"result = 'none'\nresult = {PLACES[place].format(way, source)}\nawait asyncio.sleep(0)\nprint('went on')"
    )
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert cell.stdout == "go\n"
    # In a plain cell KeyboardInterrupt is raised as it is in a script, and shown where it is.
    assert len([m for m in cell.messages if m["msg_type"] == "error"]) == (2 if inner == "plain" else 1)
    assert k.ok("result, ticker.done()").value == "('none', False)"
    k.expect_alive()


def test_a_timeout_around_an_inner_cell_comes_out(k: Kernel) -> None:
    cell = k.run("async with asyncio.timeout(0.05): await by_shell('await asyncio.sleep(60)')")
    assert cell.ename == "TimeoutError"
    k.expect_alive()


@pytest.mark.parametrize("way", WAYS)
def test_a_background_task_runs_cells(k: Kernel, way: str) -> None:
    k.ok("event = asyncio.Event()")
    cell = k.ok(f"t = asyncio.create_task({way}('await event.wait(); print(\"inner\")'))\nawait asyncio.sleep(0.01)")
    k.ok("print('between')")
    k.ok("event.set(); await t")
    k.wait_for(cell, "inner")
    k.expect_alive()


def test_an_inner_cell_of_a_task_that_a_restart_cancels(k: Kernel) -> None:
    started = k.ok("t = asyncio.create_task(by_shell('print(1); await asyncio.sleep(60)')); await asyncio.sleep(0)")
    k.wait_for(started, "1")
    restarted = k.ok("%arunner restart")
    assert k.ok("t.cancelled()").value == "True"
    assert not [m for m in started.messages + restarted.messages if m["msg_type"] == "error"]


@pytest.mark.parametrize("way", WAYS)
def test_inner_cells_of_inner_cells(k: Kernel, way: str) -> None:
    assert k.ok(f"await {way}(\"await {way}('await asyncio.sleep(0); depth = 2')\"); print(depth)").stdout == "2\n"
    cell = k.begin(f"await {way}(\"await {way}('print(1); await asyncio.sleep(60)')\")")
    k.interrupted(cell, "1")
    assert cell.ename == "KeyboardInterrupt"
    k.expect_alive()


def test_do_execute_in_the_kernels_loop(k: Kernel) -> None:
    k.ok("host = shell.kernel.io_loop.asyncio_loop; done = asyncio.Event()")
    k.ok(
        "async def main():\n    await by_kernel('await asyncio.sleep(0.01); inner = asyncio.get_running_loop()')\n    done.set()\n"
        "host.call_soon(lambda: tasks.append(host.create_task(main())));"
    )
    k.wait_until(lambda: k.ok("done.is_set()").value == "True")
    assert k.ok("id(inner) == loop_id").value == "True"
    k.expect_alive()


@pytest.mark.parametrize("loop", ["", "%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'"])
def test_a_background_task_that_runs_a_cell(fresh: Kernel, loop: str) -> None:
    fresh.ok(loop + "\n%arunner restart")
    fresh.ok(
        "import contextvars; v = contextvars.ContextVar('v', default='unset'); v.set('notebook')\n"
        "async def background():\n    v.set('task')\n    await asyncio.sleep(0.05)\n"
        "    get_ipython().run_cell('inner = v.get()')\n    print('ran')\n    await asyncio.sleep(1000)"
    )
    fresh.wait_for(fresh.ok("t = asyncio.create_task(background())"), "ran")
    assert fresh.ok("inner, v.get()").value == "('task', 'notebook')"
    assert fresh.ok("await asyncio.sleep(0.01); t.done()").value == "False"


def test_an_awaiting_cell_that_runs_a_cell_keeps_the_kernel_live(shared: Kernel) -> None:
    shared.ok("host = get_ipython().kernel.io_loop.asyncio_loop")
    code = (
        "e = asyncio.Event()\nget_ipython().run_cell('inner = 1')\n"
        "import threading; threading.Timer(0.1, host.call_soon_threadsafe, [lambda: host.call_soon(e.set)]).start()\n"
        "await asyncio.wait_for(e.wait(), 10), inner"
    )
    assert shared.ok(code).value == "(True, 1)"


def test_an_awaiting_cell_that_runs_an_awaiting_cell_is_told(shared: Kernel) -> None:
    cell = shared.run("await asyncio.sleep(0); r = get_ipython().run_cell('await asyncio.sleep(0)'); r.success")
    assert cell.value == "False"
    assert "write `await ...` instead" in cell.traceback
    shared.expect_alive()
