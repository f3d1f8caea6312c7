"""The debuggers of IPython (%debug, %pdb, breakpoint) and of front ends (debugpy) in the notebook's loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernels import DEADLINE, RUNNER_KERNEL, Kernel, kernel
from terminals import CONTROL_C, IPYTHON, Terminal

TASKS = """
async def inner(number):
    secret = number * 2
    await asyncio.sleep(0)
    raise ValueError(secret)
async def outer(number):
    return await inner(number + 1)
async def stopping(number):
    secret = number * 2
    pdb.set_trace()
    secret += 1
    await asyncio.sleep(0.01)
    secret += 1
    return secret
"""
FAILING = {
    "await": "await outer(1)",
    "task": "await asyncio.create_task(outer(1))",
    "arun cell": "%%arun\nawait outer(1)",
    "arun": "%arun outer(1)",
    "group": "async with asyncio.TaskGroup() as g:\n    g.create_task(outer(1))\n    g.create_task(outer(2))",
}
PROMPT = "pdb>"


@pytest.fixture
def debugged(shared: Kernel) -> Kernel:
    shared.ok("import pdb, sys; sys.breakpointhook = sys.__breakpointhook__")
    shared.ok(TASKS)
    return shared


# -- IPython's


@pytest.mark.parametrize("code", FAILING.values(), ids=FAILING)
def test_debug_stops_where_the_task_failed(debugged: Kernel, code: str) -> None:
    assert debugged.run(code).ename is not None
    cell = debugged.begin("%debug")
    debugged.chat(cell, PROMPT, "w", "outer()")
    debugged.chat(cell, PROMPT, "p 'secret', secret", "('secret', 4)")
    debugged.chat(cell, PROMPT, "u", "return")
    debugged.chat(cell, PROMPT, "q")
    assert debugged.finish(cell).ename is None
    assert "ipyrunner/" not in cell.stdout
    assert "asyncio/" not in cell.stdout
    assert ("the first of 2 exceptions, ValueError: 4" in cell.stdout) == ("TaskGroup" in code)
    if "TaskGroup" not in code:  # of a group IPython 9 prints "NoneType: None", with and without the extension
        assert "ValueError: 4" in debugged.run("%tb").traceback
    debugged.expect_alive()


def test_pdb_on_stops_in_an_awaiting_cell(debugged: Kernel) -> None:
    debugged.ok("%pdb on")
    cell = debugged.begin("await outer(1)")
    debugged.chat(cell, PROMPT, "p 'secret', secret", "('secret', 4)")
    debugged.chat(cell, PROMPT, "q")
    assert debugged.finish(cell).ename == "ValueError"
    debugged.ok("%pdb off")
    debugged.expect_alive()


@pytest.mark.parametrize("stop", ["pdb.set_trace()", "breakpoint()"])
def test_breakpoint_in_a_task_steps_over_await(debugged: Kernel, stop: str) -> None:
    debugged.ok(TASKS.replace("pdb.set_trace()", stop))
    cell = debugged.begin("await asyncio.create_task(stopping(5))")
    debugged.chat(cell, PROMPT, "p 'secret', secret", "('secret', 10)")
    debugged.chat(cell, PROMPT, "until 11", "-> 11     await")
    debugged.chat(cell, PROMPT, "n", "-> 12     secret")
    debugged.chat(cell, PROMPT, "p 'secret', secret", "('secret', 11)")
    debugged.chat(cell, PROMPT, "c")
    assert debugged.finish(cell).value == "12"
    debugged.expect_alive()


def test_an_interrupt_at_the_prompt_ends_the_prompt(debugged: Kernel) -> None:
    for _ in range(2):  # at `continue` pdb keeps the handler that it has found, for a prompt in another cell
        cell = debugged.begin("await asyncio.create_task(stopping(5))")
        debugged.chat(cell, PROMPT, "c")
        assert debugged.finish(cell).value == "12"
    cell = debugged.begin("await asyncio.create_task(stopping(5))")
    debugged.wait_for_question(cell, PROMPT)
    debugged.interrupt()
    assert debugged.finish(cell).value == "12"  # pdb catches it, and goes on: in a plain cell as well
    debugged.expect_alive()
    debugged.ok("%config NotebookRunner.interrupt_grace = 50")
    cell = debugged.begin("print('go'); await asyncio.sleep(60)")
    debugged.interrupted(cell, "go", 30)  # cancelled: it would be forced after fifty seconds
    debugged.ok("%config NotebookRunner.interrupt_grace = 1")
    assert cell.ename == "KeyboardInterrupt"
    debugged.expect_alive()


def test_quitting_ends_the_cell_alone(debugged: Kernel) -> None:
    cell = debugged.begin("await asyncio.create_task(stopping(5))")
    debugged.chat(cell, PROMPT, "q")
    assert debugged.finish(cell).reply is not None
    assert cell.reply is not None
    assert cell.reply["ename"] == "BdbQuit"
    debugged.expect_alive()


def test_after_continue_control_c_ends_later_cells_in_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, *IPYTHON, "--simple-prompt")
    terminal.run("%load_ext ipyrunner")
    terminal.run("import asyncio, pdb; kept = 'kept'")
    terminal.run("async def stopping():\n    pdb.set_trace()\n    return 'value' * 2\n\n")
    terminal.begin("await stopping()")
    terminal.wait_for("stopping()\n-> ")
    terminal.type("c\n")
    assert "valuevalue" in terminal.finish()
    terminal.begin("print('g' + 'o'); await asyncio.sleep(60)")
    terminal.wait_for("\ngo")
    terminal.type(CONTROL_C)
    assert "KeyboardInterrupt" in terminal.finish()
    assert "kept" in terminal.run("kept")
    terminal.close()


def test_pdb_on_has_nothing_to_show_of_a_cell_that_was_given_up(debugged: Kernel) -> None:
    debugged.ok("%pdb on")
    cell = debugged.begin(
        "over = asyncio.Event()\nwhile not over.is_set():\n    try: print('go'); await over.wait()\n"
        "    except asyncio.CancelledError: print('ignored')"
    )
    debugged.wait_for(cell, "go")
    debugged.interrupt()
    debugged.wait_for(cell, "ignored")
    debugged.interrupt()
    assert debugged.finish(cell).ename == "KeyboardInterrupt"
    assert "nothing to debug" in cell.stdout + debugged.ok("%debug").stdout
    debugged.ok("%pdb off\nover.set()")
    debugged.expect_alive()


# -- the front end's

CELL = """import asyncio
async def child(number):
    secret = number * 2
    await asyncio.sleep(0.01)
    return secret + 1
x = 20
y = await asyncio.create_task(child(x))
y
"""


class Debugger:
    """Speaks with the kernel's debugger as JupyterLab does: by requests on the control channel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seq = 0
        self.source = ""

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._seq += 1
        content = {"type": "request", "seq": self._seq, "command": command, "arguments": arguments}
        message = self._kernel.client.session.msg("debug_request", content)
        self._kernel.client.control_channel.send(message)
        while True:
            reply = self._kernel.client.get_control_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                assert reply["content"]["success"], reply["content"]
                return reply["content"].get("body") or {}

    def attach(self) -> None:
        self.ask("initialize", clientID="tests", adapterID="", pathFormat="path", linesStartAt1=True)
        self.ask("attach")

    def break_at(self, code: str, *lines: int) -> None:
        self.source = self.ask("dumpCell", code=code)["sourcePath"]
        breakpoints = [{"line": line} for line in lines]
        set_ = self.ask("setBreakpoints", breakpoints=breakpoints, source={"path": self.source}, sourceModified=False)
        assert [b["verified"] for b in set_["breakpoints"]] == [True] * len(lines)
        self.ask("configurationDone")

    def stopped(self) -> list[dict[str, Any]]:
        """Wait until the kernel has stopped; return its stack, innermost frame first."""
        thread = self._kernel.wait_for_debug_event("stopped")["body"]["threadId"]
        stack: list[dict[str, Any]] = self.ask("stackTrace", threadId=thread)["stackFrames"]
        return stack

    def variables(self, frame: dict[str, Any]) -> dict[str, str]:
        scope = self.ask("scopes", frameId=frame["id"])["scopes"][0]
        variables = self.ask("variables", variablesReference=scope["variablesReference"])["variables"]
        return {variable["name"]: variable["value"] for variable in variables}


@pytest.fixture(params=["extension", pytest.param("kernel", marks=pytest.mark.slow)])
def attached(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    # debugpy would show what a fork comes from.
    with kernel(tmp_path, *([RUNNER_KERNEL] if request.param == "kernel" else []), forked=False) as started:
        debugger = Debugger(started)
        debugger.attach()
        yield started, debugger


def test_a_front_ends_breakpoint(attached: tuple[Kernel, Debugger]) -> None:
    started, debugger = attached
    filters = started.ok("hasattr(get_ipython().kernel.debugger, 'kernel_modules')").value == "True"
    debugger.break_at(CELL, 5)
    cell = started.begin(CELL)
    stack = debugger.stopped()
    assert (stack[0]["name"], stack[0]["line"], stack[0]["source"]["path"]) == ("child", 5, debugger.source)
    assert debugger.variables(stack[0])["secret"] == "40"
    if filters:
        assert len(stack) == 1
        # Out of the coroutine, into the line after the one that awaits it, and through nothing of ours.
        debugger.ask("next", threadId=1)
        stack = debugger.stopped()
        assert (stack[0]["line"], stack[0]["source"]["path"]) == (8, debugger.source)
    debugger.ask("continue", threadId=1)
    assert started.finish(cell).value == "41"
    started.expect_alive()
    # In the cell's own code.
    debugger.break_at(CELL, 8)
    cell = started.begin(CELL)
    stack = debugger.stopped()
    assert (stack[0]["line"], stack[0]["source"]["path"]) == (8, debugger.source)
    assert debugger.variables(stack[0])["y"] == "41"
    debugger.ask("continue", threadId=1)
    assert started.finish(cell).value == "41"
    # The loop is still lent to create_task, by another tool id of sys.monitoring than debugpy's.
    debugger.break_at(CELL)
    started.ok("async def one(): return 1\ntask = asyncio.create_task(one())")
    assert started.ok("await task").value == "1"
    debugger.ask("disconnect", restart=False, terminateDebuggee=True)
    started.expect_alive()


@pytest.mark.slow
@pytest.mark.each_python
def test_an_interrupt_while_stopped_ends_the_cell_when_it_goes_on(attached: tuple[Kernel, Debugger]) -> None:
    started, debugger = attached
    started.ok("%config NotebookRunner.interrupt_grace = 0.1")
    debugger.break_at(CELL, 5)
    cell = started.begin(CELL)
    debugger.stopped()
    started.interrupt()
    started.look(0.5)  # longer than interrupt_grace
    assert not cell.idle
    debugger.ask("continue", threadId=1)
    assert started.finish(cell).ename == "KeyboardInterrupt"
    started.expect_alive()
    debugger.break_at(CELL)
    for code in [
        "print('go'); await asyncio.sleep(60)",
        "print('go')\nasync def stuck():\n    while True: pass\nawait stuck()",
    ]:
        cell = started.begin(code)
        started.interrupted(cell, "go", 30)
        assert cell.ename == "KeyboardInterrupt", cell.traceback
        started.expect_alive()
    debugger.break_at(CELL, 5)
    cell = started.begin(CELL)
    assert debugger.stopped()[0]["line"] == 5
    debugger.ask("continue", threadId=1)
    assert started.finish(cell).value == "41"
