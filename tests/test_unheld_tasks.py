"""Tasks that nobody holds survive the garbage collector, whenever it runs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import signal
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.tasks import young_tasks
from ipyrunner.aio.tasks.registry import Tasks
from ipyrunner.aio.tasks.young_tasks import YoungTasks
from loops import looked_at, put_off, until


def test_tasks_that_nobody_holds_survive_a_collection_in_their_first_iteration(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely(n: int) -> None:
        future = put_off(loop, waiting)
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
        await looked_at(books)

    loop.run_until_complete(main())
    assert sorted(went_on) == list(range(300))
    assert books._young._on_collection not in gc.callbacks


def test_tasks_that_nobody_holds_survive_a_collection_in_another_thread(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    async def lonely() -> None:
        await put_off(loop, waiting)

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


def test_many_and_eager_tasks_that_nobody_holds_survive_a_collection_at_once(asyncio_runner: NotebookRunner) -> None:
    loop = asyncio_runner.get_loop()
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    async def lonely() -> None:
        await put_off(loop, waiting)

    async def main(eager: bool) -> int:
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        number = 10 if eager else 3000
        for _ in range(number):
            loop.create_task(lonely())
        loop.set_task_factory(None)
        if not eager:
            await asyncio.sleep(0)
        gc.collect()
        found = len(waiting)
        for future in list(waiting):
            future.set_result(None)
        del future
        await asyncio.sleep(0.01)
        return number - found

    assert asyncio_runner.run(main(eager=False)) == 0
    if hasattr(asyncio, "eager_task_factory"):
        assert asyncio_runner.run(main(eager=True)) == 0


def test_a_task_that_waits_again_survives_a_collection_before_the_look(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely() -> None:
        for _ in range(2):
            await put_off(loop, waiting)
        went_on.append(1)

    loop.create_task(lonely())
    loop.run_until_complete(looked_at(books))
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
    loop.run_until_complete(until(lambda: not all(future.done() for future in waiting)))
    loop.run_until_complete(looked_at(books))
    gc.collect()
    for future in list(waiting):
        if not future.done():
            future.set_result(None)
    loop.run_until_complete(until(lambda: went_on))
    assert went_on == [1]


@pytest.mark.parametrize("ends", ["by a press", "by SystemExit"])
def test_tasks_that_begin_after_an_iteration_was_cut_short_survive_a_collection(
    asyncio_runner: NotebookRunner, ends: str
) -> None:
    loop = asyncio_runner.get_loop()
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
        await asyncio.wait([tasks[1]])
        assert isinstance(tasks[1].exception(), SystemExit)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio_runner.run(main())
    asyncio_runner.run(asyncio.sleep(0.01))
    gc.collect()
    while waiting:
        waiting.pop().set_result(None)
    asyncio_runner.run(until(lambda: len(went_on) >= 6))
    assert sorted(went_on) == list(range(6))


def test_the_collector_is_watched_only_while_there_are_young_tasks(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    on_collection = books._young._on_collection
    task = loop.create_task(asyncio.sleep(0.001))
    # In a cell without await: what is raised in there the collector drops.
    assert on_collection not in gc.callbacks

    async def main() -> None:
        asyncio.create_task(asyncio.sleep(0.001))
        assert on_collection in gc.callbacks
        await looked_at(books)
        assert on_collection not in gc.callbacks
        await task

    loop.run_until_complete(main())


def test_the_collector_is_not_watched_in_a_cell_without_await(runner: NotebookRunner) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        for _ in range(3000):
            asyncio.create_task(nothing())

    def watched() -> bool:
        return any(isinstance(getattr(callback, "__self__", None), YoungTasks) for callback in gc.callbacks)

    gc.disable()  # the collector would sort them
    try:
        runner.run(main())
        assert watched()
        assert not runner.run_sync(watched)
    finally:
        gc.enable()


def test_tasks_that_go_on_are_watched_some_at_a_time(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    held: list[int] = []

    async def main() -> None:
        event = asyncio.Event()
        waiting = [asyncio.create_task(event.wait()) for _ in range(3000)]
        while len(books._live) < len(waiting):
            held.append(len(books._live))
            await asyncio.sleep(0)
        event.set()
        await asyncio.wait(waiting)

    loop.run_until_complete(main())
    assert max(b - a for a, b in pairwise(held)) <= young_tasks._HANDED_ON * young_tasks._LONGEST_PAUSE
    assert len(set(held)) >= 4


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_tasks_that_nobody_holds_survive_collections_of_each_generation(
    loop: asyncio.AbstractEventLoop, books: Tasks, generation: int
) -> None:
    # Before they are watched, and of whichever age: the collector does not look at all of them each time.
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely(n: int) -> None:
        await put_off(loop, waiting)
        went_on.append(n)

    async def main() -> None:
        for age in (1, 0, 0, 1, 0):
            for n in range(10):
                loop.create_task(lonely(n))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect(age)
        gc.collect(generation)
        assert books._live == {}
        while waiting:
            waiting.pop().set_result(None)
        await asyncio.sleep(0.01)

    gc.collect()
    gc.disable()
    books._young._hand_some_on = lambda number: None  # type: ignore[method-assign]
    try:
        loop.run_until_complete(main())
    finally:
        gc.enable()
    assert len(went_on) == 50


def test_tasks_that_nobody_holds_survive_a_collection_in_a_cell_without_await(runner: NotebookRunner) -> None:
    loop = runner.get_loop()
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely() -> None:
        await put_off(loop, waiting)
        went_on.append(1)

    async def main() -> None:
        for _ in range(3):
            loop.create_task(lonely())
        await asyncio.sleep(0)

    runner.run(main())
    for _ in range(2):
        runner.run_sync(gc.collect)
        runner.run(asyncio.sleep(0))
        gc.collect()
    while waiting:
        waiting.pop().set_result(None)
    runner.run(until(lambda: len(went_on) >= 3))
    assert went_on == [1, 1, 1]


@pytest.mark.parametrize("where", ["at rest", "in a loop that a plain cell runs"])
def test_tasks_that_nobody_holds_survive_a_collection_though_a_look_was_due_before(
    runner: NotebookRunner, where: str
) -> None:
    loop = runner.get_loop()
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely(n: int) -> None:
        await put_off(loop, waiting)
        went_on.append(n)

    def start() -> None:
        for n in range(5):
            loop.create_task(lonely(n))

    async def collect() -> None:
        for _ in range(2):
            await asyncio.sleep(0)
        gc.collect()
        while waiting:
            waiting.pop().set_result(None)
        await asyncio.sleep(0.05)

    async def start_and_collect() -> None:
        start()
        await collect()

    def cell() -> None:
        loop.create_task(asyncio.sleep(0))
        loop.run_until_complete(start_and_collect())

    async def before() -> None:
        await asyncio.create_task(asyncio.sleep(0))

    runner.run(before())
    if where == "at rest":
        runner.run_sync(start)
        runner.run(collect())
    else:
        runner.run_sync(cell)
    assert sorted(went_on) == list(range(5))


def test_the_collector_is_not_watched_when_a_plain_cell_has_run_the_loop(runner: NotebookRunner) -> None:
    async def main() -> None:
        for _ in range(100):
            asyncio.create_task(asyncio.sleep(30))
        for _ in range(3):
            await asyncio.sleep(0)

    def cell() -> list[object]:
        runner.get_loop().run_until_complete(main())
        return [callback for callback in gc.callbacks if isinstance(getattr(callback, "__self__", None), YoungTasks)]

    assert runner.run_sync(cell) == []


def test_a_task_is_not_watched_before_the_second_look(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    # To watch it takes longer than to run a short one.
    async def main() -> None:
        event = asyncio.Event()
        waiting = [asyncio.create_task(event.wait()) for _ in range(10)]
        await asyncio.sleep(0)
        books._young._look()
        assert not any(weakref.ref(task) in books._live for task in waiting)
        books._young._look()
        assert all(weakref.ref(task) in books._live for task in waiting)
        event.set()
        await asyncio.wait(waiting)

    loop.run_until_complete(main())


def collected_between(loop: asyncio.AbstractEventLoop, start: Callable[[Callable[[], Any], Any], None]) -> int:
    """Run *start*, which starts tasks, some of which have begun when the collector runs; return how many survive.

    *start* is given the coroutine function of a task that waits, and a coroutine that collects.
    """
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []

    async def lonely() -> None:
        await put_off(loop, waiting)
        went_on.append(1)

    async def collect() -> None:
        gc.collect()

    async def main() -> None:
        await asyncio.sleep(0.01)  # the first look comes
        start(lonely, collect())
        await asyncio.sleep(0.01)  # all begin in the next iteration
        while waiting:
            waiting.pop().set_result(None)
        await asyncio.sleep(0.01)

    gc.collect()
    gc.disable()
    try:
        loop.run_until_complete(main())
    finally:
        gc.enable()
    return len(went_on)


class Backwards(asyncio.SelectorEventLoop):
    """A loop that calls first what was scheduled last."""

    def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        handle = super().call_soon(*args, **kwargs)
        self._ready.rotate(1)  # type: ignore[attr-defined]
        return handle


def test_tasks_survive_a_collection_though_they_begin_before_earlier_ones() -> None:
    # What has not begun the loop holds, and usually all later tasks; but not on this loop.
    def start(lonely: Callable[[], Any], collect: Any) -> None:
        loop.create_task(asyncio.sleep(0))
        loop.create_task(collect)
        for _ in range(5):
            loop.create_task(lonely())

    loop = Backwards()
    books = Tasks(loop, torn=lambda exc: None)
    try:
        assert collected_between(loop, start) == 5
    finally:
        books.close()
        loop.close()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="no eager tasks in this Python")
def test_eager_tasks_after_one_that_has_not_begun_survive_a_collection(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    def start(lonely: Callable[[], Any], collect: Any) -> None:
        loop.create_task(asyncio.sleep(0))
        loop.set_task_factory(asyncio.eager_task_factory)
        for _ in range(5):
            loop.create_task(lonely())
        loop.create_task(collect)
        loop.set_task_factory(None)

    assert collected_between(loop, start) == 5


@pytest.mark.parametrize("lost", ["its Context is entered", "another task is current", "it is in another loop"])
def test_tasks_after_one_that_never_begins_survive_a_collection(
    loop: asyncio.AbstractEventLoop, books: Tasks, lost: str
) -> None:
    # It has not begun, and is not in the loop's queue either: what is started later may have begun.
    kept: list[asyncio.Task[None]] = []
    entered, other = contextvars.copy_context(), asyncio.new_event_loop()

    def in_other(_: object, coro: Any, **options: Any) -> asyncio.Task[None]:
        return asyncio.Task(coro, loop=other, **options)

    def start(lonely: Callable[[], Any], collect: Any) -> None:
        loop.set_task_factory(in_other if lost == "it is in another loop" else None)
        context = entered if lost == "its Context is entered" else None
        kept.append(loop.create_task(asyncio.sleep(0), context=context))
        loop.set_task_factory(None)
        if lost == "another task is current":
            loop._run_once()  # type: ignore[attr-defined]  # as code does that polls the loop by hand
        for _ in range(5):
            loop.create_task(lonely())
        loop.create_task(collect)

    loop.set_exception_handler(lambda loop, context: None)
    assert entered.run(collected_between, loop, start) == 5
    assert not kept[0].done()
    kept[0].get_coro().close()  # type: ignore[union-attr]
    other.set_exception_handler(lambda loop, context: None)
    kept.clear()
    other.close()


@pytest.mark.parametrize("by", ["an interrupt", "another call_soon", "hand"])
def test_tasks_survive_a_collection_though_they_went_before_one_that_waits_in_the_queue(
    loop: asyncio.AbstractEventLoop, books: Tasks, by: str
) -> None:
    # The queue is as long as if none of them had begun, since other callbacks were scheduled.
    own, ready = loop.call_soon, loop._ready  # type: ignore[attr-defined]
    is_urgent = False
    queue = ReadyQueue(loop)

    def call_soon(callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
        handle = own(callback, *args, **options)
        ready.rotate(is_urgent)
        return handle

    def start(lonely: Callable[[], Any], collect: Any) -> None:
        nonlocal is_urgent
        collect.close()
        loop.create_task(asyncio.sleep(0))
        own(gc.collect)
        ready.rotate(1)
        if by == "another call_soon":
            loop.call_soon = call_soon  # type: ignore[method-assign]
            is_urgent = True
        tasks = [loop.create_task(lonely()) for _ in range(5)]
        is_urgent = False
        if by == "an interrupt":
            queue.promote(tasks)
        elif by == "hand":
            ready.rotate(5)
        if by != "hand":
            loop.create_task(asyncio.sleep(0))
        for _ in range(5):
            own(lambda: None)

    assert collected_between(loop, start) == 5


def test_a_task_that_an_interrupt_has_put_first_survives_a_collection() -> None:
    kept: list[asyncio.Task[None]] = []
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    runner = NotebookRunner()
    loop = runner.get_loop()
    went_on = asyncio.Event()

    async def lonely() -> None:
        await put_off(loop, waiting)
        went_on.set()

    async def interrupted() -> None:
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        loop.call_soon(gc.collect)
        kept.append(loop.create_task(asyncio.sleep(0)))
        await asyncio.wait([loop.create_task(lonely())])

    async def after() -> None:
        await kept[0]
        waiting.pop().set_result(None)
        await went_on.wait()

    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run(interrupted())
        runner.run(after())
    finally:
        gc.enable()
        runner.close()


@pytest.mark.parametrize("truth", ["raises", "is false"])
def test_tasks_of_a_class_that_somebody_has_put_in_the_place_of_asyncios(
    loop: asyncio.AbstractEventLoop, books: Tasks, monkeypatch: pytest.MonkeyPatch, truth: str
) -> None:
    class Theirs(asyncio.Task):  # type: ignore[type-arg]
        def __bool__(self) -> bool:
            if truth == "raises":
                raise ValueError("no")
            return False

    async def main() -> None:
        event = asyncio.Event()
        tasks = [loop.create_task(event.wait()) for _ in range(3)]
        books._take()
        monkeypatch.setattr(asyncio.tasks, "Task", Theirs)
        tasks += [loop.create_task(event.wait()) for _ in range(300)]
        assert type(tasks[-1]) is Theirs
        await asyncio.sleep(0)
        for _ in range(2):
            books._young.settle()
        assert [each.task for each in books.started()][-303:] == tasks
        event.set()
        for task in tasks:
            await task

    loop.run_until_complete(main())


def test_tasks_that_are_false_are_not_taken_for_gone(
    loop: asyncio.AbstractEventLoop, books: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They are young tasks: there is still room when somebody puts their class in the place of asyncio's.
    class Theirs(asyncio.Task):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 0

    async def main() -> None:
        event = asyncio.Event()
        books._take()  # main() itself
        await loop.create_task(asyncio.sleep(0))
        await asyncio.sleep(0)  # nothing holds that task any more
        monkeypatch.setattr(asyncio.tasks, "Task", Theirs)
        tasks = [loop.create_task(event.wait()) for _ in range(3)]
        for _ in range(2):
            books._young.settle()
        assert [each.task for each in books._young.alive()][-3:] == tasks
        event.set()
        for task in tasks:
            await task

    loop.run_until_complete(main())
