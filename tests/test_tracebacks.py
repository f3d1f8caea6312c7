"""What the user sees of an exception."""

from __future__ import annotations

import re
import time

import pytest

from ipyrunner.ipython.tracebacks import without_machinery
from kernels import DEADLINE, Kernel

BOOM = "async def boom(x=0):\n    await asyncio.sleep(0)\n    return 1 / x  # here"


FAILING = {
    "await": "await boom()",
    "task": "await asyncio.create_task(boom())",
    "%arun": "%arun boom()",
    "%arun in a function": "def f():\n    %arun boom()\nf()",
    "%%arun": "%%arun\nawait boom()",
    "%%arun last expression": "%%arun\nboom()",
    "%%arun --timeout": "%%arun --timeout 60\nawait boom()",
    "%%arun --fresh": "%%arun --fresh\nawait boom()",
    "%%time": "%%time\n%%arun\nawait boom()",
    "asyncio.run": "asyncio.run(boom())",
    "ipyrunner.run": "import ipyrunner; ipyrunner.run(boom())",
    "plain": "1 / 0  # here",
}


@pytest.mark.parametrize("code", FAILING.values(), ids=FAILING)
def test_only_the_users_lines(shared: Kernel, code: str) -> None:
    shared.ok(BOOM)
    cell = shared.run(code)
    assert cell.ename == "ZeroDivisionError"
    assert "# here" in cell.traceback
    for ours in ("/ipyrunner/", "Hosting", "_run_body", "run_body", "_outcome"):
        assert ours not in cell.traceback
    if code.startswith("%") or "run(" not in code:  # asyncio.run of the user's own has its frames
        for theirs in ("runners.py", "base_events.py"):
            assert theirs not in cell.traceback


def test_the_body_of_arun_is_shown_as_typed(shared: Kernel) -> None:
    cell = shared.run("%%arun --name n\nx = 1\nx / 0  # third line")
    assert "%%arun --name n" in cell.traceback
    assert "----> 3" in cell.traceback
    assert "run_cell_magic" not in cell.traceback


def test_a_timeout_shows_where_the_cell_was(shared: Kernel) -> None:
    shared.ok("async def nap():\n    await asyncio.sleep(60)  # here")
    for body, shown in (("await nap()", True), ("asyncio.sleep(60)", False)):
        cell = shared.run(f"%%arun --timeout 0.05\n{body}")
        assert cell.ename == "TimeoutError"
        assert ("# here" in cell.traceback, cell.traceback.count("most recent call")) == (shown, 1)
        for machinery in ("/ipyrunner/", "run_cell_magic", "timeouts.py"):
            assert machinery not in cell.traceback
    late = "try: await nap()\nexcept asyncio.CancelledError: raise TimeoutError('of the user')"
    assert "of the user" in shared.run(f"%%arun --timeout 0.05\n{late}").traceback


def test_chained_and_grouped_exceptions_are_clean_too(shared: Kernel) -> None:
    shared.ok(BOOM)
    cell = shared.run("try:\n    %arun boom()\nexcept ZeroDivisionError as e:\n    raise ValueError('outer') from e")
    assert cell.ename == "ValueError"
    assert "# here" in cell.traceback
    assert "/ipyrunner/" not in cell.traceback
    cell = shared.run("async with asyncio.TaskGroup() as g:\n    g.create_task(boom())")
    assert cell.ename == "ExceptionGroup"
    assert "/ipyrunner/" not in cell.traceback


@pytest.mark.parametrize("body", ["x = 1\ny = = 2", "x = (", "return 5", "x = 1\n  y = 2", "await = 3"])
@pytest.mark.parametrize("start", ["%%arun", "%%arun --background", "%%arun --fresh"])
def test_syntax_errors_in_a_body_are_shown_as_those_of_a_plain_cell(shared: Kernel, start: str, body: str) -> None:
    plain, cell = shared.run("\n" + body), shared.run(f"{start}\n{body}")
    assert cell.ename == plain.ename
    assert cell.reply["evalue"].split("(")[0] == plain.reply["evalue"].split("(")[0]
    assert body.splitlines()[-1].strip() in cell.traceback
    for theirs in ("interactiveshell.py", "compilerop.py", "codeop.py", "/ipyrunner/", "Traceback"):
        assert theirs not in cell.traceback
    shared.expect_alive()


def test_a_syntax_error_of_code_that_runs_has_its_frames(shared: Kernel) -> None:
    cell = shared.run("%%arun\ndef f(): compile('x = (', 'there', 'exec')\nf()")
    assert cell.ename == "SyntaxError"
    assert "f()" in cell.traceback or "in f" in cell.traceback


def help_of(cell: object) -> str:
    # IPython 7 shows no notes: there the help is printed.
    return cell.traceback + cell.stderr  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.sleep(0)\nasyncio.run(coro)",
        "await asyncio.sleep(0)\nasyncio.get_running_loop().run_until_complete(coro)",
        "%%arun\nasyncio.run(coro)",
        "import anyio\nawait asyncio.sleep(0)\nanyio.run(boom, 1)",
    ],
)
def test_running_a_loop_inside_a_loop_says_what_to_write(shared: Kernel, code: str) -> None:
    shared.ok(BOOM + "\ncoro = boom(1)")
    cell = shared.run(code)
    assert cell.ename == "RuntimeError"
    assert "Write `await main()`" in help_of(cell)
    shared.ok("coro.close()")


def test_a_future_of_another_loop_says_so(shared: Kernel) -> None:
    shared.ok("other = asyncio.new_event_loop(); future = other.create_future()")
    cell = shared.run("await future")
    assert cell.ename == "RuntimeError"
    assert "works only in the event loop that it was made for" in help_of(cell)
    shared.ok("other.close()")


def test_a_missing_loop_says_what_to_begin_the_cell_with(shared: Kernel) -> None:
    shared.ok("def deep(): return asyncio.get_running_loop()")
    cell = shared.run("deep()")
    assert cell.ename == "RuntimeError"
    assert "Begin the cell with %%arun" in help_of(cell)
    assert shared.ok("%%arun\nid(deep()) == loop_id").value == "True"


def test_errors_of_others_get_no_help(shared: Kernel) -> None:
    assert "ipyrunner" not in help_of(shared.run("raise RuntimeError('mine')"))


def test_debug_sees_the_users_frame(shared: Kernel) -> None:
    shared.ok(BOOM)
    shared.run("%arun boom()")
    assert (
        shared.ok("import sys; tb = sys.last_traceback\nwhile tb.tb_next: tb = tb.tb_next\ntb.tb_frame.f_locals").value
        == "{'x': 0}"
    )


@pytest.mark.parametrize("code", ["1 / 0  # here", "await boom()"])
def test_the_users_error_is_told_though_ipython_cannot_format_it(fresh: Kernel, code: str) -> None:
    # IPython 7.34 does that by itself now and then, when inspect finds no frames: TypeError, len() of None.
    fresh.ok(BOOM)
    fresh.ok("get_ipython().InteractiveTB.structured_traceback = lambda *args, **kwargs: len(None)")
    cell = fresh.run(code)
    assert cell.ename == "ZeroDivisionError"
    assert "# here" in cell.traceback
    assert cell.stdout + cell.stderr == ""  # where IPython 8 and later would print both errors
    fresh.expect_alive()


# Each passes a `finally`, or is raised again, on its way out: the frames are at other lines than the exception was.
ASIDE = "async def clean(): await asyncio.sleep(0)\n"


POINTS = {
    "plain": "try:\n    1 / 0  # here\nfinally:\n    str()\n    str()",
    "await": "try:\n    await asyncio.sleep(0)\n    1 / 0  # here\nfinally:\n    await clean()\n    await clean()",
    "%%arun": "%%arun\ntry:\n    1 / 0  # here\nfinally:\n    await clean()\n    await clean()",
    "a function": "async def f():\n    try:\n        1 / 0  # here\n    finally:\n        await clean()\n        await clean()\nawait f()",
    "a context": "try:\n    try:\n        1 / 0  # here\n    finally:\n        str()\nexcept ZeroDivisionError:\n    raise ValueError",
    "raised again": "try:\n    1 / 0  # here\nexcept ZeroDivisionError as error:\n    raise error  # here\nfinally:\n    str()",
    "a group": "async def f():\n    try:\n        1 / 0  # here\n    finally:\n        await clean()\n"
    "async with asyncio.TaskGroup() as g:\n    g.create_task(f())",
}


def arrows(text: str) -> list[str]:
    """Return the lines that a traceback points at."""
    return re.findall(r"^[ |]*-+> *\d+ +(.*?) *$", text, re.MULTILINE)


@pytest.mark.parametrize("code", POINTS.values(), ids=POINTS)
def test_a_traceback_points_at_the_line_that_raised(shared: Kernel, code: str) -> None:
    shared.ok(ASIDE)
    pointed = arrows(shared.run(code).traceback)
    assert sum("# here" in line for line in pointed) == code.count("# here"), pointed
    assert not any("clean" in line or "str()" in line for line in pointed)


def test_a_failure_in_the_background_points_at_the_line_that_raised(shared: Kernel) -> None:
    shared.ok(ASIDE)
    cell = shared.begin(
        "async def f():\n    try:\n        1 / 0  # here\n    finally:\n        await clean()\n        await clean()\n"
        "kept_task = asyncio.create_task(f()); await asyncio.sleep(0)"
    )
    shared.wait_until(lambda: "ZeroDivisionError: " in cell.stderr)
    shared.finish(cell)
    assert arrows(cell.stderr) == ["1 / 0  # here"]


def test_an_interrupt_points_at_the_line_that_it_came_to(shared: Kernel) -> None:
    shared.ok(ASIDE)
    cell = shared.begin(
        "try:\n    print('go'); await asyncio.sleep(60)  # here\nfinally:\n    await clean()\n    await clean()"
    )
    shared.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert arrows(cell.traceback)[0] == "print('go'); await asyncio.sleep(60)  # here"
    shared.expect_alive()


def test_a_long_chain_of_exceptions_is_cleaned() -> None:
    last: Exception | None = None
    for n in range(5000):
        exc = ValueError(n)
        exc.__cause__ = last
        last = exc
    assert last is not None
    assert without_machinery(last) is None


@pytest.mark.parametrize("start", ["", "await asyncio.sleep(0)\n"])
def test_an_interrupt_while_the_traceback_is_formatted_does_not_cost_it(shared: Kernel, start: str) -> None:
    # As IPython's own showtraceback would: it drops a KeyboardInterrupt, and shows nothing.
    cell = shared.run(
        "import asyncio\nclass Slow(Exception):\n    def _render_traceback_(self): raise KeyboardInterrupt\n"
        f"{start}raise Slow('shown')"
    )
    assert cell.ename == "Slow"
    assert len([m for m in cell.messages if m["msg_type"] == "error"]) == 1
    assert "Slow: shown" in cell.traceback
    usage = shared.run("%%arun --nosuchoption\n1")
    assert usage.ename == "UsageError"
    assert not [m for m in usage.messages if m["msg_type"] == "error"]  # a line on stderr is all
    shared.expect_alive()


def test_a_traceback_that_does_not_end_is_shown_after_interrupts(shared: Kernel) -> None:
    shared.ok("%config NotebookRunner.interrupt_grace = 0.3")
    cell = shared.begin(
        "import asyncio\nclass Endless(Exception):\n    def _render_traceback_(self):\n        print('formatting')\n"
        "        while True: pass\ntry:\n    print('go'); await asyncio.sleep(60)\nfinally: raise Endless('shown')"
    )
    shared.wait_for(cell, "go")
    shared.interrupt()
    shared.wait_for(cell, "formatting")
    deadline = time.monotonic() + DEADLINE
    while not (cell.idle and cell.reply):  # one for each time that IPython formats it
        assert time.monotonic() < deadline
        shared.interrupt()
        shared.look(1)
    assert len([m for m in cell.messages if m["msg_type"] == "error"]) == 1
    assert "Endless: shown" in cell.traceback
    shared.expect_alive()


REPLACED = {
    "before the extension": ("", "%load_ext ipyrunner"),
    "after it": ("%load_ext ipyrunner", ""),
}


@pytest.mark.parametrize(("first", "then"), REPLACED.values(), ids=REPLACED)
@pytest.mark.parametrize("name", ["showtraceback", "_showtraceback"])
def test_whoever_shows_tracebacks_shows_them_once(stock: Kernel, first: str, then: str, name: str) -> None:
    # As rich.traceback.install() does.
    stock.ok(first)
    stock.ok(f"shell = get_ipython()\ndef show(*args, **kwargs): print('shown')\nshell.{name} = show")
    stock.ok(then)
    assert stock.run("1 / 0").stdout == "shown\n"
    assert stock.run("import asyncio; await asyncio.sleep(0); 1 / 0").stdout == "shown\n"
