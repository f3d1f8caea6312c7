"""The failure of a task that nobody looks at is told, once, however busy the loop is."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from ipyrunner.aio.tasks import unretrieved_failures
from ipyrunner.aio.tasks.exception_handler import Failure, Failures
from ipyrunner.aio.tasks.registry import Tasks
from kernels import Kernel
from loops import until


def told(loop: asyncio.AbstractEventLoop) -> list[str]:
    messages: list[str] = []
    loop.set_exception_handler(lambda _, context: messages.append(repr(context.get("exception"))))
    return messages


async def fail(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError("failed")


def test_a_failure_may_be_looked_at_for_as_long_as_it_is_gathered(loop: asyncio.AbstractEventLoop) -> None:
    messages, torn = told(loop), []
    tasks = Tasks(loop, torn=torn.append)

    async def main() -> None:
        end = asyncio.Event()
        failing = asyncio.create_task(fail(0))
        gathered = asyncio.gather(failing, end.wait(), return_exceptions=True)
        waiting = asyncio.create_task(asyncio.wait([gathered]))
        await asyncio.wait([failing])
        del failing
        for _ in range(1200):  # each is a look, and so is each end of a cell
            tasks.settle()
        end.set()
        await waiting

    loop.run_until_complete(main())
    assert (messages, torn) == ([], [])
    tasks.close()


def test_a_failure_is_told_while_other_tasks_keep_ending(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    messages = told(loop)

    async def main() -> list[str]:
        # They have lived through two sweeps, and each end of one was followed by a look that did not come.
        held = [asyncio.create_task(asyncio.sleep(0.5 + n / 100)) for n in range(300)]
        held.append(asyncio.create_task(fail(0.6)))
        await held[299 - 50]
        return list(messages)

    assert loop.run_until_complete(main()) == ["ValueError('failed')"]


def test_a_failure_is_told_while_other_tasks_keep_failing(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    reports = told(loop)

    async def fail() -> None:
        raise ValueError("failed")

    async def main() -> None:
        held = []
        async with asyncio.timeout(30):
            while not reports:
                held.append(asyncio.create_task(fail()))
                await asyncio.sleep(0.005)

    loop.run_until_complete(main())


def test_many_sleepers_do_not_keep_the_loop_when_one_task_fails(
    loop: asyncio.AbstractEventLoop, books: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unretrieved_failures, "_STEP", 100)
    reports, looks = told(loop), []
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
        await until(lambda: reports)
        assert failed.done()
        event.set()
        await asyncio.wait(waiting)

    loop.run_until_complete(main())
    assert reports == ["ValueError('failed')"]
    assert len(looks) >= 10


def test_an_eager_task_that_fails_is_told(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")
    reports = told(loop)
    loop.set_task_factory(asyncio.eager_task_factory)

    async def fail() -> None:
        raise ValueError("failed")

    async def main() -> None:
        failed = asyncio.create_task(fail())
        await until(lambda: reports)
        assert failed.done()

    loop.run_until_complete(main())
    assert reports == ["ValueError('failed')"]


def test_a_future_of_the_users_may_have_children_of_its_own(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    class Future(asyncio.Future):  # type: ignore[type-arg]
        _children = None

    messages = told(loop)

    async def main() -> None:
        future = Future()
        failed = asyncio.create_task(fail(0))
        waiting = asyncio.create_task(asyncio.wait([future]))
        await until(lambda: messages)
        assert messages == ["ValueError('failed')"], failed
        future.set_result(None)
        await waiting

    loop.run_until_complete(main())


def test_a_failure_is_shown_though_its_context_is_entered(loop: asyncio.AbstractEventLoop) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    shown: list[str] = []

    def show(failure: Failure) -> None:
        shown.append(var.get())

    failures = Failures(loop, show)

    async def main() -> None:
        var.set("of the task")
        loop.call_exception_handler({"message": "of a library", "task": asyncio.current_task()})
        failures.flush()  # at the end of a cell, say: the task's Context is the one that runs

    loop.run_until_complete(main())
    failures.close()
    assert shown == ["of the task"]


def test_a_failure_is_told_though_cells_come_fast(shared: Kernel) -> None:
    started = shared.ok(
        "async def fail():\n    await asyncio.sleep(0)\n    raise ValueError('told')\nt = asyncio.create_task(fail())"
    )
    for n in range(2000):  # each comes as soon as the one before has ended
        shared.ok(f"await asyncio.sleep(0); {n}")
        if "ValueError: told" in started.stderr:
            break
    assert started.stderr.count("failed, and nobody awaits it") == 1
