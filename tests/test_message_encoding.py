r"""Text that UTF-8 cannot encode, such as ``"\ud800"``, costs no reply, no traceback and nothing that was printed."""

from __future__ import annotations

import json
from typing import Any

import IPython
import pytest
from jupyter_client.jsonutil import json_default

from kernels import RUNNER_KERNEL, Kernel, kernel

PRELUDE = r"""
async def fails():
    await asyncio.sleep(0)
    raise ValueError("\ud800 lone")
def noted():
    error = ValueError("with a note")
    error.add_note("\ud801 in the note")
    return error
class Shows:
    def __repr__(self): return "shown \ud800"
"""
LONE = "ValueError: \\ud800 lone"
NOTE = r"\ud801 in the note" if IPython.version_info >= (8, 11) else "with a note"  # before that notes are not shown

# Cells that fail, the name of the error, and what is in the traceback.
FAILING = {
    "plain": (r'raise ValueError("\ud800 lone")', "ValueError", LONE),
    "await": ("await fails()", "ValueError", LONE),
    "own code": (r'await asyncio.sleep(0); raise ValueError("\ud800 lone")', "ValueError", LONE),
    "asyncio.run": ("asyncio.run(fails())", "ValueError", LONE),
    "%arun": ("%arun fails()", "ValueError", LONE),
    "%%arun": ("%%arun\nawait fails()", "ValueError", LONE),
    "%%arun plain": ('%%arun\nraise ValueError("\\ud800 lone")', "ValueError", LONE),
    "%%arun --scope": ("%%arun --scope\nawait fails()", "ExceptionGroup", LONE),
    "task": ('await asyncio.create_task(fails(), name="\\ud802")', "ValueError", LONE),
    "TaskGroup": ("async with asyncio.TaskGroup() as g: g.create_task(fails())", "ExceptionGroup", LONE),
    "group": (r'raise ExceptionGroup("\ud803 group", [ValueError("\ud800 lone")])', "ExceptionGroup", LONE),
    "name of group": (r'raise ExceptionGroup("\ud803 group", [noted()])', "ExceptionGroup", r"\ud803 group"),
    "note": ("raise noted()", "ValueError", NOTE),
    "note, await": ("await asyncio.sleep(0); raise noted()", "ValueError", NOTE),
    "syntax": (r'await asyncio.sleep(0); raise SyntaxError("m", ("\ud804 file", 1, 1, "x"))', "SyntaxError", r"\ud804 file"),
    "file": (r'exec(compile("1/0", "<\ud804 file>", "exec"))', "ZeroDivisionError", "division by zero"),
    "exit": ("import sys\nsys.exit('\\ud805')", "SystemExit", r"SystemExit: \ud805"),
}  # fmt: skip

# Cells that do not fail; what they print and display.
WORKING = {
    "print": ("print('before'); print('\\ud800 printed'); print('after')", ["before", r"\ud800 printed", "after"]),
    "print, await": (
        "await asyncio.sleep(0); print('before'); print('\\ud800 printed'); print('after')",
        ["before", r"\ud800 printed", "after"],
    ),
    "stderr": ("import sys; print('\\ud800', file=sys.stderr); print('after', file=sys.stderr)", [r"\ud800", "after"]),
    "log": ("import logging; logging.getLogger('a').warning('\\ud800 logged')", [r"\ud800 logged"]),
    "value": ("Shows()", [r"shown \ud800"]),
    "value, await": ("await asyncio.sleep(0); Shows()", [r"shown \ud800"]),
    "display": ("display(Shows()); print('after')", [r"shown \ud800", "after"]),
    "table": ("t = asyncio.create_task(asyncio.sleep(60), name='\\ud802 named')\n%atasks", [r"\ud802 named"]),
    "trace": (
        "%%arun --trace\nawait asyncio.create_task(asyncio.sleep(0), name='\\ud802 named')",
        [r"\ud802 named", "1 task"],
    ),
    "file name": ("print('\\udcff of os.listdir')", ["\ufffd of os.listdir"]),
}


@pytest.fixture(scope="module", params=[(), (RUNNER_KERNEL,)], ids=["extension", "kernel"])
def k(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with kernel(tmp_path_factory.mktemp("ipython"), *request.param) as started:
        started.ok(PRELUDE)
        # A cell waits ten seconds for output that cannot be sent.
        yield started
        assert "UnicodeEncodeError" not in started.log.read_text()


@pytest.mark.parametrize("kind", FAILING)
def test_the_traceback_has_the_escaped_text(k: Kernel, kind: str) -> None:
    code, ename, text = FAILING[kind]
    cell = k.run(code)
    assert cell.ename == ename
    assert text in cell.traceback
    assert "UnicodeEncodeError" not in cell.stderr
    assert cell.reply is not None
    assert cell.reply["traceback"]
    k.expect_alive()


def test_the_failure_of_a_background_task_is_reported(k: Kernel) -> None:
    cell = k.ok(
        "t = asyncio.create_task(fails(), name='\\ud802 named'); del t; await asyncio.sleep(0.01); print('after')"
    )
    k.wait_until(lambda: LONE in cell.stderr)
    assert r"the task \ud802 named (fails) failed" in cell.stderr
    assert "UnicodeEncodeError" not in cell.stderr
    assert cell.stdout == "after\n"
    k.expect_alive()


@pytest.mark.parametrize("kind", WORKING)
def test_what_is_shown_is_escaped_and_nothing_else_is_lost(k: Kernel, kind: str) -> None:
    code, shown = WORKING[kind]
    cell = k.ok(code)
    k.look(0.05)
    displayed = [str(m["content"].get("data", "")).replace("\\\\", "\\") for m in cell.messages]
    for text in shown:
        assert text in "".join([cell.stdout, cell.stderr, *displayed])
    assert "UnicodeEncodeError" not in cell.stderr
    k.ok("for task in asyncio.all_tasks(asyncio.get_event_loop()): task.cancel()")
    k.expect_alive()


def test_user_expressions_payloads_and_questions_are_sent(k: Kernel) -> None:
    for start in ("", "await asyncio.sleep(0); "):
        cell = k.run(f"{start}1", user_expressions={"shown": "Shows()"})
        assert cell.reply is not None
        assert cell.reply["user_expressions"]["shown"]["data"]["text/plain"] == r"shown \ud800"
        cell = k.ok(f"{start}get_ipython().set_next_input('\\ud800')")
        assert cell.reply is not None
        assert cell.reply["payload"][0]["text"] == r"\ud800"
        cell = k.begin(f"{start}print(input('\\ud800?'))")
        assert k.wait_for_question(cell, "?")["content"]["prompt"] == r"\ud800?"
        k.answer("yes")
        assert k.finish(cell).stdout == "yes\n"
    k.expect_alive()


@pytest.mark.parametrize("start", ["", "await asyncio.sleep(0); ", "%%arun\n", "%%arun --background\n"])
def test_a_source_with_such_text_runs_and_the_history_goes_on(fresh: Kernel, start: str) -> None:
    # As JupyterLab sends it: in ASCII.
    fresh.client.session.pack = lambda content: json.dumps(content, default=json_default).encode()
    cell = fresh.ok(f"{start}print(len('\ud800')) # \ud801")
    fresh.wait_until(lambda: cell.stdout == "1\n")
    fresh.ok("'saved'")
    request = {"hist_access_type": "tail", "n": 5, "output": False, "raw": True}
    saved = fresh.finish(fresh.track(fresh.client.session.msg("history_request", request)))
    assert saved.reply is not None
    assert [line for _, _, line in saved.reply["history"]][-2:] == [rf"{start}print(len('\ud800')) # \ud801", "'saved'"]
    fresh.expect_alive()


def test_the_session_is_left_as_it_was(stock: Kernel) -> None:
    stock.ok("kernel = get_ipython().kernel; before = kernel.session.serialize, kernel.do_execute")
    stock.ok("%load_ext ipyrunner")
    assert stock.ok("kernel.session.serialize == before[0]").value == "False"
    stock.ok("%unload_ext ipyrunner")
    assert stock.ok("kernel.session.serialize == before[0], kernel.do_execute == before[1]").value == "(True, True)"
