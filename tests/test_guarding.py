"""Presses that hit the kernel's own code around a cell: the reply comes, and the cell is told what it should be."""

from __future__ import annotations

import ipykernel
import pytest

from kernels import Kernel

# Press where the kernel calls this; the names are methods of ipykernel's or IPython's, called once per cell.
PRESS_AT = """
import signal
def press_at(owner, name):
    original = getattr(owner, name)
    def method(*args, **kwargs):
        setattr(owner, name, original)
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)
    setattr(owner, name, method)
shell = get_ipython()
kernel = shell.kernel
"""


BEFORE_THE_CELL = ["kernel, 'init_metadata'", "kernel, 'do_execute'", "shell, 'transform_cell'"]


AFTER_THE_CELL = ["kernel, 'finish_metadata'", "shell.payload_manager, 'read_payload'", "kernel.session, 'send'"]


CELLS = {"plain": "'ran'", "awaiting": "import asyncio; await asyncio.sleep(0.01); 'ran'", "body": "%%arun\n'ran'"}


@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("where", BEFORE_THE_CELL)
def test_a_press_before_the_cell_is_the_cells(shared: Kernel, where: str, code: str) -> None:
    shared.ok(PRESS_AT)
    # Set by a hook at the end of this cell, so that nothing of it is hit.
    shared.ok(
        "def arm(*args):\n    shell.events.unregister('post_execute', arm)\n"
        f"    press_at({where})\nshell.events.register('post_execute', arm)"
    )
    cell = shared.run(code)
    assert cell.ename == "KeyboardInterrupt"
    assert cell.value is None
    shared.expect_alive()


@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("where", AFTER_THE_CELL)
def test_a_press_after_the_cell_changes_nothing(shared: Kernel, where: str, code: str) -> None:
    shared.ok(PRESS_AT)
    shared.ok(
        "def arm(*args):\n    shell.events.unregister('post_run_cell', arm)\n"
        f"    press_at({where})\nasync def nothing(): pass"
    )
    # post_run_cell comes when the user's code has ended.
    cell = shared.run("shell.events.register('post_run_cell', arm)\n" + code if code == CELLS["plain"] else code)
    assert cell.ename is None
    assert cell.value == "'ran'"
    shared.expect_alive()


@pytest.mark.parametrize("method", ["__repr__", "_repr_html_"])
def test_a_press_in_the_display_of_a_value(shared: Kernel, method: str) -> None:
    shared.ok(
        "import signal\nclass Shown:\n"
        f"    def {method}(self):\n        signal.raise_signal(signal.SIGINT)\n        return 'shown'"
    )
    assert shared.run("Shown()").ename in ("KeyboardInterrupt", None)
    # ipykernel 7.4 alone would report each of these as failed.
    for _ in range(2):
        assert shared.ok("await asyncio.sleep(0); 'ran'").value == "'ran'"
    assert shared.run("await asyncio.sleep(0); 1 / 0").ename == "ZeroDivisionError"
    shared.expect_alive()


def test_a_press_between_the_statements_of_a_cell(shared: Kernel) -> None:
    shared.ok(
        "import signal\nclass Press:\n    def visit(self, tree):\n"
        "        get_ipython().ast_transformers.remove(self)\n"
        "        signal.raise_signal(signal.SIGINT)\n        return tree"
    )
    shared.ok("get_ipython().ast_transformers.append(Press())")
    assert shared.run("ran = 1\nran = 2").ename == "KeyboardInterrupt"
    assert shared.run("ran").ename == "NameError"
    shared.expect_alive()


@pytest.mark.parametrize("event", ["pre_run_cell", "post_run_cell"])
def test_a_hook_that_does_not_end(shared: Kernel, event: str) -> None:
    shared.ok(
        "import time\n%config NotebookRunner.interrupt_grace = 0.2\ncells = []\n"
        "def stuck(*args):\n    cells.append(1)\n"
        f"    if len(cells) == {2 if event == 'post_run_cell' else 1}:\n"
        f"        get_ipython().events.unregister('{event}', stuck)\n        print('go')\n        time.sleep(60)\n"
        f"get_ipython().events.register('{event}', stuck)"
    )
    cell = shared.begin("'ran'")
    shared.interrupted(cell, "go")
    shared.expect_alive()


def test_a_completion_that_does_not_end(shared: Kernel) -> None:
    shared.ok(
        "import time\n%config NotebookRunner.interrupt_grace = 0.2\n"
        "def stuck(*args):\n    print('go')\n    time.sleep(60)\n"
        "get_ipython().set_custom_completer(stuck)"
    )
    request = shared.track(shared.client.session.msg("complete_request", {"code": "ab", "cursor_pos": 2}))
    shared.interrupted(request, "go")
    shared.expect_alive()


def test_a_handler_of_the_users_stays_for_its_cell(shared: Kernel) -> None:
    set_it = "import signal\nsignal.signal(signal.SIGINT, lambda *args: print('mine'));\n"
    for code in ("", "await asyncio.sleep(0)\n"):
        assert shared.ok(set_it + code + "signal.raise_signal(signal.SIGINT)").stdout == "mine\n"
        shared.interrupted(shared.begin("print('go'); await asyncio.sleep(60)"), "go")
        shared.expect_alive()


def test_asyncio_run_finds_pythons_own_handler(shared: Kernel) -> None:
    assert shared.ok("import signal; signal.getsignal(signal.SIGINT) is signal.default_int_handler").value == "True"
    cell = shared.begin(
        "async def main():\n    try: print('go'); await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError: print('cancelled'); raise\nasyncio.run(main())"
    )
    shared.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "cancelled" in cell.stdout


def test_unloading_restores_the_kernel(fresh: Kernel) -> None:
    look = (
        "{'pre_handler_hook', '_cancel_on_sigint'} & {*vars(get_ipython().kernel)}, 'run_code' in vars(get_ipython())"
    )
    assert fresh.ok(look).value == "({'_cancel_on_sigint', 'pre_handler_hook'}, True)"
    fresh.ok("%unload_ext ipyrunner")
    assert fresh.ok(look).value == "(set(), False)"
    assert fresh.ok("import signal; signal.getsignal(signal.SIGINT) is signal.default_int_handler").value == "True"
    fresh.interrupted(fresh.begin("import time; print('go')\ntime.sleep(60)"), "go")
    fresh.ok("%load_ext ipyrunner")
    fresh.ok("await asyncio.sleep(0)")


def test_a_stuck_input_transformer_takes_a_second_press(fresh: Kernel) -> None:
    fresh.ok(
        "import time\n%config NotebookRunner.interrupt_grace = 0.2\n"
        "def stuck(lines):\n    get_ipython().input_transformers_post.clear()\n    print('go')\n    time.sleep(60)\n"
        "get_ipython().input_transformers_post.append(stuck)"
    )
    cell = fresh.begin("pass")
    fresh.wait_for(cell, "go")
    fresh.interrupt()
    fresh.look(1.2)
    assert not cell.idle  # once is not enough: the reply might be lost, as it is now
    fresh.interrupt()
    fresh.expect_alive()
    assert cell.idle


def test_another_runner_of_cells_finds_pythons_own_handler(shared: Kernel) -> None:
    # What trio.run looks for before it takes SIGINT over.
    shared.ok(
        "import signal; found = []\ndef runner(coro):\n"
        "    found.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "    try: coro.send(None)\n    except StopIteration as stop: return stop.value"
    )
    shared.ok("shell = get_ipython(); own = shell.loop_runner; shell.loop_runner = runner")
    shared.ok("import types\n@types.coroutine\ndef at_once():\n    return 1\n    yield")
    shared.ok("await at_once()")
    shared.ok("shell.loop_runner = own")
    assert shared.ok("found").value == "[True]"
    shared.expect_alive()


def test_a_press_while_output_is_flushed(fresh: Kernel) -> None:
    # Deterministic: SIGINT where threading.Event.wait has its lock and does not know it yet.
    fresh.ok(
        """
import signal, sys, threading
def trace(frame, event, arg):
    def local(frame, event, arg):
        if event == "return" and not pressed:
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)
        return local
    return local if frame.f_code is threading.Condition.__enter__.__code__ else None
pressed = []
"""
    )
    cell = fresh.run("sys.settrace(trace); sys.stdout.flush(); sys.settrace(None)")
    assert cell.ename == "KeyboardInterrupt"
    fresh.run("sys.settrace(None)")
    assert fresh.ok("len(pressed)").value == "1"
    fresh.expect_alive()


def test_requests_nest(fresh: Kernel) -> None:
    # A cell that runs the kernel's next request, as jupyter_ui_poll does, leaves no handler behind.
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.2")
    fresh.ok(
        "kernel = get_ipython().kernel\nasync def nested():\n"
        "    kernel.pre_handler_hook(); await asyncio.sleep(0); kernel.post_handler_hook()"
    )
    fresh.ok("await nested()")
    fresh.ok("kernel.pre_handler_hook(); kernel.post_handler_hook()")
    cell = fresh.ok("async def stuck():\n    print('go')\n    while True: pass\nt = asyncio.create_task(stuck())")
    fresh.wait_for(cell, "go")
    fresh.interrupt()
    fresh.wait_for(cell, "KeyboardInterrupt was raised in stuck()")
    fresh.expect_alive()


@pytest.mark.skipif(ipykernel.version_info < (7,), reason="subshells came with ipykernel 7")
def test_a_request_on_a_subshell_leaves_the_main_ones_alone(fresh: Kernel) -> None:
    created = fresh.client.session.msg("create_subshell_request")
    fresh.client.control_channel.send(created)
    subshell = fresh.client.get_control_msg(timeout=30)["content"]["subshell_id"]
    fresh.ok(
        "import threading\nfree = threading.Event()\nclass Slow:\n"
        "    def __repr__(self):\n        print('go')\n        free.wait(30)\n        return 'shown'"
    )
    cell = fresh.begin("Slow()")
    fresh.wait_for(cell, "go")
    request = fresh.client.session.msg("execute_request", {"code": "free.set()", "silent": False})
    request["header"]["subshell_id"] = subshell
    fresh.finish(fresh.track(request))
    assert fresh.finish(cell).value == "shown"


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


# Notes which stream waits for ipykernel's output thread to send.
FLUSHES = """
import asyncio, sys, threading
flushes = []
thread = get_ipython().kernel.iopub_thread
def schedule(function, schedule=thread.schedule):
    frame, callers = sys._getframe(), set()
    while frame is not None:
        callers.add(frame.f_code.co_name)
        frame = frame.f_back
    # On ipykernel 6 each request begins with a flush: what comes then has another header.
    if getattr(function, "__name__", "") == "_flush" and "set_parent" not in callers:
        flushes.append(function.__self__.name)
    schedule(function)
thread.schedule = schedule
"""
BODIES = {"plain": "{}", "awaiting": "await asyncio.sleep(0); {}", "%%arun": "%%arun\n{}"}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_kernel_waits_for_the_output_thread_only_if_something_was_printed(fresh: Kernel, body: str) -> None:
    fresh.ok(FLUSHES)
    fresh.ok(body.format("flushes.clear()"))
    assert fresh.ok("flushes").value == "[]"
    assert fresh.ok(body.format("flushes.clear(); print('out')")).stdout == "out\n"
    assert fresh.ok("flushes").value == "['stdout']"
    assert fresh.ok(body.format("flushes.clear(); print('err', file=sys.stderr)")).stderr == "err\n"
    assert fresh.ok("flushes").value == "['stderr']"


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_user_code_that_flushes_always_waits(fresh: Kernel, body: str) -> None:
    # It may end the process right after that.
    fresh.ok(FLUSHES)
    fresh.ok(body.format("flushes.clear(); sys.stdout.flush(); sys.stderr.flush()"))
    assert fresh.ok("flushes").value == "['stdout', 'stderr']"
    fresh.ok(body.format("flushes.clear(); t = threading.Thread(target=sys.stdout.flush); t.start(); t.join()"))
    assert fresh.ok("flushes").value == "['stdout']"


def test_user_code_outside_of_cells_always_waits(fresh: Kernel) -> None:
    fresh.ok(FLUSHES)
    # SIGINT has the handler that it has between requests.
    fresh.ok(
        "import signal\nbefore = signal.signal(signal.SIGINT, signal.SIG_IGN)\nflushes.clear()\nsys.stdout.flush()\n"
        "seen = list(flushes)\nbefore = signal.signal(signal.SIGINT, before)"
    )
    assert fresh.ok("seen").value == "['stdout']"
    fresh.ok("def hook(*_):\n    flushes.clear()\n    sys.stdout.flush()\n    seen[:] = flushes")
    fresh.ok("seen.clear(); get_ipython().events.register('post_run_cell', hook)")
    assert fresh.ok("get_ipython().events.unregister('post_run_cell', hook); seen").value == "['stdout']"


def test_a_flush_that_no_python_code_calls(fresh: Kernel) -> None:
    # As atexit's functions, and the interpreter itself at its end.
    fresh.ok(FLUSHES + "import _thread, time\nerrors = []\nsys.unraisablehook = errors.append")
    fresh.ok(
        "await asyncio.sleep(0); flushes.clear(); _thread.start_new_thread(sys.stdout.flush, ())\n"
        "while not (flushes or errors): time.sleep(0.01)\nseen = flushes[:1], errors[:]"
    )
    assert fresh.ok("seen").value == "(['stdout'], [])"


def test_a_stream_that_echoes_is_flushed(fresh: Kernel) -> None:
    fresh.ok(
        "import sys; echoed = []\nclass Echo:\n    def write(self, text): pass\n    def flush(self): echoed.append(1)\n"
        "sys.stdout.echo = Echo()"
    )
    fresh.ok("echoed.clear()")
    assert fresh.ok("bool(echoed)").value == "True"


def test_a_stream_of_which_it_is_not_known_is_flushed(fresh: Kernel) -> None:
    fresh.ok(FLUSHES)
    fresh.ok("del sys.stdout._flush_pending; flushes.clear()")
    assert "stdout" in (fresh.ok("flushes").value or "")


def test_a_press_in_a_flush_leaves_no_lock_behind(fresh: Kernel) -> None:
    fresh.ok(
        """
import signal, sys, threading
def trace(frame, event, argument):
    def local(frame, event, argument):
        if event == "return" and not pressed:
            pressed.append(frame.f_locals["self"])
            signal.raise_signal(signal.SIGINT)
        return local
    return local if frame.f_code is threading.Condition.__enter__.__code__ else None
pressed = []
thread = get_ipython().kernel.iopub_thread
def schedule(function, schedule=thread.schedule):
    schedule(function)
    event = getattr(function, "__self__", None)
    if isinstance(event, threading.Event) and sys.gettrace():  # set before it is waited for: then nobody else waits
        sys.settrace(None)
        event.wait(30)
        sys.settrace(trace)
thread.schedule = schedule
"""
    )
    assert fresh.run("sys.settrace(trace); sys.stdout.flush(); sys.settrace(None)").ename == "KeyboardInterrupt"
    fresh.run("sys.settrace(None); del thread.schedule")
    assert fresh.ok("len(pressed), pressed[0].acquire(blocking=False)").value == "(1, True)"
    fresh.expect_alive()
