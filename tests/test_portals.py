"""``ipyrunner.await_``: wait in code that is not async."""

from __future__ import annotations

import pytest

from kernels import Kernel

PRELUDE = "import ipyrunner, asyncio\ndef f(n): return [ipyrunner.await_(asyncio.sleep(0.01, i)) for i in range(n)]\n"


@pytest.fixture
def k(shared: Kernel) -> Kernel:
    shared.ok(PRELUDE)
    return shared


def test_in_a_cell_without_await(k: Kernel) -> None:
    assert k.ok("f(3)").value == "[0, 1, 2]"
    for code in ("ipyrunner.await_(asyncio.sleep)", "await asyncio.sleep(0); ipyrunner.await_(asyncio.sleep)"):
        cell = k.run(code)
        assert cell.ename == "TypeError"
        assert "'function' cannot be awaited. Pass a coroutine (the call of an async function)" in cell.traceback
    cell = k.begin("print('go'); ipyrunner.await_(asyncio.sleep(60))")
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    k.expect_alive()


@pytest.mark.parametrize("call", ["f(3)", "get_ipython().run_line_magic('arun', 'asyncio.sleep(0.01)')"])
def test_in_a_cell_that_awaits_it_needs_a_portal(k: Kernel, call: str) -> None:
    cell = k.run(f"await asyncio.sleep(0); {call}")
    assert cell.ename == "RuntimeError"
    assert "greenback.ensure_portal()" in cell.traceback
    assert "never awaited" not in cell.stderr
    k.expect_alive()


def test_with_a_portal(k: Kernel) -> None:
    pytest.importorskip("greenback")
    k.ok("import greenback; await greenback.ensure_portal()")
    k.ok(
        "ticks = 0\nasync def tick():\n    global ticks\n    while True: await asyncio.sleep(0.001); ticks += 1\nt = asyncio.create_task(tick())"
    )
    assert k.ok("await asyncio.sleep(0); f(3)").value == "[0, 1, 2]"
    assert k.ok("%%arun\nx = %arun asyncio.sleep(0.01, 5)\nx, ticks > 3").value == "(5, True)"
    assert (
        k.run("await asyncio.sleep(0)\nasync def g(): raise ValueError('inner')\nipyrunner.await_(g())").ename
        == "ValueError"
    )
    cell = k.begin(
        "await asyncio.sleep(0); print('go')\ntry: ipyrunner.await_(asyncio.sleep(60))\nfinally: print('cleaned')"
    )
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert cell.stdout == "go\ncleaned\n"
    k.expect_alive()
    assert k.ok("t.done()").value == "False"


def test_on_another_thread(k: Kernel) -> None:
    cell = k.run("import threading, concurrent.futures as c\nwith c.ThreadPoolExecutor() as p: p.submit(f, 1).result()")
    assert cell.ename == "RuntimeError"
    k.expect_alive()
