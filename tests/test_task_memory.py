"""What the bookkeeping of tasks keeps: the pending ones, and nothing of those that have ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.tasks import registry as tasks_module
from ipyrunner.aio.tasks import unretrieved_failures
from ipyrunner.aio.tasks.registry import Tasks
from kernels import Kernel

Loop = asyncio.AbstractEventLoop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def books(loop: Loop) -> Iterator[Tasks]:
    made = Tasks(loop, torn=lambda exc: pytest.fail(repr(exc)))
    yield made
    made.close()


class Result:
    """What a task returns; how many there are, and how many there were at most."""

    alive: weakref.WeakSet[Result] = weakref.WeakSet()
    most = 0

    def __init__(self) -> None:
        Result.alive.add(self)
        Result.most = max(Result.most, len(Result.alive))


@pytest.fixture(autouse=True)
def _no_results() -> Iterator[None]:
    Result.most = 0
    yield
    assert not Result.alive


async def at_once() -> Result:
    return Result()


async def later() -> Result:
    await asyncio.sleep(0.001)
    return Result()


async def one_after_the_other(work: Callable[[], Awaitable[Result]]) -> None:
    for _ in range(100):
        await asyncio.ensure_future(work())


async def nobody_holds_them(work: Callable[[], Any]) -> None:
    for _ in range(100):
        asyncio.create_task(work())
    await asyncio.sleep(0.05)


async def without_a_pause(work: Callable[[], Any]) -> None:
    for _ in range(1000):
        asyncio.create_task(work())


async def as_completed(work: Callable[[], Any]) -> None:
    for n in range(100):
        for task in asyncio.as_completed([work()]):
            await task
        if n % 10 == 0:
            await asyncio.sleep(0)


SHAPES = {
    "one after the other, at once": (one_after_the_other, at_once),
    "one after the other": (one_after_the_other, later),
    "nobody holds them, at once": (nobody_holds_them, at_once),
    "nobody holds them": (nobody_holds_them, later),
    "as_completed": (as_completed, later),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_has_ended_is_not_kept(loop: Loop, books: Tasks, shape: str) -> None:
    run, work = SHAPES[shape]
    loop.run_until_complete(run(work))
    assert Result.most <= 3


@pytest.mark.parametrize("shape", [without_a_pause, one_after_the_other, nobody_holds_them])
def test_eager_tasks_are_not_kept(loop: Loop, books: Tasks, shape: Callable[..., Any]) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")
    loop.set_task_factory(asyncio.eager_task_factory)
    loop.run_until_complete(shape(at_once))
    assert Result.most <= 3


def test_tasks_that_nobody_holds_survive_a_collection_in_their_first_iteration(loop: Loop, books: Tasks) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely(n: int) -> None:
        future = loop.create_future()
        waiting.add(future)
        if n % 100 == 50:
            gc.collect()  # those after this one have not begun
        await future
        went_on.append(n)

    async def main() -> None:
        for n in range(300):
            loop.create_task(lonely(n))
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        gc.collect()
        for future in list(waiting):
            future.set_result(None)
        del future
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    assert sorted(went_on) == list(range(300))
    assert books._on_collection not in gc.callbacks


def test_tasks_that_nobody_holds_survive_a_collection_in_another_thread(loop: Loop, books: Tasks) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    async def lonely() -> None:
        future = loop.create_future()
        waiting.add(future)
        await future

    async def collect() -> None:
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join(30)

    async def main() -> int:
        for _ in range(10):
            loop.create_task(lonely())
        loop.create_task(collect())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = len(waiting)
        for future in list(waiting):
            future.set_result(None)
        return found

    assert loop.run_until_complete(main()) == 10


def test_a_failure_is_told_while_other_tasks_keep_failing(loop: Loop, books: Tasks) -> None:
    reports: list[str] = []
    loop.set_exception_handler(lambda _, context: reports.append(repr(context["exception"])))

    async def fail() -> None:
        raise ValueError("failed")

    async def main() -> None:
        held = []
        async with asyncio.timeout(30):
            while not reports:
                held.append(asyncio.create_task(fail()))
                await asyncio.sleep(0.005)

    loop.run_until_complete(main())


def test_the_collector_is_watched_only_while_there_is_something_to_sort(loop: Loop, books: Tasks) -> None:
    task = loop.create_task(later())  # in a cell without await: what is raised in there the collector drops
    assert books._on_collection not in gc.callbacks

    async def main() -> None:
        asyncio.create_task(later())
        assert books._on_collection in gc.callbacks
        await asyncio.sleep(0.01)
        assert books._on_collection not in gc.callbacks
        await task

    loop.run_until_complete(main())


def test_many_new_tasks_are_sorted_some_at_a_time(loop: Loop, books: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "_watch_collector", lambda: None)  # each collection sorts some more
    held: list[int] = []

    async def main() -> None:
        event = asyncio.Event()
        waiting = [asyncio.create_task(event.wait()) for _ in range(5000)]
        while len(books._live) < 5000:
            held.append(len(books._live))
            await asyncio.sleep(0)
        event.set()
        await asyncio.wait(waiting)

    loop.run_until_complete(main())
    assert max(b - a for a, b in pairwise(held)) <= tasks_module._SORTED
    assert len(held) >= 5


def test_many_sleepers_do_not_keep_the_loop_when_one_task_fails(
    loop: Loop, books: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unretrieved_failures, "_STEP", 100)
    reports, looks = [], []
    loop.set_exception_handler(lambda _, context: reports.append(repr(context["exception"])))
    advance = unretrieved_failures.Unretrieved._advance
    monkeypatch.setattr(
        unretrieved_failures.Unretrieved, "_advance", lambda self, survey: (looks.append(1), advance(self, survey))
    )

    async def fail() -> None:
        raise ValueError("failed")

    async def main() -> None:
        event = asyncio.Event()
        waiting = [asyncio.create_task(event.wait()) for _ in range(1000)]
        failed = asyncio.create_task(fail())
        async with asyncio.timeout(30):
            while not reports:
                await asyncio.sleep(0.001)
        assert failed.done()
        event.set()
        await asyncio.wait(waiting)

    loop.run_until_complete(main())
    assert reports == ["ValueError('failed')"]
    assert len(looks) >= 10


def test_a_failure_is_told_though_cells_come_fast(shared: Kernel) -> None:
    started = shared.ok(
        "async def fail():\n    await asyncio.sleep(0)\n    raise ValueError('told')\nt = asyncio.create_task(fail())"
    )
    for n in range(2000):  # each comes as soon as the one before has ended
        shared.ok(f"await asyncio.sleep(0); {n}")
        if "ValueError: told" in started.stderr:
            break
    assert started.stderr.count("failed, and nobody awaits it") == 1


def test_ended_tasks_are_let_go_though_cells_come_fast(shared: Kernel) -> None:
    shared.ok(
        "import weakref\nclass Result: pass\nalive = weakref.WeakSet()\n"
        "async def work():\n    await asyncio.sleep(0)\n    result = Result(); alive.add(result)\n    return result"
    )
    for _ in range(50):
        shared.ok("t = asyncio.create_task(work()); await t; None")
    assert int(shared.ok("t = None; len(alive)").value or 99) <= 2


def test_an_eager_task_that_fails_is_told(loop: Loop, books: Tasks) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")
    reports: list[str] = []
    loop.set_exception_handler(lambda _, context: reports.append(repr(context["exception"])))
    loop.set_task_factory(asyncio.eager_task_factory)

    async def fail() -> None:
        raise ValueError("failed")

    async def main() -> None:
        failed = asyncio.create_task(fail())
        async with asyncio.timeout(30):
            while not reports:
                await asyncio.sleep(0.01)
        assert failed.done()

    loop.run_until_complete(main())
    assert reports == ["ValueError('failed')"]


def put_off(loop: Loop, waiting: weakref.WeakSet[asyncio.Future[None]]) -> asyncio.Future[None]:
    future = loop.create_future()
    waiting.add(future)
    return future


def turn(loop: Loop, seconds: float) -> None:
    end = loop.time() + seconds
    while loop.time() < end:  # an interrupted run may have left a stop()
        loop.call_at(end, loop.stop)
        loop.run_forever()


TORN = {
    "as it is noted": Tasks._keep,
    "as it is stored": Tasks._hold,
    "as it is looked at": Tasks._look_at,
    "as it is let go": Tasks._let_go,
}


@pytest.mark.parametrize("where", TORN)
def test_an_interrupt_in_the_middle_of_the_books_loses_no_task(loop: Loop, books: Tasks, where: str) -> None:
    # A cell without await runs the loop itself: KeyboardInterrupt may be raised between any two instructions.
    code, reports = TORN[where].__code__, list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, report: reports.append(report))
    torn = 0

    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []
    failed: list[asyncio.Task[None]] = []

    async def lonely(n: int) -> None:
        for _ in range(3):
            await put_off(loop, waiting)
        went_on.append(n)

    async def fails() -> None:
        await asyncio.sleep(0.001)
        raise ValueError

    def interrupt(line: int) -> None:
        """Raise KeyboardInterrupt at the *line*-th line of the function, and go on."""
        nonlocal torn
        lines = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines, torn
            if frame.f_code is not code:
                return None
            if event == "line":
                lines += 1
                if lines == line:
                    torn += 1
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        async def main() -> None:
            loop.create_task(lonely(line), name=f"lonely {line}")
            failed.append(loop.create_task(fails()))
            await asyncio.sleep(0.01)

        gc.disable()  # in its callbacks nothing can be raised
        sys.settrace(trace)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                loop.run_until_complete(main())
        finally:
            sys.settrace(None)
            gc.enable()
        for _ in range(3):
            turn(loop, 0.005)
            gc.collect()
            while waiting:
                waiting.pop().set_result(None)
        turn(loop, 0.005)

    for line in range(1, 20):
        interrupt(line)
    assert torn > 5
    assert sorted(went_on) == list(range(1, 20))
    names = [ended.name for ended in books.ended() if ended.name.startswith("lonely")]
    assert sorted(names) == sorted(set(names))
    turn(loop, 1.5)
    told = [report["task"] for report in reports if "task" in report and "never retrieved" in report["message"]]
    assert len(told) == len(failed)
    assert set(told) == set(failed)


def test_a_task_that_waits_again_survives_a_collection_before_the_look(loop: Loop, books: Tasks) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely() -> None:
        for _ in range(2):
            await put_off(loop, waiting)
        went_on.append(1)

    loop.create_task(lonely())
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    (future,) = waiting
    callbacks = future._callbacks
    assert callbacks is not None
    # Between the step of the task and our look: what the collector does there, a callback does.
    later, context = callbacks[-1]
    future.remove_done_callback(later)
    future.add_done_callback(lambda _: gc.collect())
    future.add_done_callback(later, context=context)
    del later, callbacks, context
    future.set_result(None)
    del future
    loop.run_until_complete(asyncio.sleep(0.01))
    gc.collect()
    for future in list(waiting):
        future.set_result(None)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert went_on == [1]


@pytest.mark.parametrize("ends", ["by a press", "by SystemExit"])
def test_tasks_that_begin_after_an_iteration_was_cut_short_survive_a_collection(ends: str) -> None:
    runner = NotebookRunner()
    loop = runner.get_loop()
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely(n: int) -> None:
        await put_off(loop, waiting)
        went_on.append(n)

    async def cuts() -> None:
        if ends == "by SystemExit":
            raise SystemExit(3)
        signal.raise_signal(signal.SIGINT)

    async def collects() -> None:
        gc.collect()

    async def main() -> None:
        tasks = [loop.create_task(lonely(0)), loop.create_task(cuts())]
        for n in range(1, 6):
            loop.create_task(lonely(n))
        loop.create_task(collects())
        await asyncio.sleep(0.1)
        assert isinstance(tasks[1].exception(), SystemExit)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            runner.run(main())
        runner.run(asyncio.sleep(0.01))
        gc.collect()
        while waiting:
            waiting.pop().set_result(None)
        runner.run(asyncio.sleep(0.01))
        assert sorted(went_on) == list(range(6))
    finally:
        runner.close()
        asyncio.set_event_loop(None)
