"""Cells side by side: ``%%arun --concurrent``, ``NotebookRunner.concurrent``, and what is said to one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipykernel
import IPython
import pytest

from kernels import BEFORE, CONCURRENT, DEADLINE, RUNNER_KERNEL, Cell, Kernel, kernel
from setups import SETUPS, kernel_on

concurrent_only = pytest.mark.skipif(not CONCURRENT, reason="cells run side by side on ipykernel 7 and IPython 9.8")
WAITING = (
    "import asyncio\nprint('go')\ntry: await asyncio.sleep(600)\nfinally: await asyncio.sleep(0.01); print('cleaned')"
)
BESIDE = f"%%arun --concurrent\n{WAITING}"


@pytest.fixture(scope="module", params=[*SETUPS, "message"] if CONCURRENT else [])
def _kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel_on(request.param, tmp_path_factory.mktemp("ipython")) as started:
        yield started


@pytest.fixture
def k(_kernel: Kernel) -> Iterator[Kernel]:
    yield _kernel
    _kernel.expect_alive()
    assert _kernel.ok("%atasks").value == "no tasks"
    _kernel.ok("%reset -f")
    _kernel.ok(BEFORE)


def counts(cell: Cell) -> set[int]:
    """All numbers that were said of the cell."""
    said = {m["content"]["execution_count"] for m in cell.messages if "execution_count" in m["content"]}
    assert cell.reply is not None
    return said | {cell.reply["execution_count"]}


def started(k: Kernel, code: str) -> Cell:
    """A cell that has begun."""
    cell = k.begin(code)
    k.wait_for(cell, "go")
    return cell


def interrupt_cell(k: Kernel, msg_id: str) -> dict[str, Any]:
    """Interrupt one cell by message; return the content of the reply."""
    k.client.control_channel.send(k.client.session.msg("interrupt_request", {"msg_id": msg_id}))
    content: dict[str, Any] = k.client.get_control_msg(timeout=DEADLINE)["content"]
    return content


def test_a_cell_begins_while_another_one_awaits(k: Kernel) -> None:
    main = started(k, "import asyncio\ngo_on = asyncio.Event()\nprint('go'); await go_on.wait(); print('main'); 'm'")
    queued = k.begin("print('queued'); 'q'")
    beside = k.run("%%arun --concurrent\nprint('beside')\nawait asyncio.sleep(0.01)\n'b'")
    assert (beside.stdout, beside.value) == ("beside\n", "'b'")
    assert beside.statuses == ["busy", "idle"]
    failed = k.run("%%arun --concurrent\nawait asyncio.sleep(0.01)\n1 / 0")
    assert failed.ename == "ZeroDivisionError"
    assert failed.reply is not None
    assert failed.reply["traceback"] == next(
        m["content"]["traceback"] for m in failed.messages if m["msg_type"] == "error"
    )
    assert main.reply is queued.reply is None
    assert main.statuses[-1] == "busy"  # after the end of the others
    k.ok("%%arun --concurrent\nawait asyncio.sleep(0.01)\ngo_on.set()")
    k.finish(queued)
    assert (main.stdout, main.value, main.ename) == ("go\nmain\n", "'m'", None)
    assert (queued.stdout, queued.value) == ("queued\n", "'q'")
    numbers = [counts(cell) for cell in (main, queued, beside, failed)]
    assert all(len(each) == 1 for each in numbers)
    assert len(set.union(*numbers)) == 4
    first = min(set.union(*numbers))
    assert k.ok(f"Out[{first}], Out[{first + 1}]").value == "('m', 'b')"
    assert k.ok(f"'beside' in In[{first + 1}], 'go_on' in In[{first}]").value == "(True, True)"


def test_numbers_never_repeat(k: Kernel) -> None:
    k.ok("import asyncio\nasync def work(n): await asyncio.sleep(n % 3 / 100); return n")
    kinds = ["%%arun --concurrent\nawait work({})", "await work({})", "work({0}).close() or {0}"]
    cells = [k.begin(kinds[n % 3].format(n)) for n in range(60)]
    for n, cell in enumerate(cells):
        k.finish(cell)
        assert cell.value == str(n)
        assert len(counts(cell)) == 1
    assert len({number for cell in cells for number in counts(cell)}) == 60


def test_it_is_a_task_of_its_own_in_a_copy_of_the_context(k: Kernel) -> None:
    k.ok("import asyncio, contextvars\nvar = contextvars.ContextVar('var'); var.set('notebook')")
    k.ok("main = asyncio.current_task()")
    body = "seen = var.get(); var.set('own'); await asyncio.sleep(0)\nseen, var.get(), asyncio.current_task() is main"
    assert k.ok(f"%%arun --concurrent\n{body}").value == "('notebook', 'own', False)"
    assert k.ok("var.get()").value == "'notebook'"
    assert k.ok(f"%%arun --concurrent --name other\n{body}, asyncio.current_task().get_name()").value == (
        "('notebook', 'own', False, 'other')"
    )
    k.ok("del main")


def test_the_next_cells_do_not_wait_for_it(k: Kernel) -> None:
    beside = started(k, BESIDE)
    assert k.ok("1 + 1").value == "2"
    assert beside.statuses[-1] == "busy"
    assert k.ok("await asyncio.sleep(0.01, 'awaited')").value == "'awaited'"
    assert k.ok("%arun asyncio.sleep(0.01, 'blocked')").value == "'blocked'"
    assert k.ok("asyncio.run(asyncio.sleep(0.01, 'ran'))").value == "'ran'"
    assert k.run("1 / 0").ename == "ZeroDivisionError"
    assert beside.reply is None
    k.interrupt()
    k.finish(beside)
    assert (beside.ename, beside.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")


def test_a_failing_cell_aborts_what_is_queued_behind_it_and_nothing_beside_it(k: Kernel) -> None:
    beside = started(k, BESIDE)
    main = started(k, "go_on = asyncio.Event(); print('go'); await go_on.wait(); 1 / 0")
    msg_ids = [k.client.execute("print('never')") for _ in range(2)]
    queued = [k.track_only(msg_id) for msg_id in msg_ids]
    failing = k.client.execute("%%arun --concurrent\nawait asyncio.sleep(0); raise ValueError")  # stop_on_error
    failed = k.finish(k.track_only(failing))
    assert failed.ename == "ValueError"
    assert not any(cell.reply for cell in queued)  # it does not wait for what is beside it
    k.client.execute("%%arun --concurrent\ngo_on.set()")
    k.finish(main)
    assert main.ename == "ZeroDivisionError"
    assert beside.reply is None
    k.interrupt()
    k.finish(beside)


def test_a_failing_cell_aborts_what_is_queued(k: Kernel) -> None:
    main = k.client.execute("import asyncio; await asyncio.sleep(0.2); 1 / 0")
    queued = [k.client.execute("print('never')") for _ in range(3)]
    cells = [k.track_only(msg_id) for msg_id in [main, *queued]]
    for cell in cells:
        k.finish(cell)
    assert [cell.reply["status"] for cell in cells if cell.reply] == ["error", "aborted", "aborted", "aborted"]
    k.wait_until(lambda: k.run("'on'").value == "'on'")


@pytest.mark.parametrize("magic", ["%atasks", "%arunner", "%arunner status", "%atasks -a", "%atasks show In[{}]"])
def test_status_is_shown_while_a_cell_awaits(k: Kernel, magic: str) -> None:
    main = started(k, WAITING)
    waiting = k.begin("%atasks wait all")
    number = next(m["content"]["execution_count"] for m in main.messages if m["msg_type"] == "execute_input")
    shown = k.ok(magic.format(number))
    assert "asyncio.sleep(600)" in (shown.value or shown.stdout) or "arunner" in magic
    assert len(counts(shown)) == 1
    assert waiting.reply is None
    k.interrupt()
    k.finish(main)
    k.finish(waiting)


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
    assert "the interrupt was forced into the cell, which did not yield" in cell.stdout


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
    number = next(m["content"]["execution_count"] for m in cell.messages if m["msg_type"] == "execute_input")
    k.ok(f"%atasks cancel {name.format(number)}")
    k.finish(cell)
    assert (cell.ename, cell.stdout) == ("CancelledError", "go\ncleaned\n")
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
    number = next(m["content"]["execution_count"] for m in cell.messages if m["msg_type"] == "execute_input")
    k.ok(DETACH[how](number))
    k.finish(cell)
    assert cell.reply is not None
    assert (cell.reply["status"], cell.reply["execution_count"]) == ("ok", number)
    k.interrupted(k.begin(WAITING), "go")  # not for what is in the background
    assert k.ok("import ipyrunner; [t.cell for t in ipyrunner.tasks()]").value == f"['In[{number}]']"
    again = k.run(f"%atasks background In[{number}]")
    assert again.ename == "UsageError" or "in the background already" in again.stderr
    k.ok("await asyncio.sleep(0); go_on.set()")
    k.ok("%atasks wait all")
    k.wait_for(cell, "later")
    k.wait_for_message(cell, "error")
    assert "ValueError" in cell.traceback
    assert k.ok("asyncio.current_task().get_name() != ''; await asyncio.sleep(0, 'next')").value == "'next'"


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
    assert "does not await" in plain.traceback
    assert "%%arun" in plain.traceback
    nothing = k.run("ipyrunner.get_runner().background('In[1000]')")
    assert "no cell 'In[1000]' awaits at this moment; those that do: none" in nothing.traceback
    k.ok("t = asyncio.create_task(asyncio.sleep(600), name='task')")
    assert "is none: it runs in the background already" in k.run("%atasks background task").stderr
    k.ok("t.cancel(); await asyncio.wait([t])")


def test_values_and_history_are_each_cells_own(k: Kernel) -> None:
    first = started(k, "%%arun --concurrent\nfirst = asyncio.Event(); print('go'); await first.wait(); 'first'")
    second = started(k, "%%arun --concurrent\nsecond = asyncio.Event(); print('go'); await second.wait(); 'second'")
    k.ok("'third'")
    k.ok("second.set()")
    k.finish(second)
    assert k.ok("_").value == "'second'"  # what was displayed last
    k.ok("first.set()")
    k.finish(first)
    assert k.ok("_").value == "'first'"
    for cell, value in ((first, "first"), (second, "second")):
        (number,) = counts(cell)
        assert k.ok(f"Out[{number}], _{number}").value == f"('{value}', '{value}')"
        assert f"{value} = " in k.ok(f"%history {number}").stdout
    hidden = k.run("%%arun --concurrent\nawait asyncio.sleep(0); 'hidden'", store_history=False)
    assert hidden.value == "'hidden'"
    assert k.ok("'hidden' in Out.values()").value == "True"  # IPython puts it there, too
    silent = k.run("%%arun --concurrent\nawait asyncio.sleep(0); 'silent'", silent=True)
    assert silent.messages == []


def test_the_result_that_hooks_see_is_the_cells_own(k: Kernel) -> None:
    k.ok(
        "seen = {}\ndef hook(result): seen[result.result] = result.success\nget_ipython().events.register('post_run_cell', hook)"
    )
    beside = started(k, "%%arun --concurrent\ngo_on = asyncio.Event(); print('go'); await go_on.wait(); 'beside'")
    k.ok("await asyncio.sleep(0.01); go_on.set(); 'main'")
    k.finish(beside)
    assert k.ok("get_ipython().events.unregister('post_run_cell', hook); seen['beside'], seen['main']").value == (
        "(True, True)"
    )


def test_what_cells_put_back_when_they_end(k: Kernel) -> None:
    state = (
        "import asyncio, builtins, sys; shell = get_ipython()\n"
        "def state(): return sys.excepthook.__qualname__, builtins.input.__name__, sys.displayhook is shell.displayhook\n"
        "asyncio.get_event_loop().call_later({}, lambda: print('state', state()))"
    )
    before = k.ok(state.format(0.05))
    k.wait_for(before, "state")
    first = started(k, "%%arun --concurrent\nfirst = asyncio.Event(); print('go'); await first.wait()")
    second = started(k, "%%arun --concurrent\nsecond = asyncio.Event(); print('go'); await second.wait()")
    main = started(k, "main = asyncio.Event(); print('go'); await main.wait()")
    for cell, name in ((first, "first"), (main, "main"), (second, "second")):  # not the last first
        k.ok(f"%%arun --concurrent\n{name}.set()")
        k.finish(cell)
    after = k.ok(state.format(0.05))
    k.wait_for(after, "state")
    assert after.stdout == before.stdout


def test_cells_begin_in_their_order(k: Kernel) -> None:
    k.ok("import asyncio\n%config NotebookRunner.concurrent = True")
    cells = []
    for n in range(30):
        code = [f"x{n} = {n}; await asyncio.sleep(0.01); x{n}", f"x{n} = x{n - 1} + 1; x{n}"][n % 2]
        cells.append(k.begin(code))
    for n, cell in enumerate(cells):
        k.finish(cell)
        assert (cell.value, counts(cell)) == (str(n), {min(counts(cells[0])) + n})
    k.ok("%config NotebookRunner.concurrent = False")


def test_a_semicolon_is_the_cells_own(k: Kernel) -> None:
    quiet = started(k, "%%arun --concurrent\ngo_on = asyncio.Event(); print('go'); await go_on.wait(); 'quiet';")
    loud = started(k, "%%arun --concurrent\nprint('go'); await go_on.wait(); 'loud'")
    k.ok("await asyncio.sleep(0); go_on.set();")
    k.finish(quiet)
    k.finish(loud)
    assert (quiet.value, loud.value) == (None, "'loud'")


def test_what_the_front_end_is_asked_to_do_is_the_cells_own(k: Kernel) -> None:
    asks = started(
        k,
        "%%arun --concurrent\ngo_on = asyncio.Event(); get_ipython().set_next_input('next'); print('go'); await go_on.wait()",
    )
    other = k.ok("await asyncio.sleep(0.01); go_on.set()")
    k.finish(asks)
    assert other.reply is not None
    assert asks.reply is not None
    assert other.reply["payload"] == []
    assert [payload["text"] for payload in asks.reply["payload"]] == ["next"]


def test_what_fails_in_a_display_fails_its_own_cell(k: Kernel) -> None:
    k.ok("class Odd:\n    def __repr__(self): raise ValueError('odd')")
    for first, second in (("'good'", "Odd()"), ("Odd()", "'good'")):
        beside = started(k, f"%%arun --concurrent\ngo_on = asyncio.Event(); print('go'); await go_on.wait(); {first}")
        main = k.run(f"await asyncio.sleep(0); go_on.set(); {second}")
        k.finish(beside)
        for cell, code in ((beside, first), (main, second)):
            assert cell.reply is not None
            assert (cell.reply["status"], cell.ename) == (("error", "ValueError") if "Odd" in code else ("ok", None))
    assert k.ok("%%arun --concurrent\nawait asyncio.sleep(0, 'good')").value == "'good'"


def test_threads_print_into_the_cell_that_runs(k: Kernel) -> None:
    # They have no Context of a cell: a cell that awaits and is not beside others is the one.
    print_in_thread = "await asyncio.get_running_loop().run_in_executor(None, print, 'thread')"
    assert k.ok(f"%%arun --concurrent\n{print_in_thread}").stdout == "thread\n"
    main = started(k, "go_on = asyncio.Event(); print('go'); await go_on.wait()")
    assert k.ok(f"%%arun --concurrent\n{print_in_thread}; go_on.set()").stdout == ""
    k.finish(main)
    assert main.stdout == "go\nthread\n"


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
    number = next(m["content"]["execution_count"] for m in main.messages if m["msg_type"] == "execute_input")
    k.ok(f"%atasks cancel In[{number}]")
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
        "import time\nprint('go')\ntry:\n    while True: time.sleep(0.001)\nexcept KeyboardInterrupt: print('caught')",
    )
    k.interrupt()
    k.finish(caught)
    assert caught.ename is None
    k.finish(beside)  # this one was an interrupt
    assert (beside.ename, beside.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")


def test_a_cell_that_is_being_interrupted_is_not_sent_to_the_background(k: Kernel) -> None:
    cell = started(k, BESIDE)
    number = next(m["content"]["execution_count"] for m in cell.messages if m["msg_type"] == "execute_input")
    other = k.run(
        "%%arun --concurrent\nimport ipyrunner, os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
        f"ipyrunner.get_runner().background('In[{number}]')\nawait asyncio.sleep(600)"
    )
    k.finish(cell)
    assert cell.ename == other.ename == "KeyboardInterrupt"


def test_a_cell_that_is_never_awaited_keeps_none_waiting(k: Kernel) -> None:
    main = started(k, "never = get_ipython().run_cell_async('1', transformed_cell='1')\n" + WAITING)
    assert k.ok("%%arun --concurrent\nawait asyncio.sleep(0, 'began')").value == "'began'"
    k.interrupt()
    k.finish(main)
    k.ok("never.close()")


def test_options_that_end_the_interpreter_cost_no_reply(k: Kernel) -> None:
    k.ok("import sys\ndef leave(): sys.exit()")
    for option in ("--concurrent ", ""):
        assert k.run(f"%%arun {option}{{leave()}}\n1").reply is not None


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


def test_it_asks_for_input(k: Kernel) -> None:
    # Also when the cell beside it has ended, which puts back the builtin.
    main = started(k, "import asyncio; go_on = asyncio.Event(); print('go'); await go_on.wait()")
    k.ok("%%arun --concurrent\ndone = []")
    beside = k.begin(
        "%%arun --concurrent\ngo_on.set()\nwhile len(done) < 1: await asyncio.sleep(0.01)\nprint(input('question'))",
        allow_stdin=True,
    )
    k.finish(main)
    k.ok("done.append(1)")
    k.chat(beside, "question", "answer", "answer")
    k.finish(beside)
    assert beside.stdout == "answer\n"
    assert k.ok("import builtins; builtins.input.__name__").value == "'raw_input'"


def test_each_awaiting_cell_by_a_setting(k: Kernel) -> None:
    k.ok("%config NotebookRunner.concurrent = True")
    try:
        first = started(k, WAITING)
        assert k.ok("await asyncio.sleep(0.01, 'second')").value == "'second'"
        assert k.ok("1").value == "1"
        third = started(k, f"%%arun\n{WAITING}")
        assert first.reply is None
        # Run all: each begins in its turn.
        cells = [k.begin(code) for code in ("x = [1]", "x.append(2); await asyncio.sleep(0); x", "x.append(3); x")]
        for cell in cells:
            k.finish(cell)
        assert cells[1].value in ("[1, 2]", "[1, 2, 3]")
        assert cells[2].value == "[1, 2, 3]"
        k.interrupt()
        for cell in (first, third):
            k.finish(cell)
            assert cell.ename == "KeyboardInterrupt"
    finally:
        k.ok("%config NotebookRunner.concurrent = False")


@pytest.mark.parametrize("how", ["%arunner restart", "%arunner close"])
def test_every_cell_gets_a_reply_when_the_loop_is_closed(k: Kernel, how: str) -> None:
    cells = [started(k, BESIDE) for _ in range(3)]
    k.ok(how)
    for cell in cells:
        k.finish(cell)
        assert (cell.ename, cell.stdout) == ("CancelledError", "go\ncleaned\n")
    k.ok(BEFORE)


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("%%arun --concurrent --fresh\npass", "UsageError", "--concurrent is for a cell that awaits"),
        ("%%arun --concurrent --background\npass", "UsageError", "--concurrent is for a cell that awaits"),
        ("%%arun --concurrent --nonsense\npass", "UsageError", "unrecognized arguments"),
        ("%%arun --concurrent\nif True", "SyntaxError", "expected ':'"),
        ("%%arun --concurrent\n", "UsageError", "body is empty"),
    ],
)
def test_what_was_wrong(k: Kernel, code: str, name: str, message: str) -> None:
    failed = k.run(code)
    assert failed.reply is not None
    assert failed.reply["status"] == "error"
    assert failed.reply["ename"] == name
    assert message in failed.stderr + failed.traceback
    assert k.ok("%%arun --concurrent\n1 + 1").value == "2"


@concurrent_only
def test_unloading_gives_every_cell_a_reply(tmp_path: Path) -> None:
    with kernel(tmp_path) as k:
        cells = [started(k, BESIDE) for _ in range(2)]
        k.ok("%unload_ext ipyrunner")
        for cell in cells:
            k.finish(cell)
            assert (cell.ename, cell.stdout) == ("CancelledError", "go\ncleaned\n")
        assert k.ok("1 + 1").value == "2"
        assert k.ok("import asyncio; await asyncio.sleep(0, 'stock')").value == "'stock'"
        assert k.ok("builtins = __import__('builtins'); get_ipython().displayhook.prompt_count >= 4").value == "True"


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


@concurrent_only
def test_on_the_kernel_of_our_own(tmp_path: Path) -> None:
    with kernel(tmp_path, RUNNER_KERNEL) as k:
        first, second = started(k, BESIDE), started(k, WAITING)
        k.interrupt()
        k.finish(first)
        k.finish(second)
        assert first.ename == second.ename == "KeyboardInterrupt"
        k.expect_alive()


@pytest.mark.skipif(CONCURRENT, reason="where cells cannot run side by side")
def test_where_cells_cannot_run_side_by_side(shared: Kernel) -> None:
    refused = shared.run("%%arun --concurrent\n1")
    wanted = "ipykernel 7" if ipykernel.version_info < (7,) else "IPython 9.8"
    version = ipykernel.__version__ if ipykernel.version_info < (7,) else IPython.__version__
    assert f"UsageError: %%arun --concurrent: cells run side by side with {wanted} or later, and this is {version}" in (
        refused.stderr
    )
    refused = shared.run("%config NotebookRunner.concurrent = True")
    assert wanted in refused.traceback or wanted in refused.stderr
    assert shared.ok("await asyncio.sleep(0, 'on')").value == "'on'"
