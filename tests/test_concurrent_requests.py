"""The kernel answers while a cell awaits: completion, inspection, history and the like."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipykernel
import pytest

from kernels import DEADLINE, RUNNER_KERNEL, Cell, Kernel, kernel

REQUESTS: dict[str, dict[str, Any]] = {
    "kernel_info_request": {},
    "complete_request": {"code": "new_vari", "cursor_pos": 8},
    "inspect_request": {"code": "new_variable", "cursor_pos": 5, "detail_level": 0},
    "is_complete_request": {"code": "for x in y:"},
    "history_request": {"output": False, "raw": True, "hist_access_type": "tail", "n": 3},
    "comm_info_request": {},
}
ANSWERS = ipykernel.version_info >= (7,)
only_7 = pytest.mark.skipif(not ANSWERS, reason="ipykernel 6 has a queue of its own: requests wait for the cell")
AWAITING = (
    "import asyncio\nnew_variable = 5\ngo_on = asyncio.Event()\nprint('go')\nawait go_on.wait()\nprint('went on')"
)


@pytest.fixture(scope="module", params=["ipykernel's", "ipyrunner"])
def _kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython"), *[RUNNER_KERNEL] * (request.param == "ipyrunner")) as started:
        yield started


@pytest.fixture
def k(_kernel: Kernel) -> Iterator[Kernel]:
    yield _kernel
    _kernel.expect_alive()


def ask(k: Kernel, name: str, content: dict[str, Any] | None = None) -> Cell:
    return k.track(k.client.session.msg(name, REQUESTS[name] if content is None else content))


@only_7
def test_requests_are_answered_while_a_cell_awaits(k: Kernel) -> None:
    cell = k.begin(AWAITING)
    k.wait_for(cell, "go")
    queued = k.begin("new_variable")
    answers = {}
    for name in REQUESTS:
        asked = ask(k, name)
        k.finish(asked)
        assert asked.statuses == ["busy", "idle"]
        assert asked.reply is not None
        assert asked.reply["status"] == ("incomplete" if name == "is_complete_request" else "ok")
        answers[name] = asked.reply
    assert answers["complete_request"]["matches"] == ["new_variable"]  # one of the cell that runs
    assert "int" in answers["inspect_request"]["data"]["text/plain"]
    assert not cell.idle
    assert set(cell.statuses) == {"busy"}
    assert queued.reply is None
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    k.finish(queued)


@only_7
def test_what_belongs_to_the_cell_stays_there(k: Kernel, tmp_path: Path) -> None:
    k.ok("class Prints:\n    def __repr__(self):\n        print('looked at'); return 'shown'\nprints = Prints()")
    enough = tmp_path / "enough"  # when input() asks, the kernel does not answer
    cell = k.begin(
        f"""
import asyncio, os, threading
ticks = 0
async def tick():
    global ticks
    while not os.path.exists({str(enough)!r}):
        print('tick'); ticks += 1
        await asyncio.sleep(0.01)
print('go')
await asyncio.create_task(tick())
thread = threading.Thread(target=print, args=('thread',))
thread.start(); thread.join()
display('displayed')
print(ticks)
answer = input('question')
print('asked', answer)
'value'
""",
        allow_stdin=True,
    )
    k.wait_for(cell, "go")
    asked = []
    for _ in range(20):
        asked.append(ask(k, "inspect_request", {"code": "prints", "cursor_pos": 5, "detail_level": 0}))
        k.finish(asked[-1])
    enough.touch()
    question = k.client.get_stdin_msg(timeout=20)
    assert question["parent_header"]["msg_id"] == cell.msg_id
    assert question["content"]["prompt"] == "question"
    k.client.input("reply")
    k.finish(cell)
    assert cell.value == "'value'"
    ticks = cell.stdout.count("tick\n")
    assert cell.stdout == "go\n" + ticks * "tick\n" + f"thread\n{ticks}\nasked reply\n"
    shown = [m for m in cell.messages if m["msg_type"] == "display_data"]
    assert [m["content"]["data"]["text/plain"] for m in shown] == ["'displayed'"]
    assert {each.stdout for each in asked} == {"looked at\n"}
    assert all(each.reply and "shown" in each.reply["data"]["text/plain"] for each in asked)


@only_7
def test_requests_that_wait_keep_apart(k: Kernel) -> None:
    # As those of a kernel whose handlers await: the second begins before the first has ended, and ends after it.
    k.ok("""
import asyncio
begun, ended, kernel = [], [], get_ipython().kernel
async def do_complete(code, cursor_pos):
    begun.append(code)
    while len(begun) < 2 if code == 'first' else not ended: await asyncio.sleep(0.01)
    ended.append(code)
    return {'status': 'ok', 'matches': [code], 'cursor_start': 0, 'cursor_end': 0, 'metadata': {}}
kernel.do_complete = do_complete
""")
    cell = k.begin(AWAITING)
    k.wait_for(cell, "go")
    asked = [ask(k, "complete_request", {"code": code, "cursor_pos": 0}) for code in ("first", "second")]
    for each, code in zip(asked, ("first", "second"), strict=True):
        k.finish(each)
        assert each.reply is not None
        assert each.reply["matches"] == [code]
    k.interrupt()
    k.finish(cell)  # its status is the cell's
    assert cell.ename == "KeyboardInterrupt"
    k.ok("del kernel.do_complete")
    for _ in range(2):  # SIGINT is the cell's again
        k.interrupted(k.begin("print('go'); await asyncio.sleep(60)"), "go")
        k.expect_alive()


@only_7
def test_one_interrupt_is_the_cells_while_a_request_waits(k: Kernel) -> None:
    k.ok("""
import asyncio
kernel, release, done = get_ipython().kernel, asyncio.Event(), []
async def do_complete(code, cursor_pos):
    print('waits')
    while not done: await asyncio.sleep(0.01)
    return {'status': 'ok', 'matches': [code], 'cursor_start': 0, 'cursor_end': 0, 'metadata': {}}
kernel.do_complete = do_complete
""")
    cell = k.begin(AWAITING)
    k.wait_for(cell, "go")
    asked = ask(k, "complete_request")
    k.wait_for(asked, "waits")
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    for _ in range(2):
        k.interrupted(k.begin("print('go'); await asyncio.sleep(60)"), "go")
        k.expect_alive()
    k.ok("done.append(1)")
    k.finish(asked)
    k.ok("del kernel.do_complete")


@only_7
def test_a_stream_that_cannot_be_flushed_does_not_keep_a_request_busy(k: Kernel) -> None:
    k.ok("import sys\nstream = sys.stdout\nclass Odd:\n    def write(self, text): pass\n    def flush(self): 1 / 0")
    cell = k.begin("import asyncio\nprint('go'); sys.stdout.flush()\nsys.stdout = Odd()\ntry: await asyncio.sleep(60)\n"
                   "finally: sys.stdout = stream")  # fmt: skip
    k.wait_for(cell, "go")
    k.finish(ask(k, "kernel_info_request"))
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"


@only_7
def test_an_interrupt_is_for_the_cell_and_not_for_the_request(k: Kernel) -> None:
    k.ok(
        "import time\nclass Slow:\n    def __repr__(self):\n        print('looking')\n        end = time.monotonic() + 1\n"
        "        while time.monotonic() < end: pass\n        return 'shown'\nslow = Slow()"
    )
    cell = k.begin(AWAITING)
    k.wait_for(cell, "go")
    asked = ask(k, "inspect_request", {"code": "slow", "cursor_pos": 2, "detail_level": 0})
    k.wait_for(asked, "looking")
    k.interrupt()
    k.finish(asked)
    assert asked.reply is not None
    assert "shown" in asked.reply["data"]["text/plain"]
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"


@only_7
@pytest.mark.parametrize("name", ["inspect_request", "complete_request"])
def test_a_second_interrupt_ends_a_request_that_does_not_end(k: Kernel, name: str) -> None:
    k.ok(
        "class Endless:\n    def __repr__(self):\n        print('looking')\n        while True: pass\n"
        "    __dir__ = __repr__\nendless = Endless()"
    )
    cell = k.begin(AWAITING)
    k.wait_for(cell, "go")
    content = {"code": "endless." if "complete" in name else "endless", "detail_level": 0}
    asked = ask(k, name, {**content, "cursor_pos": len(content["code"])})
    k.wait_for(asked, "looking")
    deadline = time.monotonic() + DEADLINE
    while not (cell.idle and cell.reply):  # two that come at once are one
        assert time.monotonic() < deadline
        k.interrupt()
        k.look(0.5)
    assert cell.ename == "KeyboardInterrupt"


@only_7
@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt"])
def test_a_request_may_raise_anything(k: Kernel, error: str) -> None:
    k.ok(
        f"class Raises:\n    def __repr__(self): raise {error}\n    def __dir__(self): raise {error}\nraises = Raises()"
    )
    cell = k.begin(AWAITING)
    k.wait_for(cell, "go")
    for name, content in (
        ("inspect_request", {"code": "raises", "cursor_pos": 2, "detail_level": 1}),
        ("complete_request", {"code": "raises.", "cursor_pos": 7}),
        ("complete_request", {"code": 5}),
        ("inspect_request", {}),
    ):
        asked = ask(k, name, content)
        k.wait_until(lambda asked=asked: asked.idle)
    k.finish(ask(k, "kernel_info_request"))
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"


def test_requests_are_answered_after_the_cell_at_the_latest(k: Kernel) -> None:
    cell = k.begin("import time; print('go'); time.sleep(1); new_variable = 6")
    k.wait_for(cell, "go")
    asked = [ask(k, name) for name in REQUESTS]
    for each in asked:
        k.finish(each)
        assert cell.reply is not None
    k.finish(cell)


@only_7
def test_without_the_extension_the_kernel_does_it_itself(fresh: Kernel) -> None:
    fresh.ok("%unload_ext ipyrunner")
    cell = fresh.begin(AWAITING.replace("await go_on.wait()", "await asyncio.sleep(0.5)"))
    fresh.wait_for(cell, "go")
    asked = ask(fresh, "kernel_info_request")
    fresh.finish(asked)
    assert cell.stdout == "go\nwent on\n"
    fresh.ok("%load_ext ipyrunner")
    cell = fresh.begin(AWAITING)
    fresh.wait_for(cell, "go")
    fresh.finish(ask(fresh, "complete_request"))
    assert cell.reply is None
    fresh.interrupt()
    fresh.finish(cell)
