"""The cells that await are lines of one ``main()``: what one of them enters another leaves."""

from __future__ import annotations

import asyncio

import pytest

from ipyrunner.aio.main import Request
from ipyrunner.cells.cancelled_scopes import cancelled_note
from kernels import Kernel


@pytest.fixture
def k(on_each_loop: Kernel) -> Kernel:
    on_each_loop.ok("import anyio\nfrom contextlib import AsyncExitStack\nevent = asyncio.Event()")
    on_each_loop.ok("main = asyncio.current_task() or await asyncio.sleep(0)\nmain = asyncio.current_task()")
    return on_each_loop


FAILING = "async def fails():\n    await event.wait()\n    raise ValueError('of a child')\nstack = AsyncExitStack()\n"
GROUPS = {
    "asyncio": FAILING
    + "group = await stack.enter_async_context(asyncio.TaskGroup()); group.create_task(fails()); None",
    "anyio": FAILING + "group = await stack.enter_async_context(anyio.create_task_group()); group.start_soon(fails)",
}
KINDS = {"asyncio": "TaskGroup", "anyio": "CancelScope"}


def expect_one_main(k: Kernel) -> None:
    k.expect_alive()
    assert k.ok("await asyncio.sleep(0.001); asyncio.current_task() is main, main.cancelling()").value == "(True, 0)"


def test_all_cells_run_in_one_task_with_the_name_of_each(k: Kernel) -> None:
    cell = k.ok("await asyncio.sleep(0); asyncio.current_task() is main, asyncio.current_task().get_name()")
    assert cell.reply is not None
    assert cell.value == f"(True, 'In[{cell.reply['execution_count']}]')"
    assert k.ok("%%arun --name mine\nasyncio.current_task() is main, main.get_name()").value == "(True, 'mine')"
    k.run("await asyncio.sleep(0); 1 / 0")
    k.run("await asyncio.sleep(0); raise SystemExit")
    expect_one_main(k)


@pytest.mark.parametrize("code", ["%%arun --context copy", "%%arun --fresh", "%%arun --background"])
def test_these_have_a_task_of_their_own(k: Kernel, code: str) -> None:
    k.ok(f"{code}\nawait asyncio.sleep(0)\nown = asyncio.current_task() is not main")
    k.ok("while 'own' not in globals(): await asyncio.sleep(0.01)")
    assert k.ok("own").value == "True"
    expect_one_main(k)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_entered_used_and_left_in_different_cells(k: Kernel, group: str) -> None:
    k.ok(GROUPS[group])
    start = "group.create_task" if group == "asyncio" else "group.start_soon"
    k.ok(
        f"done = []\nasync def child(): done.append(1)\n{start}(child{'()' if group == 'asyncio' else ''})\nawait asyncio.sleep(0.01)"
    )
    k.interrupted(k.begin("print('go'); await asyncio.sleep(60)"), "go")
    assert k.ok("print('not left'); await asyncio.sleep(0.01); done").value == "[1]"
    k.ok("async def fails(): pass")
    failed = k.run("event.set(); await stack.aclose()")
    assert failed.ename in ("ExceptionGroup", "BaseExceptionGroup")
    assert "ValueError: of a child" in failed.traceback
    expect_one_main(k)


@pytest.mark.parametrize("group", GROUPS)
def test_a_child_that_fails_while_no_cell_runs(k: Kernel, group: str) -> None:
    entered = k.ok(GROUPS[group] + "\nasyncio.get_running_loop().call_later(0.05, event.set);")
    k.wait_until(lambda: "while no cell ran" in entered.stderr)
    assert f"a {KINDS[group]} that is still open was cancelled" in entered.stderr
    assert "its task failed (ValueError: of a child)" in entered.stderr
    assert "await stack.aclose()" in entered.stderr
    assert k.ok("1 + 1").value == "2"
    cancelled = k.run("print('begin'); await asyncio.sleep(60)")
    assert cancelled.ename == "CancelledError"
    assert cancelled.stdout == "begin\n"
    note = cancelled.traceback + cancelled.stderr
    assert entered.reply is not None
    assert (
        f"ipyrunner: this cell was cancelled because a task, started by In[{entered.reply['execution_count']}], has failed "
        f"(ValueError: of a child) in a {KINDS[group]} that this or an earlier cell has entered and not left. Leave it"
    ) in note
    assert "%arunner leave" in note
    left = k.run("await stack.aclose()")
    assert left.ename in ("ExceptionGroup", "BaseExceptionGroup")
    assert "ValueError: of a child" in left.traceback
    expect_one_main(k)
    assert entered.stderr.count("while no cell ran") == 1


@pytest.mark.parametrize("group", GROUPS)
def test_a_scope_that_nothing_holds_any_more(k: Kernel, group: str) -> None:
    entered = k.ok(GROUPS[group] + "\nasyncio.get_running_loop().call_later(0.05, event.set);")
    k.wait_until(lambda: "while no cell ran" in entered.stderr)
    k.ok("del stack, group; import contextvars; v = contextvars.ContextVar('v'); token = v.set(1)")
    assert "a new main task" in k.ok("%arunner leave\nv.set(2);").stdout
    assert k.ok("await asyncio.sleep(0); v.get()").value == "2"
    k.ok("v.reset(token)")
    assert k.ok("await asyncio.sleep(0.01); asyncio.current_task() is main").value == "False"
    k.expect_alive()
    inside = k.run("await asyncio.sleep(0)\n%arunner leave")
    assert inside.ename == "RuntimeError"


def test_timeouts_tokens_and_generators(k: Kernel) -> None:
    k.ok(
        "limit = asyncio.timeout(60); await limit.__aenter__()\nimport contextvars; v = contextvars.ContextVar('v')\ntoken = v.set(1)"
    )
    k.ok(
        "async def numbers():\n    t = v.set(2)\n    try: yield v.get()\n    finally: v.reset(t)\ng = numbers(); await anext(g);"
    )
    k.ok("await g.aclose(); v.reset(token); await limit.__aexit__(None, None, None)")
    k.ok("scope = anyio.move_on_after(0.05); scope.__enter__(); await asyncio.sleep(0)")
    code = "try: await anyio.sleep(60)\nexcept BaseException as exc: print(scope.__exit__(type(exc), exc, exc.__traceback__))"
    assert k.ok(code).stdout == "True\n"
    expect_one_main(k)


SCOPES = {
    "timeout": (
        "limit = asyncio.timeout(0.01); await limit.__aenter__();",
        "by a Timeout that this or an earlier cell has entered and not left: its time is over. Leave it",
        "await limit.__aexit__(None, None, None)",
    ),
    "scope": (
        "scope = anyio.CancelScope(); scope.__enter__()\nasync def stop(): await event.wait(); scope.cancel()\n"
        "t = asyncio.create_task(stop()); await asyncio.sleep(0)",
        "by a CancelScope that this or an earlier cell has entered and not left: code of In[N] has cancelled it. Leave it",
        "try: await anyio.sleep(60)\nexcept BaseException as exc: scope.__exit__(type(exc), exc, None);",
    ),
}


@pytest.mark.parametrize(("enter", "words", "leave"), SCOPES.values(), ids=SCOPES)
def test_the_note_says_which_scope_has_cancelled_a_cell_and_why(k: Kernel, enter: str, words: str, leave: str) -> None:
    entered = k.ok(enter)
    cell = k.run("event.set(); await asyncio.sleep(60)")
    assert cell.ename == "CancelledError"
    assert entered.reply is not None
    words = words.replace("In[N]", f"In[{entered.reply['execution_count']}]")
    assert f"ipyrunner: this cell was cancelled {words}" in cell.traceback + cell.stderr
    k.ok(leave)
    expect_one_main(k)


def test_the_note_names_no_failure_in_another_scope() -> None:
    timeout = asyncio.Timeout(None)
    failed = Request(object(), "TaskGroup", None, ValueError("of a child"), None)
    note = cancelled_note([failed, Request(timeout, "Timeout", None, None, None)])
    assert "by a Timeout that this or an earlier cell has entered and not left: its time is over" in note


CANCELS = {
    "itself": ("asyncio.current_task().cancel(); await asyncio.sleep(60)", "CancelledError"),
    "itself, late": ("await asyncio.sleep(0); asyncio.current_task().cancel()", None),
    "uncancel": ("asyncio.current_task().cancel()\ntry: await asyncio.sleep(60)\n"
                 "except asyncio.CancelledError: asyncio.current_task().uncancel()\nawait asyncio.sleep(0)", None),
    "all": ("for t in asyncio.all_tasks(): t.cancel()\nawait asyncio.sleep(60)", "CancelledError"),
    "a task": ("async def other(): main.cancel()\nasyncio.create_task(other()); await asyncio.sleep(60)", "CancelledError"),
    "timeout": ("async with asyncio.timeout(0.01): await asyncio.sleep(60)", "TimeoutError"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "ename"), CANCELS.values(), ids=CANCELS)
def test_a_cancellation_ends_the_cell_and_not_the_task(k: Kernel, code: str, ename: str | None) -> None:
    cell = k.run(code)
    assert cell.ename == ename
    assert "arunner leave" not in cell.traceback + cell.stderr  # there is nothing to leave
    expect_one_main(k)


@pytest.mark.parametrize("scope", ["asyncio.timeout(0.01)", "asyncio.TaskGroup() as g"])
def test_a_scope_that_was_left_is_blamed_for_nothing(k: Kernel, scope: str) -> None:
    cell = k.run(
        "async def fails(): raise ValueError\njob = asyncio.create_task(asyncio.sleep(50))\n"
        f"try:\n    async with {scope}:\n        if 'g' in globals(): g.create_task(fails())\n        await asyncio.shield(job)\n"
        "except BaseException: pass\njob.cancel(); await job"
    )
    assert cell.ename == "CancelledError"
    assert "arunner leave" not in cell.traceback + cell.stderr
    expect_one_main(k)


def test_an_interrupt_within_a_timeout(k: Kernel) -> None:
    cell = k.begin("async with asyncio.timeout(60):\n    print('go'); await asyncio.sleep(60)")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    expect_one_main(k)


def test_threads_of_anyio_end_with_the_loop(k: Kernel) -> None:
    k.ok("import threading, time; await anyio.to_thread.run_sync(time.sleep, 0.01)")
    names = "[t for t in threading.enumerate() if 'AnyIO' in t.name]"
    k.ok(f"workers = {names}")
    assert k.ok("len(workers)").value == "1"
    k.ok("%arunner restart")
    k.ok("for t in workers: t.join(20)")
    assert k.ok(names).value == "[]"
