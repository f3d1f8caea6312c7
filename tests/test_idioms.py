"""What people write in notebooks and scripts to run async code: it works as it stands."""

from __future__ import annotations

import sys

import pytest

from kernels import BEFORE, Kernel

PRELUDE = BEFORE + "async def main():\n    await asyncio.sleep(0.01)\n    return 'main has run'\n"
RUN = "import asyncio\nprint(loop.run_until_complete(main()))"
IDIOMS = {
    "the current loop": f"loop = asyncio.get_event_loop()\n{RUN}",
    "a new loop": f"loop = asyncio.new_event_loop()\n{RUN}\nloop.close()",
    "a new loop that is set": f"loop = asyncio.new_event_loop()\nasyncio.set_event_loop(loop)\n{RUN}\nloop.close()",
    "run": "print(asyncio.run(main()))",
    "a runner": "with asyncio.Runner() as runner: print(runner.run(main()))",
    "anyio": "import anyio\nprint(anyio.run(main))",
    "run_forever, and stop": (
        "loop = asyncio.get_event_loop()\ntask = loop.create_task(main())\n"
        "task.add_done_callback(lambda task: loop.stop())\nloop.run_forever()\nprint(task.result())"
    ),
    "a thread with a loop": (
        "import threading\nother = asyncio.new_event_loop()\n"
        "thread = threading.Thread(target=other.run_forever, daemon=True); thread.start()\n"
        "print(asyncio.run_coroutine_threadsafe(main(), other).result(30))\n"
        "other.call_soon_threadsafe(other.stop); thread.join(30); other.close()"
    ),
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms_work_in_a_plain_cell(shared: Kernel, idiom: str) -> None:
    shared.ok(PRELUDE)
    shared.ok("asyncio.set_event_loop(asyncio.get_event_loop())")
    assert shared.ok(IDIOMS[idiom]).stdout == "main has run\n"
    shared.expect_alive()


@pytest.mark.parametrize("module", ["nest_asyncio", "nest_asyncio2"])
def test_nest_asyncio_is_harmless(fresh: Kernel, module: str) -> None:
    if module == "nest_asyncio" and sys.version_info >= (3, 14):
        pytest.skip("nest_asyncio does not work with Python 3.14")
    fresh.ok(PRELUDE)
    assert fresh.ok(f"import {module}\n{module}.apply()\nprint(asyncio.run(main()))").stdout == "main has run\n"
    assert fresh.ok("await main()").value == "'main has run'"
    fresh.expect_alive()


def test_the_loop_may_be_closed_after_a_run(fresh: Kernel) -> None:
    fresh.ok(PRELUDE)
    fresh.ok("loop = asyncio.get_event_loop()\nloop.run_until_complete(main())\nloop.close()")
    assert fresh.ok("await main()").value == "'main has run'"
    assert fresh.ok("asyncio.get_event_loop().run_until_complete(main()), kept").value == "('main has run', 'kept')"


def test_a_task_that_nobody_awaits_as_the_last_line(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    shared.ok("async def told():\n    print(await main())")
    for first_line in ("", "%%arun\n", "await asyncio.sleep(0)\n"):
        shared.wait_for(shared.ok(f"{first_line}asyncio.create_task(told())"), "main has run\n")
    shared.expect_alive()


FOREVER = {
    "run_forever": "loop.call_later(0.1, print, 'serving')\nloop.run_forever()",
    "run_app": "web.run_app(app, port=0, print=lambda text: print('serving', flush=True))",
}


@pytest.mark.parametrize("forever", FOREVER)
def test_what_runs_for_ever_ends_by_the_interrupt(shared: Kernel, forever: str) -> None:
    shared.ok(PRELUDE)
    shared.ok("from aiohttp import web\napp = web.Application()\nloop = asyncio.get_event_loop()")
    cell = shared.begin(FOREVER[forever])
    shared.interrupted(cell, "serving")
    assert cell.ename in (None, "KeyboardInterrupt")  # run_app ends as a script's does
    shared.expect_alive()
