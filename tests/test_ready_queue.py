"""``ReadyQueue``: what is set aside comes back, in its order, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any

import pytest
import uvloop

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection import ready_queue
from ipyrunner.aio.introspection.private_api import is_pythons, ready_callbacks
from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.sigint import main_task
from ipyrunner.aio.sigint.main_task import MainTask
from loops import LOOPS, until


@pytest.mark.parametrize("name", LOOPS)
def test_the_ready_queue_loses_nothing_and_keeps_the_order(name: str) -> None:
    loop = LOOPS[name]()
    queue = ReadyQueue(loop)
    called: list[object] = []

    def cut() -> None:
        called.append("cut")
        loop.call_soon(called.append, "after the cut")
        queue.set_aside()
        queue.set_aside()
        loop.stop()

    for i in range(3):
        loop.call_soon(called.append, i)
    loop.call_soon(cut)
    for i in range(3, 6):
        loop.call_soon(called.append, i)
    assert queue.call_first(lambda: called.append("first"))
    loop.run_forever()
    assert called == ["first", 0, 1, 2, "cut"]
    queue.put_back()
    assert len(queue) == 5  # what was there, and what wakes uvloop: no filler of the second set_aside
    queue.put_back()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert called == ["first", 0, 1, 2, "cut", 3, 4, 5, "after the cut"]
    loop.close()


def test_what_is_ready_is_set_aside_once(loop: asyncio.AbstractEventLoop) -> None:
    # The second time nobody would put it back: the run that has waited is over.
    queue = ReadyQueue(loop)
    called: list[int] = []

    async def main() -> None:
        loop.call_soon(called.append, 1)
        assert interrupted._release_if_done()
        queue.put_back()
        assert interrupted._release_if_done()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    interrupted = MainTask(loop, queue, 1.0)
    interrupted.task = interrupted.end = loop.create_task(asyncio.sleep(0))
    loop.run_until_complete(interrupted.task)
    loop.run_until_complete(main())
    assert called == [1]


def test_nothing_is_lost_that_other_threads_schedule_while_cells_are_interrupted(runner: NotebookRunner) -> None:
    runner.interrupt_grace = 5
    loop = runner.get_loop()
    sent, called, over = 0, 0, threading.Event()

    def count() -> None:
        nonlocal called
        called += 1

    def flood() -> None:
        nonlocal sent
        while not over.wait(0.0001):
            loop.call_soon_threadsafe(count)
            sent += 1

    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    async def start() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(busy()) for _ in range(200)]

    async def cell() -> None:
        loop.call_later(0.002, signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(60)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=flood)
    try:
        runner.run(start())
        thread.start()
        for _ in range(100):
            with pytest.raises(KeyboardInterrupt):
                runner.run(cell())
    finally:
        over.set()
        thread.join(30)
        sys.setswitchinterval(interval)
    runner.run(until(lambda: called == sent))
    assert sent > 0


def test_callbacks_of_uvloops_own_keep_their_place() -> None:
    # They are about connections that uvloop frees at the end of an iteration: moved, they end in a segmentation fault.
    loop = uvloop.new_event_loop()
    queue, seen = ReadyQueue(loop), list[bool]()
    order: list[str] = []

    def look() -> None:
        own = not all(map(is_pythons, tuple(ready_callbacks(loop) or ())))
        seen.append(own)
        if own and not order:
            order.append("nothing moves")
            assert not queue.call_first(order.append)
            queue.set_aside()
            assert not queue._aside
        if not loop.is_closed() and len(seen) < 10_000 and not order:
            loop.call_soon(look)

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop.call_soon(look)
        for _ in range(20):
            transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
            transport.close()
            await asyncio.sleep(0)
        server.close()

    loop.call_soon(seen.clear)
    assert len(queue) == 1
    assert all(map(is_pythons, ready_callbacks(loop) or ()))
    loop.run_until_complete(main())
    loop.close()
    assert order == ["nothing moves"]


@pytest.mark.parametrize("name", LOOPS)
def test_the_step_of_a_task_is_found_among_many(name: str) -> None:
    loop = LOOPS[name]()
    queue = ReadyQueue(loop)
    order: list[str] = []

    async def step(what: str) -> None:
        order.append(what)

    async def main() -> None:
        tasks = [loop.create_task(step(f"task {n}")) for n in range(3)]
        loop.call_soon(order.append, "call")
        asleep = loop.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        assert order == ["task 0", "task 1", "task 2", "call"]
        order.clear()
        tasks = [loop.create_task(step(f"task {n}")) for n in range(3)]
        loop.call_soon(order.append, "call")
        assert queue.promote([asleep]) == 0  # it waits: nothing of it is in the queue
        assert queue.promote([tasks[2], asleep, tasks[1]]) == 2
        await asyncio.gather(*tasks)
        asleep.cancel()

    loop.run_until_complete(main())
    assert order == ["task 1", "task 2", "task 0", "call"]
    loop.close()


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("of_python", [False, True])
def test_whether_a_step_waits(name: str, of_python: bool) -> None:
    loop = LOOPS[name]()
    new: Any = asyncio.tasks._PyTask if of_python else asyncio.Task  # type: ignore[attr-defined]

    async def main() -> None:
        queue = ReadyQueue(loop)
        loop.call_soon(str)
        loop.call_soon("".join, [])
        assert not queue.may_have_steps()
        task = new(asyncio.sleep(0.001), loop=loop)
        assert queue.may_have_steps()  # it has not begun
        await asyncio.sleep(0)
        assert not queue.may_have_steps()
        await task

    loop.run_until_complete(main())
    loop.close()


def test_a_short_look_stays_short_and_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            raise ZeroDivisionError

    class Hostile(metaclass=Meta):
        def method(self) -> None:
            pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = ReadyQueue(loop)
        loop.call_soon(Hostile().method)
        assert queue.may_have_steps()  # nobody knows
        await asyncio.sleep(0)
        for _ in range(2000):
            loop.call_soon(str)
        monkeypatch.setattr(ready_queue, "step_of", lambda *_: pytest.fail("looked at"))
        assert queue.may_have_steps()

    asyncio.run(main())


def test_no_dependencies_are_searched_where_no_step_waits(
    asyncio_runner: NotebookRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An interrupt looked through the 10,000 tasks of a gather for those that might go first.
    searched: list[object] = []
    monkeypatch.setattr(main_task, "dependencies", lambda task: searched.append(task) or set())

    async def main() -> None:
        sleepers = asyncio.gather(*[asyncio.sleep(60) for _ in range(10)])
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await sleepers

    with pytest.raises(KeyboardInterrupt):
        asyncio_runner.run(main())
    assert searched == []
    assert asyncio_runner.run(asyncio.sleep(0, "next")) == "next"


def test_a_queue_is_not_looked_through_for_tasks_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # 100,000 callbacks take as long to look at as a user notices.
    monkeypatch.setattr(ready_queue, "step_of", lambda *_: pytest.fail("looked at"))

    async def main() -> None:
        asleep = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(print)
        assert ReadyQueue(asyncio.get_running_loop()).promote([asleep]) == 0
        asleep.cancel()

    asyncio.run(main())


def test_what_another_thread_schedules_while_a_filler_is_made_is_not_lost() -> None:
    # uvloop alone makes its handles: one is scheduled, and taken out of the queue again.
    loop = uvloop.new_event_loop()
    called: list[str] = []

    class Between:
        """The loop, where another thread has its turn after ``call_soon``."""

        def __getattr__(self, name: str) -> object:
            return getattr(loop, name)

        def call_soon(self, *args: Any, **options: Any) -> object:
            handle = loop.call_soon(*args, **options)
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.append, "another thread's"))
            thread.start()
            thread.join()
            return handle

    def main() -> None:
        loop.call_soon(called.append, "ours")
        queue = ReadyQueue(loop)
        queue._loop = Between()  # type: ignore[assignment]
        queue._get_filler()
        loop.call_soon(loop.call_soon, loop.stop)

    loop.call_soon(main)
    loop.run_forever()
    loop.close()
    assert called == ["ours", "another thread's"]
