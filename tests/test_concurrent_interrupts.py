"""Cells side by side that are interrupted, cancelled and sent to the background: together, or one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kernels import BEFORE, Kernel, kernel
from side_by_side import BESIDE, WAITING, concurrent_only, interrupt_cell, number, started


@pytest.fixture
def k(side_by_side: Kernel) -> Kernel:
    return side_by_side


def test_one_interrupt_ends_all_cells(k: Kernel) -> None:
    main, beside = started(k, WAITING), [started(k, BESIDE) for _ in range(3)]
    k.interrupt()
    for cell in (main, *beside):
        k.finish(cell)
        assert (cell.ename, cell.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")
        assert cell.reply is not None
        assert cell.reply["ename"] == "KeyboardInterrupt"


def test_one_interrupt_ends_a_cell_beside_a_plain_one(k: Kernel) -> None:
    k.ok("import time")
    beside = started(k, BESIDE)
    plain = k.begin("print('go')\nwhile True: time.sleep(0.001)")
    k.interrupted(plain, "go")
    k.finish(beside)
    assert plain.ename == beside.ename == "KeyboardInterrupt"
    assert beside.stdout == "go\ncleaned\n"


def test_one_interrupt_ends_a_blocking_run_and_the_cells_beside_it(k: Kernel) -> None:
    beside = started(k, BESIDE)
    plain = k.begin(
        "async def main(): print('go'); await asyncio.sleep(600)\n%arun main()\nprint('not to be seen')",
        allow_stdin=True,
    )
    k.interrupted(plain, "go")
    k.finish(beside)
    assert plain.ename == beside.ename == "KeyboardInterrupt"
    assert plain.stdout == "go\n"
    assert beside.stdout == "go\ncleaned\n"


@pytest.mark.parametrize("where", ["beside", "main"])
def test_the_interrupt_is_exact_among_busy_cells(k: Kernel, where: str) -> None:
    k.ok(
        "import asyncio, time\nsteps = []\n"
        "async def crunch(n): time.sleep(0.1); steps.append(n); return n\n"
        "async def all(): print('go'); return await asyncio.gather(*[crunch(n) for n in range(100)], return_exceptions=True)"
    )
    other = started(k, WAITING if where == "beside" else BESIDE)
    cell = k.begin(f"{'%%arun --concurrent' if where == 'beside' else ''}\nawait all()")
    k.interrupted(cell, "go")
    k.finish(other)
    assert cell.ename == other.ename == "KeyboardInterrupt"
    assert int(k.ok("len(steps)").value or 0) < 50


def test_the_interrupt_is_forced_into_a_cell_that_does_not_yield(k: Kernel) -> None:
    k.ok("import time")
    other = started(k, BESIDE)
    cell = k.begin("%%arun --concurrent\nawait asyncio.sleep(0)\nprint('go')\nwhile True: time.sleep(0.001)")
    k.interrupted(cell, "go")
    k.finish(other)
    assert cell.ename == other.ename == "KeyboardInterrupt"
    assert "KeyboardInterrupt was raised in the cell, which did not return to the event loop" in cell.stdout


def test_what_is_forced_into_a_child_ends_its_cell(k: Kernel) -> None:
    k.ok("import time\nasync def child():\n    print('go')\n    while True: time.sleep(0.001)")
    main = started(k, WAITING)
    cell = k.begin(
        "%%arun --concurrent\nr = await asyncio.gather(child(), asyncio.sleep(600), return_exceptions=True)\n"
        "await asyncio.sleep(600)"
    )
    k.interrupted(cell, "go")
    k.finish(main)
    assert cell.ename == main.ename == "KeyboardInterrupt"
    k.ok("import asyncio\nfor task in asyncio.all_tasks() - {asyncio.current_task()}: task.cancel()")


def test_whoever_catches_a_forced_interrupt_goes_on(k: Kernel) -> None:
    # One interrupt has one effect.
    k.ok("import time")
    cell = started(
        k,
        "%%arun --concurrent\nawait asyncio.sleep(0)\nprint('go')\ntry:\n    while True: time.sleep(0.001)\n"
        "except KeyboardInterrupt: print('caught')\nawait asyncio.sleep(0.01)\n'went on'",
    )
    k.interrupt()
    k.finish(cell)
    assert cell.value == "'went on'"
    assert "caught" in cell.stdout


def test_the_second_interrupt_gives_up_a_cell_that_goes_on(k: Kernel) -> None:
    cell = started(
        k,
        "%%arun --concurrent\nstop = asyncio.Event()\nprint('go')\nwhile not stop.is_set():\n"
        "    try: await asyncio.wait_for(stop.wait(), 600)\n    except asyncio.CancelledError: print('caught')",
    )
    k.interrupt()
    k.wait_for(cell, "caught")
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    assert "ignored its cancellation" in cell.stdout
    k.ok("stop.set()")
    k.ok("%atasks wait all")


def test_one_cell_is_interrupted_by_message(k: Kernel) -> None:
    only = started(k, BESIDE)
    assert interrupt_cell(k, only.msg_id) == {"status": "ok"}
    k.finish(only)
    assert (only.ename, only.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")
    main, beside = started(k, WAITING), started(k, BESIDE)
    assert interrupt_cell(k, beside.msg_id) == {"status": "ok"}
    k.finish(beside)
    assert (beside.ename, beside.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")
    refused = interrupt_cell(k, beside.msg_id)
    assert refused["status"] == "error"
    assert beside.msg_id in refused["evalue"]
    assert main.reply is None
    again = started(k, BESIDE)
    assert interrupt_cell(k, main.msg_id) == {"status": "ok"}
    k.finish(main)
    assert main.ename == "KeyboardInterrupt"
    plain = k.begin("import time; print('go')\nwhile True: time.sleep(0.001)")
    k.wait_for(plain, "go")
    assert interrupt_cell(k, plain.msg_id)["status"] == "ok"
    k.finish(plain)
    assert plain.ename == "KeyboardInterrupt"
    k.ok("await asyncio.sleep(0.01)")
    assert again.reply is None
    k.interrupt()
    k.finish(again)


@pytest.mark.parametrize("name", ["In[{}]", "named"])
@pytest.mark.parametrize("where", ["beside", "main"])
def test_one_cell_is_cancelled_by_name(k: Kernel, where: str, name: str) -> None:
    other = started(k, BESIDE)
    cell = started(k, f"%%arun --name named {'--concurrent' * (where == 'beside')}\n{WAITING}")
    own = number(cell)
    k.ok(f"%atasks cancel {name.format(own)}")
    k.finish(cell)
    assert (cell.ename, cell.stdout) == ("CancelledError", "go\ncleaned\n")
    assert cell.traceback.endswith("CancelledError: cancelled by %atasks cancel")
    assert cell.traceback.count("most recent call") == 1
    assert other.reply is None
    k.interrupt()
    k.finish(other)


DETACH: dict[str, Callable[[int], str]] = {
    "alone": lambda number: f"%atasks background In[{number}]",
    "beside": lambda number: (
        f"%%arun --concurrent\nimport ipyrunner; await asyncio.sleep(0); ipyrunner.get_runner().background('In[{number}]');"
    ),
    "callback": lambda number: (
        "%%arun --concurrent\nimport ipyrunner, asyncio\n"
        f"asyncio.get_running_loop().call_later(0.01, lambda: ipyrunner.get_runner().background('In[{number}]'));"
    ),
}


@pytest.mark.parametrize("how", DETACH)
@pytest.mark.parametrize("where", ["beside", "main"])
def test_a_cell_is_sent_to_the_background(k: Kernel, where: str, how: str) -> None:
    arun = "%%arun --concurrent\n" * (where == "beside")
    code = "import asyncio\ngo_on = asyncio.Event()\nprint('go'); await go_on.wait(); print('later'); raise ValueError"
    cell = started(k, arun + code)
    own = number(cell)
    k.ok(DETACH[how](own))
    k.finish(cell)
    assert cell.reply is not None
    assert (cell.reply["status"], cell.reply["execution_count"]) == ("ok", own)
    k.interrupted(k.begin(WAITING), "go")  # not for what is in the background
    assert k.ok("import ipyrunner; [t.cell for t in ipyrunner.tasks()]").value == f"['In[{own}]']"
    again = k.run(f"%atasks background In[{own}]")
    assert "already runs in the background" in again.stderr
    k.ok("asyncio.get_event_loop().call_later(0.2, go_on.set);")
    assert "failed: ValueError" in k.ok("%atasks wait all").stdout
    k.wait_for(cell, "later")
    k.wait_for_message(cell, "error")
    assert "ValueError" in cell.traceback
    assert k.ok("asyncio.current_task().get_name() != ''; await asyncio.sleep(0, 'next')").value == "'next'"


def test_a_cell_in_the_background_keeps_no_error_when_it_has_ended(k: Kernel) -> None:
    cell = started(
        k,
        "import asyncio, gc, weakref\nclass Big: pass\ndef fail():\n    global ref\n"
        "    big = Big(); ref = weakref.ref(big); raise ValueError\n"
        "task = asyncio.create_task(asyncio.Event().wait()); go_on = asyncio.Event()\nprint('go'); await go_on.wait()\nfail()",
    )
    k.ok(DETACH["alone"](number(cell)))
    k.finish(cell)
    k.ok("go_on.set()")
    k.wait_for_message(cell, "error")
    k.run("1/0")  # in the place of sys.last_value
    k.ok("await asyncio.sleep(0)")  # what is left to do for the end of that task
    assert k.ok("gc.collect(); ref() is None, task.done()").value == "(True, False)"
    k.ok("task.cancel()")


def test_a_cell_sends_itself_to_the_background(k: Kernel) -> None:
    cell = k.ok(
        "import asyncio, ipyrunner\ngo_on = asyncio.Event()\nawait asyncio.sleep(0)\n"
        "ipyrunner.get_runner().background(asyncio.current_task())\nawait go_on.wait()\nprint('later')"
    )
    k.ok("go_on.set()")
    k.wait_for(cell, "later")
    k.ok("%atasks wait all")


def test_what_cannot_be_sent_to_the_background(k: Kernel) -> None:
    plain = k.run("import ipyrunner, asyncio\nipyrunner.get_runner().background(f'In[{len(In) - 1}]')")
    assert plain.ename == "RuntimeError"
    assert "is a cell without await" in plain.traceback
    assert "%%arun" in plain.traceback
    nothing = k.run("ipyrunner.get_runner().background('In[1000]')")
    assert "no cell 'In[1000]' is awaiting at the moment. Cells that are: none" in nothing.traceback
    k.ok("t = asyncio.create_task(asyncio.sleep(600), name='task')")
    assert "is a task that already runs in the background" in k.run("%atasks background task").stderr
    k.ok("t.cancel(); await asyncio.wait([t])")


def test_a_task_is_cancelled_in_its_turn_if_cells_are_queued(k: Kernel) -> None:
    # It may be one that they start; a cell that runs can be meant at once.
    codes = [
        "import asyncio; await asyncio.sleep(0.2)",
        "t = asyncio.create_task(asyncio.sleep(600), name='ticker')",
        "%atasks cancel ticker",
        "await asyncio.sleep(0.01); t.cancelled()",
    ]
    cells = [k.begin(code) for code in codes]
    for cell in cells:
        k.finish(cell)
        assert cell.ename is None
    assert cells[-1].value == "True"
    main = started(k, "t = asyncio.create_task(asyncio.sleep(600), name='ticker')\n" + WAITING)
    k.ok("%atasks cancel ticker")  # nothing is queued
    assert main.reply is None
    queued = k.begin("'queued'")
    own = number(main)
    k.ok(f"%atasks cancel In[{own}]")
    k.finish(main)
    assert main.ename == "CancelledError"
    k.finish(queued)


def test_keyboard_interrupt_of_a_plain_cells_own_ends_no_other(k: Kernel) -> None:
    beside = started(k, BESIDE)
    assert k.run("raise KeyboardInterrupt").ename == "KeyboardInterrupt"
    k.ok("await asyncio.sleep(0.01)")
    assert beside.reply is None
    caught = started(
        k,
        "import time\ntry:\n    print('go')\n    while True: time.sleep(0.001)\nexcept KeyboardInterrupt: print('caught')",
    )
    k.interrupt()
    k.finish(caught)
    assert caught.ename is None
    k.finish(beside)  # this one was an interrupt
    assert (beside.ename, beside.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")


def test_a_cell_that_is_being_interrupted_is_not_sent_to_the_background(k: Kernel) -> None:
    cell = started(k, BESIDE)
    own = number(cell)
    other = k.run(
        "%%arun --concurrent\nimport ipyrunner, os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
        f"ipyrunner.get_runner().background('In[{own}]')\nawait asyncio.sleep(600)"
    )
    k.finish(cell)
    assert cell.ename == other.ename == "KeyboardInterrupt"


def test_sigint_is_the_kernels_again_when_nothing_runs(k: Kernel) -> None:
    note = (
        "import asyncio, signal\nhost = get_ipython().kernel.io_loop.asyncio_loop\n"
        "host.call_soon(host.call_soon, host.call_soon, lambda: print('handler', signal.getsignal(signal.SIGINT)))"
    )
    before = k.ok("def note(): pass\n" + note)
    k.wait_for(before, "handler")
    cells = [started(k, BESIDE) for _ in range(2)]
    main = started(k, WAITING)
    k.interrupt()
    for cell in (*cells, main):
        k.finish(cell)
    after = k.ok(note)
    k.wait_for(after, "handler")
    assert after.stdout == before.stdout


@concurrent_only
def test_cells_are_interrupted_after_a_reload(tmp_path: Path) -> None:
    with kernel(tmp_path) as k:
        before = started(k, BESIDE)
        k.ok("%reload_ext ipyrunner")
        k.finish(before)
        assert before.ename == "CancelledError"
        k.ok(BEFORE)
        after = started(k, BESIDE)
        k.interrupt()
        k.finish(after)
        assert after.ename == "KeyboardInterrupt"
        k.expect_alive()
