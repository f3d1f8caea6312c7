"""What users do to their loop by mistake: each has an outcome that the docs name, and the next cell runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels import AT_REST, Kernel

BACKGROUND = """
import sys, time
async def background():
    while True: await asyncio.sleep(0.01)
task = asyncio.create_task(background())
"""


@pytest.fixture
def k(on_each_loop: Kernel) -> Kernel:
    on_each_loop.ok(BACKGROUND)
    return on_each_loop


def expect_background(k: Kernel) -> None:
    k.expect_alive()
    assert k.ok("task.done()").value == "False"


def test_stopping_the_loop(k: Kernel) -> None:
    stop = "loop = asyncio.get_running_loop(); loop.stop(); await asyncio.sleep(0.01); loop.call_soon(loop.stop)\n"
    assert k.ok(stop + "await asyncio.sleep(0.01); 'went on'").value == "'went on'"
    k.ok("asyncio.get_event_loop().stop()")
    k.ok("asyncio.get_event_loop().call_later(0.01, asyncio.get_event_loop().stop)")
    expect_background(k)


def test_closing_the_loop(k: Kernel) -> None:
    assert k.run("asyncio.get_running_loop().close()").ename == "RuntimeError"
    expect_background(k)
    k.ok("asyncio.get_event_loop().close()")
    for code in ("asyncio.get_event_loop().is_closed()", "await asyncio.sleep(0); False"):
        cell = k.ok(code)
        assert cell.value == "False"
        assert ("the notebook's event loop was closed, so a new one is used" in cell.stdout) is ("await" not in code)
        assert ("The tasks of the old loop have stopped" in cell.stdout) is ("await" not in code)
    k.ok("asyncio.get_event_loop().close()")
    said = "ipyrunner: the notebook's event loop was closed, so a new one is used from now on.\n"
    assert k.ok("await asyncio.sleep(0)").stdout == said  # there were no tasks
    assert k.ok("kept").value == "'kept'"


def test_taking_the_current_loop_away(k: Kernel) -> None:
    k.ok("asyncio.set_event_loop(None)")
    expect_background(k)
    k.ok("await asyncio.sleep(0); asyncio.set_event_loop(None)")
    expect_background(k)


def test_cancelling_all_tasks(k: Kernel) -> None:
    assert k.run("for t in asyncio.all_tasks(): t.cancel()\nawait asyncio.sleep(60)").ename == "CancelledError"
    assert k.ok("await asyncio.sleep(0); task.cancelled()").value == "True"
    k.expect_alive()


@pytest.mark.parametrize("exit", ["sys.exit(1)", "raise SystemExit"])
def test_exit_in_a_task(k: Kernel, exit: str) -> None:
    k.ok(f"async def leave(): {exit}\nleaving = asyncio.create_task(leave())")
    assert k.run("await leaving").ename == "SystemExit"
    expect_background(k)
    k.ok(f"def leave(): {exit}\nasyncio.get_running_loop().call_soon(leave); await asyncio.sleep(0.05)")
    expect_background(k)


def test_an_exception_handler_that_raises(k: Kernel) -> None:
    k.ok("def handler(loop, context): 1 / 0\nasyncio.get_event_loop().set_exception_handler(handler)")
    k.ok("asyncio.get_running_loop().call_soon(lambda: [][1]); await asyncio.sleep(0.05)")
    expect_background(k)


CHILD = "\nif pid == 0: {}\nelse: print(*os.waitpid(pid, 0))"
FORKS = {
    "plain": ("import os\npid = os.fork()", "print('child')", "0"),
    "fails": ("import os\npid = os.fork()", "raise ValueError", "256"),
    "runs a loop of its own": ("import os\npid = os.fork()", "asyncio.run(asyncio.sleep(0, print('child')))", "0"),
    "exits": ("import os\npid = os.fork()", "sys.exit(3)", "768"),
    "exits well": ("import os\npid = os.fork()", "sys.exit()", "0"),
    "runs the notebook's again": (
        "import os\nloop = asyncio.get_event_loop()\npid = os.fork()",
        "loop.run_until_complete(asyncio.sleep(0.1))",
        "256",
    ),
    "runs the notebook's": ("import os\npid = os.fork()", "get_ipython().run_line_magic('arun', 'f()')", "256"),
    "awaiting": ("import os; await asyncio.sleep(0)\npid = os.fork()", "print('child')", "0"),
    "awaits": (
        "import os; f = asyncio.get_running_loop().create_future(); await asyncio.sleep(0)\npid = os.fork()",
        "await f",
        "256",
    ),
}


@pytest.mark.parametrize("case", FORKS)
def test_fork(k: Kernel, case: str) -> None:
    before, child, status = FORKS[case]
    cell = k.run(before + CHILD.format(child))
    assert cell.reply is not None
    assert cell.reply["status"] == "ok"
    assert status in cell.stdout.split()
    if "print" in child:
        k.wait_for(cell, "child")
    expect_background(k)


def test_a_forked_child_runs_no_callback_of_its_parent(k: Kernel, tmp_path: Path) -> None:
    if "uvloop" in (k.ok("asyncio.get_event_loop()").value or ""):
        pytest.skip("uvloop does not show what is ready: see docs/explanation/safety.md")
    path = str(tmp_path / "lines")
    k.ok(
        f"import os\npath = {path!r}\nasync def line():\n    with open(path, 'a') as f: f.write('x')\n"
        "async def fork():\n    if (pid := os.fork()): return os.waitpid(pid, 0)[1]"
    )
    k.ok("await asyncio.gather(line(), fork(), line(), line());")
    assert k.ok("open(path).read()").value == "'xxx'"
    expect_background(k)


def test_a_hook_that_forks(k: Kernel, tmp_path: Path) -> None:
    k.ok(
        "import os; forked = []\ndef hook(*args):\n    get_ipython().events.unregister('post_run_cell', hook)\n    forked.append(os.fork())"
    )
    k.ok("get_ipython().events.register('post_run_cell', hook)")
    expect_background(k)
    assert k.ok("pid, status = os.waitpid(forked[0], 0); status").value == "0"
    expect_background(k)


def test_threads_that_hand_coroutines_to_the_loop(k: Kernel) -> None:
    k.ok(
        "import threading; loop = asyncio.get_event_loop(); results = []\n"
        "def hand(n):\n    results.append(asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, n), loop).result(10))\n"
        "def start():\n    threads = [threading.Thread(target=hand, args=[n]) for n in range(50)]\n"
        "    for t in threads: t.start()\n    return threads"
    )
    k.ok(
        "threads = start(); await asyncio.gather(*[asyncio.to_thread(t.join) for t in threads]); assert len(results) == 50"
    )
    k.ok("threads = start()")  # they go on between cells
    assert k.ok("await asyncio.gather(*[asyncio.to_thread(t.join) for t in threads]); len(results)").value == "100"
    expect_background(k)


@pytest.mark.parametrize("awaits", ["await asyncio.sleep(0)\n", ""])
def test_what_another_thread_is_told(k: Kernel, awaits: str) -> None:
    cell = k.ok(
        awaits + "import ipyrunner, threading\nerrors = []\n"
        "def use(call):\n    try: call()\n    except RuntimeError as exc: errors.append(str(exc))\n"
        "runner = ipyrunner.get_runner()\n"
        "for call in (ipyrunner.get_runner, runner.get_loop, runner.restart, runner.close, lambda: runner.run(asyncio.sleep(0))):\n"
        "    t = threading.Thread(target=use, args=[call]); t.start(); t.join()\n"
        "errors = [e for e in errors if 'run_coroutine_threadsafe' not in e] or len(errors); errors"
    )
    assert cell.value == "5"
    expect_background(k)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "ename"),
    [("def f(): f()", "RecursionError"), ("def f(): bytearray(1 << 62)", "MemoryError")],
)
def test_no_room_left(k: Kernel, code: str, ename: str) -> None:
    k.ok(code + "\nasyncio.get_running_loop().call_soon(f); await asyncio.sleep(0.05)")
    assert k.run("async def g(): f()\nawait g()").ename == ename
    assert k.ok(
        "async def g(): f()\nt = asyncio.create_task(g())\nawait asyncio.wait([t])\ntype(t.exception()).__name__"
    ).value == repr(ename)
    assert k.run("f()").ename == ename
    expect_background(k)


@pytest.mark.parametrize("_on_each_loop", ["asyncio"], indirect=True)
@pytest.mark.parametrize("n", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_tasks(k: Kernel, n: int) -> None:
    k.ok(f"many = [asyncio.create_task(asyncio.sleep(1000)) for _ in range({n})]")
    expect_background(k)
    cell = k.begin("print('go'); await asyncio.sleep(60)")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("sum(t.done() for t in many)").value == "0"
    k.interrupted(k.begin("print('go'); await asyncio.gather(*many)"), "go")
    assert k.ok("await asyncio.wait(many); all(t.cancelled() for t in many)").value == "True"
    expect_background(k)
    k.ok("del many")


def test_an_interrupt_between_cells_is_said_in_the_output_of_its_cell(k: Kernel) -> None:
    cell = k.ok(
        "async def stuck():\n    await asyncio.sleep(0.01)\n    print('go')\n    while True: pass  # here\n"
        "t = asyncio.create_task(stuck())"
    )
    k.wait_for(cell, "go")
    k.interrupt()
    k.wait_for(cell, "KeyboardInterrupt was raised in stuck(), which did not return to the event loop")
    expect_background(k)
    assert k.ok("type(t.exception()).__name__").value == "'KeyboardInterrupt'"


SIGNALLED = (
    AT_REST
    + """
import signal
def handler(signum, frame):
    if at_rest(frame): raise ValueError('of a handler')
    signal.setitimer(signal.ITIMER_REAL, 0.01)
old = signal.signal(signal.SIGALRM, handler)
"""
)


@pytest.mark.parametrize("cell", ["print('go'); await asyncio.sleep(60)", "print('go')\n%arun asyncio.sleep(60)"])
def test_a_signal_handler_that_raises_while_a_cell_waits(k: Kernel, cell: str) -> None:
    if "uvloop" in (k.ok("asyncio.get_event_loop()").value or ""):
        pytest.skip(
            "what is raised in socket.socketpair(), which uvloop calls when it begins to run, breaks it for good"
        )
    k.ok(SIGNALLED)
    for _ in range(7):  # each time, and not only the first ones
        shown = k.run("signal.setitimer(signal.ITIMER_REAL, 0.05);" + cell)
        assert shown.ename == "ValueError"
        assert "of a handler" in shown.traceback
    expect_background(k)


def test_a_signal_handler_that_raises_between_cells(k: Kernel, tmp_path: Path) -> None:
    marker = tmp_path / "raised"
    raises = SIGNALLED.replace("raise ValueError", f"open({str(marker)!r}, 'w').close(); raise ValueError")
    cell = k.ok(raises + "signal.setitimer(signal.ITIMER_REAL, 0.1);")
    k.wait_until(marker.exists)
    expect_background(k)
    assert cell.ename is None


def test_pythons_own_handler_set_by_the_user(k: Kernel) -> None:
    if k.ok("get_ipython().run_line_magic('config', 'NotebookRunner.poll')").value == "True":
        pytest.skip(
            "the kernel's own loop has its turns while the cell awaits, and what is raised there ends the kernel"
        )
    cell = k.begin(
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nprint('go'); await asyncio.sleep(60)"
    )
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    expect_background(k)


def test_a_loop_that_cannot_run_any_more_is_replaced(k: Kernel) -> None:
    if "selector" not in k.ok("vars(asyncio.get_event_loop()).keys()").value:
        pytest.skip("uvloop has no selector to break")
    k.run(
        "def broken(timeout): raise OSError('broken')\nasyncio.get_running_loop()._selector.select = broken; await asyncio.sleep(1)"
    )
    cell = k.ok("await asyncio.sleep(0.01); kept")
    assert cell.value == "'kept'"


def test_restart_does_not_wait_for_threads(k: Kernel) -> None:
    k.ok("import threading; free = threading.Event()")
    k.ok("t = asyncio.create_task(asyncio.to_thread(free.wait, 60)); await asyncio.sleep(0.05)")
    cell = k.ok("begin = time.monotonic()\n%arunner restart\ntime.monotonic() - begin < 10")
    assert cell.value == "True"
    assert "executor did not finishing joining" in cell.stderr
    k.ok("free.set()")
