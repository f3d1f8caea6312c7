"""What a cell and a task cost, counted: no clock is asked, so that a slow machine sees the same.

The bounds lie above what was counted when they were set, of system calls by more, since how often a loop polls depends
on the machine; ``make bench`` says what that means in time.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipyrunner.aio.introspection.loop_class import new_loop
from ipyrunner.aio.tasks import young_tasks
from ipyrunner.aio.tasks.registry import Tasks
from kernels import Kernel, kernel

CELLS = {"await": "await asyncio.sleep(0)", "plain": "1"}
COUNT = """
import gc, sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kernel]]:
    with (
        kernel(tmp_path_factory.mktemp("ours")) as ours,
        kernel(tmp_path_factory.mktemp("stock"), load=False) as stock,
    ):
        for each in (ours, stock):
            each.ok("import asyncio")
            each.ok(COUNT)
        yield {"ours": ours, "stock": stock}


def calls_of(k: Kernel, code: str) -> float:
    """Return how many Python functions the kernel's main thread calls for a cell."""
    for _ in range(3):
        k.ok(code)
    k.ok("calls = 0; sys.setprofile(count)")
    for _ in range(10):
        k.ok(code)
    return int(k.ok("sys.setprofile(None); calls").value or 0) / 10


@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS)
def test_function_calls_of_an_empty_cell(kernels: dict[str, Kernel], code: str) -> None:
    ours, stock = (calls_of(k, code) for k in kernels.values())
    print(f"{ours} calls, in the stock kernel {stock}")
    assert ours < stock * 1.3


@pytest.fixture
def spawns() -> Iterator[Callable[[bool], asyncio.AbstractEventLoop]]:
    loops: list[asyncio.AbstractEventLoop] = []
    books: list[Tasks] = []

    def make(kept: bool) -> asyncio.AbstractEventLoop:
        loop = new_loop() if kept else asyncio.new_event_loop()
        loops.append(loop)
        if kept:
            books.append(Tasks(loop, torn=lambda exc: None))
        return loop

    yield make
    for each in books:
        each.close()
    for loop in loops:
        loop.close()


async def nothing() -> None:
    pass


async def spawn(number: int) -> None:
    await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(number)])


def test_function_calls_of_a_thousand_tasks(
    spawns: Callable[[bool], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first look at new tasks comes after a while, which is soon on a slow machine, and others with collections.
    for pause in ("_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(young_tasks, pause, 60.0)

    def calls(kept: bool) -> int:
        loop, count = spawns(kept), 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        loop.run_until_complete(spawn(10))
        gc.disable()
        sys.setprofile(profile)
        try:
            loop.run_until_complete(spawn(1000))
        finally:
            sys.setprofile(None)
            gc.enable()
        return count

    # asyncio's create_task calls one function more than ours, and its call_soon, for each step of a task, two more.
    ours, plain = calls(kept=True), calls(kept=False)
    print(f"{ours} calls, by asyncio alone {plain}")
    assert ours <= plain - 3000


def test_allocated_blocks_of_a_thousand_tasks(spawns: Callable[[bool], asyncio.AbstractEventLoop]) -> None:
    async def blocks() -> int:
        gc.collect()
        before = sys.getallocatedblocks()
        tasks = [asyncio.create_task(nothing()) for _ in range(1000)]
        after = sys.getallocatedblocks() - before
        await asyncio.wait(tasks)
        return after

    gc.disable()
    try:
        ours, plain = (spawns(kept).run_until_complete(blocks()) for kept in (True, False))
    finally:
        gc.enable()
    assert ours - plain < 1100  # a weak reference each


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
def test_system_calls_of_an_empty_cell(kernels: dict[str, Kernel], tmp_path: Path) -> None:
    def count(which: str) -> int:
        k, log = kernels[which], tmp_path / which
        pid = k.ok("import os; os.getpid()").value
        with subprocess.Popen(["strace", "-c", "-o", log, "-p", str(pid)], stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            if b"attached" not in (said := tracer.stderr.readline()):
                pytest.skip(f"strace may not look: {said!r}")
            for _ in range(10):
                k.ok("await asyncio.sleep(0)")
            tracer.send_signal(2)
            tracer.wait(30)
        rows = [line.split() for line in log.read_text().splitlines()]  # time %, seconds, µs each, calls, ..., name
        return sum(int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total")

    ours, stock = count("ours"), count("stock")
    print(f"{ours} system calls in ten cells, in the stock kernel {stock}")
    assert ours < 2 * stock
