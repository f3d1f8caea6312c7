"""One interrupt among busy tasks: it ends the cell, and they lose nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from loops import notebook_runner, spin


class Crunch:
    """Forty coroutines that compute and do not yield; the fourth interrupts in the middle."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []

    async def one(self, i: int) -> int:
        self.begun.append(i)
        if i == 3:
            signal.raise_signal(signal.SIGINT)
        spin(0.01)
        self.ended.append(i)
        return i

    def all(self) -> list[Any]:
        return [asyncio.ensure_future(self.one(i)) for i in range(40)]


async def in_a_group(crunch: Crunch) -> None:
    async with asyncio.TaskGroup() as group:
        for i in range(40):
            group.create_task(crunch.one(i))


async def one_by_one(crunch: Crunch) -> None:
    for task in asyncio.as_completed(crunch.all()):
        await task


async def in_a_child(crunch: Crunch) -> None:
    await asyncio.create_task(in_a_group(crunch))


async def gather(crunch: Crunch) -> None:
    await asyncio.gather(*crunch.all())


WAYS: dict[str, Callable[[Crunch], Awaitable[Any]]] = {
    "gather": gather,
    "gather with exceptions": lambda crunch: asyncio.gather(*crunch.all(), return_exceptions=True),
    "group": in_a_group,
    "wait": lambda crunch: asyncio.wait(crunch.all()),
    "as_completed": one_by_one,
    "child": in_a_child,
}


@pytest.mark.parametrize("way", WAYS)
def test_among_busy_tasks_only_the_running_one_goes_on(runner: NotebookRunner, way: str) -> None:
    crunch = Crunch()
    reached: list[str] = []

    async def main() -> None:
        await WAYS[way](crunch)
        reached.append("went on")

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert crunch.begun == crunch.ended == [0, 1, 2, 3]
    assert reached == []


def test_a_loop_without_a_queue_is_interrupted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipyrunner.aio.introspection.ready_queue.ready_callbacks", lambda loop: None)
    crunch = Crunch()
    with notebook_runner("asyncio") as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(WAYS["gather"](crunch))
    assert len(crunch.begun) < 40


async def sleep_in_children() -> None:
    await asyncio.gather(asyncio.sleep(60), asyncio.create_task(asyncio.sleep(60)))


@pytest.mark.parametrize("waits", [lambda: asyncio.sleep(60), sleep_in_children], ids=["itself", "children"])
def test_busy_workers_of_other_cells_lose_nothing(runner: NotebookRunner, waits: Callable[[], Any]) -> None:
    steps: list[int] = []
    pressed: list[int] = []

    async def worker(i: int) -> None:
        while True:
            steps.append(i)
            if len(steps) == 20:
                signal.raise_signal(signal.SIGINT)
                pressed.append(len(steps))
            spin(0.01)
            await asyncio.sleep(0)

    async def start() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(worker(i)) for i in range(8)]

    workers = runner.run(start())
    with pytest.raises(KeyboardInterrupt):
        runner.run(waits())
    # The cell has ended within the step that ran; the others were not called in between.
    assert pressed == [20]
    assert len(steps) == 20

    async def more() -> None:
        while len(steps) < 20 + 16:
            await asyncio.sleep(0)

    runner.run(more())
    assert steps[20:28] == [(steps[19] + 1 + i) % 8 for i in range(8)]  # in their order, none twice
    assert not any(task.done() for task in workers)


def test_a_main_task_that_cleans_up_among_busy_workers(runner: NotebookRunner) -> None:
    steps, log = [], []

    async def worker() -> None:
        while not log:
            steps.append(1)
            if len(steps) == 5:
                signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [asyncio.create_task(worker()) for _ in range(4)]
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            log.append("cleaned up")
            await asyncio.wait(tasks)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["cleaned up"]


async def tight() -> None:
    spin(60)


@pytest.mark.parametrize("way", ["gather", "wait", "child gathers"])
def test_a_forced_interrupt_is_no_result(runner: NotebookRunner, way: str) -> None:
    reached: list[Any] = []

    async def gather() -> Any:
        return await asyncio.gather(tight(), asyncio.sleep(0), return_exceptions=True)

    async def main() -> None:
        match way:
            case "gather":
                reached.append(await gather())
            case "wait":
                reached.append(await asyncio.wait([asyncio.create_task(tight())]))
            case _:
                reached.append(await asyncio.create_task(gather()))

    def press_when_it_spins() -> None:
        deadline = time.monotonic() + 30
        while not spinning() and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def spinning() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        return frame.f_code is spin.__code__

    thread = threading.Thread(target=press_when_it_spins)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        runner.run(main())
    thread.join(30)
    assert reached == []
    # The traceback is that of what was forced.
    assert "tight" in [entry.name for entry in caught.traceback]
