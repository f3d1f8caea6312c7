"""``Tasks`` and the clean-up of tracebacks in this process: what real kernels show by chance only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from ipyrunner.aio.introspection.running_loop import register_task, unregister_task
from ipyrunner.aio.tasks.registry import Tasks
from ipyrunner.ipython.tracebacks import without_machinery


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def raise_at(step: int) -> Any:
    """Return a trace function that raises KeyboardInterrupt at one of the instructions of ``create_task``."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_name != "create_task" or not frame.f_code.co_filename.endswith("registry.py"):
            return None
        frame.f_trace_opcodes = True
        if event in ("opcode", "line"):  # 3.12.1 has no events for opcodes that are asked for so late
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    return trace


def test_an_interrupt_between_any_two_instructions_tears_nothing(loop: asyncio.AbstractEventLoop) -> None:
    # In a cell without await Python's own handler raises anywhere.
    torn: list[BaseException] = []
    tasks = Tasks(loop, torn=torn.append)

    async def nothing() -> None:
        await asyncio.sleep(0)

    started = interrupted = 0
    for step in range(1, 200):
        coro = nothing()
        before = sys.gettrace()
        sys.settrace(raise_at(step))
        try:
            loop.create_task(coro)
            started += 1
        except KeyboardInterrupt:
            interrupted += 1
            if not any(entry.task.get_coro() is coro for entry in tasks.started()):
                coro.close()
        finally:
            sys.settrace(before)
        assert all(entry.at > 0 for entry in tasks.started())
        if started:
            break
    assert interrupted > 5
    assert started == 1
    loop.run_until_complete(asyncio.sleep(0.3))  # sweeps
    assert tasks.started() == []
    assert torn == []
    assert len(tasks.ended()) >= started
    tasks.close()


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
        gathered = asyncio.gather(fail(0), end.wait(), return_exceptions=True)
        waiting = asyncio.create_task(asyncio.wait([gathered]))
        await asyncio.sleep(0.01)
        for _ in range(1200):  # each is a look, and so is each end of a cell
            tasks.settle()
        end.set()
        await waiting

    loop.run_until_complete(main())
    assert (messages, torn) == ([], [])
    tasks.close()


def test_a_failure_is_told_while_other_tasks_keep_ending(loop: asyncio.AbstractEventLoop) -> None:
    messages = told(loop)
    tasks = Tasks(loop, torn=lambda exc: None)

    async def main() -> list[str]:
        # They have lived through two sweeps, and each end of one was followed by a look that did not come.
        held = [asyncio.create_task(asyncio.sleep(0.5 + n / 100)) for n in range(300)]
        held.append(asyncio.create_task(fail(0.6)))
        await held[299 - 50]
        return list(messages)

    assert loop.run_until_complete(main()) == ["ValueError('failed')"]
    tasks.close()
    loop.run_until_complete(asyncio.sleep(0))


def test_a_task_factory_need_not_know_names(loop: asyncio.AbstractEventLoop) -> None:
    # Python 3.14 passes on what create_task was given, and nothing else.
    def factory(loop: Any, coro: Any, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, context=context)

    tasks = Tasks(loop, torn=lambda exc: None)
    loop.set_task_factory(factory)
    assert loop.run_until_complete(loop.create_task(asyncio.sleep(0, "made"))) == "made"
    tasks.close()


def test_a_long_chain_of_exceptions_is_cleaned() -> None:
    last: Exception | None = None
    for n in range(5000):
        exc = ValueError(n)
        exc.__cause__ = last
        last = exc
    assert last is not None
    assert without_machinery(last) is None


def test_a_future_of_the_users_may_have_children_of_its_own(loop: asyncio.AbstractEventLoop) -> None:
    class Future(asyncio.Future):  # type: ignore[type-arg]
        _children = None

    tasks = Tasks(loop, torn=lambda exc: None)
    messages = told(loop)

    async def main() -> None:
        future = Future()
        failed = asyncio.create_task(fail(0))
        waiting = asyncio.create_task(asyncio.wait([future]))
        await asyncio.sleep(0.5)
        assert messages == ["ValueError('failed')"], failed
        future.set_result(None)
        await waiting

    loop.run_until_complete(main())
    tasks.close()


def test_the_main_task_is_one_while_something_runs_in_it() -> None:
    loop = asyncio.new_event_loop()
    tasks = Tasks(loop, torn=lambda exc: None)

    def started() -> list[Any]:
        return [entry.task for entry in tasks.started()]

    main = asyncio.Task(asyncio.sleep(60), loop=loop)
    unregister_task(main)
    other = loop.create_task(asyncio.sleep(60))
    for _ in range(2):
        tasks.main_begins(main)
        register_task(main)
        later = loop.create_task(asyncio.sleep(0))
        assert started() == [other, main, later]
        assert [entry.number for entry in tasks.started()] == sorted({entry.number for entry in tasks.started()})
        loop.run_until_complete(later)
        unregister_task(main)
        tasks.main_ends()
        assert started() == [other]
    tasks.main_begins(main)
    tasks.main_ends(given_up=True)
    assert started() == [other, main]
    main.cancel()
    other.cancel()
    loop.run_until_complete(asyncio.wait([main, other]))
    assert other.get_name() in (names := [entry.name for entry in tasks.ended()])
    assert main.get_name() not in names
    tasks.close()
    loop.close()
