"""input, getpass and ipyrunner.input in cells that await."""

from __future__ import annotations

import re

import pytest

from kernels import Kernel
from setups import SETUPS
from terminals import CONTROL_C, CONTROL_D, Terminal

TICKING = """
import asyncio, getpass, ipyrunner
ticks = 0
async def tick():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.005)
ticking = asyncio.create_task(tick())
"""


@pytest.fixture
def asked(shared: Kernel) -> Kernel:
    shared.ok(TICKING)
    return shared


# -- the builtins


@pytest.mark.parametrize("function", ["input", "getpass.getpass"])
def test_the_builtin_in_an_awaiting_cell(asked: Kernel, function: str) -> None:
    cell = asked.begin(f"await asyncio.sleep(0); answer = {function}('name? '); await asyncio.sleep(0); answer")
    question = asked.wait_for_question(cell, "name? ")
    assert question["content"]["password"] == (function != "input")
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"
    asked.expect_alive()


def test_an_interrupt_ends_the_builtin(asked: Kernel) -> None:
    cell = asked.begin("await asyncio.sleep(0); input('name? ')")
    asked.wait_for_question(cell, "name? ")
    asked.interrupt()
    assert asked.finish(cell).ename == "KeyboardInterrupt"
    asked.expect_alive()


# -- ipyrunner.input


@pytest.mark.parametrize("password", [False, True])
def test_a_prompt_may_be_any_object(asked: Kernel, password: bool) -> None:
    cell = asked.begin(f"await ipyrunner.input(5, password={password})")
    assert asked.wait_for_question(cell, "")["content"]["prompt"] == "5"
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"
    asked.ok("class Broken:\n    def __str__(self): raise LookupError('no text')")
    assert asked.run(f"await ipyrunner.input(Broken(), password={password})").ename == "LookupError"
    cell = asked.begin("await ipyrunner.input('next? ')")
    asked.wait_for_question(cell, "next? ")
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"
    asked.expect_alive()


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_the_loop_goes_on_while_the_user_is_asked(asked: Kernel, setup: str) -> None:
    asked.ok(setup + "%arunner restart")
    asked.ok(TICKING)
    cell = asked.begin(
        "async def say(n):\n"
        "    while ticks < n: await asyncio.sleep(0.005)\n"
        "    print('ticks')\n"
        "said = asyncio.create_task(say(ticks + 50))\n"
        "answer = await ipyrunner.input('name? ')\n"
        "await said; answer"
    )
    question = asked.wait_for_question(cell, "name? ")
    assert question["content"] == {"prompt": "name? ", "password": False}
    asked.wait_for(cell, "ticks")
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"
    asked.ok("%config NotebookRunner.loop_factory = None\n%config NotebookRunner.poll = False\n%arunner restart")


def test_a_password_and_the_end_of_the_input(asked: Kernel) -> None:
    cell = asked.begin("await ipyrunner.input('secret? ', password=True)")
    assert asked.wait_for_question(cell, "secret? ")["content"]["password"] is True
    asked.answer("xyz")
    assert asked.finish(cell).value == "'xyz'"
    cell = asked.begin("await ipyrunner.input('name? ')")
    asked.wait_for_question(cell, "name? ")
    asked.answer("\x04")
    assert asked.finish(cell).ename == "EOFError"
    asked.expect_alive()


def test_questions_come_one_after_the_other(asked: Kernel) -> None:
    cell = asked.begin("await asyncio.gather(ipyrunner.input('first? '), ipyrunner.input('second? '))")
    asked.wait_for_question(cell, "first? ")
    asked.look(0.2)
    assert not [m for m in cell.messages if m["msg_type"] == "input_request"]
    asked.answer("1")
    asked.wait_for_question(cell, "second? ")
    asked.answer("2")
    assert asked.finish(cell).value == "['1', '2']"


def test_a_cancelled_questions_late_reply_answers_no_other_one(asked: Kernel) -> None:
    cell = asked.begin(
        "try: await asyncio.wait_for(ipyrunner.input('first? '), 0.2)\n"
        "except TimeoutError: print('too late')\n"
        "await ipyrunner.input('second? ')"
    )
    first = asked.wait_for_question(cell, "first? ")
    second = asked.wait_for_question(cell, "second? ")
    asked.answer("late", to=first["header"])
    asked.answer("right", to=second["header"])
    assert asked.finish(cell).value == "'right'"
    assert cell.stdout == "too late\n"


def test_a_reply_that_came_before_the_question_is_dropped(asked: Kernel) -> None:
    asked.answer("stray")
    # The kernel reads its sockets in the order in which they become ready: the stray reply is there before the cell.
    cell = asked.begin("await asyncio.sleep(0.3); await ipyrunner.input('name? ')")
    asked.wait_for_question(cell, "name? ")
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"


def test_an_interrupt_ends_the_waiting(asked: Kernel) -> None:
    cell = asked.begin("try: await ipyrunner.input('first? ')\nfinally: await asyncio.sleep(0.01); print('cleaned up')")
    first = asked.wait_for_question(cell, "first? ")
    asked.interrupt()
    assert asked.finish(cell).ename == "KeyboardInterrupt"
    assert cell.stdout == "cleaned up\n"
    asked.expect_alive()
    cell = asked.begin("await ipyrunner.input('second? ')")
    second = asked.wait_for_question(cell, "second? ")
    asked.answer("late", to=first["header"])
    asked.answer("right", to=second["header"])
    assert asked.finish(cell).value == "'right'"


def test_a_task_whose_cell_has_ended_is_refused(asked: Kernel) -> None:
    asked.ok(
        "gate = asyncio.Event()\n"
        "async def later():\n    await gate.wait()\n    return await ipyrunner.input('name? ')\n"
        "task = asyncio.create_task(later()); await asyncio.sleep(0)"
    )
    cell = asked.run("gate.set(); await task")
    assert cell.ename == "RuntimeError"
    assert re.search(r"In\[\d+\] has ended, and front ends show no questions", cell.traceback)


def test_a_question_ends_with_its_cell(asked: Kernel) -> None:
    cell = asked.begin(
        "t = asyncio.create_task(ipyrunner.input('left? ')); await asyncio.sleep(0.05)", allow_stdin=True
    )
    asked.wait_for_question(cell, "left? ")
    asked.finish(cell)
    assert asked.run("await asyncio.wait([t]); t.exception()").value.startswith("RuntimeError('In[")
    following = asked.begin("await ipyrunner.input('next? ')", allow_stdin=True)
    asked.wait_for_question(following, "next? ")
    asked.answer("yes")
    assert asked.finish(following).value == "'yes'"


def test_a_front_end_that_cannot_be_asked(asked: Kernel) -> None:
    for code in ["await ipyrunner.input()", "await asyncio.sleep(0); input()"]:
        assert asked.run(code, allow_stdin=False).ename == "StdinNotImplementedError"
    asked.expect_alive()


def test_another_thread_is_told_what_to_do(asked: Kernel) -> None:
    cell = asked.run("await asyncio.to_thread(asyncio.run, ipyrunner.input('name? '))")
    assert cell.ename == "RuntimeError"
    assert "asyncio.run_coroutine_threadsafe" in cell.traceback
    cell = asked.begin(
        "loop = asyncio.get_running_loop()\n"
        "await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(ipyrunner.input('name? '), loop).result())"
    )
    asked.wait_for_question(cell, "name? ")
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"


def test_a_plain_cells_own_loop_may_ask(asked: Kernel) -> None:
    cell = asked.begin("asyncio.run(ipyrunner.input('name? '))")
    asked.wait_for_question(cell, "name? ")
    asked.answer("Ada")
    assert asked.finish(cell).value == "'Ada'"


# -- in a terminal


@pytest.fixture
def terminal(either: Terminal) -> Terminal:
    either.run("import ipyrunner")
    return either


def test_in_a_terminal(terminal: Terminal) -> None:
    terminal.run("async def say():\n    await asyncio.sleep(0.01); print('go' + 'es on')\n\n")
    terminal.begin("t = asyncio.create_task(say()); answer = await ipyrunner.input('na' + 'me? ')")
    terminal.wait_for("\nname?")
    terminal.wait_for("goes on")
    terminal.type("Ada\n")
    terminal.finish()
    assert "'Ada'" in terminal.run("answer")
    # Ctrl-C ends the waiting, and takes nothing of what is typed next.
    terminal.begin("await ipyrunner.input('ti' + 'tle? ')")
    terminal.wait_for("\ntitle?")
    terminal.type(CONTROL_C)
    assert "KeyboardInterrupt" in terminal.finish()
    assert "kept" in terminal.run("kept")
    assert "True" in terminal.run("await asyncio.sleep(0.01); asyncio.get_running_loop() is loop")
    terminal.begin("await ipyrunner.input('ci' + 'ty? ')")
    terminal.wait_for("\ncity?")
    terminal.type(CONTROL_D)
    assert "EOFError" in terminal.finish()
    assert "kept" in terminal.run("kept")


def test_a_task_whose_cell_has_ended_leaves_the_prompt_its_keys(terminal: Terminal) -> None:
    terminal.run("t = asyncio.create_task(ipyrunner.input('left? ')); await asyncio.sleep(0.1)")
    assert "has ended" in terminal.run("await asyncio.wait([t]); str(t.exception())")
    terminal.run("t = asyncio.create_task(ipyrunner.input('later? ')); None")
    assert "has ended" in terminal.run("await asyncio.wait([t]); str(t.exception())")
    assert "kept" in terminal.run("kept")


def test_a_password_in_a_terminal_is_not_shown(terminal: Terminal) -> None:
    terminal.begin("answer = await ipyrunner.input('sec' + 'ret? ', password=True)")
    terminal.wait_for("\nsecret?")
    terminal.type("hidden\n")
    assert "hidden" not in terminal.finish()
    assert "'hidden'" in terminal.run("answer")
