"""Odd cells, and what hooks, callbacks and tasks of theirs do: the kernel replies, and the next cell runs."""

from __future__ import annotations

import pytest

from kernels import Kernel

ODD_CELLS = {
    "unclosed quotation": ('%%arun --name "bob\nprint(1)', "UsageError"),
    "half a magic call": ("get_ipython().run_cell_magic('arun', '', 'x'", None),
    "too deep": ("all_tasks\n" + "-" * 50000 + "1", None),
    "return in a body": ("%%arun\nreturn 5", "SyntaxError"),
    "generator exit": ("await asyncio.sleep(0); raise GeneratorExit", "GeneratorExit"),
    "system exit": ("await asyncio.sleep(0); raise SystemExit(3)", "SystemExit"),
    "keyboard interrupt": ("await asyncio.sleep(0); raise KeyboardInterrupt", "KeyboardInterrupt"),
    "stop iteration": ("await asyncio.sleep(0); raise StopIteration", None),
    "NUL": ("await asyncio.sleep(0) \0", None),
}


@pytest.mark.parametrize(("code", "ename"), ODD_CELLS.values(), ids=ODD_CELLS)
def test_the_kernel_replies_to_odd_cells(shared: Kernel, code: str, ename: str | None) -> None:
    cell = shared.run(code)
    assert cell.reply is not None
    assert cell.reply["status"] == "error"
    assert ename in (None, cell.reply["ename"])
    shared.expect_alive()


def test_silent_cells_and_user_expressions(shared: Kernel) -> None:
    shared.run("await asyncio.sleep(0); silent = 1", silent=True)
    cell = shared.run("await asyncio.sleep(0)", user_expressions={"x": "silent + 1"})
    assert cell.reply is not None
    assert cell.reply["user_expressions"]["x"]["data"]["text/plain"] == "2"


def test_a_cell_that_waits_for_itself(fresh: Kernel) -> None:
    for code in ("await asyncio.gather(*asyncio.all_tasks())", "await asyncio.wait(asyncio.all_tasks())"):
        cell = fresh.run(code)
        assert cell.ename == "RuntimeError"
        assert "Leave it out" in cell.traceback
    fresh.expect_alive()


@pytest.mark.parametrize("action", ["%arunner restart", "%arunner close", "%unload_ext ipyrunner"])
@pytest.mark.parametrize("where", ["{}", "get_ipython().run_cell({!r});"])
def test_the_running_loop_cannot_be_closed(shared: Kernel, action: str, where: str) -> None:
    shared.run("await asyncio.sleep(0)\n" + where.format(action))
    shared.expect_alive()
    loaded = "sum(type(each).__name__ == 'NotebookRunner' for each in get_ipython().configurables)"
    assert shared.ok(f"await asyncio.sleep(0.01); {loaded}").value == "1"


def test_an_exception_handler_that_exits(fresh: Kernel) -> None:
    fresh.ok(
        "import sys\nloop = asyncio.get_event_loop()\n"
        "def handler(loop, context):\n    print('handled')\n    sys.exit(3)\n"
        "loop.set_exception_handler(handler)\ndef bad(): 1 / 0"
    )
    fresh.ok("loop.call_later(0.01, bad)")
    fresh.ok("await asyncio.sleep(0.1)")
    fresh.expect_alive()


def test_a_task_that_exits_in_its_clean_up(fresh: Kernel) -> None:
    fresh.ok(
        "import sys\nasync def leave():\n    try: await asyncio.sleep(60)\n    finally: sys.exit(1)\n"
        "async def tidy():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0.01); print('tidy')\n"
        "tasks = [asyncio.create_task(leave()), asyncio.create_task(tidy())]; await asyncio.sleep(0)"
    )
    fresh.ok("%unload_ext ipyrunner")
    assert fresh.ok("[t.done() for t in tasks]").value == "[True, True]"
    fresh.ok("%load_ext ipyrunner")
    assert fresh.ok("asyncio.run(asyncio.sleep(0, 1))").value == "1"


@pytest.mark.parametrize("cell", ["1", "await asyncio.sleep(0)"])
def test_a_hook_may_make_several_tasks(shared: Kernel, cell: str) -> None:
    shared.ok(
        "made = []\nasync def one(): made.append(asyncio.get_running_loop())\n"
        "def hook(*args):\n    get_ipython().events.unregister('pre_run_cell', hook)\n"
        "    asyncio.create_task(one()); asyncio.create_task(one()); made.append(asyncio.get_running_loop())"
    )
    shared.ok("get_ipython().events.register('pre_run_cell', hook)")
    shared.ok(cell)
    assert (
        shared.ok("await asyncio.sleep(0.01); len(made), {id(loop) for loop in made} == {loop_id}").value == "(3, True)"
    )


def test_errors_of_callbacks_do_not_go_to_the_first_cell(fresh: Kernel) -> None:
    first = fresh.ok("await asyncio.sleep(0)")
    fresh.ok("def bad(): 1 / 0\nimport threading")
    cell = fresh.ok(
        "done = asyncio.Event(); loop = asyncio.get_event_loop(); loop.call_later(0.01, bad); loop.call_later(0.02, done.set)"
    )
    waiting = fresh.ok("await done.wait(); await asyncio.sleep(0.05); print('end')")
    assert first.stderr == ""
    assert "ZeroDivisionError" in cell.stderr + waiting.stderr
