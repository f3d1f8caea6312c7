"""``Runner`` and ``run``: what Python 3.14 documents, beyond CPython's own suite."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import threading
from typing import Any

import pytest

import ipyrunner
from ipyrunner import Runner, run

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


class Awaitable:
    def __await__(self) -> Any:
        return answer().__await__()


def test_any_awaitable_is_run() -> None:
    with Runner() as runner:
        future = runner.get_loop().create_future()
        future.set_result(1)
        assert [runner.run(answer()), runner.run(Awaitable()), runner.run(future)] == [42, 42, 1]
    assert [run(answer()), run(Awaitable())] == [42, 42]


@pytest.mark.parametrize("wrong", [5, answer, None, "text"])
def test_what_cannot_be_awaited_is_a_type_error(wrong: Any) -> None:
    message = "An asyncio.Future, a coroutine or an awaitable is required"
    with Runner() as runner, pytest.raises(TypeError, match=message):
        runner.run(wrong)
    with pytest.raises(TypeError, match=message):
        run(wrong)


def test_nothing_is_made_before_it_is_needed() -> None:
    made = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(1)
        return asyncio.new_event_loop()

    runner = Runner(loop_factory=factory)
    assert not made
    runner.close()
    assert not made
    with Runner(loop_factory=factory):
        assert made == [1]


def test_closed_runner_says_so_and_close_is_idempotent() -> None:
    runner = Runner()
    runner.run(answer())
    runner.close()
    runner.close()
    for call in (runner.get_loop, runner.__enter__):
        with pytest.raises(RuntimeError, match="Runner is closed"):
            call()
    coro = answer()
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.run(coro)
    coro.close()


def test_context_is_shared_between_runs_and_can_be_given() -> None:
    async def swap(value: str) -> str:
        before = var.get()
        var.set(value)
        return before

    with Runner() as runner:
        assert runner.run(swap("a")) == "unset"
        assert runner.run(swap("b")) == "a"
        other = contextvars.copy_context()
        assert runner.run(swap("c"), context=other) == "unset"
        assert other[var] == "c"
        assert runner.run(swap("d")) == "b"
    assert var.get() == "unset"


def test_the_loop_is_current_only_without_a_factory() -> None:
    with Runner() as runner:
        assert asyncio.get_event_loop() is runner.get_loop()
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    with Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(answer())
        assert asyncio.get_event_loop() is mine
    asyncio.set_event_loop(None)
    mine.close()


def test_running_loop_is_refused_by_name() -> None:
    async def nest() -> None:
        coro = answer()
        try:
            with pytest.raises(RuntimeError, match=r"Runner\.run\(\) cannot be called from a running event loop"):
                Runner().run(coro)
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                run(coro)
        finally:
            coro.close()

    run(nest())


def test_close_finalizes_tasks_generators_and_reports() -> None:
    log: list[object] = []

    async def generator() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            log.append("generator closed")

    async def left_over() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            log.append("task finalized")
            raise ValueError("in clean-up")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: log.append(repr(context["exception"])))
        asyncio.create_task(left_over())
        keep.append(generator())
        await anext(keep[0])

    keep: list[Any] = []
    with Runner() as runner:
        runner.run(main())
    assert log == ["task finalized", "ValueError('in clean-up')", "generator closed"]


def test_the_executor_is_joined() -> None:
    release, done = threading.Event(), list[int]()
    with Runner() as runner:
        runner.get_loop().run_in_executor(None, lambda: (release.wait(30), done.append(1)))
        runner.get_loop().call_soon_threadsafe(release.set)
    assert done == [1]


@pytest.mark.parametrize("end", ["Runner", "NotebookRunner"])
@pytest.mark.parametrize("has_limit", [False, True])
def test_a_loop_shuts_its_executor_down_in_its_own_way(end: str, has_limit: bool) -> None:
    shut: list[tuple[float, ...]] = []

    class Loop(asyncio.SelectorEventLoop):
        if has_limit:

            async def shutdown_default_executor(self, timeout: float | None = None) -> None:
                shut.append(() if timeout is None else (timeout,))

        else:

            async def shutdown_default_executor(self) -> None:  # type: ignore[override, misc, unused-ignore]
                shut.append(())

    if end == "Runner":
        if sys.version_info >= (3, 12) and not has_limit:
            pytest.skip("asyncio passes a limit since 3.12")
        with Runner(loop_factory=Loop) as runner:
            runner.get_loop()
    else:
        notebooks = ipyrunner.NotebookRunner(loop_factory=Loop, shutdown_timeout=4.0)
        notebooks.get_loop()
        notebooks.close()
    assert len(shut) == 1
    if end == "NotebookRunner" and has_limit:
        assert 0 < shut[0][0] <= 4.0


def test_first_sigint_cancels_and_the_handler_is_handed_back() -> None:
    log = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            log.append("clean")

    with Runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert runner.run(answer()) == 42
    assert log == ["clean"]


def test_second_sigint_raises_at_once() -> None:
    async def main() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with Runner() as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())


def test_a_handler_of_the_users_is_left_alone() -> None:
    def mine(*args: object) -> None:
        pass

    async def main() -> object:
        return signal.getsignal(signal.SIGINT)

    async def replace() -> None:
        signal.signal(signal.SIGINT, mine)

    before = signal.signal(signal.SIGINT, mine)
    try:
        assert run(main()) is mine
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run(replace())  # not ours any more when it ends: not handed back
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_run_without_signals() -> None:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(run(answer())))
    thread.start()
    thread.join(30)
    assert results == [42]


def test_get_runner_outside_a_notebook_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="%load_ext ipyrunner"):
        ipyrunner.get_runner()


@pytest.mark.parametrize("name", ["Nothing"])
def test_unknown_names_are_attribute_errors(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(ipyrunner, name)
