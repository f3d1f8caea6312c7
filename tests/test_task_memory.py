"""What the bookkeeping of tasks keeps of those that have ended: nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.tasks.registry import Tasks
from ipyrunner.aio.tasks.young_tasks import FEW
from ipyrunner.ipykernel.requests.cell_record import CellRecord
from kernels import Kernel
from loops import looked_at, put_off, until


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
    tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
    for _ in range(100):
        tasks.add(asyncio.create_task(work()))
    await until(lambda: not tasks)


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
def test_what_has_ended_is_not_kept(loop: asyncio.AbstractEventLoop, books: Tasks, shape: str) -> None:
    run, work = SHAPES[shape]
    loop.run_until_complete(run(work))
    assert Result.most <= 3


@pytest.mark.parametrize("shape", [without_a_pause, one_after_the_other, nobody_holds_them])
def test_eager_tasks_are_not_kept(loop: asyncio.AbstractEventLoop, books: Tasks, shape: Callable[..., Any]) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")
    loop.set_task_factory(asyncio.eager_task_factory)
    loop.run_until_complete(shape(at_once))
    assert Result.most <= 3


def test_ended_tasks_are_let_go_though_cells_come_fast(shared: Kernel) -> None:
    shared.ok(
        "import weakref\nclass Result: pass\nalive = weakref.WeakSet()\n"
        "async def work():\n    await asyncio.sleep(0)\n    result = Result(); alive.add(result)\n    return result"
    )
    for _ in range(50):
        shared.ok("t = asyncio.create_task(work()); await t; None")
    assert int(shared.ok("t = None; len(alive)").value or 99) <= 2


@pytest.mark.parametrize("code", ["await asyncio.sleep(0)\nfail()", "fail()", "display(Big())\nBig()"])
def test_a_task_of_a_cell_keeps_neither_its_error_nor_its_value(shared: Kernel, code: str) -> None:
    shared.ok(
        "import asyncio, gc, weakref\n"
        "class Big: pass\n"
        "def new():\n    big = Big(); bigs.append(weakref.ref(big)); return big\n"
        "def fail():\n    big = new(); raise ValueError\n"
        "bigs = []; get_ipython().displayhook.do_full_cache = False"
    )
    shared.run(f"task = asyncio.create_task(asyncio.Event().wait())\n{code.replace('Big()', 'new()')}")
    shared.run("1/0")  # in the place of sys.last_value
    for _ in range(4):
        shared.ok("1")  # in the place of _, __ and ___
    shared.ok("get_ipython().displayhook.do_full_cache = True")
    assert shared.ok("gc.collect(); [ref() for ref in bigs if ref() is not None], task.done()").value == "([], False)"
    shared.ok("task.cancel()")


def test_a_record_of_a_cell_lets_go_of_all_that_may_be_large() -> None:
    record = CellRecord()
    record.result, record.displayed = object(), {"data": "an image"}
    record.shown = ValueError(), KeyboardInterrupt()
    record.end()
    assert (record.result, record.shown, record.displayed, record.own_error) == (None, None, None, None)


def test_what_the_last_run_has_returned_is_not_kept(asyncio_runner: NotebookRunner) -> None:

    class Result:
        pass

    async def work() -> Result:
        await asyncio.sleep(0)
        return Result()

    ref = weakref.ref(asyncio_runner.run(work()))
    asyncio_runner.run(asyncio.sleep(0))  # what is left to do for the end of that task
    gc.collect()
    assert ref() is None


def test_what_ends_after_a_plain_cell_is_not_kept(asyncio_runner: NotebookRunner) -> None:
    tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    async def start() -> None:
        tasks.add(asyncio.create_task(later()))
        await asyncio.sleep(0)

    asyncio_runner.run(start())
    asyncio_runner.run_sync(lambda: None)
    asyncio_runner.run(until(lambda: not tasks))
    assert not Result.alive


def test_other_references_to_a_new_task_are_not_taken_for_asyncios(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    kept: list[Any] = []

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        kept.extend((weakref.proxy(task), weakref.ref(task, lambda ref: None)))
        return task

    call_soon = loop.call_soon

    def noting(callback: Any, *args: Any, **options: Any) -> Any:
        if asyncio.isfuture(owner := getattr(callback, "__self__", None)):
            kept.extend((weakref.proxy(owner), weakref.ref(owner, lambda ref: None), Odd(owner, lambda ref: None)))
        return call_soon(callback, *args, **options)

    class Odd(weakref.ref[Any]):
        def __call__(self) -> str:
            return "something else"

    async def main() -> list[int]:
        tasks = [asyncio.create_task(later())]
        loop.set_task_factory(None)
        loop.call_soon = noting  # type: ignore[method-assign]
        tasks += [asyncio.create_task(later()) for _ in range(3)]
        loop.call_soon = call_soon  # type: ignore[method-assign]
        gc.collect()
        found = [started.task for started in books.started()]
        await asyncio.gather(*tasks)
        return [found.count(task) for task in tasks]

    loop.set_task_factory(factory)
    assert loop.run_until_complete(main()) == [1] * 4


def test_a_task_has_one_weak_reference(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    # Asyncio's own until 3.13, ours since then. Each more is one more object for the garbage collector.
    async def main() -> list[int]:
        tasks = [asyncio.create_task(later()) for _ in range(3)] + [loop.create_task(later(), name="named")]
        return [weakref.getweakrefcount(task) for task in tasks]

    assert loop.run_until_complete(main()) == [1] * 4
    loop.run_until_complete(
        until(lambda: not Result.alive and not asyncio.all_tasks(loop) - {asyncio.current_task(loop)})
    )


def test_references_to_eager_tasks_are_not_kept(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")
    loop.set_task_factory(asyncio.eager_task_factory)
    gc.disable()
    try:
        loop.run_until_complete(without_a_pause(at_once))
    finally:
        gc.enable()
    assert len(books._young.new) < 10


def test_references_to_tasks_that_have_vanished_do_not_pile_up(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    async def nothing() -> None:
        pass

    async def main() -> int:
        most = 0
        for _ in range(100):
            await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(100)])
            most = max(most, sum(ref() is None for ref in books._young.refs()))
        return most

    with pytest.MonkeyPatch.context() as patch:
        # No look comes: this is what is done at each hundred tasks.
        patch.setattr("ipyrunner.aio.tasks.young_tasks._PAUSE", 3600)
        assert loop.run_until_complete(main()) < 4 * FEW


def test_tasks_among_many_that_vanish_are_kept_and_numbered(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    async def wait() -> None:
        await put_off(loop, waiting)

    async def fail() -> None:
        raise ValueError("seen")

    async def nothing() -> None:
        pass

    async def main() -> None:
        failed = []
        for n in range(3 * FEW):
            if n % 50 == 0:
                asyncio.create_task(wait(), name=f"waiting {n}")
                failed.append(asyncio.create_task(fail()))
            await asyncio.create_task(nothing())
        gc.collect()
        await looked_at(books)
        gc.collect()
        kept = [each for each in books.started() if each.task.get_name().startswith("waiting")]
        assert [each.task.get_name() for each in kept] == [f"waiting {n}" for n in range(0, 3 * FEW, 50)]
        numbers = [each.number for each in kept]
        # 50 that do nothing, one that waits and one that fails lie between two of them.
        assert [after - before for before, after in pairwise(numbers)] == [52] * (len(kept) - 1)
        assert {id(task) for task in failed} <= {id(ref()) for ref in books._unretrieved.suspects()}
        for task in failed:
            assert isinstance(task.exception(), ValueError)
        for each in kept:
            each.task.cancel()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
