"""What a user, a library or bad luck does to the kernel: it replies, and the next cell runs."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ipyrunner.aio.sigint.defer_sigint import Held
from kernels import Kernel

ODD_CELLS = {
    "unclosed quotation": ('%%arun --name "bob\nprint(1)', "UsageError"),
    "half a magic call": ("get_ipython().run_cell_magic('arun', '', 'x'", None),
    "too deep": ("all_tasks\n" + "-" * 50000 + "1", None),
    "return in a body": ("%%arun\nreturn 5", "SyntaxError"),
    "generator exit": ("await asyncio.sleep(0); raise GeneratorExit", "GeneratorExit"),
    "system exit": ("await asyncio.sleep(0); raise SystemExit(3)", "SystemExit"),
    "keyboard interrupt": ("await asyncio.sleep(0); raise KeyboardInterrupt", "KeyboardInterrupt"),
    "stop iteration": ("await asyncio.sleep(0); raise StopIteration", None),
    "NUL": ("await asyncio.sleep(0) \0", None),
}


@pytest.mark.parametrize(("code", "ename"), ODD_CELLS.values(), ids=ODD_CELLS)
def test_the_kernel_replies_to_odd_cells(shared: Kernel, code: str, ename: str | None) -> None:
    cell = shared.run(code)
    assert cell.reply is not None
    assert cell.reply["status"] == "error"
    assert ename in (None, cell.reply["ename"])
    shared.expect_alive()


def test_silent_cells_and_user_expressions(shared: Kernel) -> None:
    shared.run("await asyncio.sleep(0); silent = 1", silent=True)
    cell = shared.run("await asyncio.sleep(0)", user_expressions={"x": "silent + 1"})
    assert cell.reply is not None
    assert cell.reply["user_expressions"]["x"]["data"]["text/plain"] == "2"


@pytest.mark.parametrize("loop", ["", "%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'"])
def test_a_background_task_that_runs_a_cell(fresh: Kernel, loop: str) -> None:
    fresh.ok(loop + "\n%arunner restart")
    fresh.ok(
        "import contextvars; v = contextvars.ContextVar('v', default='unset'); v.set('notebook')\n"
        "async def background():\n    v.set('task')\n    await asyncio.sleep(0.05)\n"
        "    get_ipython().run_cell('inner = v.get()')\n    print('ran')\n    await asyncio.sleep(1000)"
    )
    fresh.wait_for(fresh.ok("t = asyncio.create_task(background())"), "ran")
    assert fresh.ok("inner, v.get()").value == "('task', 'notebook')"
    assert fresh.ok("await asyncio.sleep(0.01); t.done()").value == "False"


def test_an_awaiting_cell_that_runs_a_cell_keeps_the_kernel_live(shared: Kernel) -> None:
    shared.ok("host = get_ipython().kernel.io_loop.asyncio_loop")
    code = (
        "e = asyncio.Event()\nget_ipython().run_cell('inner = 1')\n"
        "import threading; threading.Timer(0.1, host.call_soon_threadsafe, [lambda: host.call_soon(e.set)]).start()\n"
        "await asyncio.wait_for(e.wait(), 10), inner"
    )
    assert shared.ok(code).value == "(True, 1)"


def test_an_awaiting_cell_that_runs_an_awaiting_cell_is_told(shared: Kernel) -> None:
    cell = shared.run("await asyncio.sleep(0); r = get_ipython().run_cell('await asyncio.sleep(0)'); r.success")
    assert cell.value == "False"
    assert "write `await ...` instead" in cell.traceback
    shared.expect_alive()


@pytest.mark.parametrize("action", ["%arunner restart", "%arunner close", "%unload_ext ipyrunner"])
@pytest.mark.parametrize("where", ["{}", "get_ipython().run_cell({!r});"])
def test_the_running_loop_cannot_be_closed(shared: Kernel, action: str, where: str) -> None:
    shared.run("await asyncio.sleep(0)\n" + where.format(action))
    shared.expect_alive()
    assert shared.ok("await asyncio.sleep(0.01); get_ipython().ast_transformers.__len__()").value == "1"


def test_an_exception_handler_that_exits(fresh: Kernel) -> None:
    fresh.ok(
        "import sys\nloop = asyncio.get_event_loop()\n"
        "def handler(loop, context):\n    print('handled')\n    sys.exit(3)\n"
        "loop.set_exception_handler(handler)\ndef bad(): 1 / 0"
    )
    fresh.ok("loop.call_later(0.01, bad)")
    fresh.ok("await asyncio.sleep(0.1)")
    fresh.expect_alive()


def test_a_task_that_exits_in_its_clean_up(fresh: Kernel) -> None:
    fresh.ok(
        "import sys\nasync def leave():\n    try: await asyncio.sleep(60)\n    finally: sys.exit(1)\n"
        "async def tidy():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0.01); print('tidy')\n"
        "tasks = [asyncio.create_task(leave()), asyncio.create_task(tidy())]; await asyncio.sleep(0)"
    )
    fresh.ok("%unload_ext ipyrunner")
    assert fresh.ok("[t.done() for t in tasks]").value == "[True, True]"
    fresh.ok("%load_ext ipyrunner")
    assert fresh.ok("asyncio.run(asyncio.sleep(0, 1))").value == "1"


@pytest.mark.parametrize("cell", ["1", "await asyncio.sleep(0)"])
def test_a_hook_may_make_several_tasks(shared: Kernel, cell: str) -> None:
    shared.ok(
        "made = []\nasync def one(): made.append(asyncio.get_running_loop())\n"
        "def hook(*args):\n    get_ipython().events.unregister('pre_run_cell', hook)\n"
        "    asyncio.create_task(one()); asyncio.create_task(one()); made.append(asyncio.get_running_loop())"
    )
    shared.ok("get_ipython().events.register('pre_run_cell', hook)")
    shared.ok(cell)
    assert (
        shared.ok("await asyncio.sleep(0.01); len(made), {id(loop) for loop in made} == {loop_id}").value == "(3, True)"
    )


def test_errors_of_callbacks_do_not_go_to_the_first_cell(fresh: Kernel) -> None:
    first = fresh.ok("await asyncio.sleep(0)")
    fresh.ok("def bad(): 1 / 0\nimport threading")
    cell = fresh.ok(
        "done = asyncio.Event(); loop = asyncio.get_event_loop(); loop.call_later(0.01, bad); loop.call_later(0.02, done.set)"
    )
    waiting = fresh.ok("await done.wait(); await asyncio.sleep(0.05); print('end')")
    assert first.stderr == ""
    assert "ZeroDivisionError" in cell.stderr + waiting.stderr


def test_a_background_callback_that_blocks_between_cells_is_interrupted_alone(fresh: Kernel) -> None:
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.3")
    fresh.ok("async def other():\n    while True: await asyncio.sleep(0.01)\nother_task = asyncio.create_task(other())")
    cell = fresh.ok(
        "async def stuck():\n    await asyncio.sleep(0.01)\n    print('go')\n    while True: pass\nt = asyncio.create_task(stuck())"
    )
    fresh.wait_for(cell, "go")
    queued = fresh.begin("type(t.exception()).__name__, other_task.done()")
    fresh.interrupt()
    assert fresh.finish(queued).value == "('KeyboardInterrupt', False)"
    fresh.expect_alive()


def test_a_cell_that_waits_for_itself(fresh: Kernel) -> None:
    for code in ("await asyncio.gather(*asyncio.all_tasks())", "await asyncio.wait(asyncio.all_tasks())"):
        cell = fresh.run(code)
        assert cell.ename == "RuntimeError"
        assert "leave it out" in cell.traceback
    fresh.expect_alive()


def test_a_given_up_arun_keeps_the_cells_context(fresh: Kernel) -> None:
    fresh.ok("import contextvars; v = contextvars.ContextVar('v', default='unset')")
    fresh.ok(
        "async def stubborn():\n    while not stop:\n        try: await asyncio.sleep(0.01)\n"
        "        except asyncio.CancelledError: print('no')\nstop = False"
    )
    cell = fresh.begin("print('go')\ntry:\n    %arun stubborn()\nexcept KeyboardInterrupt: pass\nv.set('after');")
    fresh.wait_for(cell, "go")
    fresh.interrupt()
    fresh.interrupted(cell, "no")
    assert fresh.ok("v.get()").value == "'after'"
    fresh.ok("stop = True")
    fresh.expect_alive()


def test_a_custom_exception_handler_does_not_hide_the_interrupt(fresh: Kernel) -> None:
    fresh.ok("def mine(self, etype, value, tb, tb_offset=None): print('mine', etype.__name__)")
    fresh.ok("get_ipython().set_custom_exc((BaseException,), mine)")
    cell = fresh.begin("print('go'); await asyncio.sleep(60)")
    fresh.interrupted(cell, "go")
    assert cell.reply is not None
    assert cell.reply["ename"] == "KeyboardInterrupt"


def test_held_keeps_a_signal_out_and_lets_it_into_the_cell() -> None:
    log = []
    with Held() as held:
        signal.raise_signal(signal.SIGINT)
        log.append("not torn")
        with pytest.raises(KeyboardInterrupt):
            held.let_through(lambda: log.append("not run"))
    with Held() as held:
        with pytest.raises(KeyboardInterrupt):
            held.let_through(lambda: signal.raise_signal(signal.SIGINT))
        signal.raise_signal(signal.SIGINT)  # came too late: dropped
    assert log == ["not torn"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_held_keeps_the_handler_that_the_cell_leaves() -> None:
    def mine(*args: object) -> None:
        pass

    try:
        with Held() as held:
            held.let_through(lambda: signal.signal(signal.SIGINT, mine))
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_press_while_the_running_loop_is_exchanged(fresh: Kernel) -> None:
    # Deterministic: SIGINT on the very line that would leave the kernel without its loop.
    fresh.ok(
        """
import signal, sys
from ipyrunner.aio.introspection import running_loop
def trace(frame, event, arg):
    if frame.f_code is running_loop.exchange.__code__:
        def local(frame, event, arg):
            if event == "line" and not pressed:
                pressed.append(1)
                signal.raise_signal(signal.SIGINT)
            return local
        return local
pressed = []
"""
    )
    fresh.ok("get_ipython().events.register('pre_execute', lambda: sys.settrace(trace))")
    fresh.run("print(1)")
    fresh.run("sys.settrace(None)")
    fresh.run("get_ipython().events.callbacks['pre_execute'].clear(); sys.settrace(None)")
    assert fresh.ok("len(pressed)").value == "1"
    fresh.expect_alive()


def test_c_code_that_keeps_the_gil_ends_at_a_second_press(fresh: Kernel, tmp_path: Path) -> None:
    # It looks at signals, but the watcher thread cannot run. The press that comes after the grace period is enough.
    # Nor can the thread that sends output: the marker is a file.
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.3")
    marker = tmp_path / "go"
    cell = fresh.begin(
        f"import re; await asyncio.sleep(0); open({str(marker)!r}, 'w').close()\nre.match('(a+)+$', 'a' * 60 + 'b')"
    )
    while not marker.exists():
        fresh.look(0.01)
    pressed = fresh.interrupt()
    while cell.reply is None:
        assert time.monotonic() < pressed + 30
        fresh.interrupt()
        fresh.look(0.2)
    fresh.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    fresh.expect_alive()
