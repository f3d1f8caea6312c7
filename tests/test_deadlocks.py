"""Tasks that wait for each other: named where that is certain, and there alone; also of a cell that is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from hostile import PRELUDE as HOSTILE
from ipyrunner.aio.tasks.waits import deadlocks as deadlocks_module
from ipyrunner.aio.tasks.waits.deadlocks import Waits, _held_by, deadlock_of
from ipyrunner.aio.tasks.waits.entered_contexts import entered
from kernels import CONCURRENT, Kernel, kernel

PRELUDE = """
import asyncio, contextlib

def task(coro, name): return asyncio.create_task(coro, name=name)

async def settled():
    for _ in range(20): await asyncio.sleep(0)

async def awaits(name): await named[name]

async def locks(first, second):
    async with first:
        await asyncio.sleep(0)
        async with second: pass

async def holds(lock, name):
    async with lock: await named[name]

async def enters(lock):
    async with lock: pass

async def nap(): await asyncio.sleep(3600)

@contextlib.asynccontextmanager
async def guarded(lock):
    async with lock: yield

named = {}
A, B = asyncio.Lock(), asyncio.Lock()
"""

# What each cell starts, and the circle that it makes.
TWO = "a waits for the lock that b holds, b waits for the lock that a holds"
PARENT = "named['p'] = task({}, 'p')"
CIRCLES = {
    "with callbacks of one's own": (
        "s = set()\nfor n, x, y in ('a', A, B), ('b', B, A):\n    t = task(locks(x, y), n); s.add(t)\n"
        "    t.add_done_callback(s.discard); t.add_done_callback(lambda t: None)",
        TWO,
    ),
    "await": (
        "for n, other in ('a', 'b'), ('b', 'c'), ('c', 'a'): named[n] = task(awaits(other), n)",
        "a waits for b, b waits for c, c waits for a",
    ),
    "locks": ("task(locks(A, B), 'a'); task(locks(B, A), 'b'); task(enters(A), 'c')", TWO),
    "one lock": ("task(locks(A, A), 'a')", "a waits for the lock that it holds itself"),
    "conditions": ("A, B = asyncio.Condition(), asyncio.Condition()\ntask(locks(A, B), 'a'); task(locks(B, A), 'b')", TWO),
    "in a context manager": (
        "async def both(x, y):\n    async with guarded(x):\n        await asyncio.sleep(0)\n        async with guarded(y): pass\n"
        "task(both(A, B), 'a'); task(both(B, A), 'b')",
        TWO,
    ),
    "in loops, other blocks and handlers": (
        "@contextlib.asynccontextmanager\nasync def session():\n    with contextlib.nullcontext(): yield\n"
        "async def odd(x, y):\n    for _ in range(2):\n        try:\n            async with session(), x as nothing:\n"
        "                with contextlib.suppress(ValueError), open('/dev/null'):\n                    try: 1 / 0\n"
        "                    except ZeroDivisionError:\n                        await asyncio.sleep(0)\n"
        "                        async with session(), y: pass\n        finally: pass\n"
        "task(odd(A, B), 'a'); task(odd(B, A), 'b')",
        TWO,
    ),
    "a lock and a task": (
        "named['b'] = task(enters(A), 'b'); await A.acquire(); A.release()\n"
        "named['a'] = task(holds(B, 'b2'), 'a'); named['b2'] = task(enters(B), 'b2')",
        "a waits for b2, b2 waits for the lock that a holds",
    ),
    "gather": (
        "async def parent(): await asyncio.gather(task(awaits('p'), 'c2'), task(awaits('p'), 'c'))\n" + PARENT.format("parent()"),
        "p waits for c2, c2 waits for p",
    ),
    "gather in gather": (
        "async def parent():\n    inner = asyncio.gather(task(awaits('p'), 'c'), return_exceptions=True)\n"
        "    await asyncio.gather(nap(), inner, return_exceptions=True)\n"
        + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "shield": (
        "async def parent(): await asyncio.shield(task(awaits('p'), 'c'))\n" + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "wait": (
        "async def parent(): await asyncio.wait([task(nap(), 'n'), task(awaits('p'), 'c')])\n" + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "wait for the first, of which all are stuck": (
        "async def parent(): await asyncio.wait([task(awaits('p'), 'c') for _ in range(3)], return_when='FIRST_COMPLETED')\n"
        + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "wait_for without a timeout": (
        "async def parent(): await asyncio.wait_for(task(awaits('p'), 'c'), None)\n" + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "TaskGroup": (
        "async def parent():\n    async with asyncio.TaskGroup() as g: g.create_task(awaits('p'), name='c')\n" + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "two in a TaskGroup": (
        "async def parent():\n    async with asyncio.TaskGroup() as g:\n"
        "        g.create_task(locks(A, B), name='a'); g.create_task(locks(B, A), name='b')\ntask(parent(), 'p')",
        TWO,
    ),
    "in the block of a TaskGroup": (
        "async def parent():\n    async with asyncio.TaskGroup() as g: await g.create_task(awaits('p'), name='c')\n"
        + PARENT.format("parent()"),
        "p waits for c, c waits for p",
    ),
    "gathered beside one that goes on": (
        "async def parent(): await asyncio.gather(nap(), locks(B, A), task(locks(A, B), 'a'))\ntask(parent(), 'p'); "
        "await settled(); next(t for t in asyncio.all_tasks() if 'locks' in repr(t) and t.get_name() != 'a').set_name('b')",
        TWO,
    ),
    "TaskGroup in a lock": (
        "async def parent():\n    async with A, asyncio.TaskGroup() as g: g.create_task(enters(A), name='c')\ntask(parent(), 'p')",
        "p waits for c, c waits for the lock that p holds",
    ),
}  # fmt: skip

# What looks like one, and is none: somebody will go on, or nobody can tell.
NONE = {
    "who holds it sleeps": "async def sleeps():\n    async with A: await nap()\ntask(sleeps(), 'a'); task(locks(B, A), 'b'); task(enters(B), 'c')",
    "acquire()": "async def acquires():\n    await A.acquire(); await named['b']\nnamed['a'] = task(acquires(), 'a'); named['b'] = task(enters(A), 'b')",
    "who enters does not hold": "async def sleeps():\n    async with A: await nap()\n"
    "task(sleeps(), 's'); task(locks(A, B), 'a'); task(locks(B, A), 'b')",
    "who enters a second time": "async def sleeps():\n    async with A: await nap()\nasync def both():\n"
    "    async with guarded(B), A: pass\ntask(sleeps(), 's'); task(both(), 'a'); task(locks(A, B), 'b')",
    "an event that a task will set": "e = asyncio.Event()\nasync def sets():\n    await nap(); e.set()\n"
    "async def both(): await asyncio.gather(e.wait(), e.wait())\ntask(both(), 'a'); task(sets(), 'b')",
    "Condition.wait": "A = asyncio.Condition()\nasync def waits():\n    async with A: await A.wait()\n"
    "named['a'] = task(waits(), 'a'); named['b'] = task(holds(A, 'a'), 'b')",
    "released in the block": "async def gives():\n    async with A:\n        A.release()\n        try: await named['b']\n"
    "        finally: await A.acquire()\nasync def takes():\n    await A.acquire(); await nap()\n"
    "named['a'] = task(gives(), 'a'); task(takes(), 'x'); named['b'] = task(enters(A), 'b')",
    "released by somebody else": "async def takes():\n    await settled(); A.release()\n    async with A: await nap()\n"
    "async def late():\n    async with A: await e.wait(); await named['b']\ne = asyncio.Event()\n"
    "task(takes(), 'x'); task(late(), 'a'); await settled(); await settled(); named['b'] = task(enters(A), 'b'); e.set()",
    "notified, and the lock is taken": "A = asyncio.Condition()\nasync def waits():\n    async with A: await A.wait()\n"
    "async def takes():\n    await A.acquire(); A.notify_all(); await nap()\n"
    "task(waits(), 'a'); await settled(); task(takes(), 'x')",
    "timeout": "async def timed(x, y):\n    async with asyncio.timeout(3600): await locks(x, y)\ntask(timed(A, B), 'a'); task(locks(B, A), 'b')",
    "wait_for": "async def parent(): await asyncio.wait_for(task(awaits('p'), 'c'), 3600)\n" + PARENT.format("parent()"),
    "wait_for a lock": "async def timed(x, y):\n    async with x:\n        await asyncio.sleep(0)\n        await asyncio.wait_for(y.acquire(), 3600)\n"
    "task(timed(A, B), 'a'); task(timed(B, A), 'b')",
    "a timeout that may be set later": "async def off(x, y):\n    async with asyncio.timeout(None): await locks(x, y)\n"
    "task(off(A, B), 'a'); task(off(B, A), 'b')",
    "a timeout of the parent": "async def parent():\n    async with asyncio.timeout(3600), asyncio.TaskGroup() as g: g.create_task(locks(A, B), name='a')\n"
    "task(parent(), 'p'); task(locks(B, A), 'b')",
    "a timeout of a parent's parent": "async def gathers(): await asyncio.gather(locks(A, B))\n"
    "async def parent():\n    async with asyncio.timeout(3600): await task(gathers(), 'g')\ntask(parent(), 'p'); task(locks(B, A), 'b')",
    "wait_for a task": "async def parent(): await asyncio.wait_for(task(locks(A, B), 'a'), 3600)\ntask(parent(), 'p'); task(locks(B, A), 'b')",
    "wait_for a gather": "async def parent(): await asyncio.wait_for(asyncio.gather(locks(A, B), locks(B, A)), 3600)\ntask(parent(), 'p')",
    "gather, of which one may fail": "async def parent(): await asyncio.gather(task(nap(), 'n'), task(awaits('p'), 'c'))\n" + PARENT.format("parent()"),
    "gather, or a future": "async def parent():\n    f = asyncio.get_running_loop().create_future()\n"
    "    await asyncio.gather(task(awaits('p'), 'c'), f)\n" + PARENT.format("parent()"),
    "wait until one fails": "async def parent(): await asyncio.wait([task(awaits('p'), 'c'), task(nap(), 'n')], return_when='FIRST_EXCEPTION')\n"
    + PARENT.format("parent()"),
    "TaskGroup, of which one may fail": "async def parent():\n    async with A, asyncio.TaskGroup() as g: g.create_task(enters(A)); g.create_task(nap())\n"
    "task(parent(), 'p')",
    "two in a TaskGroup, of which a third may fail": "async def parent():\n    async with asyncio.TaskGroup() as g:\n"
    "        for coro in locks(A, B), locks(B, A), nap(): g.create_task(coro)\ntask(parent(), 'p')",
    "in the block of a TaskGroup, of which one may fail": "async def parent():\n    async with asyncio.TaskGroup() as g:\n"
    "        g.create_task(nap()); await g.create_task(awaits('p'))\n" + PARENT.format("parent()"),
    "a timeout in an exit stack": "async def timed(x, y):\n    async with contextlib.AsyncExitStack() as s:\n"
    "        await s.enter_async_context(asyncio.timeout(3600)); await locks(x, y)\ntask(timed(A, B), 'a'); task(locks(B, A), 'b')",
    "a timeout in a class of the user's": "class Deadline:\n    def __init__(self): self.t = asyncio.timeout(3600)\n"
    "    async def __aenter__(self): await self.t.__aenter__()\n    async def __aexit__(self, *exc): await self.t.__aexit__(*exc)\n"
    "async def timed(x, y):\n    async with Deadline(): await locks(x, y)\ntask(timed(A, B), 'a'); task(locks(B, A), 'b')",
    "a timeout in __await__": "class Does:\n    def __await__(self): return self.run().__await__()\n"
    "    async def run(self):\n        async with asyncio.timeout(3600): await named['b']\n"
    "async def does(): await Does()\nnamed['a'] = task(does(), 'a'); named['b'] = task(awaits('a'), 'b')",
    "code that calls __aexit__": "class Base:\n    async def __aenter__(self): pass\n    async def __aexit__(self, *exc): pass\n"
    "class Own(Base):\n    async def __aexit__(self, *exc):\n        async with asyncio.timeout(3600): await named['b']\n"
    "        await super().__aexit__(*exc)\nasync def leaves():\n    async with Own(): pass\n"
    "named['a'] = task(leaves(), 'a'); named['b'] = task(awaits('a'), 'b')",
    "a file of the user's": "class Mine(open('/dev/null').__class__):\n    def __enter__(self): pass  # may set a deadline\n"
    "async def timed(x, y):\n    with Mine(open('/dev/null', 'rb')): await locks(x, y)\ntask(timed(A, B), 'a'); task(locks(B, A), 'b')",
    "started by another thread, which may cancel it": "asyncio.run_coroutine_threadsafe(locks(A, B), asyncio.get_running_loop()); task(locks(B, A), 'b')",
    "a manager that releases the lock": "class Pause:\n    async def __aenter__(self): A.release()\n    async def __aexit__(self, *exc): await A.acquire()\n"
    "async def takes():\n    await A.acquire(); await nap()\n"
    "async def pauses():\n    async with A:\n        async with Pause(): await settled(); await named['b']\n"
    "named['a'] = task(pauses(), 'a'); task(takes(), 'x'); named['b'] = task(enters(A), 'b'); await settled(); await settled()",
    "a scope, in which another one may fail": "%%arun --scope --background\nfor coro in locks(A, B), locks(B, A), nap(): asyncio.create_task(coro)\n",
    "wait with a timeout": "async def parent(): await asyncio.wait([task(awaits('p'), 'c')], timeout=3600)\n" + PARENT.format("parent()"),
    "wait for the first": "async def parent(): await asyncio.wait([task(awaits('p'), 'c'), task(nap(), 'n')], return_when='FIRST_COMPLETED')\n"
    + PARENT.format("parent()"),
    "wait for the first, or a future": "async def parent():\n    f = asyncio.get_running_loop().create_future()\n"
    "    await asyncio.wait([task(awaits('p'), 'c'), f], return_when='FIRST_COMPLETED')\n" + PARENT.format("parent()"),
    "about to go on": "f = asyncio.get_running_loop().create_future()\nasync def parent():\n    await f; await nap()\n"
    + PARENT.format("parent()") + "; task(awaits('p'), 'c')",
    "a semaphore, which anybody may release": "A, B = asyncio.Semaphore(1), asyncio.Semaphore(1)\ntask(locks(A, B), 'a'); task(locks(B, A), 'b')",
    "queues": "q, r = asyncio.Queue(), asyncio.Queue()\nasync def moves(x, y): await y.put(await x.get())\ntask(moves(q, r), 'a'); task(moves(r, q), 'b')",
    "an exit method that an argument holds": "async def later(leave):\n    async with contextlib.AsyncExitStack(): await named['b']; await leave()\n"
    "await A.acquire(); named['a'] = task(later(A.__aexit__), 'a'); named['b'] = task(enters(A), 'b')",
    "a class of the user's": "class Mine(asyncio.Lock): pass\nA, B = Mine(), Mine()\ntask(locks(A, B), 'a'); task(locks(B, A), 'b')",
}  # fmt: skip

# Before IPython 8.0 a cell has the name of its file.
PLACE = re.compile(r" \((?:In\[\d+\]|\d+\.py):\d+\)")


@pytest.fixture(scope="module")
def _quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython")) as started:
        started.ok("%config NotebookRunner.shutdown_timeout = 0.05")  # a circle cannot be cancelled
        yield started.settled()


@pytest.fixture
def quick(_quick: Kernel) -> Kernel:
    return _quick.renewed(PRELUDE)


def deadlocks(k: Kernel, magic: str = "%atasks tree") -> list[str]:
    """Return what the magic says of deadlocks, without the places."""
    text = k.ok(magic).value or ""
    return [PLACE.sub("", line) for line in text.splitlines() if line.startswith("deadlock")]


@pytest.mark.parametrize(("code", "circle"), CIRCLES.values(), ids=CIRCLES)
def test_a_circle_is_named(quick: Kernel, code: str, circle: str) -> None:
    quick.ok(f"{code}\nawait settled()")
    links = set(circle.split(", "))
    for magic in "%atasks tree", "%atasks":
        (line,) = deadlocks(quick, magic)
        assert set(line.removeprefix("deadlock: ").split(", ")) == links


@pytest.mark.parametrize("code", NONE.values(), ids=NONE)
def test_what_is_not_certain_is_not_claimed(quick: Kernel, code: str) -> None:
    quick.ok(f"{code}\nawait settled()")
    assert deadlocks(quick) == deadlocks(quick, "%atasks") == []
    assert quick.ok("len([t for t in asyncio.all_tasks(asyncio.get_event_loop()) if not t.done()]) > 0").value == "True"


def test_it_is_said_where_each_waits(quick: Kernel) -> None:
    quick.ok(
        "async def one():\n    async with A:\n        await asyncio.sleep(0)\n        await named['two']\n"
        "async def two():\n    async with A: pass\n"
        "named['one'] = task(one(), 'one')\nnamed['two'] = task(two(), 'two')\nawait settled()"
    )
    assert re.search(
        r"^deadlock: one waits for two \((.+):4\), two waits for the lock that one holds \(\1:6\)$",
        str(quick.ok("%atasks tree").value),
        re.MULTILINE,
    )


def test_circles_are_named_one_by_one_and_long_ones_short(quick: Kernel) -> None:
    quick.ok(
        "for n in range(100): named[n] = task(awaits((n + 1) % 100), f't{n}')\n"
        "for n in range(100, 120): named[n] = task(awaits(n ^ 1), f't{n}')\nawait settled()"
    )
    lines = deadlocks(quick)
    assert lines[0].endswith("t4 waits for t5, and 95 more, up to t0 again")
    assert len(lines) == 5
    assert "and 6 more deadlocks" in str(quick.ok("%atasks tree").value)


# -- interrupts

STUCK = {
    "in it": (
        "async with A:\n    task(goes(), 'g'); await task(enters(A), 'w')",
        r"In\[\d+\] waits for w, w waits for the lock that In\[\d+\] holds",
    ),
    "alone": ("task(goes(), 'g')\nasync with A:\n    async with A: pass", r"In\[\d+\] waits for the lock that it holds itself"),
    "behind it": ("task(goes(), 'g'); await asyncio.gather(task(locks(A, B), 'a'), task(locks(B, A), 'b'))", TWO),
    "%%arun": ("%%arun --name mine\ntask(goes(), 'g')\nasync with A:\n    async with A: pass", "mine waits for the lock that it holds itself"),
    "%arun": ("async def main():\n    task(goes(), 'g')\n    await locks(A, A)\n%arun main()", r"Task-\d+ waits for the lock that it holds itself"),
    "run": (
        "import ipyrunner\nasync def main():\n    task(goes(), 'g')\n    await task(locks(A, A), 'a')\nipyrunner.await_(main())",
        "a waits for the lock that it holds itself",
    ),
    "a circle, which is given up": (
        "for n in 0, 1: named[n] = task(awaits(1 - n), f'r{n}')\ntask(goes(), 'g'); await named[0]",
        "r0 waits for r1, r1 waits for r0",
    ),
}  # fmt: skip
GOES = "async def goes():\n    await settled()\n    print('go')\n"
NOTE = "ipyrunner: this cell could not go on, because of a deadlock: "


def noted(text: str) -> str:
    """Return what the note says, without the places."""
    (line,) = (line for line in text.splitlines() if line.startswith(NOTE))
    return PLACE.sub("", line.removeprefix(NOTE))


@pytest.mark.parametrize(("code", "circle"), STUCK.values(), ids=STUCK)
def test_the_cell_that_is_interrupted_there_says_so(quick: Kernel, code: str, circle: str) -> None:
    quick.ok(GOES)
    cell = quick.begin(code)
    quick.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert re.fullmatch(circle, noted(cell.traceback + "\n" + cell.stderr))
    quick.expect_alive()


def test_the_note_names_who_was_started_before(quick: Kernel) -> None:
    quick.ok("named['a'] = task(locks(A, B), 'a'); named['b'] = task(locks(B, A), 'b')\nawait settled()\n" + GOES)
    cell = quick.begin("task(goes(), 'g')\nawait named['a']")
    quick.interrupted(cell, "go")
    assert noted(cell.traceback + "\n" + cell.stderr) == TWO
    assert (
        quick.ok("await asyncio.wait([named['b']], timeout=30); named['b'].done()").value == "True"
    )  # it has the lock now
    quick.expect_alive()


def test_on_each_loop(on_each_loop: Kernel) -> None:
    on_each_loop.ok(PRELUDE + GOES)
    cell = on_each_loop.begin("async with A:\n    task(goes(), 'g'); await task(enters(A), 'w')")
    on_each_loop.interrupted(cell, "go")
    assert "w waits for the lock that In[" in noted(cell.traceback + "\n" + cell.stderr)
    on_each_loop.expect_alive()


@pytest.mark.skipif(not CONCURRENT, reason="cells wait for each other")
def test_each_of_the_cells_side_by_side_says_what_is_its_own(quick: Kernel) -> None:
    quick.ok(GOES)
    one = quick.begin("%%arun --concurrent\ntask(goes(), 'g')\nasync with A:\n    async with A: pass")
    two = quick.begin("%%arun --concurrent\ntask(goes(), 'g')\nawait nap()")
    quick.wait_for(one, "go")
    quick.wait_for(two, "go")
    quick.interrupt()
    quick.finish(one)
    quick.finish(two)
    assert one.ename == two.ename == "KeyboardInterrupt"
    assert noted(one.traceback).endswith("waits for the lock that it holds itself")
    assert NOTE not in two.traceback
    quick.expect_alive()


def test_a_second_interrupt_says_what_the_first_has_found(quick: Kernel) -> None:
    quick.ok(GOES + "free = asyncio.Event()")
    cell = quick.begin(
        "async def stays():\n    task(goes(), 'g')\n    try: await locks(A, A)\n    finally:\n        print('cleaning')\n"
        "        while not free.is_set():\n            with contextlib.suppress(asyncio.CancelledError): await free.wait()\n"
        "await stays()"
    )
    quick.wait_for(cell, "go")
    quick.interrupt()
    quick.interrupted(cell, "cleaning")
    assert cell.ename == "KeyboardInterrupt"
    assert "waits for the lock that it holds itself" in noted(cell.traceback + "\n" + cell.stderr)
    quick.expect_alive()
    quick.ok("free.set(); await settled()")


def test_nothing_is_said_without_one_nor_looked_for_without_an_interrupt(quick: Kernel) -> None:
    quick.ok(
        GOES + "import ipyrunner.aio.interrupts as module\nlooks, look = [], module.deadlock_of\n"
        "module.deadlock_of = lambda *args: looks.append(look(*args))"
    )
    quick.ok("await asyncio.gather(asyncio.sleep(0), task(settled(), 's'))")
    assert quick.ok("looks").value == "[]"
    cell = quick.begin(
        "async def sleeps():\n    async with A: await nap()\ntask(goes(), 'g'); await asyncio.gather(sleeps(), locks(B, A))"
    )
    quick.interrupted(cell, "go")
    assert quick.ok("module.deadlock_of = look; looks").value == "[None]"
    assert NOTE not in cell.traceback + cell.stderr
    quick.expect_alive()


@pytest.mark.parametrize("refusal", ["ZeroDivisionError", "KeyboardInterrupt", "SystemExit"])
def test_tasks_that_raise_when_they_are_asked_are_no_obstacle(quick: Kernel, refusal: str) -> None:
    quick.ok(
        HOSTILE
        + f"REFUSAL = {refusal}\n"
        + GOES
        + "class Odd(asyncio.Task):\n    get_name = get_coro = __repr__ = refuse\n"
        "class Future(asyncio.Future):\n    done = cancelled = __hash__ = __repr__ = refuse\n"
        "async def on(future): await future\n"
        "loop = asyncio.get_event_loop()\n"
        "a = Odd(locks(A, B), loop=loop); b = Odd(locks(B, A), loop=loop); c = task(on(Future(loop=loop)), 'c')"
    )
    quick.ok("await settled()")
    assert len(deadlocks(quick)) == 1
    cell = quick.begin("task(goes(), 'g'); await enters(A)")
    quick.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    assert "holds" in noted(cell.traceback + "\n" + cell.stderr)
    quick.expect_alive()


# -- in this process


def test_an_interrupt_looks_at_a_thousand_tasks(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        lock, seen = asyncio.Lock(), list[Any]()

        async def enters() -> None:
            async with lock:
                pass

        async def waits(tasks: list[Any]) -> None:
            await asyncio.gather(*tasks)

        await lock.acquire()
        tasks = [asyncio.create_task(enters()) for _ in range(3000)]
        waiting = asyncio.create_task(waits(tasks))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        def others() -> Iterator[Any]:
            for task in asyncio.all_tasks():
                seen.append(task)
                yield task

        waits_of = Waits((waiting,), others=others, most=1000)
        assert len(waits_of.tasks) == 1000
        assert not seen
        assert len(Waits(tasks[:1], others=others, most=1000).tasks) == 1
        assert 900 < len(seen) < 1100
        assert deadlock_of(waiting, loop) is None
        lock.release()
        await waiting

    loop.run_until_complete(main())


def test_who_waits_from_outside_is_seen(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        lock = asyncio.Lock()

        async def twice() -> None:
            async with lock, lock:
                pass

        async def waits(seconds: float | None) -> None:
            async with asyncio.timeout(seconds) if seconds else contextlib.nullcontext():
                await asyncio.gather(task)

        task = asyncio.create_task(twice())
        calm = asyncio.create_task(waits(None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert deadlock_of(task, loop) is not None
        timed = asyncio.create_task(waits(3600))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert deadlock_of(task, loop) is None
        timed.cancel()
        await asyncio.wait([timed, task, calm])

    loop.run_until_complete(main())


def test_of_too_many_who_wait_from_outside_nothing_is_claimed(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        lock = asyncio.Lock()

        async def twice() -> None:
            async with lock, lock:
                pass

        async def waits() -> None:
            await task

        task = asyncio.create_task(twice())
        waiting = [asyncio.create_task(waits()) for _ in range(1000)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert deadlock_of(task, loop) is None
        assert len(Waits([task]).deadlocks()) == 1
        task.cancel()
        await asyncio.wait([task, *waiting])

    loop.run_until_complete(main())


def test_what_is_gathered_is_looked_at_once_for_all_who_wait(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        gathered = asyncio.gather(*(asyncio.sleep(3600) for _ in range(5)))

        async def waits() -> None:
            await gathered

        tasks = [asyncio.create_task(waits()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = Waits(tasks)
        first = found.of(tasks[0])
        assert first is not None
        assert len(first.tasks) == 5
        assert all(found.of(task) is first for task in tasks)
        gathered.cancel()
        await asyncio.wait(tasks)

    loop.run_until_complete(main())


def test_the_work_grows_with_the_waits_and_no_faster(loop: asyncio.AbstractEventLoop) -> None:
    def lines(tasks: list[asyncio.Task[None]]) -> int:
        """Return how many lines of the module run: the same on a machine that is slow."""
        number = 0

        def count(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal number
            number += event == "line"
            return count if frame.f_code.co_filename == deadlocks_module.__file__ else None

        before = sys.gettrace()
        sys.settrace(count)
        try:
            assert Waits(tasks).deadlocks() == []
        finally:
            sys.settrace(before)
        return number

    async def main() -> None:
        gathered = asyncio.gather(*(asyncio.sleep(3600) for _ in range(1000)))

        async def waits() -> None:
            await asyncio.gather(gathered)

        tasks = [asyncio.create_task(waits()) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Each of what is gathered is looked at once for each who waits.
        few, many = lines(tasks[:10]), lines(tasks)
        assert 10_000 < few < many < 6 * few
        gathered.cancel()
        await asyncio.wait(tasks)

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["wait_of", "coro_of", "groups_around"])
def test_an_interrupt_ends_the_look(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        lock = asyncio.Lock()

        async def twice() -> None:
            async with lock, lock:
                pass

        task = asyncio.create_task(twice())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(f"ipyrunner.aio.tasks.waits.deadlocks.{name}", interrupted)
            with pytest.raises(KeyboardInterrupt):
                Waits([task]).deadlocks()
            assert deadlock_of(task, loop) is None  # in a signal handler
        task.cancel()
        await asyncio.wait([task])

    loop.run_until_complete(main())


class Own:
    """A context manager whose exit takes its time."""

    def __init__(self, event: asyncio.Event) -> None:
        self.event = event

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        await self.event.wait()


async def inside(manager: Any, event: asyncio.Event) -> None:
    async with manager as _:
        await event.wait()


async def second(manager: Any, event: asyncio.Event) -> None:
    async with asyncio.Lock(), manager:
        await event.wait()


async def from_stack(manager: Any, event: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(manager)
        await event.wait()


async def in_handler(manager: Any, event: asyncio.Event) -> None:
    for _ in range(2):
        async with manager:
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                await event.wait()


async def behind(manager: Any, event: asyncio.Event) -> None:
    try:
        async with manager:
            pass
    finally:
        await event.wait()


async def leaving(manager: Any, event: asyncio.Event) -> None:
    async with manager:
        pass


async def leaving_by_error(manager: Any, event: asyncio.Event) -> None:
    async with manager:
        raise ZeroDivisionError


async def holding_a_method(leave: Any, event: asyncio.Event) -> None:
    with open(os.devnull):
        await event.wait()


async def holding_a_function(leave: Any, manager: Any, event: asyncio.Event) -> None:
    with open(os.devnull):
        await event.wait()


async def passing_a_method(manager: Any, event: asyncio.Event) -> None:
    print(EXIT(manager), await event.wait())


async def naming_a_method(manager: Any, event: asyncio.Event) -> None:
    with open(os.devnull):
        print(manager.__aexit__, await event.wait())


async def comprehending(manager: Any, event: asyncio.Event) -> None:
    async with manager:
        print([await event.wait() for _ in range(2)])


@contextlib.asynccontextmanager
async def made(manager: Any) -> AsyncIterator[None]:
    async with manager:
        yield


EXIT = operator.attrgetter("__aexit__")
ENTERED = {
    "inside": (lambda lock, event: inside(lock, event), ["Lock"]),
    "of a condition": (lambda lock, event: inside(asyncio.Condition(), event), ["Condition"]),
    "of a timeout": (lambda lock, event: inside(asyncio.timeout(60), event), ["Timeout"]),
    "second": (lambda lock, event: second(lock, event), ["Lock", "Lock"]),
    "made": (lambda lock, event: inside(made(lock), event), ["_AsyncGeneratorContextManager", "Lock"]),
    "from a stack": (lambda lock, event: from_stack(lock, event), ["AsyncExitStack"]),
    "in a handler": (lambda lock, event: in_handler(lock, event), ["Lock"]),
    "in a comprehension": (lambda lock, event: comprehending(lock, event), ["Lock"]),
    "behind": (lambda lock, event: behind(lock, event), []),
    "leaving": (lambda lock, event: leaving(Own(event), event), []),
    "leaving by an error": (lambda lock, event: leaving_by_error(Own(event), event), []),
    "a method": (lambda lock, event: holding_a_method(lock.__aexit__, event), ["TextIOWrapper"]),
    "a function": (lambda lock, event: holding_a_function(type(lock).__aexit__, lock, event), ["TextIOWrapper"]),
    "a method as an argument": (lambda lock, event: passing_a_method(lock, event), []),
    "a method by its name": (lambda lock, event: naming_a_method(lock, event), []),
}
TAKEN = {
    "entering": (lambda lock, event: inside(lock, event), []),
    "entering the second": (lambda lock, event: second(lock, event), ["Lock"]),
    "entering what is made": (lambda lock, event: inside(made(lock), event), []),
    "entering into a stack": (lambda lock, event: from_stack(lock, event), ["AsyncExitStack"]),
}


@pytest.mark.parametrize(
    ("make", "kinds", "taken"),
    [*((*case, False) for case in ENTERED.values()), *((*case, True) for case in TAKEN.values())],
    ids=[*ENTERED, *TAKEN],
)
def test_what_a_suspended_coroutine_is_in(
    loop: asyncio.AbstractEventLoop, make: Callable[[Any, Any], Any], kinds: list[str], taken: bool
) -> None:
    async def main() -> list[str]:
        lock, event = asyncio.Lock(), asyncio.Event()
        if taken:
            await lock.acquire()
        coro = make(lock, event)
        task = asyncio.create_task(coro)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        found = [type(manager).__name__ for manager in entered(coro)]
        task.cancel()
        await asyncio.wait([task])
        return found

    assert loop.run_until_complete(main()) == kinds


def test_a_lock_that_is_not_locked_is_held_by_nobody(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        lock, event = asyncio.Lock(), asyncio.Event()
        task = asyncio.create_task(inside(lock, event))
        await asyncio.sleep(0)
        assert _held_by(task) == ([lock], True)
        lock.release()
        assert _held_by(task) == ([], True)
        await lock.acquire()
        event.set()
        await task

    loop.run_until_complete(main())


def test_a_coroutine_that_runs_or_has_ended_is_in_nothing(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        async with asyncio.Lock(), asyncio.Lock():
            assert entered(task.get_coro()) == []
            await asyncio.sleep(0)

    task = loop.create_task(main())
    assert entered(task.get_coro()) == []
    loop.run_until_complete(task)
    assert entered(task.get_coro()) == []
    assert entered(None) == entered(5) == []


def test_deep_in_a_recursion_nothing_is_raised(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        lock = asyncio.Lock()

        async def twice() -> None:
            async with lock:
                async with lock:
                    pass

        task = asyncio.create_task(twice())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert deadlock_of(task, loop) is not None

        def deep() -> object:
            try:
                return deep()
            except RecursionError:
                return deadlock_of(task, loop)

        deep()
        task.cancel()
        await asyncio.wait([task])

    loop.run_until_complete(main())
