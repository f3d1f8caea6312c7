"""``%arun``, ``%%arun`` and ``%arunner``."""

from __future__ import annotations

import re
from pathlib import Path

import IPython
import pytest

from kernels import Kernel, kernel

MAIN = """
async def fetch(value):
    await asyncio.sleep(0.001)
    return value
"""


@pytest.fixture
def k(shared: Kernel) -> Kernel:
    shared.ok(MAIN)
    return shared


def test_arun_returns_the_value(k: Kernel) -> None:
    assert k.ok("%arun fetch(5)").value == "5"
    assert k.ok("x = %arun fetch({'a': [1]})\nx").value == "{'a': [1]}"
    assert k.ok("_").value == "{'a': [1]}"


def test_arun_takes_anything_awaitable_on_the_notebooks_loop(k: Kernel) -> None:
    k.ok("t = asyncio.create_task(fetch('task'))")
    assert k.ok("%arun t").value == "'task'"
    assert k.ok("%arun asyncio.gather(fetch(1), fetch(2))").value == "[1, 2]"
    assert k.ok("%arun await fetch(3)").value == "3"
    assert k.ok("%arun fetch(3);").value is None
    k.ok("async def where(): return id(asyncio.get_running_loop()) == loop_id")
    assert k.ok("%arun where()").value == "True"


def test_arun_in_a_function_sees_its_variables(k: Kernel) -> None:
    k.ok("def get(u):\n    answer = %arun fetch([u for _ in range(2)])\n    return answer")
    assert k.ok("get('local')").value == "['local', 'local']"


@pytest.mark.parametrize("wrong", ["5", "fetch", "None"])
def test_arun_of_what_cannot_be_awaited(k: Kernel, wrong: str) -> None:
    cell = k.run(f"%arun {wrong}")
    assert cell.ename == "TypeError"
    assert "cannot be awaited" in cell.traceback
    assert "coroutine" in cell.traceback


def test_arun_misused(k: Kernel) -> None:
    assert "needs an expression" in k.run("%arun").stderr
    assert "takes an expression and no options" in k.run("%arun --timeout 3 fetch(1)").stderr
    assert "takes an expression and no options" in k.run("%arun -o x fetch(1)").stderr
    assert k.run("%arun fetch(").ename == "SyntaxError"
    assert "x = %arun EXPRESSION" in k.run("%arun x = fetch(1)").stderr
    cell = k.run("await fetch(1)\n%arun fetch(2)")
    assert cell.ename == "RuntimeError"
    assert "write `await ...` instead" in cell.traceback


def test_body_value_is_the_last_expression_awaited(k: Kernel) -> None:
    assert k.ok("%%arun\nx = await fetch(1)\nfetch(x + 1)").value == "2"
    assert k.ok("_").value == "2"
    assert k.ok("%%arun\nx").value == "1"
    assert k.ok("%%arun\ny = 3").value is None
    assert k.ok("%%arun\nfetch(4);").value is None
    assert k.ok("%%arun\n# nothing").value is None


def test_body_sees_the_notebooks_loop_and_namespace(k: Kernel) -> None:
    assert k.ok("%%arun\nid(asyncio.get_running_loop()) == loop_id").value == "True"
    k.ok("%%arun\nimport math\ndef inner(): return math.pi\nclass C: pass\nnew = inner()")
    assert k.ok("new == math.pi").value == "True"


def test_ipython_syntax_in_the_body(k: Kernel) -> None:
    cell = k.ok("%%arun\n!echo from the shell\nhere = %pwd\nawait fetch(1)\nimport os; here == os.getcwd()")
    assert "from the shell" in cell.stdout
    assert cell.value == "True"
    payload = k.ok("%%arun\nfetch?").reply
    assert payload is not None
    assert "fetch" in str(payload["payload"])


@pytest.mark.parametrize(
    "raised", ["Mine('the server said: 504') from e", "TimeoutError('mine') from e", "TimeoutError('mine')"]
)
def test_a_timeout_error_of_the_cells_own_stays(k: Kernel, raised: str) -> None:
    cell = k.run(
        "%%arun --timeout 0.05\nclass Mine(TimeoutError): pass\ntry: await asyncio.sleep(60)\n"
        f"except asyncio.CancelledError as e: raise {raised}"
    )
    assert cell.ename == raised.partition("(")[0]
    assert raised.split("'")[1] in cell.traceback
    assert "did not end within" not in cell.traceback


@pytest.mark.skipif(IPython.version_info < (8, 11), reason="shows no notes")
def test_a_note_on_a_timeouts_cancellation_is_shown(k: Kernel) -> None:
    cell = k.run(
        "%%arun --timeout 0.05\ntry: await asyncio.sleep(60)\nexcept asyncio.CancelledError as e: e.add_note('mine'); raise"
    )
    assert cell.ename == "TimeoutError"
    assert "did not end within" in cell.traceback
    assert cell.traceback.rstrip().endswith("mine")


def test_timeout_cancels_and_cleans_up(k: Kernel) -> None:
    cell = k.run(
        "%%arun --timeout 0.05\ntry:\n    await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.01); print('clean')"
    )
    assert cell.ename == "TimeoutError"
    assert cell.stdout == "clean\n"
    assert "because it did not end within 0.05 seconds" in cell.traceback
    late = k.run("%%arun --timeout 1\nasyncio.sleep(60)").traceback
    assert late.endswith("because it did not end within 1 second")
    assert k.ok("%%arun --timeout 30\nfetch(1)").value == "1"


def test_name(k: Kernel) -> None:
    assert k.ok('%%arun --name "my task"\nasyncio.current_task().get_name()').value == "'my task'"
    assert k.ok("%%arun --name bob\nasyncio.current_task().get_name()").value == "'bob'"


def test_debug_for_the_length_of_the_cell(k: Kernel) -> None:
    assert k.ok("%%arun --debug\nasyncio.get_running_loop().get_debug()").value == "True"
    assert k.ok("await fetch(1); asyncio.get_running_loop().get_debug()").value == "False"


def test_context_copy(k: Kernel) -> None:
    k.ok("import contextvars; var = contextvars.ContextVar('var', default='unset'); var.set('outer');")
    assert k.ok("%%arun --context copy\nbefore = var.get(); var.set('inner'); before").value == "'outer'"
    assert k.ok("var.get()").value == "'outer'"
    k.ok("%%time\n%%arun --context copy\nvar.set('inner')")
    assert k.ok("var.get()").value == "'outer'"


def test_fresh_is_asyncio_run(k: Kernel) -> None:
    k.ok("import contextvars; var = contextvars.ContextVar('var', default='unset'); var.set('outer');")
    cell = k.ok(
        "%%arun --fresh\nloop = asyncio.get_running_loop()\nbefore = var.get(); var.set('inner')\n"
        "async def left():\n    try: await asyncio.sleep(60)\n    finally: print('finalized')\n"
        "t = asyncio.create_task(left()); await fetch(0)\nbefore"
    )
    assert (cell.value, cell.stdout) == ("'outer'", "finalized\n")
    assert k.ok("loop.is_closed(), id(loop) == loop_id, var.get()").value == "(True, False, 'outer')"


def test_output_variable(k: Kernel) -> None:
    assert k.ok("%%arun -o result\nfetch(8)").value is None
    assert k.ok("result").value == "8"
    k.ok("%%arun --output other\nfetch(9)")
    assert k.ok("other").value == "9"


WRONG = {
    "--unknown": "unrecognized arguments: --unknown",
    "--timeout soon": "SECONDS has to be a number, 0 or more, not 'soon'",
    "--timeout -1": "SECONDS has to be a number, 0 or more, not '-1'",
    "--context share": "invalid choice: 'share'",
    "-o 1x": "VAR has to be the name of a variable, such as result, not '1x'",
    "-o class": "VAR has to be the name of a variable: class is a keyword of Python",
}


@pytest.mark.parametrize(("line", "text"), WRONG.items(), ids=WRONG)
def test_wrong_options_are_usage_errors(k: Kernel, line: str, text: str) -> None:
    cell = k.run(f"%%arun {line}\nprint('not run')")
    assert cell.ename == "UsageError"
    assert cell.stdout == ""
    assert "UsageError" in cell.stderr
    assert text in cell.stderr


# What a user has written, and what was meant; None: nothing that there is.
NEAR = {
    "%%arun --timout 5\npass": "--timeout",
    "%%arun -timeout 5\npass": "--timeout",
    "%%arun timeout=5\npass": "--timeout",
    "%%arun --bakground --name x\npass": "--background",
    "%%arun --context copied\npass": "copy",
    "%%arun --zzz\npass": None,
    "%%arun --timeout background\npass": None,
    "%%arun --fresh copy\npass": None,
    "%atasks cancle 3": "cancel",
    "%atasks --tree": "tree",
    "%atasks --liv_e": "--live",
    "%atasks kill 3": None,
    "%arunner retsart": "restart",
    "%arunner --restart": "restart",
}


@pytest.mark.parametrize(("code", "meant"), NEAR.items(), ids=NEAR)
def test_a_misspelt_option_is_named(k: Kernel, code: str, meant: str | None) -> None:
    said = k.run(code).stderr
    assert said.startswith("UsageError: ")
    assert said.count("\n") == 1
    if meant is None:
        assert "Did you mean" not in said
    else:
        # Python 3.15 asks itself, for some.
        assert f" Did you mean {meant}? %" in said or f"maybe you meant '{meant}'?" in said


def test_a_value_with_spaces_needs_quotes(k: Kernel) -> None:
    advice = ". A value with spaces has to be in quotes. %arun --help shows the options"
    assert advice in k.run("%%arun --name my task\npass").stderr
    assert advice in k.run("%%arun --name=my copy\npass").stderr
    assert advice not in k.run("%%arun my task\npass").stderr
    assert advice not in k.run("%%arun --name my --zzz\npass").stderr


@pytest.mark.parametrize("mode", ["Plain", "Context", "Verbose"])
def test_a_timeout_without_a_line_of_the_body_shows_no_line_of_ipython(k: Kernel, mode: str) -> None:
    k.ok(f"%xmode {mode}")
    try:
        cell = k.run("%%arun --timeout 0.05\nasyncio.sleep(60)")
        assert cell.ename == "TimeoutError"
        assert cell.traceback.rstrip().endswith("did not end within 0.05 seconds")
        assert not re.search(r"File |line \d|run_code|run_cell_magic", cell.traceback)
        assert "1 / 0" in k.run("%%arun --timeout 60\n1 / 0").traceback
    finally:
        k.ok("%xmode Context")


def test_other_cell_magics_in_front(k: Kernel) -> None:
    cell = k.ok("%%time\n%%arun\nfetch(6)")
    assert cell.value == "6"
    assert "Wall time" in cell.stdout
    k.ok("%%capture out\n%%arun\nprint('inside')\nfetch(7)")
    assert k.ok("out.stdout").value == r"'inside\n'"


def test_the_kernel_is_live_during_a_cell_that_begins_with_arun(k: Kernel) -> None:
    # The host's loop runs: a callback of its own is called while the cell awaits.
    k.ok("host = get_ipython().kernel.io_loop.asyncio_loop")
    assert (
        k.ok("%%arun\ne = asyncio.Event()\nhost.call_soon(e.set)\nawait asyncio.wait_for(e.wait(), 10)").value == "True"
    )


def test_help_names_every_option(k: Kernel) -> None:
    reply = k.ok("%arun?").reply
    assert reply is not None
    text = str(reply["payload"])
    for option in (
        "--timeout",
        "--name",
        "--debug",
        "--context",
        "--fresh",
        "--output",
        "%arun EXPRESSION",
        "%%arun [options]",
    ):
        assert option in text


def test_help_fits_into_an_output(tmp_path: Path) -> None:
    # Of the terminal that the kernel was started in, which says nothing of the output.
    with kernel(tmp_path, env={"COLUMNS": "200"}) as k:
        for magic in ("%arun", "%atasks", "%arunner"):
            lines = k.ok(f"{magic} --help").stdout.splitlines()
            assert len(lines) > 10
            assert max(map(len, lines)) <= 80
        text = k.ok("%arun --help").stdout
        assert "--context copy" in text
        assert "--trace [FILE]" in text
        assert "<" not in text


def test_history_keeps_the_cell_as_typed(k: Kernel) -> None:
    k.ok("%%arun --name typed\nfetch(1)")
    assert k.ok("_ih[-2].startswith(\"get_ipython().run_cell_magic('arun', '--name typed'\")").value == "True"


def test_arunner_status(k: Kernel) -> None:
    k.ok("import contextvars; mine = contextvars.ContextVar('mine'); mine.set(1)")
    k.ok("t = asyncio.create_task(asyncio.sleep(60), name='napper')")
    text = k.ok("%arunner").value or ""
    for part in ("UnixSelectorEventLoop", "host", "debug", "1 (napper)", "1 context variable set (mine)", "interrupts"):
        assert part in text
    assert k.ok("%arunner status").value == text


def test_arunner_restart_finalizes_and_keeps_variables(k: Kernel) -> None:
    k.ok(
        "import contextvars; var = contextvars.ContextVar('var', default='unset'); var.set(1)\n"
        "async def task():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0); done.append('task')\n"
        "async def generator():\n    try: yield 1\n    finally: await asyncio.sleep(0); done.append('generator')\n"
        "done = []; t = asyncio.create_task(task()); g = generator()"
    )
    k.ok("await anext(g)")
    assert re.fullmatch(r"cancelled 1 task \(Task-\d+\); made a new event loop\n", k.ok("%arunner restart").stdout)
    assert k.ok("%arunner restart").stdout == "no tasks to cancel; made a new event loop\n"
    # Nobody can cancel the tasks of a closed loop.
    code = "t = asyncio.create_task(asyncio.sleep(60)); asyncio.get_event_loop().close()\n%arunner restart"
    assert k.ok(code).stdout == "no tasks to cancel; made a new event loop\n"
    assert k.ok("done, var.get(), kept, id(asyncio.get_event_loop()) == loop_id").value == (
        "(['task', 'generator'], 'unset', 'kept', False)"
    )
    assert k.ok("%arun fetch(1)").value == "1"


def test_arunner_close_and_the_next_use(k: Kernel) -> None:
    k.ok("ts = [asyncio.create_task(asyncio.sleep(60), name=f't{n}') for n in range(6)]")
    assert k.ok("%arunner close").stdout == (
        "cancelled 6 tasks (t0, t1, t2, t3, t4, ...); closed the event loop. The next cell gets a new one\n"
    )
    assert k.ok("%arunner close").stdout == "no tasks to cancel; closed the event loop. The next cell gets a new one\n"
    said = k.ok("import ipyrunner; ipyrunner.get_runner().close()\n%arunner close").stdout
    assert said == "no event loop to close: the next cell gets a new one\n"
    assert "none" in (k.ok("import ipyrunner; ipyrunner.get_runner().close()\n%arunner").value or "")
    assert k.ok("await fetch(1)").value == "1"
    # No loop until it is needed: not for the events at the end of the cell that has closed it.
    closed = k.run("%arunner close", user_expressions={"none": "ipyrunner.get_runner().present is None"})
    assert closed.reply is not None
    assert closed.reply["user_expressions"]["none"]["data"]["text/plain"] == "True"
    assert k.ok("await fetch(2)").value == "2"


def test_restart_names_what_does_not_end(k: Kernel) -> None:
    k.ok("%config NotebookRunner.shutdown_timeout = 0.1")
    k.ok(
        "async def stubborn():\n    while not stop:\n        try: await asyncio.sleep(0.01)\n        except asyncio.CancelledError: pass\n"
        "stop = False; t = asyncio.create_task(stubborn(), name='stubborn')"
    )
    k.ok("await asyncio.sleep(0)")
    cell = k.ok("%arunner restart")
    assert "did not end before its loop was closed" in cell.stdout
    assert "stubborn" in cell.stdout
    k.ok("%config NotebookRunner.shutdown_timeout = 2.0")
    assert k.ok("await fetch(2)").value == "2"


def test_restart_inside_the_loop_is_refused(k: Kernel) -> None:
    cell = k.run("await fetch(1)\n%arunner restart")
    assert cell.ename == "RuntimeError"
    assert "in a cell of its own" in cell.traceback
    assert k.ok("id(asyncio.get_event_loop()) == loop_id").value == "True"


def test_arunner_misused(k: Kernel) -> None:
    assert "invalid choice" in k.run("%arunner explode").stderr


def test_options_may_come_from_variables(shared: Kernel) -> None:
    shared.ok("import contextvars\nvar = contextvars.ContextVar('var')\nopts, how = '--background', 'copy'")
    shared.ok("%%arun $opts -o handle\nawait asyncio.sleep(0, 3)\n5")
    assert shared.ok("type(handle).__name__").value == "'BackgroundCell'"
    assert shared.ok("await handle").value == "5"
    shared.ok("%%arun --context {how}\nvar.set(1)\nawait asyncio.sleep(0);")
    assert shared.ok("var.get('unset')").value == "'unset'"
    assert shared.ok("%%arun {'--fresh'}\nid(asyncio.get_running_loop()) == loop_id").value == "False"
