"""Interrupts in a real kernel where the mechanisms meet: runs inside runs, no threads, signal handlers of the user's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import AT_REST, DEADLINE, Kernel
from setups import SETUPS, kernel_on


@pytest.fixture(params=[*SETUPS, "message"])
def k(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernel]:
    with kernel_on(request.param, tmp_path) as started:
        yield started
        started.expect_alive()


def only(kernel: Kernel) -> None:
    """Interrupt the kernel's process alone: a front end signals its child processes as well."""
    os.kill(kernel.manager.provisioner.pid, signal.SIGINT)


GREENLET = """
import greenlet
other = asyncio.new_event_loop()
def run():
    other.call_soon(main.switch)
    other.run_forever()
main = greenlet.getcurrent()
fiber = greenlet.greenlet(run)
fiber.switch()
"""


@pytest.mark.parametrize("where", ["await asyncio.sleep(0); wait()", "await asyncio.create_task(child())"])
def test_one_interrupt_ends_a_loop_in_a_greenlet(k: Kernel, where: str) -> None:
    # As sync Playwright has one: begun in a cell without await, waited in by one that awaits.
    pytest.importorskip("greenlet")
    k.ok(GREENLET)
    k.ok("def wait():\n    print('go')\n    fiber.switch()\nasync def child(): wait()")
    cell = k.begin(where)
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    k.ok("other.close()")


def test_one_interrupt_ends_what_sync_playwright_waits_for(fresh: Kernel) -> None:
    pytest.importorskip("playwright")
    chromium = next((p for p in ("/usr/bin/chromium", "/usr/bin/google-chrome") if os.path.exists(p)), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    fresh.ok(
        "from playwright.sync_api import sync_playwright\np = sync_playwright().start()\n"
        f"page = p.chromium.launch(executable_path={chromium!r}, args=['--no-sandbox']).new_page()\n"
        "page.set_content('<p>shown</p>')",
        timeout=90,
    )
    cell = fresh.begin("await asyncio.sleep(0)\nprint('go')\npage.wait_for_selector('#never', timeout=0)")
    fresh.wait_for(cell, "go")
    only(fresh)
    fresh.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    assert fresh.ok("await asyncio.sleep(0.01); id(asyncio.get_running_loop()) == loop_id, kept").value == (
        "(True, 'kept')"
    )


NO_THREADS = """
import _thread, threading
def refuse(*args, **kwargs): raise RuntimeError("can't start new thread")
for module, name in ((_thread, "start_new_thread"), (threading, "_start_new_thread"), (_thread, "start_joinable_thread"),
                     (threading, "_start_joinable_thread")):
    if hasattr(module, name): setattr(module, name, refuse)
"""


def test_where_no_thread_can_be_started(fresh: Kernel) -> None:
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.3")
    ticking = "async def tick():\n    while True: await asyncio.sleep(0.01)\nt = asyncio.create_task(tick())"
    fresh.ok(ticking)
    fresh.ok(NO_THREADS)
    for code in (
        "print('go'); await asyncio.sleep(60)",
        "import time; print('go'); time.sleep(60)",
        "await asyncio.sleep(0); print('go')\nwhile True: pass",
    ):
        cell = fresh.begin(code)
        fresh.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        fresh.expect_alive()
    for _ in range(6):  # between cells
        only(fresh)
        fresh.expect_alive()
    # In the kernel's own code around a cell.
    fresh.ok(
        "import signal\ndef press(*args):\n    get_ipython().events.unregister('post_run_cell', press)\n"
        "    signal.raise_signal(signal.SIGINT)\nget_ipython().events.register('post_run_cell', press)"
    )
    assert fresh.ok("'ran'").value == "'ran'"
    assert fresh.ok("t.done()").value == "False"
    fresh.expect_alive()


RING = (
    AT_REST
    + """
import signal
came, path = 0, None
def ring(signum, frame):
    global came
    if not at_rest(frame): return ring_soon()
    came += 1
    if path: open(path, 'w').write(str(came))
    raise ValueError(f'ring {came}')
def ring_soon(): signal.setitimer(signal.ITIMER_REAL, 0.02)
signal.signal(signal.SIGALRM, ring)
"""
)


def test_signal_handlers_that_raise_now_and_then_do_not_break_the_loop(k: Kernel) -> None:
    if "uvloop" in (k.ok("asyncio.get_event_loop()").value or ""):
        pytest.skip(
            "what is raised in socket.socketpair(), which uvloop calls when it begins to run, breaks it for good"
        )
    started = k.ok(RING + "t = asyncio.create_task(asyncio.sleep(600)); None")
    k.ok("t.cancel(); await asyncio.sleep(0)")  # nothing that it could be raised in but the loop itself
    for n in range(1, 8):
        assert k.run(f"ring_soon()\nwhile came < {n}: await asyncio.sleep(30)").ename == "ValueError"
        assert k.ok("came").value == str(n)
    assert "cannot run any more" not in started.stdout
    k.expect_alive()


def test_several_that_raise_while_the_kernel_is_idle(fresh: Kernel) -> None:
    came = fresh.log.parent / "came"
    fresh.ok(RING + f"path = {str(came)!r}; t = asyncio.create_task(asyncio.sleep(600)); None")
    for n in range(1, 8):
        fresh.ok("ring_soon()")
        fresh.wait_until(lambda n=n: came.exists() and came.read_text() == str(n))
    cell = fresh.ok("t.done()")
    assert cell.value == "False"
    assert cell.stdout == ""
    fresh.expect_alive()


def test_c_code_that_keeps_the_gil_needs_a_second_press(fresh: Kernel) -> None:
    fresh.ok("%config NotebookRunner.interrupt_grace = 0.3\nimport re")
    begun = fresh.log.parent / "begun"  # printing takes the GIL
    cell = fresh.begin(f"await asyncio.sleep(0); open({str(begun)!r}, 'w').close()\nre.match('(a+)+$', 'a' * 60 + 'b')")
    fresh.wait_until(begun.exists)
    deadline = time.monotonic() + DEADLINE
    while not (cell.idle and cell.reply):  # a press is lost where the cell has not come to it
        assert time.monotonic() < deadline
        only(fresh)
        fresh.look(0.5)
    assert cell.ename == "KeyboardInterrupt"
    fresh.expect_alive()
