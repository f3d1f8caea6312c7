"""``%atasks tree``: cells, the tasks that they have started, and what each waits for."""

from __future__ import annotations

import re

import pytest

from hostile import PRELUDE as HOSTILE
from ipyrunner.aio.introspection.frames import is_top_level
from kernels import CONCURRENT, Kernel

PRELUDE = """
import asyncio

def task(coro, name): return asyncio.create_task(coro, name=name)

async def settled():
    for _ in range(20): await asyncio.sleep(0)

async def nap(): await asyncio.sleep(3600)

named = {}
async def awaits(name): await named[name]
"""
# The number of a cell; its file, before IPython 8.0, in places; and an age.
CELL = re.compile(r"In\[\d+\]|\b\d+\.py")
AGE = re.compile(r"\b\d+\.\d s\b")


def drawn(k: Kernel, code: str = "%atasks tree") -> list[str]:
    """Return the lines, without ages and the numbers of cells."""
    text = AGE.sub("AGE", CELL.sub("In[N]", k.ok(code).value or ""))
    return text.splitlines()


def test_no_tasks(fresh: Kernel) -> None:
    assert drawn(fresh) == ["no tasks"]  # and no loop is made


def test_tasks_stand_below_who_waits_for_them_and_below_their_cells(shared: Kernel) -> None:
    shared.ok(PRELUDE + "leaf = task(nap(), 'leaf'); await settled()")
    shared.ok(
        "async def parent():\n    async with asyncio.TaskGroup() as g:\n        g.create_task(nap(), name='one')\n"
        "        g.create_task(asyncio.wait_for(leaf, 3600), name='two')\n"
        "async def gathers():\n    await asyncio.gather(task(nap(), 'three'), asyncio.shield(leaf))\n"
        "named['p'] = task(parent(), 'parent'); named['g'] = task(gathers(), 'gathers'); await settled()"
    )
    shared.ok("task(awaits('g'), 'last'); await settled()")
    lines = drawn(shared)
    assert [line.partition(":")[0] for line in lines] == [
        "In[N]",
        " └─ parent",
        "     ├─ one",
        "     └─ two",
        "         └─ leaf",
        "In[N]",
        " └─ last",
        "     └─ gathers",
        "         ├─ three",
        "         └─ leaf (shown elsewhere)",
    ]
    assert lines[1].startswith(
        " └─ parent: waiting, AGE, waits for one and two, In[N]:2 in parent: async with asyncio.TaskGroup() as g:"
    )
    assert lines[2].endswith("waits for a sleep of 3600 s, In[N]:8 in nap: async def nap(): await asyncio.sleep(3600)")
    assert lines[3].endswith("two: waiting, AGE, waits for leaf")
    assert "waits for leaf and three, In[N]:6 in gathers: " in lines[7]


def test_cells_that_run_are_roots(shared: Kernel) -> None:
    shared.ok(PRELUDE + "a = task(nap(), 'a'); await settled()")
    cell = shared.begin(
        "async def looks():\n    await settled()\n    print(get_ipython().run_line_magic('atasks', 'tree'), flush=True)\n"
        "    print('go')\nb = task(nap(), 'b'); task(looks(), 'looks')\nawait a"
    )
    shared.interrupted(cell, "go")
    lines = AGE.sub("AGE", CELL.sub("In[N]", cell.stdout)).splitlines()
    assert lines[:2] == ["In[N]: waiting, AGE, waits for a, In[N]:6: await a", lines[1]]
    assert lines[1].startswith(" ├─ a: waiting, AGE, waits for a sleep of 3600 s")
    assert lines[2].startswith(" ├─ b: waiting, AGE")
    assert lines[3] == " └─ looks: running, AGE"
    shared.expect_alive()
    assert drawn(shared, "await settled()\n%atasks tree")[-1] == "In[N]: running, AGE"


def test_a_cell_that_goes_on_in_the_background_is_a_root(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    shared.ok("%%arun --background\ntask(nap(), 'child')\nawait nap()")
    shared.ok("await settled()")
    lines = drawn(shared)
    assert lines[0].startswith("In[N]: waiting, AGE, waits for a sleep of 3600 s")
    assert [line.partition(":")[0] for line in lines] == ["In[N]", " └─ child"]


def test_a_task_of_no_cell_is_listed_last(shared: Kernel) -> None:
    shared.ok(
        PRELUDE
        + "import contextvars\nt = asyncio.get_event_loop().create_task(nap(), name='lost', context=contextvars.Context())"
    )
    shared.ok("a = task(nap(), 'a'); await settled()")
    assert [line.partition(":")[0] for line in drawn(shared)] == ["In[N]", " └─ a", "no cell", " └─ lost"]


WAITS = {
    "held lock": ("async def holds():\n    async with lock: await nap()\nt = task(holds(), 'h'); await settled()\nlock_it = True", "lock.acquire()", "the Lock that h holds"),
    "lock": ("await lock.acquire()", "lock.acquire()", "a Lock"),
    "own lock": ("async def twice():\n    async with lock:\n        async with lock: pass", "twice()", "the Lock that it holds itself"),
    "event": ("", "asyncio.Event().wait()", "an Event"),
    "semaphore": ("", "asyncio.Semaphore(0).acquire()", "a Semaphore"),
    "condition": ("async def notified():\n    async with c: await c.wait()\nc = asyncio.Condition()", "notified()", "a Condition"),
    "get": ("q = asyncio.Queue()", "q.get()", "Queue.get of a queue with 0 items"),
    "put": ("q = asyncio.PriorityQueue(1); q.put_nowait(1)", "q.put(2)", "Queue.put of a queue with 1 item"),
    "join": ("q = asyncio.Queue()\nfor n in range(3): q.put_nowait(n)", "q.join()", "Queue.join of a queue with 3 items"),
    "get, with a timeout": ("q = asyncio.LifoQueue()", "asyncio.wait_for(q.get(), 3600)", None),
    "sleep": ("", "asyncio.sleep(3600.25)", "a sleep of 3600.25 s"),
    "reader": ("r = asyncio.StreamReader()", "r.readline()", "StreamReader.readline"),
    "the first": ("ts = [task(nap(), n) for n in 'abcde']", "asyncio.wait(ts, return_when='FIRST_COMPLETED')", "the first of a, b, c and 2 more"),
    "a future": ("f = asyncio.get_running_loop().create_future()\nasync def on(f): await f", "on(f)", ""),
    "queue that raises": ("class Odd(asyncio.Queue):\n    def __init__(self): super().__init__(); self.odd = True\n"
                          "    _queue = property(lambda self: 1 / 0 if vars(self).get('odd') else [], lambda self, value: None)\n"
                          "q = Odd()\nasync def gets():\n    q.odd = False\n    try: await asyncio.Queue.get(q)\n    finally: q.odd = False", "gets()", None),
}  # fmt: skip


@pytest.mark.parametrize(("before", "coro", "words"), WAITS.values(), ids=WAITS)
def test_it_is_said_what_a_task_waits_for(shared: Kernel, before: str, coro: str, words: str | None) -> None:
    shared.ok(
        f"{PRELUDE}lock = asyncio.Lock()\n{before}\nasync def main(): await {coro}\nw = task(main(), 'w'); await settled()"
    )
    (line,) = (line for line in drawn(shared) if "─ w: " in line)
    what = re.search(r"waiting, AGE, (?:waits for (.+), )?In\[N\]:\d+ in ", line)
    assert what is not None, line
    assert words is None or (what[1] or "") == words


def test_a_circle_is_drawn_once(shared: Kernel) -> None:
    shared.ok("%config NotebookRunner.shutdown_timeout = 0.05")
    shared.ok(PRELUDE + "for n in range(3): named[n] = task(awaits((n + 1) % 3), f't{n}')\nawait settled()")
    shared.ok("task(awaits(1), 'outside'); await settled()")
    assert [line.partition(": waiting")[0] for line in drawn(shared)[:-1]] == [
        "In[N]",
        " └─ outside",
        "     └─ t1",
        "         └─ t2",
        "             └─ t0",
        "                 └─ t1 (shown elsewhere)",
    ]
    shared.ok("%arunner restart")
    shared.ok("%config NotebookRunner.shutdown_timeout = 2")


@pytest.mark.parametrize("n", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_tasks_are_a_short_tree(fresh: Kernel, n: int) -> None:
    fresh.ok(PRELUDE + f"event = asyncio.Event()\nts = [asyncio.create_task(event.wait()) for _ in range({n})]; None")
    fresh.ok(
        "async def all_of(): await asyncio.gather(*ts)\ng = task(all_of(), 'all of them'); other = task(nap(), 'other'); await settled()"
    )
    lines = drawn(fresh)
    assert len(lines) < 12
    assert lines[1].startswith(" ├─ all of them: waiting, AGE, waits for Task-")
    assert f" and {n - 3:,} more, In[N]:" in lines[1]
    assert lines[-2] == f" │   └─ and {n - 5:,} more: waiting, Event.wait"
    assert lines[-1].startswith(" └─ other: waiting")
    assert fresh.ok("event.set(); await g; 1").value == "1"


def test_many_that_await_one_gather_are_no_burden(fresh: Kernel) -> None:
    fresh.ok(
        PRELUDE
        + "g = asyncio.gather(*(nap() for _ in range(5_000)))\nasync def waits(): await g\n"
        + "w = task(waits(), 'w')\nawait settled()"
    )

    # Calls of functions and not seconds: the same on a machine that is slow.
    fresh.ok("""
import sys
def calls():
    number = 0
    def count(frame, event, argument):
        nonlocal number
        number += event == "call"
    sys.setprofile(count)
    try:
        get_ipython().run_line_magic("atasks", "tree")
    finally:
        sys.setprofile(None)
    return number
""")
    alone = int(fresh.ok("calls()").value or 0)
    assert alone > 5_000
    fresh.ok("ws = [task(waits(), f'w{n}') for n in range(100)]\nawait settled()")
    assert int(fresh.ok("calls()").value or 0) < 4 * alone
    lines = str(fresh.ok("%atasks tree").value).splitlines()
    assert any("and 4,995 more that are shown elsewhere" in line for line in lines)
    assert len(lines) < 70


def test_many_kinds_and_long_chains_are_short(shared: Kernel) -> None:
    shared.ok(
        PRELUDE
        + "named[0] = task(nap(), 't0')\nfor n in range(1, 2000): named[n] = task(awaits(n - 1), f't{n}')\nawait settled()"
    )
    lines = drawn(shared)
    assert len(lines) < 70
    assert lines[1].startswith(" └─ t1999: ")
    assert lines[-1] == "and 1,980 more tasks"
    shared.ok("%arunner restart")
    shared.ok(
        "for n in range(100):\n    exec(f'async def f{n}(): await nap()')\n    for m in range(3): task(globals()[f'f{n}'](), f'{n}-{m}')\n"
        "await settled()"
    )
    lines = drawn(shared)
    assert lines[-1] == " └─ and 271 more of 91 kinds"
    shown = sum("waiting, AGE" in line for line in lines)
    counted = sum(int(found[1]) for line in lines if (found := re.search(r"and (\d+) more", line)))
    assert shown + counted == 300
    assert shown == 20


@pytest.mark.parametrize("refusal", ["ZeroDivisionError", "KeyboardInterrupt", "SystemExit"])
def test_names_and_tasks_may_be_anything(shared: Kernel, refusal: str) -> None:
    shared.ok(
        f"{HOSTILE}{PRELUDE}REFUSAL = {refusal}\nclass Odd(asyncio.Task):\n    get_name = get_coro = __repr__ = refuse\n"
        "class Future(asyncio.Future):\n    done = cancelled = __hash__ = __repr__ = refuse\n"
        "async def on(future): await future\n"
        "o = Odd(nap(), loop=asyncio.get_event_loop())\nx = task(on(o), 'x')\n"
        "y = task(on(Future(loop=asyncio.get_event_loop())), 'y\\n\\x1b[31m' + 1000 * 'z')\nawait settled()"
    )
    lines = drawn(shared)
    assert lines[1].startswith(" ├─ x: waiting, AGE, waits for Task-")
    assert lines[2].startswith(" │   └─ Task-")
    assert lines[3].startswith(r" └─ y\n\x1b[31mzzz")
    assert len(lines) == 4
    assert all(len(line) < 300 for line in lines)


def test_a_class_may_refuse_its_name_and_a_task_may_be_uninitialised(shared: Kernel) -> None:
    shared.ok(
        f"{PRELUDE}class Meta(type): __name__ = property(lambda cls: 1 / 0)\n"
        "class Waits(metaclass=Meta):\n    def __init__(self): self.own = asyncio.get_event_loop().create_future().__await__()\n"
        "    def __await__(self): return self\n    def __next__(self): return next(self.own)\n"
        "async def on(): await Waits()\nx = task(on(), 'x')\nawait settled()\n"
        "raw = asyncio.Task.__new__(asyncio.Task); asyncio._register_task(raw)"
    )
    try:
        assert drawn(shared)[1].startswith(" └─ x: waiting")
        assert "  x  " in str(shared.ok("%atasks").value)
    finally:
        shared.ok("asyncio._unregister_task(raw)")


def test_the_tree_keeps_no_task(shared: Kernel) -> None:
    shared.ok(
        PRELUDE
        + "import gc, weakref\nclass Big: pass\nasync def returns(event):\n    await event.wait()\n    return Big()"
    )
    shared.ok("event = asyncio.Event(); t = task(returns(event), 't'); w = weakref.ref(t); await settled()")
    shared.ok("tree = %atasks tree")
    shared.ok("event.set(); await t; t = None; await settled(); gc.collect()")
    assert shared.ok("w() is None, 't: waiting' in repr(tree)").value == "(True, True)"


@pytest.mark.skipif(not CONCURRENT, reason="cells wait for each other")
def test_it_is_answered_while_a_cell_awaits(shared: Kernel) -> None:
    cell = shared.begin("import asyncio; print('go')\nawait asyncio.sleep(3600)")
    shared.wait_for(cell, "go")
    (line,) = drawn(shared)
    assert line == "In[N]: waiting, AGE, waits for a sleep of 3600 s, In[N]:2: await asyncio.sleep(3600)"
    shared.interrupted(cell, "go")
    shared.expect_alive()


@pytest.mark.parametrize("line", ["tree 3", "tree all", "tree -a", "-a tree"])
def test_it_takes_nothing(shared: Kernel, line: str) -> None:
    cell = shared.run(f"%atasks {line}")
    assert cell.ename == "UsageError"
    assert "shows all tasks that have not ended, and takes no TASK and no option" in cell.stderr


def test_a_timeout_is_for_wait(shared: Kernel) -> None:
    assert "is an option of wait" in shared.run("%atasks tree --timeout 3").stderr


def test_it_is_in_the_help(shared: Kernel) -> None:
    assert "%atasks tree" in shared.ok("%atasks --help").stdout


def test_a_function_in_a_lambda_is_no_cell() -> None:
    names = {"<module>": True, "<cell line: 1>": True, "<lambda>": False, "<lambda>.<locals>.inner": False, "f": False}
    assert {name: is_top_level(name) for name in names} == names
