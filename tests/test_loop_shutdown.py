"""``wind_up``: the time that tasks and generators have for their clean-up before a loop is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ipyrunner.aio.loops.shutdown import wind_up


def test_a_clean_up_that_goes_on_is_cancelled_again_only_when_half_of_the_time_is_over() -> None:
    cancelled: dict[str, int] = {"short": 0, "endless": 0, "long": 0}
    log: list[str] = []

    async def cleans_up(name: str, wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            try:
                await wait()
                log.append(name)
            except asyncio.CancelledError:
                cancelled[name] += 1
                half.set()
                raise

    async def waits_on() -> None:  # past half of the time, and a little more: for a cancellation of its own
        await half.wait()
        for _ in range(10):
            await asyncio.sleep(0)

    async def main() -> set[asyncio.Task[Any]]:
        tasks = [
            asyncio.create_task(cleans_up("short", lambda: asyncio.sleep(0.05))),
            asyncio.create_task(cleans_up("endless", lambda: asyncio.sleep(600))),
            asyncio.create_task(cleans_up("long", waits_on)),
        ]
        await asyncio.sleep(0)
        for task in tasks[:2]:
            task.cancel()  # a manager interrupts before it shuts down
        await asyncio.sleep(0)
        late: set[asyncio.Task[Any]] = set()
        await wind_up(5.0, late)
        return late

    half = asyncio.Event()
    loop = asyncio.new_event_loop()
    late = loop.run_until_complete(main())
    loop.close()
    assert cancelled == {"short": 0, "endless": 1, "long": 0}
    assert log == ["short", "long"]
    assert not late


def wound_up(start: Callable[[list[Any]], Coroutine[Any, Any, None]], timeout: float) -> tuple[list[Any], list[str]]:
    """Run *start*, then ``wind_up``; return what went into the list that it is given, and the names of what is late."""
    log: list[Any] = []

    async def main() -> list[str]:
        await start(log)
        late: set[asyncio.Task[Any]] = set()
        await wind_up(timeout, late)
        return sorted(task.get_name() for task in late)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: log.append(repr(context["exception"])))
    named = loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    return log, named


@pytest.mark.parametrize("where", ["task", "generator"])
def test_what_clean_up_starts_has_its_time(where: str) -> None:
    kept: list[Any] = []

    async def start(log: list[Any]) -> None:
        async def goodbye(*more: str) -> None:
            await asyncio.sleep(0.01)
            log.append("goodbye")
            kept.extend(asyncio.create_task(goodbye()) for _ in more)
            if not more:
                raise ValueError("in what it starts")

        async def generator() -> Any:
            try:
                yield
            finally:
                kept.append(asyncio.create_task(goodbye("once more")))

        async def task() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                kept.append(asyncio.create_task(goodbye("once more")))

        if where == "generator":
            kept.append(generator())
            await anext(kept[0])
        else:
            kept.append(asyncio.create_task(task()))
            await asyncio.sleep(0)

    assert wound_up(start, 60.0) == (["goodbye", "goodbye", "ValueError('in what it starts')"], [])


@pytest.mark.parametrize("where", ["task", "generator"])
def test_what_clean_up_starts_and_does_not_end_is_cancelled_and_named(where: str) -> None:
    kept: list[Any] = []

    async def start(log: list[Any]) -> None:
        async def lasting() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                log.append("lasting")

        async def stubborn() -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(600)

        def begin() -> None:
            kept.extend((asyncio.create_task(lasting()), asyncio.create_task(stubborn(), name="stubborn")))

        async def generator() -> Any:
            try:
                yield
            finally:
                begin()

        async def task() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                begin()

        if where == "generator":
            kept.append(generator())
            await anext(kept[0])
        else:
            kept.append(asyncio.create_task(task()))
            await asyncio.sleep(0)

    log, named = wound_up(start, 2.0)
    assert log == ["lasting"]
    assert named == ["stubborn"]


def test_the_servers_of_the_loop_are_closed_and_no_others() -> None:
    async def serve() -> asyncio.Server:
        return await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)

    with asyncio.Runner() as other, asyncio.Runner() as runner:
        others, ours = other.run(serve()), runner.run(serve())
        runner.run(wind_up(10, set()))
        assert not ours.is_serving()
        assert others.is_serving()
        others.close()


@pytest.mark.parametrize("refusal", [ValueError, SystemExit])
def test_a_server_that_refuses_to_close_hinders_no_other(
    monkeypatch: pytest.MonkeyPatch, refusal: type[BaseException]
) -> None:
    close, refused = asyncio.Server.close, list[asyncio.Server]()

    def refuse(self: asyncio.Server) -> None:
        if not refused:
            refused.append(self)
            raise refusal
        close(self)

    async def serve() -> list[asyncio.Server]:
        return [await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) for _ in range(3)]

    with asyncio.Runner() as runner:
        servers = runner.run(serve())
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.Server, "close", refuse)
            runner.run(wind_up(10, set()))
        assert [server for server in servers if server.is_serving()] == refused
        close(refused[0])


def test_an_interrupted_end_closes_servers_too() -> None:
    async def stubborn(end: asyncio.Task[None]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            end.cancel()  # as an interrupt does
            await asyncio.sleep(60)

    async def main() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        me = asyncio.current_task()
        assert me is not None
        task = asyncio.create_task(stubborn(me))
        await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await wind_up(60, set())
        assert not task.done()
        assert not server.is_serving()

    asyncio.run(main())
