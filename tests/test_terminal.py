"""IPython in a real terminal: cells, Ctrl-C, and what ends."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals on Windows", allow_module_level=True)
from terminals import CONTROL_C, CONTROL_D, Terminal, expect_alive, out


def test_cells_share_loop_and_context(either: Terminal) -> None:
    assert out(either.run("await asyncio.sleep(0.01); asyncio.get_running_loop() is loop")) == "True"
    assert out(either.run("asyncio.run(asyncio.sleep(0.01, 42))")) == "42"
    assert out(either.run("%arun asyncio.sleep(0.01, 43)")) == "43"
    either.run("import contextvars; v = contextvars.ContextVar('v'); v.set(1);")
    either.run("await asyncio.sleep(0); v.set(v.get() + 1);")
    assert out(either.run("v.get()")) == "2"


def test_cells_run_in_one_task(either: Terminal) -> None:
    either.run("await asyncio.sleep(0); main = asyncio.current_task()")
    either.run(
        "group = asyncio.TaskGroup(); await group.__aenter__(); t = group.create_task(asyncio.sleep(0.01, 'of a task'))"
    )
    assert out(either.run("await group.__aexit__(None, None, None); t.result()")) == "'of a task'"
    assert out(either.run("await asyncio.sleep(0); asyncio.current_task() is main")) == "True"


def test_a_cell_awaits_a_cell(either: Terminal) -> None:
    either.run("source = 'await asyncio.sleep(0.01); inner = asyncio.get_running_loop() is loop'")
    either.run("result = await get_ipython().run_cell_async(source, transformed_cell=source)")
    assert out(either.run("result.success, inner")) == "(True, True)"


def test_control_c_ends_the_await_and_nothing_else(either: Terminal) -> None:
    either.run("bystander = asyncio.create_task(asyncio.sleep(3600)); await asyncio.sleep(0)")
    either.begin(
        "try: print('g' + 'o'); await asyncio.sleep(60)\nfinally: await asyncio.sleep(0.01); print('cle' + 'an')\n"
    )
    either.wait_for("go")
    either.type(CONTROL_C)
    output = either.finish()
    assert "KeyboardInterrupt" in output
    assert "clean\n" in output
    expect_alive(either)
    assert out(either.run("bystander.done()")) == "False"


def test_the_live_table_is_drawn_again_until_control_c(either: Terminal) -> None:
    either.run("ended = asyncio.Event()")
    either.run("async def end(): await asyncio.sleep(1); second.cancel()")
    either.run("first, second = [asyncio.create_task(asyncio.sleep(3600), name=n) for n in ('first', 'second')]")
    either.run("ender = asyncio.create_task(end(), name='ender'); await asyncio.sleep(0)")
    either.begin("%atasks --live")
    either.wait_for("Ctrl-C ends the view")
    rows = lambda: re.findall(r"^\d+ +(\S+)", either.text.rpartition("%atasks --live")[2], re.MULTILINE)  # noqa: E731
    either.wait(lambda: rows() == ["first"], "one row")
    either.type(CONTROL_C)
    output = either.finish()
    assert "Traceback" not in output
    assert "Out[" not in output  # the table is not shown once more
    assert out(either.run("first.done()")) == "False"
    expect_alive(either)


def test_the_live_table_is_drawn_once_in_a_cell_that_awaits(terminal: Terminal) -> None:
    # The view blocks, so it would end what the cell waits for.
    terminal.run("first = asyncio.create_task(asyncio.sleep(3600), name='first'); await asyncio.sleep(0)")
    shown = out(terminal.run("await asyncio.sleep(0); get_ipython().run_line_magic('atasks', '--live')"))
    assert re.search(r"^\d+ +first +waiting", shown, re.MULTILINE)
    assert "Ctrl-C" not in shown
    expect_alive(terminal)


def test_without_rich_the_live_table_is_drawn_once(terminal: Terminal) -> None:
    terminal.run("import sys; sys.modules['rich.live'] = None")
    assert out(terminal.run("%atasks --live")) == "no tasks"
    expect_alive(terminal)


@pytest.mark.parametrize(
    "code", ["print('g' + 'o', {0}); await asyncio.sleep(60)", "%arun print('g' + 'o', {0}) or asyncio.sleep(60)"]
)
def test_control_c_goes_to_the_cell_and_not_to_the_next_prompt(either: Terminal, code: str) -> None:
    for n in range(3):
        either.begin(code.format(n))
        either.wait_for(f"\ngo {n}")
        either.type(CONTROL_C)
        assert "KeyboardInterrupt" in either.finish()
        expect_alive(either)
    assert "escaped interact()" not in either.text


def test_control_c_twice_ends_a_cell_that_swallows_the_first(terminal: Terminal) -> None:
    terminal.begin(
        "for n in range(2):\n    try: print('go', n); await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError: print('swallowed', n)\nawait asyncio.sleep(60)"
    )
    terminal.wait_for("\ngo 0")
    terminal.type(CONTROL_C)
    terminal.wait_for("\ngo 1")
    pressed = time.monotonic()
    terminal.type(CONTROL_C)
    output = terminal.finish()
    assert time.monotonic() - pressed < 20
    assert "KeyboardInterrupt" in output
    assert "still runs" in output
    expect_alive(terminal)
    assert "In[3]" in terminal.run("%atasks")


def test_signal_handlers_of_the_loop_are_called_in_later_cells(terminal: Terminal) -> None:
    # prompt_toolkit has had the wakeup fd since.
    terminal.run("import os, signal; event = asyncio.Event(); loop.add_signal_handler(signal.SIGUSR1, event.set)")
    assert out(terminal.run("os.kill(os.getpid(), signal.SIGUSR1); await asyncio.wait_for(event.wait(), 20)")) == "True"


# -- what ends


def test_restart_and_close_and_unload_leave_prompts_that_work(terminal: Terminal) -> None:
    terminal.run("async def say(): await asyncio.sleep(0.01); print('sa' + 'id', kept)")
    for number, code in enumerate(["%arunner restart", "%arunner close", "%reload_ext ipyrunner"]):
        terminal.run(code)
        terminal.run(f"kept = {number}; task = asyncio.create_task(say())")
        terminal.wait_for(f"\nsaid {number}\n")
    terminal.run("%unload_ext ipyrunner")
    assert (
        out(terminal.run("'prompt_for_code' in vars(get_ipython()), get_ipython().pt_app.app.pre_run_callables"))
        == "(False, [])"
    )
    assert "True" in terminal.run("task.done()")


@pytest.mark.parametrize("last", ["exit\r", CONTROL_D])
def test_the_end_finalizes_tasks(either: Terminal, last: str) -> None:
    either.run(
        "async def left():\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0.01); print('final' + 'ized')\n"
    )
    either.run("t = asyncio.create_task(left()); await asyncio.sleep(0)")
    either.type(last)
    assert either.wait_for_exit() == 0
    assert "finalized" in either.text


def test_embed(tmp_path: Path) -> None:
    # Functions defined at such a prompt see the script's globals alone.
    script = "import asyncio, IPython\nIPython.embed(using='asyncio', display_banner=False, confirm_exit=False)\nprint('after')\n"
    (tmp_path / "script.py").write_text(script)
    terminal = Terminal(tmp_path, "script.py")
    try:
        terminal.run("%load_ext ipyrunner")
        terminal.run(
            "async def say():\n    print('sa' + 'id')\n    try: await asyncio.sleep(60)\n    finally: print('cle' + 'an')"
        )
        terminal.run("task = asyncio.create_task(say())")
        terminal.wait_for("\nsaid\n")
        terminal.type(CONTROL_D)
        assert terminal.wait_for_exit() == 0
        assert terminal.text.endswith("after\nclean")
    finally:
        terminal.close()


def test_the_end_waits_no_longer_than_shutdown_timeout(terminal: Terminal) -> None:
    terminal.run("%config NotebookRunner.shutdown_timeout = 0.5")
    terminal.run(
        "async def stubborn():\n    while True:\n        try: await asyncio.sleep(60)\n        except asyncio.CancelledError: pass\n"
        "task = asyncio.create_task(stubborn(), name='stubborn'); await asyncio.sleep(0)"
    )
    began = time.monotonic()
    terminal.type("exit\r")
    assert terminal.wait_for_exit() == 0
    assert time.monotonic() - began < 20
    assert "the task stubborn was cancelled, but did not end" in terminal.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_end_it_on_the_spot_as_without_the_extension(terminal: Terminal, number: int) -> None:
    os.kill(terminal.pid, number)
    assert os.WTERMSIG(terminal.wait_for_exit()) == number


def test_tab_completes_the_lines_of_magics(terminal: Terminal) -> None:
    terminal.run("crawl = asyncio.create_task(asyncio.sleep(60), name='crawl_of_pages'); await asyncio.sleep(0);")
    terminal.type("%atasks canc")
    terminal.wait_for("%atasks canc")
    terminal.type("\t")
    terminal.wait_for("%atasks cancel")
    terminal.type(" crawl_o")
    terminal.wait_for("%atasks cancel crawl_o")
    terminal.type("\t")
    terminal.wait_for("%atasks cancel crawl_of_pages")
    assert "cancelling 1 task (crawl_of_pages)" in terminal.run("")


def test_nothing_of_a_loop_that_the_user_has_closed_is_reported_as_destroyed(either: Terminal) -> None:
    for code in ("import gc; await asyncio.sleep(0)", "loop.close()", "await asyncio.sleep(0)", "gc.collect();"):
        either.run(code)
    either.run("t = asyncio.create_task(asyncio.sleep(3600)); asyncio.get_event_loop().close()")
    either.run("await asyncio.sleep(0)")
    either.begin("exit")
    assert either.wait_for_exit() == 0
    assert "destroyed" not in either.log
