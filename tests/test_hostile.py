"""Every cell gets a reply, with the name of the user's error, whatever the user's objects do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipykernel
import pytest

from hostile import CALLING_CELLS, CELLS, EXCEPTIONS, HANG_IN_ASYNCIO, PLACES, PLACES_PRELUDE, PRELUDE, RAISED
from kernels import BEFORE, RUNNER_KERNEL, Cell, Kernel, kernel

# `except Exception` does not catch the second: of what catches that, too, the others say little more.
REFUSALS = [
    pytest.param("RuntimeError", marks=pytest.mark.slow),
    "SystemExit",
    pytest.param("KeyboardInterrupt", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    # Thousands of cells: a third of their time would be the history's.
    with kernel(tmp_path_factory.mktemp("ipython"), "--HistoryManager.enabled=False") as started:
        yield started


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_every_cell_gets_a_reply(hostile: Kernel, exception: str, refusal: str) -> None:
    hostile.ok(PRELUDE.replace("REFUSAL", refusal))
    hostile.ok(f"make = lambda: {EXCEPTIONS[exception]}")
    for kind, (code, ename) in CELLS.items():
        if exception in HANG_IN_ASYNCIO and kind in ("asyncio.run", "%%arun --fresh"):
            continue
        if exception == "Str" and kind in ("asyncio.run", "%%arun --fresh") and sys.version_info < (3, 13):
            # asyncio.run leaves its SIGINT handler there, which holds the task, since signal.getsignal calls repr()
            # of it; so does signal.signal, which ipykernel calls for each request.
            continue
        cell = hostile.run(code)
        assert (kind, cell.ename) == (kind, ename or exception)
    hostile.expect_alive()


LATE = """
class Late(Exception):
    answers = 0
    def __str__(self):
        Late.answers -= 1
        if Late.answers < 0: raise REFUSAL
        return "text"
"""


@pytest.mark.parametrize("refusal", ["SystemExit", "KeyboardInterrupt"])
def test_an_exception_that_answers_at_first_and_raises_later_costs_no_reply(hostile: Kernel, refusal: str) -> None:
    hostile.ok(LATE.replace("REFUSAL", refusal))
    shown = set()
    for code in ("raise Late", "await asyncio.sleep(0); raise Late"):
        for answers in range(16):
            cell = hostile.run(f"Late.answers = {answers}; {code}")
            assert (answers, cell.ename) == (answers, "Late")
            assert hostile.ok("1").reply["execution_count"] == cell.reply["execution_count"] + 1
            shown.add(cell.reply["evalue"])
    assert shown == {"(its message cannot be shown)", "text"}
    hostile.expect_alive()


@pytest.mark.parametrize("refusal", ["RuntimeError('refused')", "KeyboardInterrupt", "Refusal"])
def test_a_function_of_the_users_that_cannot_show_errors_costs_no_reply(hostile: Kernel, refusal: str) -> None:
    hostile.ok("class Refusal(BaseException):\n    @property\n    def __class__(self): raise SystemExit")
    hostile.ok(
        f"{BEFORE}shell = get_ipython(); old = shell.showtraceback\n"
        f"def showtraceback(*args, **kwargs): raise {refusal}\nshell.showtraceback = showtraceback"
    )
    for code in ("1 / 0", "await asyncio.sleep(0); 1 / 0", "%arun asyncio.sleep('x')"):
        cell = hostile.run(code)
        assert (code, cell.ename) == (code, refusal.partition("(")[0])
        if "await" in code and refusal != "Refusal":
            assert "1 / 0" in cell.traceback
    hostile.ok("shell.showtraceback = old")
    assert hostile.run("1 / 0").ename == "ZeroDivisionError"
    hostile.expect_alive()


def test_what_fails_when_the_cell_has_ended_is_shown(hostile: Kernel) -> None:
    hostile.ok("shell = get_ipython()\ndef bad(*args): raise LookupError('of the kernel')")
    for code in ("1", "await asyncio.sleep(0)"):
        hostile.run(f"shell.user_expressions = bad; {code}")
        cell = hostile.run(code)
        assert cell.ename == "LookupError"
        assert cell.traceback.endswith("LookupError: of the kernel\n")
        hostile.run("del shell.user_expressions")
    hostile.expect_alive()


CANNOT_BE_ASKED = """
class Silent(Exception):
    def __str__(self): raise SystemExit
    __repr__ = __str__
def bad(*args, **kwargs): raise KeyError
"""


def test_a_custom_handler_that_fails_leaves_the_cell_its_own_error(hostile: Kernel) -> None:
    hostile.ok(CANNOT_BE_ASKED)
    for code in ("raise Silent", "await asyncio.sleep(0); raise Silent", "%%arun\nraise Silent"):
        hostile.ok("get_ipython().set_custom_exc((Silent,), bad)")
        cell = hostile.run(code)
        assert (code, cell.ename) == (code, "Silent")
        assert "raise Silent" in cell.traceback
    hostile.expect_alive()


# While the error is shown, and when it has been.
@pytest.mark.parametrize("moment", [("call", "_prepare"), ("return", "showtraceback.<locals>.showtraceback")])
def test_an_interrupt_while_the_error_is_shown_leaves_the_cell_its_own_error(
    hostile: Kernel, moment: tuple[str, str]
) -> None:
    hostile.ok(
        "import signal, sys\ndef profile(frame, event, arg):\n"
        f"    if (event, frame.f_code.co_qualname.removeprefix('Tracebacks.')) == {moment}:\n"
        "        sys.setprofile(None); signal.raise_signal(signal.SIGINT)"
    )
    for code in ("1 / 0", "await asyncio.sleep(0); 1 / 0", "%%arun\n1 / 0"):
        cell = hostile.run(code.replace("1 / 0", "sys.setprofile(profile); 1 / 0"))
        assert (code, cell.ename) == (code, "ZeroDivisionError")
        assert sum(message["msg_type"] == "error" for message in cell.messages) == 1
        assert hostile.ok("print(sys.getprofile())").stdout == "None\n"
    hostile.expect_alive()


@pytest.mark.parametrize("start", ["", "await asyncio.sleep(0)\n"], ids=["plain", "awaiting"])
def test_an_error_that_the_cell_has_shown_before_is_not_taken_for_its_own(hostile: Kernel, start: str) -> None:
    hostile.ok(
        "import signal, sys\ndef profile(frame, event, arg):\n"
        "    if (event, frame.f_code.co_qualname) == ('call', 'Tracebacks._prepare'):\n"
        "        sys.setprofile(None); signal.raise_signal(signal.SIGINT)"
    )
    before = "try: 1 / 0\nexcept ZeroDivisionError: get_ipython().showtraceback()\n"
    cell = hostile.run(f"{start}{before}sys.setprofile(profile); 1 + 'own'")
    shown = [message["content"]["ename"] for message in cell.messages if message["msg_type"] == "error"]
    assert (shown, cell.reply["ename"]) == (["ZeroDivisionError", "TypeError"], "TypeError")
    assert "TypeError" in cell.reply["traceback"][-1]
    hostile.expect_alive()


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_a_task_that_nobody_awaits_is_told_and_fails_no_other_cell(
    hostile: Kernel, exception: str, refusal: str
) -> None:
    hostile.ok(PRELUDE.replace("REFUSAL", refusal))
    hostile.ok(f"make = lambda: {EXCEPTIONS[exception]}")
    cell = hostile.begin("ended = asyncio.create_task(fails()); await asyncio.wait([ended])\ndel ended")
    hostile.finish(cell)
    assert cell.ename is None
    hostile.ok("await asyncio.sleep(0.3)")
    hostile.wait_until(lambda: exception in cell.stderr)
    hostile.expect_alive()


GROUP = """
async def one():
    raise ValueError("first")

async def two():
    try: raise KeyError("inner")
    except KeyError as exc: raise LookupError("second") from exc

async with asyncio.TaskGroup() as g:
    g.create_task(one())
    g.create_task(two())
"""


@pytest.mark.parametrize("start", ["", "%%arun --scope\n"])
@pytest.mark.parametrize("arguments", [(), (RUNNER_KERNEL,)], ids=["extension", "kernel"])
def test_a_group_is_shown_by_the_lines_of_the_users_code(
    tmp_path: Path, arguments: tuple[str, ...], start: str
) -> None:
    with kernel(tmp_path, *arguments, load=False) as k:
        if not arguments:
            k.ok("%load_ext ipyrunner")
        cell = k.run(f"{start}import asyncio\n{GROUP}")  # the first traceback of the kernel's life
        assert cell.ename == "ExceptionGroup"
        shown = cell.traceback
        for line in ('raise ValueError("first")', "ValueError: first", "LookupError: second", "KeyError: 'inner'"):
            assert line in shown
        assert "+---------------- 2 of 2" in shown
        for theirs in ("interactiveshell.py", "taskgroups.py", "/ipyrunner/"):
            assert theirs not in shown
        k.ok(BEFORE)
        k.expect_alive()


def test_a_group_in_the_context_of_what_is_in_it_is_shown_once(hostile: Kernel) -> None:
    code = """
def raise_all_again():
    try: raise ExceptionGroup("of three", [ValueError(n) for n in range(3)])
    except ExceptionGroup as group:
        for each in group.exceptions:
            try: raise each
            except ValueError: pass
        raise group.exceptions[0]
"""
    hostile.ok(code)
    for start in ("", "await asyncio.sleep(0); "):
        cell = hostile.run(f"import asyncio\n{start}raise_all_again()")
        assert cell.ename == "ValueError"
        assert cell.traceback.count("of 3 ----") == 3
    hostile.expect_alive()


def prepare(hostile: Kernel, raised: str, refusal: str = "SystemExit") -> None:
    hostile.ok(PRELUDE.replace("REFUSAL", refusal))
    hostile.ok(PLACES_PRELUDE)
    hostile.ok(f"make = lambda: {RAISED[raised]}\nasync def fails_at_once(): raise LookupError")


def finish_comm(hostile: Kernel, msg_type: str, content: dict[str, Any]) -> None:
    sent = hostile.send_comm(msg_type, content)
    hostile.wait_until(lambda: sent.idle)


def status(cell: Cell) -> tuple[str, str | None]:
    assert cell.reply is not None
    return cell.reply["status"], cell.reply.get("ename")


@pytest.mark.parametrize(
    "raised", [each if each == "SystemExit" else pytest.param(each, marks=pytest.mark.slow) for each in RAISED]
)
def test_what_is_raised_where_the_kernel_calls_costs_no_reply(hostile: Kernel, raised: str) -> None:
    prepare(hostile, raised)
    for place, (on, off) in PLACES.items():
        hostile.ok(on)
        for code in CALLING_CELLS.values():
            hostile.run(code)
            hostile.run("1")
        for code in ("left.append(1)", "await asyncio.sleep(0); left.append(1)"):
            for following in ("2", "await asyncio.sleep(0); 2"):
                first, second = status(hostile.run(code)), status(hostile.run(following))
                # IPython shows the exceptions of hooks, and drops a transformer of the AST that raises one. What is none
                # ends the cell before it has begun, and no other.
                ends = not (place.startswith("pre_") and raised == "KeyboardInterrupt") and (
                    raised not in EXCEPTIONS and raised != "ZeroDivisionError" and place.startswith(("pre_", "AST"))
                )
                assert (place, first) == (place, ("ok", None))
                if (place, raised) == ("AST transformer", "Str"):  # IPython's warning may have its message in it
                    assert second in [("error", "SystemExit"), ("ok", None)]
                elif place != "input transformer":  # called twice for a plain cell: what comes last counts
                    assert (place, second) == (place, ("error", raised) if ends else ("ok", None))
        hostile.run("left.clear()")
        hostile.run("left.clear()")
        hostile.ok(off)
        hostile.expect_alive()


@pytest.mark.parametrize("raised", RAISED)
def test_user_expressions_and_comms_that_raise_cost_no_reply(hostile: Kernel, raised: str) -> None:
    prepare(hostile, raised)
    for code in ("left.extend([1, 1, 1])", "await asyncio.sleep(0); left.extend([1, 1, 1])"):
        cell = hostile.run(code, user_expressions={"a": "bad()", "b": "Shows()", "c": "Mime()", "d": "1"})
        assert status(cell) == ("ok", None)
        assert cell.reply is not None
        expressions = cell.reply["user_expressions"]
        assert expressions["a"] | {"traceback": 0, "evalue": 0} == {
            "status": "error", "ename": raised, "traceback": 0, "evalue": 0,
        }  # fmt: skip
        assert expressions["d"]["data"]["text/plain"] == "1"
        hostile.ok("left.clear()")
    hostile.ok("shell.kernel.comm_manager.register_target('bad', lambda comm, message: comm.on_msg(bad))")
    finish_comm(hostile, "comm_open", {"comm_id": "c", "target_name": "bad", "data": {}})
    # Before ipykernel 7.4 messages wait for the end of a cell that awaits.
    live = ipykernel.version_info[:2] >= (7, 4)
    for waiting in (None, "event = asyncio.Event(); print('go'); await event.wait()")[: 1 + live]:
        hostile.ok("left.append(1)")
        cell = None if waiting is None else hostile.begin(waiting)
        if cell is not None:
            hostile.wait_for(cell, "go")
        finish_comm(hostile, "comm_msg", {"comm_id": "c", "data": {}})
        if cell is not None:
            hostile.interrupt()
            assert hostile.finish(cell).ename == "KeyboardInterrupt"
        assert hostile.ok("left").value == "[]"
        hostile.expect_alive()
