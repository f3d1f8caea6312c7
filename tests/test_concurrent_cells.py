"""Cells side by side: ``%%arun --concurrent``, ``NotebookRunner.concurrent``: what each has of its own."""

from __future__ import annotations

from pathlib import Path

import ipykernel
import IPython
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ipyrunner.ipython.needs_loop import is_status_cell
from kernels import BEFORE, CONCURRENT, RUNNER_KERNEL, Kernel, kernel
from side_by_side import BESIDE, WAITING, concurrent_only, counts, number, started


@pytest.fixture
def k(side_by_side: Kernel) -> Kernel:
    return side_by_side


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


@pytest.mark.parametrize(
    "magic", ["%atasks", "%arunner", "%arunner status", "%atasks -a", "%atasks tree", "%atasks show In[{}]"]
)
def test_status_is_shown_while_a_cell_awaits(k: Kernel, magic: str) -> None:
    main = started(k, WAITING)
    waiting = k.begin("%atasks wait all")
    own = number(main)
    shown = k.ok(magic.format(own))
    expected = "KeyboardInterrupt after" if "arunner" in magic else "asyncio.sleep(600)"
    assert expected in (shown.value or shown.stdout)
    assert len(counts(shown)) == 1
    assert waiting.reply is None
    k.interrupt()
    k.finish(main)
    k.finish(waiting)


# Cells, and whether they begin at once while another one awaits: where none is queued behind that, and where one is.
AT_ONCE = {
    "%atasks": (True, True),
    "%atasks -a": (True, True),
    "%atasks --live": (True, True),
    "%atasks tree": (True, True),
    # It changes nothing, and so needs no turn of its own.
    "%atasks show later": (True, True),
    "%atasks show later In[3]": (True, True),
    "%atasks show In[3] 4": (True, True),
    # What it ends may be what a queued cell starts.
    "%atasks cancel later": (True, False),
    "%atasks cancel later In[3]": (True, False),
    "%atasks cancel In[3] later": (True, False),
    "%atasks cancel In[3] In[40]": (True, True),
    "%atasks cancel In[3]x": (True, False),
    "%atasks background later": (True, False),
    "%atasks background In[3]": (True, True),
    # What blocks.
    "%atasks wait In[3]": (False, False),
    "%atasks -a wait In[3]": (False, False),
    "%arunner": (True, True),
    "%arunner status": (True, True),
    # What ends what the other one is in.
    "%arunner restart": (False, False),
    "%arunner close": (False, False),
    "%arunner leave": (False, False),
    "%arunner status --help": (False, False),
    # What is not alone, or another magic.
    "%atasks\n1": (False, False),
    "x = %atasks": (False, False),
    "%arun tree": (False, False),
    "%who": (False, False),
    "1 +": (False, False),
}


@pytest.mark.parametrize(("cell", "expected"), AT_ONCE.items(), ids=AT_ONCE)
def test_which_magics_are_answered_while_a_cell_awaits(cell: str, expected: tuple[bool, bool]) -> None:
    source = TransformerManager().transform_cell(cell)
    assert tuple(is_status_cell(source, queued=queued) for queued in (False, True)) == expected


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
    before = k.ok(state.format(0.5))
    k.wait_for(before, "state")
    first = started(k, "%%arun --concurrent\nfirst = asyncio.Event(); print('go'); await first.wait()")
    second = started(k, "%%arun --concurrent\nsecond = asyncio.Event(); print('go'); await second.wait()")
    main = started(k, "main = asyncio.Event(); print('go'); await main.wait()")
    for cell, name in ((first, "first"), (main, "main"), (second, "second")):  # not the last first
        k.ok(f"%%arun --concurrent\n{name}.set()")
        k.finish(cell)
    after = k.ok(state.format(0.5))
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


@pytest.mark.parametrize("captures", ["%%arun --concurrent\n", ""], ids=["beside", "main"])
def test_requests_are_answered_while_a_cell_captures_its_output(k: Kernel, captures: str) -> None:
    # capture_output puts another publisher in the place of the shell's, which knows of no requests.
    cell = started(
        k,
        f"{captures}from IPython.utils.capture import capture_output\ngo_on = asyncio.Event(); print('go')\n"
        "with capture_output() as captured: await go_on.wait()\ndisplay('own')",
    )
    asked = k.track(k.client.session.msg("complete_request", {"code": "captu", "cursor_pos": 5}))
    k.finish(asked)
    beside = k.begin(
        "%%arun --concurrent\nawait asyncio.sleep(0); go_on.set()\nawait asyncio.sleep(0.05); display('beside')"
    )
    k.finish(beside)
    k.finish(cell)
    for each, text in ((cell, "own"), (beside, "beside")):
        assert each.reply is not None
        assert each.reply["status"] == "ok"
        shown = [m["content"]["data"]["text/plain"] for m in each.messages if m["msg_type"] == "display_data"]
        assert shown == [f"'{text}'"]


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
    present = (
        f"ipykernel {ipykernel.__version__}" if ipykernel.version_info < (7,) else f"IPython {IPython.__version__}"
    )
    assert "UsageError: %%arun --concurrent: cells can run side by side only" in refused.stderr
    assert f"with {wanted} or later: upgrade {present}" in refused.stderr
    refused = shared.run("%config NotebookRunner.concurrent = True")
    assert wanted in refused.traceback or wanted in refused.stderr
    assert shared.ok("await asyncio.sleep(0, 'on')").value == "'on'"
