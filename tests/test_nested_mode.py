"""Runs inside runs: by ``NotebookRunner.nested``, and after the user has applied nest-asyncio."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipyrunner.aio.user_runs.nested_runs import library
from kernels import BEFORE, Kernel, kernel

SETTING = "%config NotebookRunner.nested = True"
MODES = {
    "setting": SETTING,
    "nest_asyncio2": "import nest_asyncio2; nest_asyncio2.apply()",
    "nest_asyncio": "import nest_asyncio; nest_asyncio.apply()",
}
BACKGROUND = """
import asyncio, ipyrunner
log, ticks = [], 0
async def tick():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.01)
ticking = asyncio.create_task(tick())
async def inner(seconds=60):
    seen = ticks
    print('go')
    try: await asyncio.sleep(seconds)
    finally:
        log.append('inner')
        await asyncio.sleep(0.01)
        log.append('cleaned')
    return ticks > seen
"""


@pytest.fixture(scope="module", params=MODES)
def _nested(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel for each of what an old notebook begins with, and a new one."""
    if request.param != "setting":
        pytest.importorskip(request.param)
    if request.param == "nest_asyncio" and sys.version_info >= (3, 14):
        pytest.skip("nest_asyncio does not work with Python 3.14")
    with kernel(tmp_path_factory.mktemp("ipython")) as started:
        started.ok(BACKGROUND + MODES[request.param])
        yield started.settled()


@pytest.fixture
def mode(_nested: Kernel, request: pytest.FixtureRequest) -> str:
    name: str = request.node.callspec.params["_nested"]
    return name


@pytest.fixture
def nested(_nested: Kernel) -> Iterator[Kernel]:
    _nested.renewed(BACKGROUND + "%config NotebookRunner.interrupt_grace = 0.3")
    yield _nested
    _nested.expect_alive()
    assert _nested.ok("ticking.done()").value == "False"


RUNS = {
    "run": "asyncio.run(inner(SECONDS))",
    "run_until_complete": "asyncio.get_event_loop().run_until_complete(inner(SECONDS))",
    "await_": "ipyrunner.await_(inner(SECONDS))",
    "%arun": "get_ipython().run_line_magic('arun', 'inner(SECONDS)')",
}


@pytest.mark.parametrize("call", RUNS.values(), ids=RUNS)
def test_a_run_inside_a_run(nested: Kernel, call: str) -> None:
    call = call.replace("SECONDS", "0.05")
    assert nested.ok(f"await asyncio.sleep(0); {call}").value == "True"  # other tasks go on
    assert nested.ok(f"async def outer(): return {call}\nawait asyncio.gather(outer(), asyncio.sleep(0))").value == (
        "[True, None]"
    )
    assert (
        nested.run(f"await asyncio.sleep(0)\nasync def inner(seconds): raise ValueError\n{call}").ename == "ValueError"
    )


def test_another_loop_runs_inside_the_notebooks(nested: Kernel) -> None:
    code = "other = asyncio.new_event_loop()\ntry: found = other.run_until_complete(asyncio.sleep(0.01, 'other'))\n"
    assert nested.ok(f"await asyncio.sleep(0)\n{code}finally: other.close()\nfound").value == "'other'"


@pytest.mark.parametrize("where", ["main task", "child", "three deep"])
@pytest.mark.parametrize("call", RUNS.values(), ids=RUNS)
def test_one_interrupt_ends_a_run_inside_a_run(nested: Kernel, call: str, where: str, mode: str) -> None:
    # What nest-asyncio alone leaves to itself.
    cleans = mode == "setting" or "run_until_complete" not in call or where == "three deep"
    call = call.replace("SECONDS", "60")
    if where == "three deep":
        nested.ok("async def deep(n): return asyncio.run(deep(n - 1)) if n else await inner()")
        call = call.replace("inner(60)", "deep(2)")
    nested.ok(f"async def outer():\n    await asyncio.sleep(0)\n    {call}")
    cell = nested.begin(
        "await asyncio.gather(outer(), asyncio.sleep(60), return_exceptions=True)"
        if where == "child"
        else "try: await outer()\nfinally: await asyncio.sleep(0.01); log.append('outer')"
    )
    queued = nested.begin("await asyncio.sleep(0)")
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    nested.finish(queued)
    expected = ["inner", "cleaned"] * cleans + ["outer"] * (where != "child")
    assert nested.ok("log").value == str(expected)
    running = nested.ok("[t for t in asyncio.all_tasks() if t.get_coro().__name__ == 'inner']").value
    assert (running == "[]") is cleans


@pytest.mark.parametrize("where", ["main task", "child"])
@pytest.mark.parametrize("call", RUNS.values(), ids=RUNS)
def test_an_interrupt_between_two_tasks_of_an_inner_run(nested: Kernel, call: str, where: str) -> None:
    # No task counts as running in this callback, and the one that runs the loop is in a step of its.
    nested.ok(
        "import signal\nasync def press():\n"
        "    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)\n    await inner(60)\n"
        f"async def outer():\n    await asyncio.sleep(0)\n    {call.replace('inner(SECONDS)', 'press()')}"
    )
    child = "await asyncio.gather(outer(), asyncio.sleep(60), return_exceptions=True)"
    cell = nested.run("await outer()" if where == "main task" else child)
    assert cell.ename == "KeyboardInterrupt"


def test_one_interrupt_ends_a_cell_under_which_a_task_runs_the_loop(nested: Kernel) -> None:
    nested.ok("async def background():\n    try: asyncio.run(inner())\n    finally: log.append('background')")
    cell = nested.begin("t = asyncio.create_task(background())\nawait asyncio.sleep(60)")
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "KeyboardInterrupt was raised in background(), which did not return to the event loop" in cell.stdout
    assert nested.ok("log").value == "['inner', 'cleaned', 'background']"


def test_one_interrupt_ends_a_run_inside_a_run_between_cells(nested: Kernel) -> None:
    nested.ok("async def background():\n    try: asyncio.run(inner())\n    finally: log.append('background')")
    cell = nested.ok("t = asyncio.create_task(background())")
    nested.wait_for(cell, "go")
    nested.interrupt()
    nested.wait_for(cell, "KeyboardInterrupt was raised in background(), which did not return to the event loop")
    assert nested.ok("log").value == "['inner', 'cleaned', 'background']"


def test_the_interrupt_waits_for_a_run_of_somebody_else_that_lies_over_the_cells_own(nested: Kernel) -> None:
    nested.ok(
        "async def over():\n    await asyncio.sleep(0.1)\n    print('over')\n    try: asyncio.run(inner())\n"
        "    except KeyboardInterrupt: log.append('caught')"
    )
    cell = nested.begin(
        "t = asyncio.create_task(over()); await asyncio.sleep(0)\ntry: asyncio.run(asyncio.sleep(60))\nfinally: log.append('cell')"
    )
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "KeyboardInterrupt was raised in over(), which did not return to the event loop" in cell.stdout
    assert cell.stdout.count("KeyboardInterrupt was raised in") == 1  # what caught it is the last that was ended
    assert nested.ok("log").value == "['inner', 'cleaned', 'caught', 'cell']"
    assert nested.ok("await t").value is None


def test_what_has_come_out_of_both_runs_does_not_cancel_the_clean_up(nested: Kernel) -> None:
    # A callback without a line of the user's, so that there is nothing to name.
    cell = nested.begin(
        "asyncio.get_running_loop().call_later(0.1, asyncio.run, inner())\n"
        "try: asyncio.run(asyncio.sleep(60))\nfinally: await asyncio.sleep(0.2); log.append('cell')"
    )
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert nested.ok("log").value == "['inner', 'cleaned', 'cell']"


def test_runs_that_wait_for_each_other_are_one(nested: Kernel) -> None:
    nested.ok("%config NotebookRunner.interrupt_grace = 20")
    nested.ok("async def two():\n    await asyncio.sleep(0)\n    return asyncio.run(inner())")
    nested.ok("async def three():\n    await asyncio.gather(two(), asyncio.sleep(0))")
    cell = nested.begin("await asyncio.sleep(0); asyncio.run(three())")
    nested.interrupted(cell, "go", 15)  # at once, and not after interrupt_grace
    assert cell.ename == "KeyboardInterrupt"
    assert "forced" not in cell.stdout


def test_all_that_an_interrupt_has_ended_is_named(nested: Kernel) -> None:
    nested.ok(
        "async def first(): asyncio.run(inner())\nasync def second():\n    print('over')\n    asyncio.run(inner())"
    )
    cell = nested.begin("ts = [asyncio.create_task(first()), asyncio.create_task(second())]\nawait asyncio.sleep(60)")
    nested.wait_for(cell, "over\ngo")
    nested.interrupt()
    nested.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    for name in ("first", "second"):
        assert f"KeyboardInterrupt was raised in {name}(), which did not return to the event loop" in cell.stdout
    nested.ok("def callback(): asyncio.run(inner())")
    cell = nested.begin("asyncio.get_running_loop().call_soon(callback)\nawait asyncio.sleep(60)")
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "KeyboardInterrupt was raised in callback(), which did not return to the event loop" in cell.stdout


def test_a_run_of_another_cell_that_is_ended_says_so_there(nested: Kernel) -> None:
    other = nested.ok(
        "begin = asyncio.Event()\nasync def background():\n    await begin.wait()\n    asyncio.run(inner())\n"
        "t = asyncio.create_task(background())"
    )
    cell = nested.begin("begin.set()\nawait asyncio.sleep(60)")
    nested.wait_for(other, "go")
    nested.interrupt()
    nested.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    nested.wait_for(other, "KeyboardInterrupt was raised in background(), which did not return to the event loop")


def test_a_run_that_lies_over_a_cell_that_is_given_up_is_ended(nested: Kernel) -> None:
    nested.ok("over = asyncio.Event()\nasync def background(): asyncio.run(inner())")
    cell = nested.begin(
        "t = asyncio.create_task(background())\ntry: await asyncio.sleep(60)\nfinally:\n"
        "    try: print('cleaning'); await asyncio.sleep(60)\n    finally: await over.wait()"
    )
    nested.wait_for(cell, "go")
    nested.interrupt()
    nested.interrupted(cell, "cleaning")
    assert cell.ename == "KeyboardInterrupt"
    assert nested.ok("over.set(); log").value == "['inner', 'cleaned']"


def test_one_interrupt_does_not_cut_the_clean_up_of_an_inner_run_short(nested: Kernel) -> None:
    nested.ok("async def slowly():\n    try: await inner()\n    finally: await asyncio.sleep(1.5); log.append('late')")
    nested.ok("async def background(): asyncio.run(slowly())")
    cell = nested.begin("t = asyncio.create_task(background())\nawait asyncio.sleep(60)")
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert nested.ok("log").value == "['inner', 'cleaned', 'late']"


@pytest.mark.parametrize("where", ["await drop()", "t = asyncio.create_task(drop())"], ids=["main task", "background"])
def test_an_interrupt_of_a_run_where_python_drops_exceptions(nested: Kernel, where: str) -> None:
    nested.ok(
        "class Runs:\n    def __del__(self): asyncio.run(inner())\n"
        "async def drop():\n    await asyncio.sleep(0); x = Runs(); del x"
    )
    cell = nested.begin(f"{where}\nawait asyncio.sleep(60)")
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "Exception ignored" not in cell.stderr
    assert nested.ok("log").value == "['inner', 'cleaned']"


@pytest.mark.parametrize(
    ("grace", "clean_up"),
    [(30, "asyncio.get_running_loop().call_later(0.3, over.set)"), (0.3, "await asyncio.sleep(1); over.set()")],
    ids=["in time", "before the cell has ended"],
)
def test_a_run_of_somebody_else_that_keeps_nobody_waiting_goes_on(nested: Kernel, grace: float, clean_up: str) -> None:
    nested.ok(
        f"%config NotebookRunner.interrupt_grace = {grace}\nover = asyncio.Event()\n"
        "async def wait():\n    print('go'); await over.wait(); return 'over'\n"
        "async def background(): return asyncio.run(wait())"
    )
    cell = nested.begin(f"t = asyncio.create_task(background())\ntry: await asyncio.sleep(60)\nfinally: {clean_up}")
    nested.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "KeyboardInterrupt was raised in" not in cell.stdout
    assert nested.ok("await t").value == "'over'"


def test_a_second_interrupt_ends_the_clean_up_of_an_inner_run(nested: Kernel) -> None:
    nested.ok(
        "async def slowly():\n    try: await inner()\n    finally: print('cleaning'); await asyncio.sleep(600)\n"
        "async def background(): asyncio.run(slowly())"
    )
    cell = nested.begin("t = asyncio.create_task(background())\nawait asyncio.sleep(60)")
    nested.wait_for(cell, "go")
    nested.interrupt()
    nested.interrupted(cell, "cleaning")
    assert cell.ename == "KeyboardInterrupt"


@pytest.mark.parametrize("run", ["%arun asyncio.sleep(0.1, 1)", "ipyrunner.await_(asyncio.sleep(0.1, 1))"])
def test_a_run_that_ends_waits_for_one_that_lies_over_it(nested: Kernel, run: str) -> None:
    nested.ok("async def background():\n    asyncio.run(inner(0.5)); return 'ended'")
    nested.ok(f"t = asyncio.create_task(background())\nx = {run}")
    assert nested.ok("await t").value == "'ended'"


def test_a_run_that_begins_where_the_loop_is_about_to_stop(nested: Kernel) -> None:
    # For the kernel, which is busy; and at the end of a run, in the same iteration.
    nested.ok(
        "host = get_ipython().kernel.io_loop.asyncio_loop\n"
        "def spin(times):\n    if times: host.call_soon(spin, times - 1)\n"
        "async def background(): return asyncio.run(inner(0.05))"
    )
    nested.ok("spin(500); t = asyncio.create_task(background())")
    assert nested.ok("await t").value == "True"
    nested.ok(
        "async def ends():\n"
        "    asyncio.current_task().add_done_callback(lambda _: log.append(asyncio.run(inner(0.05))))\n"
        "%arun ends()"
    )
    nested.ok("while len(log) < 5: await asyncio.sleep(0.01)")
    assert nested.ok("log").value == str(["inner", "cleaned"] * 2 + [True])


WHERE_A_LOOP_RUNS = {
    "asyncio.run": "asyncio.run(outer())",
    "run_until_complete": "asyncio.get_event_loop().run_until_complete(outer())",
    "--fresh": "%%arun --fresh\nawait outer()",
    "hook": "def hook(*args):\n    get_ipython().events.unregister('pre_run_cell', hook)\n    log.append(asyncio.run(inner(0)))\n"
    "get_ipython().events.register('pre_run_cell', hook)",
}


@pytest.mark.parametrize("code", WHERE_A_LOOP_RUNS.values(), ids=WHERE_A_LOOP_RUNS)
def test_wherever_a_loop_runs(nested: Kernel, code: str, mode: str) -> None:
    nested.ok(
        "async def which(): return asyncio.get_running_loop()\n"
        "async def outer(): return asyncio.run(which()) is asyncio.get_running_loop() is ipyrunner.await_(which())"
    )
    cell = nested.ok(code)
    if "hook" in code:
        assert nested.ok("log.pop()").value in ("True", "False")
        return
    assert cell.value == "True"
    nested.ok("async def outer(): return asyncio.get_running_loop().run_until_complete(inner())")
    if mode == "setting" or "fresh" not in code:  # where asyncio.Runner handles SIGINT, and nest-asyncio does not
        # Python's own handler raises in whatever runs, as in a script: in this task, too.
        nested.ok("ticking.cancel()")
        cell = nested.begin(code)
        nested.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        nested.ok("ticking = asyncio.create_task(tick())")


def test_on_another_thread(nested: Kernel) -> None:
    nested.ok("async def outer(): return asyncio.run(asyncio.sleep(0.01, 'inner'))")
    assert nested.ok("await asyncio.to_thread(lambda: asyncio.run(outer()))").value == "'inner'"


def test_with_a_portal(nested: Kernel) -> None:
    pytest.importorskip("greenback")
    nested.ok("import greenback; await greenback.ensure_portal()")
    assert nested.ok("await asyncio.sleep(0); asyncio.run(inner(0.05))").value == "True"
    nested.ok("%arunner leave")


def test_what_runs_the_loop_does_not_block_it(nested: Kernel) -> None:
    nested.ok("%config NotebookRunner.slow_callback = 0.2")
    cell = nested.ok("async def inside(): asyncio.run(asyncio.sleep(0.6))\nawait inside()")
    nested.ok("%config NotebookRunner.slow_callback = 0")
    assert "nothing else ran" not in cell.stderr + cell.stdout


def test_tracebacks_end_where_the_code_waits(nested: Kernel) -> None:
    cell = nested.begin("await inner()")
    nested.interrupted(cell, "go")
    assert "in sleep" in cell.traceback
    assert "futures.py" not in cell.traceback
    failed = nested.run("async def fails(): await asyncio.sleep(0); 1 / 0\nawait asyncio.create_task(fails())")
    assert "ZeroDivisionError" in failed.traceback
    assert "1 / 0" in failed.traceback


def test_the_kernel_leaves_a_run_inside_a_run_alone(nested: Kernel) -> None:
    # A message for the kernel stops the notebook's loop: not while somebody else runs it.
    cell = nested.begin("await asyncio.sleep(0); print('go'); asyncio.run(asyncio.sleep(1)); 'went on'")
    nested.wait_for(cell, "go")
    request = nested.track(nested.client.session.msg("kernel_info_request", {}))
    assert nested.finish(cell).value == "'went on'"
    nested.finish(request)


def test_a_cell_that_ends_while_a_task_runs_the_loop_inside_itself(nested: Kernel) -> None:
    nested.ok("async def inside(): asyncio.run(asyncio.sleep(0.3))")
    assert nested.ok("t = asyncio.create_task(inside()); await asyncio.sleep(0.05); t.done()").value == "False"
    assert nested.ok("await t; t.done()").value == "True"


@pytest.mark.parametrize("mode", MODES)
def test_tasks_are_of_the_class_that_is_put_in(fresh: Kernel, mode: str) -> None:
    if mode == "nest_asyncio" and sys.version_info >= (3, 14):
        pytest.skip("nest_asyncio does not work with Python 3.14")
    first = fresh.ok(
        "import asyncio\nbegin = asyncio.Event()\nasync def fail():\n    await begin.wait()\n    1 / 0\n"
        "failing = asyncio.create_task(fail(), name='made before')\n"
        "before = asyncio.create_task(asyncio.sleep(60)); await asyncio.sleep(0)\n" + MODES[mode]
    )
    fresh.ok("def isinstances(*tasks): return [isinstance(task, asyncio.Task) for task in tasks]")
    tasks = "isinstances(asyncio.current_task(), asyncio.create_task(asyncio.sleep(0)))"
    assert fresh.ok(f"await asyncio.sleep(0); {tasks}").value == "[True, True]"
    assert fresh.ok(f"%%arun\n{tasks}").value == "[True, True]"
    assert fresh.ok("isinstances(asyncio.create_task(asyncio.sleep(0)))").value == "[True]"
    # Tasks of both classes are tasks, in reports and tables.
    cell = fresh.begin(
        "async def wait(task): await task\n"
        "begin.set(); failing_too = asyncio.create_task(fail(), name='made since')\n"
        "kept_tasks = [asyncio.create_task(wait(before), name='waiting')]; await asyncio.sleep(0)"
    )
    fresh.wait_until(lambda: "the task made since (fail) failed" in cell.stderr)
    fresh.wait_until(lambda: "the task made before (fail) failed" in first.stderr)
    fresh.finish(cell)
    assert "which waits for the task " in fresh.ok("%atasks show waiting").stdout
    fresh.ok("%arunner restart")
    assert fresh.ok("before.cancelled()").value == "True"
    assert "may run inside itself" in (fresh.ok("%arunner").value or "")


# -- the setting


@pytest.fixture
def k(shared: Kernel) -> Kernel:
    """A kernel that has the setting."""
    shared.ok(SETTING)
    shared.ok(BACKGROUND)
    return shared


def test_without_await_a_run_is_one_of_its_own(k: Kernel) -> None:
    k.ok("async def loop(): return asyncio.get_running_loop()")
    assert k.ok("here = asyncio.get_event_loop(); asyncio.run(loop()) is here").value == "False"
    assert (
        k.ok(
            "import sys; asyncio.run(loop(), **({'loop_factory': asyncio.new_event_loop} if sys.version_info >= (3, 12) else {})).is_closed()"
        ).value
        == "True"
    )
    assert k.ok("asyncio.get_event_loop().run_until_complete(inner(0.05))").value == "True"
    for call in ("asyncio.run(inner())", "%arun inner()"):
        k.ok("log.clear()")
        cell = k.begin(call)
        k.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        assert k.ok("log").value == "['inner', 'cleaned']"
        k.expect_alive()


def test_what_is_given_to_a_run_inside_a_run(k: Kernel) -> None:
    cell = k.run("await asyncio.sleep(0); asyncio.run(inner(0), loop_factory=asyncio.new_event_loop)")
    assert cell.ename == "RuntimeError"
    assert "Leave out loop_factory" in cell.traceback
    assert "never awaited" not in cell.stderr
    assert k.run("await asyncio.sleep(0); asyncio.run(5)").ename == "TypeError"
    debug = "async def debug(): return asyncio.get_running_loop().get_debug()\n"
    assert (
        k.ok(f"{debug}await asyncio.sleep(0); asyncio.run(debug(), debug=True), await debug()").value == "(True, False)"
    )
    k.expect_alive()


def test_sigint_in_an_inner_run_where_asyncio_handles_it(k: Kernel) -> None:
    k.ok(
        "import signal\nasync def outer():\n    before = signal.getsignal(signal.SIGINT); asyncio.run(inner(0))\n"
        "    return signal.getsignal(signal.SIGINT) is before"
    )
    assert k.ok("asyncio.run(outer())").value == "True"
    # The second press of what does not yield.
    k.ok(
        "async def twice():\n    for _ in range(2): signal.raise_signal(signal.SIGINT)\n    log.append('went on')\n"
        "async def outer(): asyncio.run(twice())"
    )
    assert k.run("asyncio.run(outer())").ename == "KeyboardInterrupt"
    assert k.ok("'went on' in log").value == "False"


def test_what_belongs_to_somebody_else_is_not_cancelled(k: Kernel) -> None:
    cell = k.begin(
        "t = asyncio.create_task(inner()); await asyncio.sleep(0); asyncio.get_event_loop().run_until_complete(t)"
    )
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("t.done()").value == "False"
    k.expect_alive()


def test_it_cannot_be_taken_back(k: Kernel) -> None:
    cell = k.ok("%config NotebookRunner.nested = False")
    assert "until the kernel restarts" in cell.stderr
    assert k.ok("ipyrunner.get_runner().nested").value == "True"
    assert k.run("ipyrunner.get_runner().nested = False").ename == "TraitError"
    k.ok("%arunner restart")
    assert k.ok("await asyncio.sleep(0); asyncio.run(asyncio.sleep(0, 1))").value == "1"


def test_it_is_known_when_the_extension_is_loaded_again(fresh: Kernel) -> None:
    fresh.ok("import ipyrunner; ipyrunner.get_runner().nested = True")
    fresh.ok("%unload_ext ipyrunner")
    fresh.ok("%load_ext ipyrunner")
    assert fresh.ok("ipyrunner.get_runner().nested").value == "True"
    assert fresh.ok("import asyncio\nawait asyncio.sleep(0); asyncio.run(asyncio.sleep(0, 1))").value == "1"


def test_the_advice_is_true(k: Kernel) -> None:
    cell = k.run("await asyncio.sleep(0)\nrunner = asyncio.Runner(); runner.run(inner(0))")
    assert cell.ename == "RuntimeError"
    shown = cell.traceback + cell.stdout + cell.stderr  # IPython 7 prints notes
    assert "this code already runs in the notebook's event loop" in shown
    assert "NotebookRunner.nested" not in shown


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="nest_asyncio does not work with Python 3.14")
def test_the_library_that_the_user_has_applied_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nest_asyncio", "nest_asyncio2"):
        pytest.importorskip(name)
    monkeypatch.setattr("asyncio._nest_patched", True, raising=False)
    assert library().__name__ == "nest_asyncio"
    monkeypatch.setattr("asyncio._nest_asyncio2", True, raising=False)
    assert library().__name__ == "nest_asyncio2"


def test_without_a_library(fresh: Kernel) -> None:
    fresh.ok("import sys\nfor name in ('nest_asyncio', 'nest_asyncio2'): sys.modules[name] = None")
    assert "pip install 'ipyrunner[nested]'" in fresh.ok(SETTING).stderr
    assert fresh.ok("import ipyrunner; ipyrunner.get_runner().nested").value == "False"
    cell = fresh.run("import asyncio\nawait asyncio.sleep(0); asyncio.run(asyncio.sleep(0))")
    assert cell.ename == "RuntimeError"
    fresh.expect_alive()


@pytest.mark.parametrize("when", ["before the loop is made", "after"])
def test_a_library_that_fails(stock: Kernel, when: str) -> None:
    stock.ok(
        "import sys, types\ndef apply(loop): raise RuntimeError('not with this Python')\n"
        "for name in ('nest_asyncio', 'nest_asyncio2'): sys.modules[name] = types.SimpleNamespace(apply=apply)"
    )
    if when == "after":
        stock.ok("%load_ext ipyrunner")
        assert "not with this Python" in stock.ok(SETTING).stderr
    else:
        stock.ok("get_ipython().config.NotebookRunner.nested = True")
        loaded = stock.ok("%load_ext ipyrunner")
        used = stock.ok("1")
        assert "NotebookRunner.nested was turned off, because nest-asyncio failed" in loaded.stdout + used.stdout
    stock.ok(BEFORE)
    assert stock.ok("import ipyrunner; ipyrunner.get_runner().nested").value == "False"
    assert stock.run("await asyncio.sleep(0); asyncio.run(asyncio.sleep(0))").ename == "RuntimeError"
    stock.expect_alive()


def test_it_needs_a_loop_of_asyncio(fresh: Kernel) -> None:
    pytest.importorskip("uvloop")
    fresh.ok(
        "import asyncio\nget_ipython().run_line_magic('config', 'NotebookRunner.loop_factory = \"uvloop.new_event_loop\"')\n%arunner restart"
    )
    cell = fresh.ok(SETTING)
    assert (
        "NotebookRunner.nested works only with asyncio's own loops, and the notebook's is a uvloop.Loop" in cell.stderr
    )
    fresh.ok(BEFORE)
    fresh.expect_alive()
    fresh.ok("%config NotebookRunner.loop_factory = None\n%arunner restart")
    fresh.ok(SETTING)
    fresh.ok(BEFORE)
    fresh.ok("%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'")
    cell = fresh.run("%arunner restart")
    assert cell.ename == "ValueError"
    assert "NotebookRunner.nested" in cell.traceback
    assert fresh.ok("await asyncio.sleep(0); asyncio.run(asyncio.sleep(0, 1))").value == "1"
    fresh.expect_alive()


def test_it_is_set_before_the_kernel_starts(tmp_path: Path) -> None:
    with kernel(tmp_path, "--NotebookRunner.nested=True") as k:
        assert k.ok("import asyncio\nawait asyncio.sleep(0); asyncio.run(asyncio.sleep(0, 1))").value == "1"
        k.expect_alive()
