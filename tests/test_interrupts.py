"""Interrupts, with real signals: what ends, how fast, and that everything else lives on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import BEFORE, RUNNER_KERNEL, Kernel, kernel
from setups import SETUPS

BACKGROUND = """
import time
ticks = 0
async def background():
    global ticks
    while True:
        await asyncio.sleep(0.001)
        ticks += 1
task = asyncio.create_task(background())
"""


@pytest.fixture(scope="module", params=[*SETUPS, "message"])
def _kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    by_message = request.param == "message"
    arguments = [RUNNER_KERNEL] if by_message else []
    with kernel(tmp_path_factory.mktemp("ipython"), *arguments, by_message=by_message) as started:
        started.ok(SETUPS.get(request.param, "") + "%config NotebookRunner.interrupt_grace = 0.3")
        started.ok("%arunner restart")
        started.ok(BEFORE)
        started.ok(BACKGROUND)
        yield started


@pytest.fixture
def k(_kernel: Kernel) -> Iterator[Kernel]:
    yield _kernel
    # After each of these: the next cell runs, on the same loop, with its variables, and background tasks go on.
    _kernel.expect_alive()
    assert _kernel.ok("now = ticks\nwhile ticks == now: await asyncio.sleep(0.001)\ntask.done()").value == "False"


# Cells that await, and are to end at once.
WAITING = {
    "sleep": "print('go'); await asyncio.sleep(60)",
    "future": "f = asyncio.get_running_loop().create_future(); print('go')\nawait f",
    "task": "t = asyncio.create_task(asyncio.sleep(60)); print('go')\nawait t",
    "function": "async def f():\n    await asyncio.sleep(60)\nprint('go')\nawait f()",
    "timeout": "async with asyncio.timeout(60):\n    print('go')\n    await asyncio.sleep(60)",
    "loop": "print('go')\nwhile True: await asyncio.sleep(0)",
    "body": "%%arun\nprint('go')\nawait asyncio.sleep(60)",
    "body with a timeout": "%%arun --timeout 60\nprint('go')\nawait asyncio.sleep(60)",
    "time and body": "%%time\n%%arun\nprint('go')\nawait asyncio.sleep(60)",
    "fresh body": "%%arun --fresh\nprint('go')\nawait asyncio.sleep(60)",
    "arun": "print('go')\n%arun asyncio.sleep(60)",
    "arun in a function": "def f():\n    print('go')\n    %arun asyncio.sleep(60)\nf()",
    "asyncio.run": "print('go')\nasyncio.run(asyncio.sleep(60))",
    "plain": "print('go')\ntime.sleep(60)",
    "thread": "print('go')\nawait asyncio.to_thread(time.sleep, 0.5)\nawait asyncio.sleep(60)",
    # In a session of its own: a front end signals the group, and the end of the process might come first.
    "subprocess": "p = await asyncio.create_subprocess_exec('sleep', '60', start_new_session=True)\n"
    "print('go')\ntry: await p.wait()\nfinally: p.kill()",
}

# Cells, or tasks of theirs, that never yield: one press, and the grace period.
TIGHT = {
    "cell": "await asyncio.sleep(0); print('go')\nwhile True: pass",
    "function": "async def f():\n    print('go')\n    while True: pass\nawait f()",
    "child": "async def f():\n    print('go')\n    while True: pass\nawait asyncio.create_task(f())",
    "gathered": "async def f():\n    print('go')\n    while True: pass\nawait asyncio.gather(asyncio.sleep(60), f())",
    "group": "async def f():\n    print('go')\n    while True: pass\n"
    "async with asyncio.TaskGroup() as g:\n    g.create_task(asyncio.sleep(60))\n    g.create_task(f())",
    "callback": "def f():\n    print('go')\n    while True: pass\n"
    "asyncio.get_running_loop().call_soon(f)\nawait asyncio.sleep(60)",
    "C callback": "asyncio.get_running_loop().call_later(0.05, time.sleep, 60)\nprint('go')\nawait asyncio.sleep(60)",
    "blocking call": "await asyncio.sleep(0); print('go')\ntime.sleep(60)",
    "arun": "async def f():\n    print('go')\n    while True: pass\n%arun f()",
}


@pytest.mark.parametrize("code", WAITING.values(), ids=WAITING)
def test_one_press_ends_what_awaits(k: Kernel, code: str) -> None:
    k.ok("%config NotebookRunner.interrupt_grace = 40")
    try:
        cell = k.begin(code)
        seconds = k.interrupted(cell, "go")
    finally:
        k.ok("%config NotebookRunner.interrupt_grace = 0.3")
    assert cell.ename == "KeyboardInterrupt"
    assert seconds < 20  # cancelled: it would be forced after forty seconds


@pytest.mark.parametrize("code", TIGHT.values(), ids=TIGHT)
def test_one_press_ends_what_never_yields(k: Kernel, code: str) -> None:
    cell = k.begin(code)
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"


def test_a_plain_cell_that_runs_the_loop_itself(k: Kernel) -> None:
    # As without the extension, KeyboardInterrupt is raised wherever it lands, which may be a background task.
    cell = k.begin("print('go')\nasyncio.get_event_loop().run_until_complete(asyncio.sleep(60))")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    k.expect_alive()
    k.ok("task.cancel(); task = asyncio.create_task(background())")


def test_children_are_cancelled(k: Kernel) -> None:
    # The last one to begin says so: a task that is cancelled before it has begun runs no finally.
    child = "async def child(n):\n    try:\n        if n == 999: print('go')\n        await asyncio.sleep(60)\n"
    child += "    finally: ended.append(1)\nended = []\n"
    cell = k.begin(child + "await asyncio.gather(*[child(n) for n in range(1000)])")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("await asyncio.sleep(0); len(ended)").value == "1000"
    group = "async with asyncio.TaskGroup() as g:\n    for n in range(990, 1000): g.create_task(child(n))"
    cell = k.begin(child + group)
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("len(ended)").value == "10"


@pytest.mark.parametrize("first_line", ["", "%%arun\n"])
def test_clean_up_runs_to_its_end(k: Kernel, first_line: str) -> None:
    # Longer than the grace period: a cell that cleans up asynchronously answers, and is not cut short.
    cell = k.begin(
        first_line + "try:\n    print('go'); await asyncio.sleep(60)\nfinally:\n    print('begin')\n"
        "    await asyncio.sleep(0.6)\n    print('end')"
    )
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert cell.stdout.endswith("begin\nend\n")


def test_second_press_forces_a_slow_clean_up(k: Kernel) -> None:
    cell = k.begin(
        "try:\n    print('go'); await asyncio.sleep(60)\nfinally:\n    print('begin')\n    await asyncio.sleep(60)"
    )
    k.wait_for(cell, "go")
    k.interrupt()
    k.interrupted(cell, "begin")
    assert cell.ename == "KeyboardInterrupt"


def test_second_press_ends_a_cell_that_swallows_its_cancellation(k: Kernel) -> None:
    cell = k.begin(
        "stop = False\nprint('go')\nwhile not stop:\n    try: await asyncio.sleep(0.01)\n"
        "    except asyncio.CancelledError: print('swallowed')"
    )
    k.wait_for(cell, "go")
    k.interrupt()
    k.interrupted(cell, "swallowed")
    assert cell.ename == "KeyboardInterrupt"
    name = f"In[{cell.reply['execution_count']}]"
    assert f"the task of {name} ignored its cancellation and still runs" in cell.stdout
    k.expect_alive()
    # It is a background task like any other now.
    assert name in (k.ok("%arunner").value or "")
    k.ok(
        f"[zombie] = [t for t in asyncio.all_tasks() if t.get_name() == {name!r}]; stop = True; await asyncio.wait([zombie])"
    )


def test_a_swallowed_interrupt_is_the_cells_own_affair(k: Kernel) -> None:
    cell = k.begin("try:\n    print('go'); await asyncio.sleep(60)\nexcept asyncio.CancelledError: pass\n'went on'")
    k.interrupted(cell, "go")
    assert cell.value == "'went on'"


def test_somebody_elses_cancellation_stays_one(k: Kernel) -> None:
    assert k.run("asyncio.current_task().cancel(); await asyncio.sleep(60)").ename == "CancelledError"


def test_the_traceback_shows_where_it_was(k: Kernel) -> None:
    cell = k.begin("async def deep():\n    print('go')\n    await asyncio.sleep(60)  # here\nawait deep()")
    k.interrupted(cell, "go")
    assert "# here" in cell.traceback
    assert "ipyrunner" not in cell.traceback
    assert "CancelledError" not in cell.traceback


@pytest.mark.parametrize(
    ("start", "where"),
    [
        ("await asyncio.create_task(stuck())", "in stuck()"),
        (
            "t = asyncio.create_task(stuck()); await asyncio.sleep(60)",
            "forced into stuck, which did not yield: while True",
        ),
    ],
)
def test_what_did_not_yield_is_named(k: Kernel, start: str, where: str) -> None:
    cell = k.begin(f"async def stuck():\n    print('go')\n    while True: pass  # here\n{start}")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    shown = cell.traceback + cell.stderr
    assert where in shown
    assert "pass  # here" in shown


def test_a_task_of_another_cell_that_is_ended_says_so_there(k: Kernel) -> None:
    other = k.ok(
        "async def stuck():\n    await begin.wait()\n    while True: pass  # here\nbegin = asyncio.Event()\n"
        "t = asyncio.create_task(stuck())"
    )
    cell = k.begin("await asyncio.sleep(0); begin.set(); print('go'); await asyncio.sleep(60)")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    k.wait_for(other, "the interrupt was forced into stuck, which did not yield: while True: pass  # here")


def test_a_cell_may_save_what_it_has_after_one_press(k: Kernel) -> None:
    # As in a script: one press, one KeyboardInterrupt, however long its handling takes, and whatever it awaits.
    cell = k.begin(
        "import time\nawait asyncio.sleep(0)\ntry:\n    print('go')\n    while True: time.sleep(0.01)\n"
        "except KeyboardInterrupt:\n    time.sleep(1.5)\n    await asyncio.sleep(0.01); print('saved')\n'went on'"
    )
    k.interrupted(cell, "go")
    assert cell.ename is None
    assert (cell.stdout, cell.value) == ("go\nsaved\n", "'went on'")


def test_an_interrupt_between_cells_does_nothing(k: Kernel) -> None:
    k.interrupt()


def test_interrupts_are_counted(k: Kernel) -> None:
    before = int(k.ok("import ipyrunner; ipyrunner.get_runner().interrupts").value or 0)
    k.interrupted(k.begin("print('go'); await asyncio.sleep(60)"), "go")
    assert k.ok("ipyrunner.get_runner().interrupts").value == str(before + 1)


def test_nbclients_timeout_ends_the_cell_as_keyboard_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cells = ["%load_ext ipyrunner\nimport asyncio", "await asyncio.sleep(60)", "print('next')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=2, interrupt_on_timeout=True, allow_errors=True, kernel_name="python3")
    client.execute()
    assert [output["ename"] for output in notebook.cells[1].outputs] == ["KeyboardInterrupt"]
    assert notebook.cells[2].outputs[0]["text"] == "next\n"
