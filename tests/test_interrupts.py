"""Interrupts, with real signals: what ends, how fast, and that everything else lives on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import Kernel
from setups import SETUPS, kernel_on

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
    with kernel_on(request.param, tmp_path_factory.mktemp("ipython")) as started:
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
    "C callback": "loop = asyncio.get_running_loop()\nloop.call_soon(print, 'go')\nloop.call_soon(time.sleep, 60)\n"
    "await asyncio.sleep(60)",
    "blocking call": "await asyncio.sleep(0); print('go')\ntime.sleep(60)",
    "arun": "async def f():\n    print('go')\n    while True: pass\n%arun f()",
}


@pytest.mark.parametrize("code", WAITING.values(), ids=WAITING)
def test_one_press_ends_what_awaits(k: Kernel, code: str) -> None:
    k.ok("%config NotebookRunner.interrupt_grace = 50")
    try:
        cell = k.begin(code)
        k.interrupted(cell, "go", 30)  # cancelled: it would be forced after fifty seconds
    finally:
        k.ok("%config NotebookRunner.interrupt_grace = 0.3")
    assert cell.ename == "KeyboardInterrupt"


@pytest.mark.parametrize("code", TIGHT.values(), ids=TIGHT)
def test_one_press_ends_what_never_yields(k: Kernel, code: str) -> None:
    cell = k.begin(code)
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"


PLAIN = """
import time
async def busy():
    while True:
        time.sleep(0.0005)  # in a step, as if it computed; but then the kernel's other threads would hardly get the GIL
        await asyncio.sleep(0)
others = [asyncio.create_task(busy(), name=f"busy{n}") for n in range(20)]
cleaned = []
async def main(seconds=60, result='value'):
    try:
        print('go')
        await asyncio.sleep(seconds)
        return result
    finally:
        await asyncio.sleep(0.01)
        cleaned.append(1)
def never_yields():
    print('go')
    while True: pass
async def stuck(seconds=0):
    await asyncio.sleep(seconds)
    never_yields()
async def swallows():
    print('go')
    while True:
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: print('swallowed')
loop = asyncio.get_event_loop()
def caught(future):
    try: loop.run_until_complete(future)
    except KeyboardInterrupt: print('caught')
"""
RUNS = {
    "coroutine": "loop.run_until_complete(main())",
    "task": "t = loop.create_task(main()); loop.run_until_complete(t)",
    "gather": "loop.run_until_complete(asyncio.gather(main()))",
}


@pytest.fixture
def beside_busy_tasks(k: Kernel) -> Iterator[None]:
    k.ok(PLAIN)
    yield
    assert k.ok("[each for each in others if each.done()]").value == "[]"
    k.ok("for each in others: each.cancel()")
    k.expect_alive()


@pytest.mark.usefixtures("beside_busy_tasks")
@pytest.mark.parametrize("code", RUNS.values(), ids=RUNS)
def test_an_interrupt_of_run_until_complete_cancels_what_it_waits_for(k: Kernel, code: str) -> None:
    for number in range(3):
        cell = k.begin(code)
        k.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        assert "ipyrunner:" not in cell.traceback + cell.stderr
        assert "gather" in code or "await asyncio.sleep(seconds)" in cell.traceback
        assert k.ok("len(cleaned)").value == str(number + 1)


@pytest.mark.usefixtures("beside_busy_tasks")
def test_the_cell_goes_on_after_an_interrupted_run_until_complete(k: Kernel) -> None:
    cell = k.begin("caught(main()); print(loop.run_until_complete(main(0.01)), cleaned)")
    k.interrupted(cell, "go")
    assert cell.stdout == "go\ncaught\ngo\nvalue [1, 1]\n"


@pytest.mark.usefixtures("beside_busy_tasks")
def test_a_run_until_complete_that_never_yields_or_swallows(k: Kernel) -> None:
    cell = k.begin("loop.run_until_complete(stuck())")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    # A background task.
    cell = k.begin("t = loop.create_task(stuck(0.05), name='stuck'); loop.run_until_complete(main())")
    k.wait_for(cell, "go\ngo")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("cleaned, type(t.exception()).__name__").value == "([1], 'KeyboardInterrupt')"
    cell = k.begin("loop.run_until_complete(swallows())")
    k.wait_for(cell, "go")
    k.interrupt()
    k.interrupted(cell, "swallowed")
    assert cell.ename == "KeyboardInterrupt"


@pytest.mark.usefixtures("beside_busy_tasks")
def test_run_until_complete_is_asyncios_where_nobody_interrupts(k: Kernel) -> None:
    assert k.ok(
        "loop.run_until_complete(main(0.01)), loop.run_until_complete(asyncio.gather(main(0, 1), main(0, 2)))"
    ).value == ("('value', [1, 2])")
    stopped = k.run("loop.call_later(0.01, loop.stop)\nloop.run_until_complete(asyncio.sleep(60))")
    assert (stopped.ename, "Event loop stopped before Future completed" in stopped.traceback) == ("RuntimeError", True)
    failed = k.run("async def fails(): raise ValueError('mine')\nloop.run_until_complete(fails())")
    assert (failed.ename, failed.stderr) == ("ValueError", "")
    assert k.run("async def ends(): raise SystemExit(3)\nloop.run_until_complete(ends())").ename == "SystemExit"
    cancelled = "t = loop.create_task(asyncio.sleep(60)); loop.call_soon(t.cancel); loop.run_until_complete(t)"
    assert k.run(cancelled).ename == "CancelledError"
    assert k.run("loop.run_until_complete(3)").ename == "TypeError"
    # A handler of the user's.
    own = "import signal; before = signal.signal(signal.SIGINT, lambda *_: print('theirs'))\n"
    own += "loop.call_later(0.01, signal.raise_signal, signal.SIGINT); print(loop.run_until_complete(main(0.1)))\n"
    assert k.ok(own + "_ = signal.signal(signal.SIGINT, before)").stdout == "go\ntheirs\nvalue\n"
    # What it returns is not kept.
    kept = "class Result: pass\nimport gc, weakref\nresult = weakref.ref(loop.run_until_complete(main(0, Result())))\n"
    assert k.ok(kept + "gc.collect(); result() is None").value == "True"


def test_an_interrupt_that_has_ended_a_background_task_names_it(k: Kernel) -> None:
    # While the loop runs for ever no coroutine can be cancelled: Python's own handler is in place, as in a script.
    hit = "import signal\nasync def hit():\n    await ran.wait()\n    signal.raise_signal(signal.SIGINT)\nran = asyncio.Event()\n"
    started = k.ok(hit + "hit_task = asyncio.create_task(hit(), name='hit'); await asyncio.sleep(0)")
    assert started.reply is not None
    cell = k.run("ran.set(); asyncio.get_event_loop().run_forever()")
    assert cell.ename == "KeyboardInterrupt"
    note = f"ipyrunner: the interrupt has ended the task hit of In[{started.reply['execution_count']}], which the loop"
    assert note in cell.traceback + cell.stderr
    # Not of a task that the cell itself has started.
    cell = k.run("t = asyncio.create_task(hit()); asyncio.get_event_loop().run_forever()")
    assert cell.ename == "KeyboardInterrupt"
    assert "ipyrunner:" not in cell.traceback + cell.stderr
    k.expect_alive()


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
    assert cell.reply is not None
    name = f"In[{cell.reply['execution_count']}]"
    assert f"the task of {name} ignored its cancellation and still runs" in cell.stdout
    k.expect_alive()
    # It is a background task like any other now, and the cells have another one.
    assert name in (k.ok("%arunner").value or "")
    k.ok(f"await asyncio.sleep(0); [zombie] = [t for t in asyncio.all_tasks() if t.get_name() == {name!r}]")
    assert k.ok("await asyncio.sleep(0); asyncio.current_task() is zombie").value == "False"
    k.ok("stop = True; await asyncio.wait([zombie])")


def test_a_swallowed_interrupt_is_the_cells_own_affair(k: Kernel) -> None:
    cell = k.begin("try:\n    print('go'); await asyncio.sleep(60)\nexcept asyncio.CancelledError: pass\n'went on'")
    k.interrupted(cell, "go")
    assert cell.value == "'went on'"


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
            "KeyboardInterrupt was raised in stuck(), which did not return to the event loop",
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
        "async def stuck():\n    await begin.wait()\n    print('go')\n    while True: pass  # here\nbegin = asyncio.Event()\n"
        "t = asyncio.create_task(stuck())"
    )
    cell = k.begin("await asyncio.sleep(0); begin.set(); await asyncio.sleep(60)")
    k.wait_for(other, "go")  # not the cell's: it would be interrupted before the task blocks
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    k.wait_for(other, "KeyboardInterrupt was raised in stuck(), which did not return to the event loop")


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


def test_a_background_callback_that_blocks_between_cells_is_interrupted_alone(fresh: Kernel) -> None:
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.3")
    fresh.ok("async def other():\n    while True: await asyncio.sleep(0.01)\nother_task = asyncio.create_task(other())")
    cell = fresh.ok(
        "async def stuck():\n    await asyncio.sleep(0.01)\n    print('go')\n    while True: pass\nt = asyncio.create_task(stuck())"
    )
    fresh.wait_for(cell, "go")
    queued = fresh.begin("type(t.exception()).__name__, other_task.done()")
    fresh.interrupt()
    assert fresh.finish(queued).value == "('KeyboardInterrupt', False)"
    fresh.expect_alive()


def test_a_given_up_arun_keeps_the_cells_context(fresh: Kernel) -> None:
    fresh.ok("import contextvars; v = contextvars.ContextVar('v', default='unset')")
    fresh.ok(
        "async def stubborn():\n    while not stop:\n        try: await asyncio.sleep(0.01)\n"
        "        except asyncio.CancelledError: print('no')\nstop = False"
    )
    cell = fresh.begin("print('go')\ntry:\n    %arun stubborn()\nexcept KeyboardInterrupt: pass\nv.set('after');")
    fresh.wait_for(cell, "go")
    fresh.interrupt()
    fresh.interrupted(cell, "no")
    assert fresh.ok("v.get()").value == "'after'"
    fresh.ok("stop = True")
    fresh.expect_alive()


def test_a_custom_exception_handler_does_not_hide_the_interrupt(fresh: Kernel) -> None:
    fresh.ok("def mine(self, etype, value, tb, tb_offset=None): print('mine', etype.__name__)")
    fresh.ok("get_ipython().set_custom_exc((BaseException,), mine)")
    cell = fresh.begin("print('go'); await asyncio.sleep(60)")
    fresh.interrupted(cell, "go")
    assert cell.reply is not None
    assert cell.reply["ename"] == "KeyboardInterrupt"


def test_c_code_that_keeps_the_gil_ends_at_a_second_press(fresh: Kernel, tmp_path: Path) -> None:
    # It looks at signals, but the watcher thread cannot run. The press that comes after the grace period is enough.
    # Nor can the thread that sends output: the marker is a file.
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.3")
    marker = tmp_path / "go"
    cell = fresh.begin(
        f"import re; await asyncio.sleep(0); open({str(marker)!r}, 'w').close()\nre.match('(a+)+$', 'a' * 60 + 'b')"
    )
    while not marker.exists():
        fresh.look(0.01)
    deadline = time.monotonic() + 30
    fresh.interrupt()
    while cell.reply is None:
        assert time.monotonic() < deadline
        fresh.interrupt()
        fresh.look(0.2)
    fresh.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    fresh.expect_alive()
