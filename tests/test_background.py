"""``%%arun --background``, ``--scope`` and ``--progress``."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

import headless
from kernels import Cell, Kernel


def displays(cell: Cell, kind: str = "display_data") -> list[str]:
    return [m["content"]["data"]["text/plain"] for m in cell.messages if m["msg_type"] == kind]


def test_a_background_cell_returns_at_once_and_goes_on(shared: Kernel) -> None:
    shared.ok("go = asyncio.Event()")
    first = shared.ok("%%arun --background --name first\nprint('one'); await go.wait(); print('one more'); 'value one'")
    assert displays(first) == ["<first running>"]
    assert shared.ok("first = _; type(first).__name__").value == "'BackgroundCell'"
    second = shared.ok("%%arun --background -o job\nprint('two'); await go.wait(); display('shown'); x = 5")
    assert displays(second) == []
    assert shared.ok("job.name == f'In[{len(In) - 2}]'").value == "True"
    shared.wait_for(second, "two")
    assert shared.ok("job.done()").value == "False"
    third = shared.ok("go.set(); await job; (await first, x, job.name.startswith('In['))")
    assert third.value == "('value one', 5, True)"
    shared.wait_for(first, "one more")
    shared._pump(lambda: displays(first, "update_display_data"), 30, lambda: "the update")
    assert displays(first)[-1] == "'value one'"
    assert displays(first, "update_display_data")[0].startswith("<first done after ")
    assert displays(second) == ["'shown'"]
    assert (first.stdout, second.stdout, third.stdout) == ("one\none more\n", "two\n", "")


def test_a_background_cell_that_fails_tells_in_its_own_output(shared: Kernel) -> None:
    cell = shared.ok("%%arun --background -o job\n1 / 0")
    shared._pump(lambda: "ZeroDivisionError: " in cell.stderr, 30, lambda: "traceback")
    assert shared.ok("repr(job.exception())").value == repr("ZeroDivisionError('division by zero')")
    assert re.fullmatch(r"<In\[\d+\] failed after .* s: ZeroDivisionError: .*>", displays(shared.ok("job"))[0])
    assert shared.run("await job").ename == "ZeroDivisionError"
    assert cell.stderr.count("ZeroDivisionError: ") == 1
    assert "(%%arun --background) failed" in cell.stderr


def test_a_background_cell_can_be_waited_for_as_a_task(shared: Kernel) -> None:
    shared.ok("go = asyncio.Event(); log = []")
    shared.ok("%%arun --background -o job\nawait go.wait(); 5")
    shared.ok("job.add_done_callback(lambda task: log.append(task.result()))")
    shared.ok("asyncio.get_running_loop().call_later(0.01, go.set)")
    assert shared.ok("done, _ = await asyncio.wait([job]); [j.result() for j in done], log").value == "([5], [5])"


def test_two_background_cells_with_the_same_body_have_tracebacks_of_their_own(shared: Kernel) -> None:
    body = "await go.wait()\n1 / 0"
    shared.ok("go = asyncio.Event()")
    first = shared.ok(f"%%arun --background --name first -o a\n{body}")
    shared.ok(f"%%arun --background --name second -o b\n{body}")
    shared.ok("go.set(); await asyncio.wait([a, b]);")
    shared._pump(lambda: "ZeroDivisionError: " in first.stderr, 30, lambda: "traceback")
    assert "----> 3 1 / 0" in first.stderr
    assert "second" not in first.stderr


def test_who_awaits_a_background_cell_may_be_interrupted(shared: Kernel) -> None:
    shared.ok("%%arun --background -o job\nawait asyncio.sleep(60)")
    waiting = shared.begin("print('go'); await job")
    shared.interrupted(waiting, "go")
    assert waiting.ename == "KeyboardInterrupt"
    assert shared.ok("job.done()").value == "False"
    shared.expect_alive()
    assert shared.ok("job.cancel()").value == "True"
    assert shared.ok("await asyncio.sleep(0.01); job.cancelled()").value == "True"


def test_a_handle_says_why_there_is_no_result(shared: Kernel) -> None:
    begun = shared.ok("%%arun --background -o job\nawait asyncio.sleep(60)")
    assert begun.reply is not None
    name = f"In[{begun.reply['execution_count']}]"
    for code in ("job.result()", "await asyncio.sleep(0); job.exception()"):
        cell = shared.run(code)
        assert cell.ename == "InvalidStateError"
        assert f"{name} has not ended, so it has no result yet: to wait for it, await this object" in cell.traceback
    shared.ok("job.cancel(); await asyncio.wait([job])")
    for code in ("await job", "job.result()", "%arun job"):
        cell = shared.run(code)
        assert cell.ename == "CancelledError"
        assert f"CancelledError: {name} was cancelled" in cell.traceback
    shared.ok("%%arun --background -o job\nawait asyncio.sleep(60)")
    shared.ok("job.cancel('mine'); await asyncio.wait([job])")
    assert "CancelledError: mine" in shared.run("await job").traceback
    # One that was left behind by its loop.
    shared.ok("%config NotebookRunner.shutdown_timeout = 0.1")
    shared.ok(
        "%%arun --background -o job\nwhile True:\n    try: await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError: pass"
    )
    shared.ok("await asyncio.sleep(0)")
    shared.ok("%arunner restart")
    for code, ename in (("job.result()", "InvalidStateError"), ("await job", "RuntimeError")):
        cell = shared.run(code)
        assert cell.ename == ename
        assert "did not end before its event loop was closed, and cannot go on: run its cell again" in cell.traceback
    shared.ok("%config NotebookRunner.shutdown_timeout = 2.0")


def test_errors_in_the_code_of_a_background_cell_are_the_cells(shared: Kernel) -> None:
    assert shared.run("%%arun --background\nif:").ename == "SyntaxError"
    cell = shared.run("%%arun --background --fresh\n1")
    assert cell.ename == "UsageError"
    assert "Leave out --fresh" in cell.stderr


SCOPE = "%%arun --scope\n"


def test_a_scope_ends_when_what_it_started_has_ended(shared: Kernel) -> None:
    shared.ok("async def deep(n):\n    if n: asyncio.create_task(deep(n - 1))\n    await asyncio.sleep(0.02); print(n)")
    cell = shared.ok(SCOPE + "asyncio.create_task(deep(3)); 'value'")
    assert cell.value == "'value'"
    assert cell.stdout == "3\n2\n1\n0\n"


BOOM = "async def boom(): 1 / 0\n"


def test_the_first_failure_in_a_scope_cancels_the_others(shared: Kernel) -> None:
    cell = shared.run(
        SCOPE
        + BOOM
        + "t = asyncio.create_task(asyncio.sleep(60)); b = asyncio.create_task(boom())\nawait asyncio.sleep(60)"
    )
    assert cell.ename == "ExceptionGroup"
    assert shared.ok("t.cancelled(), type(b.exception()).__name__").value == "(True, 'ZeroDivisionError')"
    body = shared.run(SCOPE + "t = asyncio.create_task(asyncio.sleep(60)); raise ValueError('body')")
    assert body.ename == "ExceptionGroup"
    assert shared.ok("t.cancelled()").value == "True"
    late = shared.run(SCOPE + BOOM + "asyncio.create_task(boom())")
    assert late.ename == "ExceptionGroup"
    assert shared.ok("await asyncio.sleep(0.01); asyncio.current_task().cancelling()").value == "0"
    assert "never retrieved" not in "".join(c.stderr for c in (cell, body, late))


# The scope cancels its block when a task has failed; the block has the last word on what comes out of that.
BLOCKS = {
    "swallows": "try: await asyncio.sleep(60)\nexcept asyncio.CancelledError: print('swallowed')",
    "translates": "try: await asyncio.sleep(60)\nexcept BaseException as exc: raise RuntimeError('translated') from exc",
    "awaits what ends well": "async def worker():\n    try: await asyncio.sleep(60)\n"
    "    except asyncio.CancelledError: return 'partial'\nprint(await asyncio.create_task(worker()))",
    "waits in a circle": "ring = {}\nasync def link(n): await asyncio.sleep(0); await ring[n]\n"
    "for n in (0, 1): ring[n] = asyncio.create_task(link(1 - n))\nawait asyncio.sleep(60)",
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_scope_ends_whatever_its_block_makes_of_the_cancellation(shared: Kernel, block: str) -> None:
    failing = "async def fails():\n    await asyncio.sleep(0.05)\n    1 / 0\nf = asyncio.create_task(fails())\n"
    cell = shared.run(SCOPE + failing + block)
    assert cell.ename == "ExceptionGroup"
    assert "ZeroDivisionError" in shared.ok("repr(f.exception())").value
    shared.ok("%arunner restart")


HANDLED = {
    "gather": "await asyncio.gather(boom(), asyncio.sleep(0.2), return_exceptions=True); 1",
    "await": "try: await asyncio.create_task(boom())\nexcept ZeroDivisionError: pass\n1",
    "wait": "t = asyncio.create_task(boom()); await asyncio.wait([t]); t.exception(); 1",
}


@pytest.mark.parametrize("code", HANDLED.values(), ids=HANDLED)
def test_a_failure_that_the_scope_handles_is_no_failure(shared: Kernel, code: str) -> None:
    assert shared.ok(SCOPE + BOOM + code).value == "1"


def test_an_interrupt_ends_all_of_a_scope(shared: Kernel) -> None:
    cell = shared.begin(
        SCOPE
        + "async def w():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0.01); print('clean')\n"
        "ts = [asyncio.create_task(w()) for _ in range(3)]; await asyncio.sleep(0); print('go')"
    )
    shared.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert cell.stdout.count("clean") == 3
    assert shared.ok("[t.cancelled() for t in ts]").value == "[True, True, True]"
    shared.expect_alive()


def test_a_scope_that_was_given_up_owns_nothing_else(shared: Kernel) -> None:
    cell = shared.begin(
        SCOPE + "async def stubborn():\n    while not over.is_set():\n        try: await over.wait()\n"
        "        except asyncio.CancelledError: print('ignored')\n"
        "over = asyncio.Event(); s = asyncio.create_task(stubborn()); await asyncio.sleep(0); print('go')"
    )
    shared.wait_for(cell, "go")
    shared.interrupt()
    shared.wait_for(cell, "ignored")
    shared.interrupt()
    assert shared.finish(cell).ename == "KeyboardInterrupt"
    assert "ignored its cancellation" in cell.stdout
    shared.ok("other = asyncio.create_task(asyncio.sleep(60)); await asyncio.sleep(0)")
    failing = shared.ok(BOOM + "x = asyncio.create_task(boom()); await asyncio.sleep(0.3); 'ended'")
    assert failing.value == "'ended'"
    shared._pump(lambda: "ZeroDivisionError: " in failing.stderr, 30, lambda: "traceback")
    assert shared.ok("other.done()").value == "False"
    shared.ok("over.set(); await s")
    shared.expect_alive()


def test_what_fails_in_the_clean_up_of_a_scope_is_told(shared: Kernel) -> None:
    cell = shared.run(
        "%%arun --scope --timeout 0.1\nasync def w():\n    try: await asyncio.sleep(60)\n    finally: raise KeyError('lost')\n"
        "t = asyncio.create_task(w())"
    )
    assert cell.ename == "TimeoutError"
    shared._pump(lambda: "KeyError: 'lost'" in cell.stderr, 30, lambda: "traceback")


def test_a_handle_outlives_its_loop(shared: Kernel) -> None:
    shared.ok("%%arun --background -o ended\n42")
    shared.ok("await ended")
    shared.ok("%arunner restart")
    assert shared.ok("await ended").value == "42"
    shared.ok("%%arun --background -o gone\nawait asyncio.sleep(60)")
    shared.ok("asyncio.get_event_loop().close()")
    cell = shared.run("await gone")
    assert cell.ename == "RuntimeError"
    assert "run its cell again" in cell.traceback
    assert "did not end before its loop was closed" in displays(shared.ok("gone"))[0]


def test_a_timeout_ends_all_of_a_scope(shared: Kernel) -> None:
    cell = shared.run("%%arun --scope --timeout 0.1\nt = asyncio.create_task(asyncio.sleep(60))")
    assert cell.ename == "TimeoutError"
    assert shared.ok("t.cancelled()").value == "True"


PROGRESS = (
    "%%arun --progress\nts = [asyncio.create_task(asyncio.sleep(n / 20)) for n in range(8)]\nawait asyncio.wait(ts); 5"
)


def test_progress_shows_tasks_while_the_cell_runs(fresh: Kernel) -> None:
    fresh.ok("import tqdm.auto, tqdm.std; tqdm.auto.tqdm = tqdm.std.tqdm")  # the one for terminals and plain text
    cell = fresh.ok(
        "%%arun --progress\ngo = asyncio.Event(); asyncio.get_running_loop().call_later(0.5, go.set)\n"
        "async def boom(): 1 / 0\n"
        "some = [asyncio.create_task(c) for c in (go.wait(), go.wait(), go.wait(), asyncio.sleep(0), asyncio.sleep(0), boom())]\n"
        "await asyncio.gather(*some, return_exceptions=True); 5"
    )
    assert cell.value == "5"
    frames = cell.stderr.split("\r")
    assert any("3 running, 2 done, 1 failed" in frame for frame in frames)
    assert frames[-1].strip() == ""
    assert fresh.ok("%%arun --progress\n1").value == "1"


def test_progress_is_silent_where_nobody_looks(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(code) for code in ("%load_ext ipyrunner\nimport asyncio", PROGRESS)]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    headless.client(notebook, tmp_path, timeout=60).execute()
    assert [output["output_type"] for output in notebook.cells[1]["outputs"]] == ["execute_result"]


def test_progress_without_tqdm_says_what_to_install(fresh: Kernel) -> None:
    fresh.ok("import sys; sys.modules['tqdm'] = sys.modules['tqdm.auto'] = None")
    cell = fresh.run("%%arun --progress\n1")
    assert cell.ename == "UsageError"
    assert "pip install tqdm" in cell.stderr


def test_the_bar_of_widgets_is_gone_at_the_end(shared: Kernel) -> None:
    shared.ok("import ipywidgets; tasks = []")
    cell = shared.run(
        "%%arun --progress\ntasks += [asyncio.create_task(asyncio.sleep(60)) for _ in range(3)]\n"
        "await asyncio.sleep(0.15)",
        allow_stdin=True,
    )
    states = [m["content"]["data"].get("state", {}) for m in cell.messages if m["msg_type"].startswith("comm_")]
    assert any("bar_style" in state for state in states), cell
    assert not any(state.get("bar_style") == "danger" for state in states)
    shared.ok("for task in tasks: task.cancel()")
