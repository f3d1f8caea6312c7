"""``%atasks --live``: what the kernel sends to a view that is seen, and that it sends nothing to one that is not."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipykernel
import pytest

from hostile import PRELUDE
from ipyrunner.aio.introspection.loop_class import new_loop
from ipyrunner.aio.tasks.task_records import Started
from ipyrunner.ipython.magics.live import loop_watch
from ipyrunner.ipython.magics.live.loop_watch import LoopWatch
from ipyrunner.ipython.magics.live.snapshot import Snapshot, snapshot
from kernels import BEFORE, CONCURRENT, DEADLINE, Cell, Kernel, kernel

pytest.importorskip("anywidget")

SETUP = """
import asyncio, threading, time
async def fetch(n):
    await asyncio.sleep(1000)
def watchers():
    return [t.name for t in threading.enumerate() if t.name == "ipyrunner: live view"]
"""
needs_subshells = pytest.mark.skipif(ipykernel.version_info < (7,), reason="subshells came with ipykernel 7.0")
needs_comms_in_cells = pytest.mark.skipif(not CONCURRENT, reason="this ipykernel queues comm messages behind a cell")


class View:
    """One view of the widget: the half of it that is in the browser."""

    _numbers = itertools.count()

    def __init__(self, kernel: Kernel, comm_id: str) -> None:
        self.kernel = kernel
        self.comm_id = comm_id
        self.name = f"view {next(self._numbers)}"
        self.subshell: str | None = None

    def say(self, **content: Any) -> Cell:
        data = {"method": "custom", "content": content}
        return self.kernel.send_comm("comm_msg", {"comm_id": self.comm_id, "data": data}, subshell=self.subshell)

    def press(self, action: str, number: int, *, loop: int = 1) -> Cell:
        return self.say(type=action, number=number, loop=loop)

    def see(self, seen: bool = True) -> None:
        self.say(type="seen", view=self.name, seen=seen)

    def received(self, kind: str) -> list[dict[str, Any]]:
        contents = [m["data"].get("content", {}) for m in self.kernel.comm_messages if m["comm_id"] == self.comm_id]
        return [content for content in contents if content.get("type") == kind]

    def wait(self, kind: str, condition: Callable[[dict[str, Any]], bool] = lambda message: True) -> dict[str, Any]:
        """Wait for a message that is not there yet and that meets the condition."""
        self.kernel.comm_messages.clear()
        self.kernel.wait_until(lambda: any(map(condition, self.received(kind))))
        return next(filter(condition, self.received(kind)))

    def wait_for_rows(self, *expected: tuple[int, str]) -> dict[str, Any]:
        """Wait until these are the rows: how deep, and the name."""
        return self.wait("tasks", lambda m: [(row["depth"], row["name"]) for row in m["rows"]] == [*expected])


def display(kernel: Kernel) -> View:
    cell = kernel.ok("%atasks --live")
    data = next(m["content"]["data"] for m in cell.messages if m["msg_type"] == "execute_result")
    return View(kernel, data["application/vnd.jupyter.widget-view+json"]["model_id"])


@pytest.fixture(scope="module")
def _kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("live")) as started:
        yield started.settled()


@pytest.fixture
def live(_kernel: Kernel) -> Iterator[Kernel]:
    yield _kernel.renewed(SETUP)
    _kernel.ok("get_ipython().magics_manager.registry['TaskMagics'].close()")


@pytest.fixture
def end(live: Kernel, tmp_path: Path) -> Iterator[Path]:
    """A file that is not there yet: what blocks the loop until it is."""
    end = tmp_path / "end"
    yield end
    end.touch()


def named(live: Kernel, prefix: str = "") -> str:
    """Run a cell that does nothing, and return its name."""
    return f"In[{live.ok(prefix + 'None').reply['execution_count']}]"  # type: ignore[index]


def test_tasks_stand_below_their_cell_and_below_the_task_that_waits_for_them(live: Kernel) -> None:
    view = display(live)
    cell = named(live, "a = asyncio.create_task(fetch(1), name='a')\n"
        "async def wait():\n    await a\n"
        "b = asyncio.create_task(wait(), name='b'); await asyncio.sleep(0)\n")  # fmt: skip
    view.see()
    message = view.wait_for_rows((0, cell), (1, "b"), (2, "a"))
    past, b, a = message["rows"]
    assert (past["kind"], b["kind"], a["kind"]) == ("past", "task", "task")
    assert (a["state"], b["state"], message["total"], message["rest"]) == ("waiting", "waiting", 2, "")
    assert re.fullmatch(r"\S+:\d+ in fetch: await asyncio.sleep\(1000\)", a["where"])
    assert a["age"] >= 0
    assert message["lags"]
    assert message["pause"] > 0


def test_tasks_that_wait_for_each_other_are_named(live: Kernel) -> None:
    view = display(live)
    view.see()
    assert view.wait("tasks")["deadlocks"] == []
    live.ok("""
async def wait(name): await tasks[name]
tasks = {}
for name, other in ("ab", "ba"): tasks[name] = asyncio.create_task(wait(other), name=name)
await asyncio.sleep(0)
""")
    message = view.wait("tasks", lambda m: m["deadlocks"])
    assert re.match(r"deadlock: a waits for b \(\S+:1\), b waits for a \(\S+:1\)$", message["deadlocks"][0])
    assert {row["name"] for row in message["rows"]} >= {"a", "b"}


PARENT = """
async def parent():
    asyncio.create_task(fetch(1), name='child')
    await asyncio.sleep(1000)
p = asyncio.create_task(parent(), name='parent')
await asyncio.sleep(0); await asyncio.sleep(0)
"""


def test_tasks_stand_below_the_task_that_has_started_them(live: Kernel) -> None:
    view = display(live)
    view.see()
    view.wait_for_rows()  # from here on it is known who starts whom
    cell = named(live, PARENT)
    view.wait_for_rows((0, cell), (1, "parent"), (2, "child"))


def test_it_is_known_on_the_next_loop_too_who_starts_whom(live: Kernel) -> None:
    view = display(live)
    view.see()
    view.wait("tasks", lambda m: m["lags"])
    live.ok("%arunner close")
    view.wait("tasks", lambda m: not m["lags"])
    live.ok("await asyncio.sleep(0)")
    view.wait("tasks", lambda m: m["lags"])
    cell = named(live, PARENT)
    view.wait_for_rows((0, cell), (1, "parent"), (2, "child"))


def test_what_an_earlier_cell_has_started_stands_below_what_waits_for_it(live: Kernel) -> None:
    # All cells run in one task: the present one is that which has started both.
    view = display(live)
    view.see()
    view.wait_for_rows()
    first = named(live, "a = asyncio.create_task(fetch(1), name='a')\n"
        "async def wait():\n    await a\n"
        "b = asyncio.create_task(wait(), name='b'); await asyncio.sleep(0)\n")  # fmt: skip
    cell = live.begin("print('go'); await asyncio.sleep(1000)")
    live.wait_for(cell, "go")
    message = view.wait("tasks", lambda m: [row["kind"] for row in m["rows"]] == ["past", "task", "task", "cell"])
    assert [(row["depth"], row["name"]) for row in message["rows"]][:3] == [(0, first), (1, "b"), (2, "a")]
    live.interrupt()
    assert live.finish(cell).ename == "KeyboardInterrupt"


@needs_comms_in_cells
def test_it_shows_what_a_cell_awaits_while_it_does_and_cancels_a_task_of_it(live: Kernel) -> None:
    view = display(live)
    view.see()
    cell = live.begin(
        "one, two = asyncio.create_task(fetch(1), name='one'), asyncio.create_task(fetch(2), name='two')\n"
        "await asyncio.wait([one, two], return_when='FIRST_COMPLETED')\n"
        "print(one.cancelled(), two.done()); two.cancel()"
    )
    message = view.wait("tasks", lambda m: len(m["rows"]) == 3)
    _, one, two = message["rows"]
    assert [(row["kind"], row["depth"]) for row in message["rows"]] == [("cell", 0), ("task", 1), ("task", 1)]
    assert (one["name"], two["name"]) == ("one", "two")
    view.press("cancel", one["number"])
    assert live.finish(cell).stdout == "True False\n"
    live.expect_alive()


@needs_comms_in_cells
def test_its_buttons_end_a_cell_and_send_one_to_the_background(live: Kernel) -> None:
    view = display(live)
    view.see()
    for action in ("cancel", "background"):
        cell = live.begin(f"done = False\nprint('{action}')\nawait asyncio.sleep(1000)")
        live.wait_for(cell, action)
        row = view.wait("tasks", lambda m: [row["kind"] for row in m["rows"]] == ["cell"])["rows"][0]
        view.press(action, row["number"])
        assert live.finish(cell).ename == ("CancelledError" if action == "cancel" else None)
        assert cell.traceback.endswith("cancelled by %atasks --live" if action == "cancel" else "")
        live.expect_alive()
    view.wait("tasks", lambda m: [row["kind"] for row in m["rows"]] == ["task"])  # its cell, which stands for itself


def test_a_cell_in_the_background_stands_for_itself(live: Kernel) -> None:
    view = display(live)
    view.see()
    begin = "%%arun --background\nasyncio.create_task(fetch(1), name='child')\n"
    cell = named(live, begin + "await asyncio.sleep(1000); ")
    message = view.wait_for_rows((0, cell), (1, "child"))
    assert [row["kind"] for row in message["rows"]] == ["task", "task"]


@needs_comms_in_cells
def test_it_and_a_progress_bar_show_the_same_tasks(live: Kernel) -> None:
    view = display(live)
    view.see()
    cell = live.begin("""%%arun --progress
one, two = [asyncio.create_task(fetch(n), name=f"fetch {n}") for n in range(2)]
await asyncio.wait([one, two], return_when="FIRST_COMPLETED")
print(one.cancelled())
two.cancel()
""")
    rows = view.wait("tasks", lambda m: len(m["rows"]) == 3)["rows"]
    assert [row["name"] for row in rows[1:]] == ["fetch 0", "fetch 1"]
    view.press("cancel", rows[1]["number"])
    assert "True" in live.finish(cell).stdout
    live.expect_alive()


@needs_comms_in_cells
def test_it_is_displayed_at_once_while_a_cell_awaits(live: Kernel) -> None:
    cell = live.begin("print('go'); await asyncio.sleep(1000)")
    live.wait_for(cell, "go")
    view = display(live)
    view.see()
    view.wait("tasks", lambda m: [row["kind"] for row in m["rows"]] == ["cell"])
    live.interrupt()
    assert live.finish(cell).ename == "KeyboardInterrupt"
    live.expect_alive()


def test_an_error_of_ours_ends_it_and_is_reported_once(live: Kernel) -> None:
    live.ok("import ipyrunner.ipython.magics.live.view as module; working = module.snapshot")
    live.ok("module.snapshot = lambda *args, **options: 1 / 0")
    view = display(live)
    cell = live.begin("print('go'); await asyncio.sleep(2)")
    live.wait_for(cell, "go")
    view.see()
    wait_for_its_end(live)
    live.ok("module.snapshot = working")
    view.see()
    view.wait("tasks")


def test_it_says_where_the_loop_is_blocked_and_that_it_runs_again(live: Kernel, end: Path) -> None:
    view = display(live)
    view.see()
    view.wait("tasks")
    cell = live.begin(f"""
import os
def crunch():
    while not os.path.exists({str(end)!r}):
        pass
async def busy():
    crunch()
await busy()
""")
    message = view.wait("blocked", lambda m: "crunch" in m["where"])
    assert re.fullmatch(r" in crunch\(\), \S+:[34]", message["where"]), message
    assert message["seconds"] >= 1
    view.wait("blocked", lambda m: m["seconds"] > message["seconds"] and "crunch" in m["where"])
    end.touch()
    live.finish(cell)
    assert max(view.wait("tasks")["lags"]) >= 1000
    live.expect_alive()


def test_a_cell_without_await_that_keeps_the_tasks_waiting_is_named(live: Kernel, end: Path) -> None:
    view = display(live)
    view.see()
    view.wait("tasks")
    cell = live.begin(f"import os\n\nwhile not os.path.exists({str(end)!r}):\n    pass")
    message = view.wait("blocked")
    assert re.fullmatch(r" in \S+:[23]", message["where"]), message
    end.touch()
    live.finish(cell)
    view.wait("tasks")


def test_a_view_that_nobody_sees_costs_nothing(live: Kernel) -> None:
    view = display(live)
    assert live.ok("watchers()").value == "[]"
    view.see()
    view.wait("tasks")
    assert live.ok("watchers()").value == "['ipyrunner: live view']"
    view.see(False)
    wait_for_its_end(live)
    # Nor does the making of tasks.
    assert live.ok("import ipyrunner; ipyrunner.get_runner().current.tasks._watchers").value == "[]"
    view.see()
    view.wait("tasks")


def wait_for_its_end(live: Kernel) -> None:
    assert live.ok(f"""
for thread in threading.enumerate():
    if thread.name == "ipyrunner: live view":
        await asyncio.to_thread(thread.join, {DEADLINE})
watchers()
""").value == "[]"  # fmt: skip


def test_a_view_whose_page_has_gone_without_a_word_ends(live: Kernel) -> None:
    live.ok("import ipyrunner.ipython.magics.live.view as module; seen, module._SEEN = module._SEEN, 0.3")
    view = display(live)
    view.see()
    view.wait("tasks")
    live.wait_until(lambda: live.ok("watchers()").value == "[]")
    live.ok("module._SEEN = seen")


@needs_comms_in_cells
def test_such_a_view_ends_while_a_cell_awaits_too(live: Kernel) -> None:
    view = display(live)
    view.see()
    view.wait("tasks")
    cell = live.begin("""
import ipyrunner.ipython.magics.live.view as module
seen, module._SEEN = module._SEEN, 0.3
print("go")
for thread in threading.enumerate():
    if thread.name == "ipyrunner: live view":
        await asyncio.to_thread(thread.join)
module._SEEN = seen
""")
    live.wait_for(cell, "go")
    view.see()
    live.finish(cell)


def test_a_cell_that_awaits_does_not_end_a_view_that_it_keeps_from_being_heard(live: Kernel) -> None:
    live.ok("import ipyrunner.ipython.magics.live.view as module; seen, module._SEEN = module._SEEN, 0.3")
    view = display(live)
    view.see()
    cell = live.begin("print('go'); await asyncio.sleep(1000)")
    live.wait_for(cell, "go")
    for _ in range(3):
        view.wait("tasks")
    live.interrupt()
    assert live.finish(cell).ename == "KeyboardInterrupt"
    live.ok("module._SEEN = seen")


def test_a_blocked_loop_is_not_reported_to_a_view_that_nobody_sees(live: Kernel) -> None:
    view = display(live)
    live.ok("from ipyrunner.ipython.magics.live.loop_watch import Blocked")
    say = "get_ipython().magics_manager.registry['TaskMagics']._view._say_blocked(Blocked(9.0, None, None, 0))"
    live.ok(say)
    assert not view.received("blocked")
    view.see()
    view.wait("tasks")
    live.ok(say)
    assert view.received("blocked")


def test_a_view_whose_loop_was_closed_ends_when_it_is_no_longer_seen(live: Kernel, end: Path) -> None:
    view = display(live)
    view.see()
    view.wait("tasks", lambda m: m["lags"])
    # A thread says so: a cell would make a loop, and a message of the view's too.
    live.ok(f"""
def tell(watcher):
    watcher.join()
    open({str(end)!r}, "w").close()
for thread in threading.enumerate():
    if thread.name == "ipyrunner: live view":
        threading.Thread(target=tell, args=(thread,), daemon=True).start()
seen = get_ipython().magics_manager.registry['TaskMagics']._view._seen
seen.update(dict.fromkeys(seen, 0.0))
%arunner close
""")
    live.wait_until(end.exists)


def test_ten_copies_are_one_view_and_end_with_the_last_of_them(live: Kernel) -> None:
    views = [display(live) for _ in range(10)]
    assert len({view.comm_id for view in views}) == 1
    for view in views:
        view.see()
    views[0].wait("tasks")
    for view in views[1:]:
        view.see(False)
    assert live.ok("len(get_ipython().magics_manager.registry['TaskMagics']._view._seen)").value == "1"
    views[0].wait("tasks")
    views[0].see(False)
    wait_for_its_end(live)


def test_a_closed_view_is_silent_and_the_next_one_is_another(live: Kernel) -> None:
    view = display(live)
    view.see()
    view.wait("tasks")
    live.ok("get_ipython().magics_manager.registry['TaskMagics'].close()")
    assert live.ok("await asyncio.sleep(0); watchers()").value in ("[]", "['ipyrunner: live view']")
    wait_for_its_end(live)
    view.see()  # a message that has crossed it
    another = display(live)
    assert another.comm_id != view.comm_id
    another.see()
    another.wait("tasks")
    assert not view.received("tasks")


def test_a_view_that_the_page_has_closed_is_made_anew(live: Kernel) -> None:
    # As JupyterLab does that was loaded before anywidget was installed.
    view = display(live)
    live.finish_comm(live.send_comm("comm_close", {"comm_id": view.comm_id, "data": {}}))
    another = display(live)
    assert another.comm_id != view.comm_id
    another.see()
    another.wait("tasks")


def test_it_goes_on_with_the_next_loop(live: Kernel) -> None:
    view = display(live)
    cell = named(live, "a = asyncio.create_task(fetch(1), name='a'); await asyncio.sleep(0)\n")
    view.see()
    view.wait_for_rows((0, cell), (1, "a"))
    live.ok("%arunner close")
    view.wait_for_rows()
    cell = named(live, "b = asyncio.create_task(fetch(1), name='b'); await asyncio.sleep(0)\n")
    view.wait_for_rows((0, cell), (1, "b"))


@pytest.mark.parametrize("n", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_of_many_tasks_some_are_shown_and_the_others_are_counted(live: Kernel, n: int) -> None:
    view = display(live)
    live.ok(f"tasks = [asyncio.create_task(fetch(n), name=f'fetch {{n}}') for n in range({n})]; await asyncio.sleep(0)")
    live.ok("""
async def ends_slowly():
    try:
        await fetch(0)
    finally:
        await fetch(0)
slow = asyncio.create_task(ends_slowly(), name='slow'); await asyncio.sleep(0)
slow.cancel(); await asyncio.sleep(0)
""")
    view.see()
    message = view.wait("tasks", lambda m: m["total"] > n)
    assert len(message["rows"]) <= 60
    assert ("slow", "cancelling") in [(row["name"], row["state"]) for row in message["rows"]]
    left = rf"{n // 1000 - 1},9\d\d"
    assert re.fullmatch(f"and {left} more: {left} waiting", message["rest"])
    view.see(False)
    wait_for_its_end(live)


@pytest.mark.parametrize("error", ["Exception", "SystemExit"])
def test_hostile_names_and_tasks(live: Kernel, error: str) -> None:
    live.ok(
        PRELUDE.replace("REFUSAL", error)
        + """
class Odd(asyncio.tasks._PyTask):
    get_name = get_coro = cancel = cancelling = refuse
class Name(str):
    __str__ = __len__ = refuse
loop = asyncio.get_event_loop()
loop.set_task_factory(lambda loop, coro, **options: Odd(coro, loop=loop))
"""
    )
    view = display(live)
    view.see()
    view.wait("tasks")
    live.ok("odd = asyncio.ensure_future(fetch(0)); await asyncio.sleep(0)")
    live.ok(
        "loop.set_task_factory(None); kept_names = [asyncio.create_task(fetch(1), name=n) for n in ('<b>x</b>', 'y' * 10_000_000, '\\x1b[31m\\udc80')]; await asyncio.sleep(0)"
    )
    message = view.wait("tasks", lambda m: m["total"] >= 4)
    names = [row["name"] for row in message["rows"]]
    assert "<b>x</b>" in names
    assert "\\x1b[31m\\udc80" in names
    assert all(len(name) <= 60 for name in names)
    for row in message["rows"]:
        view.press("cancel", row["number"])
    view.wait("tasks", lambda m: not {"<b>x</b>"} & {row["name"] for row in m["rows"]})
    live.expect_alive()


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        {},
        {"type": "seen"},
        {"type": "seen", "view": 5, "seen": True},
        {"type": "cancel", "number": 1},
        {"type": "cancel", "number": "x", "loop": 1},
        {"type": "cancel", "number": 10**9, "loop": 1},
        {"type": "background", "number": 10**9, "loop": 1},
    ],
    ids=str,
)
def test_odd_messages_change_nothing(live: Kernel, content: Any) -> None:
    view = display(live)
    live.finish_comm(
        live.send_comm("comm_msg", {"comm_id": view.comm_id, "data": {"method": "custom", "content": content}})
    )
    assert live.ok("watchers()").value == "[]"
    view.see()
    view.wait("tasks")


def test_a_task_that_is_no_cell_cannot_go_to_the_background(live: Kernel) -> None:
    view = display(live)
    live.ok("a = asyncio.create_task(fetch(1), name='a'); await asyncio.sleep(0)")
    view.see()
    row = view.wait("tasks", lambda m: m["total"] == 1)["rows"][1]
    view.press("background", row["number"])
    assert view.wait("done")["text"] == "a is no cell that awaits"
    live.expect_alive()


@pytest.mark.parametrize("action", ["cancel", "background"])
def test_a_button_of_a_task_that_has_ended_says_so(live: Kernel, action: str) -> None:
    view = display(live)
    live.ok(
        "import ipyrunner; a = asyncio.create_task(asyncio.sleep(0), name='a'); number = ipyrunner.tasks()[-1].number; await a"
    )
    number = int(live.ok("number").value or "")
    view.see()
    view.wait("tasks", lambda m: m["loop"] == 1)
    view.press(action, number)
    assert view.wait("done")["text"] == f"task {number} has ended"


@needs_subshells
def test_a_button_that_is_pressed_while_the_loop_is_blocked_takes_effect_afterwards(
    fresh: Kernel, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    fresh.ok(SETUP + "import ipyrunner, os; a = asyncio.create_task(fetch(1), name='a'); await asyncio.sleep(0)")
    number = int(fresh.ok("ipyrunner.tasks()[-1].number").value or "")
    view = display(fresh)
    view.subshell = fresh.create_subshell()
    view.see()  # ipykernel sends a widget's first message to the main thread
    view.wait("tasks")
    cell = fresh.begin(f"print('go'); await asyncio.sleep(0)\nwhile not os.path.exists({str(end)!r}): pass")
    fresh.wait_for(cell, "go")
    fresh.comm_messages.clear()
    fresh.finish_comm(view.press("cancel", number))  # by a thread: the cell still runs
    assert not cell.idle
    assert [each["text"] for each in view.received("done")] == [f"task {number}: as soon as the loop runs again"]
    end.touch()
    fresh.finish(cell)
    fresh.wait_until(lambda: view.received("done")[-1]["text"] == "cancelling a")
    assert fresh.ok("await asyncio.wait([a]); a.cancelled()").value == "True"


def test_a_button_that_was_drawn_for_the_loop_before_ends_no_task_of_this_one(live: Kernel) -> None:
    view = display(live)
    view.see()
    begin = "{0} = asyncio.create_task(fetch(1), name='{0}'); await asyncio.sleep(0)"
    live.ok(begin.format("a"))
    before = view.wait("tasks", lambda m: m["total"] == 1)
    live.ok("%arunner restart")
    live.ok(begin.format("b"))
    now = view.wait("tasks", lambda m: [row["name"] for row in m["rows"][1:]] == ["b"])
    number = before["rows"][1]["number"]
    assert number == now["rows"][1]["number"]
    view.press("cancel", number, loop=before["loop"])
    assert view.wait("done")["text"] == f"task {number} has ended"
    view.press("cancel", number, loop=now["loop"])
    assert view.wait("done")["text"] == "cancelling b"
    assert live.ok("await asyncio.wait([b]); b.cancelled()").value == "True"


def test_its_text_is_the_table(live: Kernel) -> None:
    live.ok("a = asyncio.create_task(fetch(1), name='a'); await asyncio.sleep(0)")
    cell = live.ok("%atasks --live")
    assert re.search(r"^\d+ +a +waiting", cell.value or "", re.MULTILINE)


def test_where_nobody_looks_it_is_the_table(live: Kernel) -> None:
    cell = live.run("%atasks --live", allow_stdin=False)
    result = next(m["content"]["data"] for m in cell.messages if m["msg_type"] == "execute_result")
    assert result == {"text/plain": "no tasks", "text/html": "<p>no tasks</p>"}


def test_unloading_ends_it(tmp_path: Path) -> None:
    with kernel(tmp_path) as fresh:
        fresh.ok(BEFORE + SETUP)
        view = display(fresh)
        view.see()
        view.wait("tasks")
        fresh.ok("%unload_ext ipyrunner")
        fresh.ok("[t.join() for t in threading.enumerate() if t.name == 'ipyrunner: live view']")
        assert fresh.ok("watchers()").value == "[]"


@pytest.mark.parametrize("line", ["--live -a", "--live cancel all", "--live show 3"])
def test_it_stands_alone(live: Kernel, line: str) -> None:
    cell = live.run(f"%atasks {line}")
    assert cell.ename == "UsageError" or "UsageError" in cell.stderr
    live.expect_alive()


def test_without_anywidget_the_error_names_it(live: Kernel) -> None:
    hide = "import sys; hidden = sys.modules.pop('ipyrunner.ipython.magics.live.view', None)"
    cell = live.run(f"{hide}; sys.modules['anywidget'] = None\nget_ipython().run_line_magic('atasks', '--live')")
    assert "%pip install anywidget" in cell.stderr + cell.traceback
    live.ok("del sys.modules['anywidget']")
    live.expect_alive()


# -- in this process: what is left out, and the thread that asks


def shown(tasks: list[asyncio.Task[Any]]) -> Snapshot:
    entries = [Started(task, number, 0.0) for number, task in enumerate(tasks, 1)]
    return snapshot(entries, cells=[], parent_of=lambda task: None, name_file=str)


@pytest.mark.parametrize("number", [300, 400])  # all are looked at closely, or some
def test_of_tasks_that_are_alike_five_are_shown_and_all_others_are_counted(number: int) -> None:
    async def main() -> Snapshot:
        tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in range(number)]
        await asyncio.sleep(0)
        return shown(tasks)

    found = asyncio.run(main())
    assert [row["kind"] for row in found["rows"]] == ["past"] + 5 * ["task"]
    assert found["total"] == number
    assert found["rest"] == f"and {number - 5} more: {number - 5} waiting"


def test_of_tasks_that_are_not_alike_no_more_rows_are_shown_than_can_be_read() -> None:
    async def follow(task: asyncio.Task[Any]) -> None:
        await task

    async def main() -> Snapshot:
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(asyncio.sleep(60))]
        for _ in range(99):
            tasks.append(asyncio.create_task(follow(tasks[-1])))
        await asyncio.sleep(0)
        return shown(tasks)

    found = asyncio.run(main())
    assert [row["depth"] for row in found["rows"]] == [*range(60)]
    assert found["rest"] == "and 41 more: 41 waiting"


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_it_begins_again_though_the_thread_that_it_has_ended_is_still_there(loop: asyncio.AbstractEventLoop) -> None:
    asks, go_on = threading.Event(), threading.Event()

    def get_loop() -> asyncio.AbstractEventLoop:
        asks.set()
        assert go_on.wait(DEADLINE)
        return loop

    async def main() -> None:
        answered = asyncio.Event()
        watch = LoopWatch(get_loop, answer=answered.set, blocked=lambda blocked: None, gone=lambda: None)
        watch.start()
        try:
            assert asks.wait(DEADLINE)
            watch.stop()
            watch.start()
            go_on.set()
            await asyncio.wait_for(answered.wait(), DEADLINE)
        finally:
            go_on.set()
            watch.stop()

    loop.run_until_complete(main())


def test_the_next_loop_is_asked_though_the_one_before_has_not_answered(loop: asyncio.AbstractEventLoop) -> None:
    # As after `%arunner restart`: nobody runs the loop before any more.
    present, answers = loop, list[asyncio.AbstractEventLoop]()
    watch = LoopWatch(
        lambda: present,
        answer=lambda: answers.append(asyncio.get_running_loop()),
        blocked=pytest.fail,
        gone=pytest.fail,  # type: ignore[arg-type]
    )
    watch._ask()
    present = new_loop()
    try:
        watch._ask()
        turn(present)
        turn(loop)  # it is late
        assert answers == [present]
    finally:
        present.close()


def test_an_answer_that_takes_long_is_asked_for_less_often(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, answers = 100.0, 0
    monkeypatch.setattr(loop_watch, "time", SimpleNamespace(monotonic=lambda: now))

    def answer() -> None:
        nonlocal now, answers
        now += 1
        answers += 1

    def ask() -> int:
        watch._ask()
        turn(loop)
        return answers

    watch = LoopWatch(lambda: loop, answer=answer, blocked=pytest.fail, gone=pytest.fail)  # type: ignore[arg-type]
    assert ask() == 1
    assert ask() == 1
    now += 19
    assert ask() == 1
    now += 1
    assert ask() == 2


def test_the_lag_is_measured_between_the_answers_too(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(loop_watch, "time", SimpleNamespace(monotonic=lambda: now))

    def answer() -> None:
        nonlocal now
        now += 1  # so that the next one is due in 20 s

    seen: list[float] = []
    watch = LoopWatch(lambda: loop, answer=answer, blocked=lambda b: seen.append(b.seconds), gone=pytest.fail)  # type: ignore[arg-type]
    watch._ask()
    turn(loop)
    for _ in range(11):  # the loop is blocked for 5 s
        watch._ask()
        now += 0.5
    turn(loop)
    assert max(watch.lags) == 5.5
    assert max(seen) == 5
