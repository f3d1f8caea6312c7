"""What goes on while the prompt of an IPython terminal waits: what its screen shows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals on Windows", allow_module_level=True)
from setups import SETUPS
from terminals import CONTROL_C, Terminal, Trigger, expect_alive, out

# Text that is being typed while something else happens.
HALF = "half = 'typed"


def expect_prompt_with(terminal: Terminal, typed: str) -> None:
    """The prompt is the last thing on the screen, with what was typed, and the cursor behind it."""
    line = f"{terminal.prompt} {typed}"
    terminal.wait(
        lambda: terminal.lines[-1] == line.rstrip() and terminal.cursor() == (len(terminal.lines) - 1, len(line)),
        f"the prompt {line!r} at the end, and the cursor behind it",
    )


TICKS = """\
async def tick():
    await event.wait()
    for n in range(3): print('tick', n); await asyncio.sleep(0.01)
    1 / 0
task = asyncio.create_task(tick())
await asyncio.sleep(0)
"""


@pytest.mark.parametrize("setup", [*SETUPS, "%gui asyncio"])
def test_tasks_go_on_and_print_above_the_prompt(start: Callable[..., Terminal], tmp_path: Path, setup: str) -> None:
    terminal = start(setup=SETUPS.get(setup, setup))
    trigger = Trigger(tmp_path)
    terminal.run(Trigger.CODE + TICKS)
    terminal.type(HALF)
    expect_prompt_with(terminal, HALF)
    trigger.pull()
    for line in ("\ntick 0\n", "\ntick 1\n", "\ntick 2\n", "\nZeroDivisionError: division by zero\n"):
        terminal.wait_for(line)
    expect_prompt_with(terminal, HALF)
    assert "(tick) failed, and nobody awaits it" in terminal.text
    terminal.run("'")
    assert out(terminal.run("half")) == "'typed'"
    expect_alive(terminal)


def test_what_a_task_logs_appears_above_the_prompt(terminal: Terminal) -> None:
    page = (Path(__file__).parent.parent / "docs" / "frontends" / "terminal.md").read_text()
    terminal.run(page.split("```python\n")[1].split("```")[0])
    terminal.run("h = loop.call_later(0.5, logging.warning, 'a warning')")
    terminal.type(HALF)
    terminal.wait_for("\nWARNING:root:a warning\n")
    expect_prompt_with(terminal, HALF)


@pytest.mark.parametrize("setup", SETUPS)
def test_control_c_ends_a_task_that_holds_the_prompt(
    start: Callable[..., Terminal], tmp_path: Path, setup: str
) -> None:
    terminal = start(setup=SETUPS[setup])
    trigger = Trigger(tmp_path)
    terminal.run(
        Trigger.CODE + "async def spin():\n    await event.wait(); open('spins', 'w').close()\n    while True: pass\n"
        "bystander = asyncio.create_task(asyncio.sleep(3600)); task = asyncio.create_task(spin()); await asyncio.sleep(0)"
    )
    terminal.type(HALF)
    expect_prompt_with(terminal, HALF)
    trigger.pull()
    terminal.wait((tmp_path / "spins").exists, "the file of the task", every=0.01)
    assert not terminal.has_signals()
    terminal.type(CONTROL_C)  # nobody reads it: the terminal's signals are turned on
    terminal.wait(terminal.has_signals, "the terminal's signals", every=0.01)
    terminal.type(CONTROL_C)
    terminal.wait_for("ipyrunner: KeyboardInterrupt was raised in spin(), which did not return to the event loop")
    expect_prompt_with(terminal, HALF)
    terminal.wait(lambda: not terminal.has_signals(), "no signals from the terminal", every=0.01)
    terminal.run("'")
    assert out(terminal.run("half, task.done(), bystander.done()")) == "('typed', True, False)"
    expect_alive(terminal)


def test_control_c_at_the_prompt_is_a_key(terminal: Terminal) -> None:
    terminal.run("task = asyncio.create_task(asyncio.sleep(3600)); await asyncio.sleep(0)")
    terminal.type(HALF)
    expect_prompt_with(terminal, HALF)
    terminal.type(CONTROL_C)
    terminal.wait(lambda: terminal.lines[-1] == terminal.prompt, "an empty prompt")
    assert out(terminal.run("task.done()")) == "False"
    expect_alive(terminal)


@pytest.mark.parametrize("setup", SETUPS)
def test_sigint_ends_the_prompt_alone(start: Callable[..., Terminal], setup: str) -> None:
    terminal = start(setup=SETUPS[setup])
    terminal.run("import os, signal; task = asyncio.create_task(asyncio.sleep(3600)); await asyncio.sleep(0)")
    # From a callback: while the loop has the thread, and not the prompt's.
    terminal.run("handle = loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)")
    terminal.wait_for("KeyboardInterrupt escaped interact()")
    terminal.wait_for_prompt()
    assert out(terminal.run("task.done()")) == "False"
    expect_alive(terminal)
    assert terminal.text.count("escaped interact()") == 1


def test_a_busy_loop_leaves_the_prompt_alive(terminal: Terminal) -> None:
    terminal.run(
        "async def busy():\n    global n\n    while True:\n        n += 1; await asyncio.sleep(0)\n"
        "        if n == marked: print('mo' + 'ving')\nn = marked = 0"
    )
    terminal.run("task = asyncio.create_task(busy()); await asyncio.sleep(0)")
    terminal.run("marked = n + 100")
    terminal.type(HALF)
    expect_prompt_with(terminal, HALF)
    terminal.wait_for("moving")
    expect_prompt_with(terminal, HALF)
    terminal.run("'")
    assert out(terminal.run("task.done(), half")) == "(False, 'typed')"


def test_the_prompt_costs_nothing_while_nothing_happens(terminal: Terminal) -> None:
    terminal.run(
        "import time; selects = []; select = loop._selector.select\n"
        "def counted(timeout): selects.append(time.monotonic()); return select(timeout)\n"
        "loop._selector.select = counted; tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(100)]\n"
        "await asyncio.sleep(0)"
    )
    terminal.run("began = time.monotonic()")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        terminal.look(0.1)
    counted = "len(selects), sum(began + 0.5 < at < began + 2.5 for at in selects)"
    always, meanwhile = map(int, out(terminal.run(counted)).strip("()").split(","))
    assert always > 0
    assert meanwhile <= 12  # prompt_toolkit looks at the size of the window twice a second


HOOK = """\
import select
from IPython.terminal.pt_inputhooks import register
turns, calls = 0, []
def hook(context):
    global turns
    while not select.select([context.fileno()], [], [], 0.01)[0]:
        turns += 1
        while calls: calls.pop()()
register("test", hook)
"""


@pytest.mark.parametrize("setup", ["asyncio", "uvloop"])
def test_a_gui_and_the_loop_both_run_while_the_prompt_waits(start: Callable[..., Terminal], setup: str) -> None:
    terminal = start(setup=SETUPS[setup])
    terminal.run(HOOK)
    terminal.run("%gui test")
    terminal.run(
        "async def tick():\n    for n in range(3): await asyncio.sleep(0.1); print('tick', n, turns > n)\n    await rung.wait()\n    print('rung')\n"
        "rung = asyncio.Event(); task = asyncio.create_task(tick()); await asyncio.sleep(0)"
    )
    terminal.type(HALF)
    for n in range(3):
        terminal.wait_for(f"\ntick {n} True\n")
    expect_prompt_with(terminal, HALF)
    # What the GUI schedules on the loop at rest.
    terminal.run("'; calls.append(lambda: loop.call_soon(rung.set))")
    terminal.wait_for("\nrung\n")
    expect_prompt_with(terminal, "")
    expect_alive(terminal)
    terminal.run("%gui")
    terminal.run("task = asyncio.create_task(tick()); await asyncio.sleep(0)")
    terminal.wait(lambda: terminal.text.count("rung\n") > 1, "the task's end without the GUI")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("task = asyncio.create_task(asyncio.sleep(60)); loop._selector.select = None", "cannot run any more"),
        ("loop._selector.close()", "cannot run any more"),
        ("loop.close()", "was closed"),
    ],
)
def test_a_loop_that_cannot_run_is_replaced(terminal: Terminal, code: str, said: str) -> None:
    terminal.run(code)
    # It is led while a prompt waits: one that has its line at once may be over too soon for all tries.
    shown = ""
    while (note := f"ipyrunner: the notebook's event loop {said}, so a new one is used from now on.") not in shown:
        shown = terminal.run("1 + 1")
    assert shown.count(note) == 1
    terminal.run("async def say(): await asyncio.sleep(0.01); print('sa' + 'id')")
    terminal.run("task = asyncio.create_task(say()); await asyncio.sleep(0)")
    terminal.wait_for("\nsaid\n")
