"""``%load_ext ipyrunner`` and asyncio in one cell of a plain kernel: a newcomer's first cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels import BEFORE, Kernel, kernel

LOAD = "%load_ext ipyrunner\nimport asyncio\n"
MAIN = "async def main():\n    await asyncio.sleep(0.01)\n    return 42\n"


def expect_plain_cells(k: Kernel) -> None:
    k.ok(BEFORE)
    k.expect_alive()
    assert k.ok("asyncio.run(asyncio.sleep(0, 1))").value == "1"
    assert k.ok("asyncio._get_running_loop()").value is None
    # The kernel's loop is the running one again where the kernel's own code runs.
    k.ok("seen = []; host = get_ipython().kernel.io_loop.asyncio_loop")
    k.ok("host.call_soon(lambda: seen.append(asyncio.get_running_loop() is host)); await asyncio.sleep(0.05)")
    assert k.ok("seen").value == "[True]"


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        (MAIN + "asyncio.run(main())", "42"),
        (MAIN + "asyncio.get_event_loop().run_until_complete(main())", "42"),
        (MAIN + "%arun main()", "42"),
        ("get_ipython().run_cell('1 + 1')\nasyncio.run(asyncio.sleep(0, 3))", "2"),
        ("get_ipython().run_cell('await asyncio.sleep(0, 2)')\nasyncio.run(asyncio.sleep(0, 3))", "2"),
        ("asyncio._get_running_loop() is None", "True"),
    ],
)
def test_the_rest_of_the_cell_is_plain(stock: Kernel, rest: str, value: str) -> None:
    cell = stock.ok(LOAD + rest)
    assert cell.value == value
    expect_plain_cells(stock)


def test_a_task_of_the_first_cell_is_on_the_notebooks_loop(stock: Kernel) -> None:
    stock.ok(
        LOAD + MAIN + "import contextvars; v = contextvars.ContextVar('v'); v.set(1)\n"
        "async def tell():\n    await asyncio.sleep(0.01)\n    return await main()\n"
        "t = asyncio.create_task(tell()); loop = asyncio.get_event_loop()"
    )
    assert stock.ok("await t, t.get_loop() is asyncio.get_running_loop() is loop, v.get()").value == "(42, True, 1)"
    expect_plain_cells(stock)


@pytest.mark.parametrize(
    "rest", ["1 / 0", "raise KeyboardInterrupt", "import sys; sys.exit()", "%unload_ext ipyrunner"]
)
def test_however_it_ends_the_kernel_has_its_loop_back(stock: Kernel, rest: str) -> None:
    stock.run(LOAD + rest)
    if "unload" in rest:
        assert stock.ok("asyncio.get_running_loop() is get_ipython().kernel.io_loop.asyncio_loop").value == "True"
        stock.ok(LOAD)
    expect_plain_cells(stock)


@pytest.mark.parametrize("code", ["asyncio.run(asyncio.sleep(60))", "import time; time.sleep(60)"])
def test_an_interrupt_of_the_first_cell(stock: Kernel, code: str) -> None:
    cell = stock.begin(LOAD + "print('go'); " + code)
    stock.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    expect_plain_cells(stock)


def test_the_first_cell_may_choose_the_loop(stock: Kernel) -> None:
    pytest.importorskip("uvloop")
    cell = stock.ok(LOAD + "%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'\nasyncio.get_event_loop()")
    assert "uvloop" in (cell.value or "")
    assert "takes effect" not in cell.stdout
    expect_plain_cells(stock)


def test_a_first_cell_that_awaits_goes_on_in_the_kernels_loop(stock: Kernel) -> None:
    cell = stock.ok(
        LOAD + "await asyncio.sleep(0); asyncio.get_running_loop() is get_ipython().kernel.io_loop.asyncio_loop"
    )
    assert cell.value == "True"
    expect_plain_cells(stock)


def test_a_first_cell_that_awaits_gets_a_note_that_is_true(stock: Kernel) -> None:
    cell = stock.run(LOAD + "await asyncio.sleep(0); asyncio.run(asyncio.sleep(0))")
    assert cell.ename == "RuntimeError"
    text = cell.traceback + cell.stderr  # IPython 7 shows no notes: there they are printed
    assert "runs in the kernel's event loop" in text
    assert "notebook's event loop, because" not in text
    expect_plain_cells(stock)


def test_a_first_cell_before_the_kernel_starts(tmp_path: Path) -> None:
    profile = tmp_path / "profile_default"
    profile.mkdir()
    lines = ["%load_ext ipyrunner\nimport asyncio; then = asyncio.get_event_loop()\nloaded = 'ok'"]
    (profile / "ipython_config.py").write_text(f"c.InteractiveShellApp.exec_lines = {lines!r}\n")
    with kernel(tmp_path, load=False) as k:
        assert k.ok("loaded, get_ipython().kernel.io_loop.asyncio_loop is then").value == "('ok', True)"
        assert k.ok("await asyncio.sleep(0); asyncio.get_running_loop() is then").value == "False"


def test_context_variables_of_the_first_cell_are_kept(stock: Kernel) -> None:
    stock.ok(
        "import contextvars\nvar = contextvars.ContextVar('var', default='lost'); var.set('before')\n"
        "%load_ext ipyrunner\nvar.set('after')"
    )
    assert stock.ok("var.get()").value == "'after'"
    assert stock.ok("import asyncio; await asyncio.sleep(0); var.get()").value == "'after'"
    stock.ok("%unload_ext ipyrunner")
    assert stock.ok("var.get()").value == "'after'"
    stock.ok("var.set('unloaded')\n%load_ext ipyrunner")
    assert stock.ok("await asyncio.sleep(0); var.get()").value == "'unloaded'"
