"""``asyncio.create_task`` where no loop runs: the notebook's loop is lent, and taken back."""

from __future__ import annotations

import asyncio
import sys
import threading
from unittest import mock

import pytest

from ipyrunner.aio.introspection.running_callback import is_left_running
from ipyrunner.aio.introspection.running_loop import running_loop
from ipyrunner.aio.loops.create_task import Lender


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 swaps the code of create_task, and returns nothing")
def test_only_the_loop_that_was_lent_is_taken_back() -> None:
    lent, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    lender = Lender(lambda: lent)
    seen: list[object] = []

    async def nothing() -> None:
        pass

    async def main() -> None:
        # Nothing is lent where a loop runs, and it goes on running.
        task = asyncio.create_task(nothing())
        seen.append(running_loop())
        await task

    with lender.lending():
        task = asyncio.create_task(nothing())
        assert task.get_loop() is lent
        assert running_loop() is None
        other.run_until_complete(main())
    assert seen == [other]
    lent.run_until_complete(task)
    # What another loop has become meanwhile is not taken back either.
    lender._lent = lent
    asyncio._set_running_loop(other)
    try:
        lender._on_return(None, 0, None, None)
        assert running_loop() is other
    finally:
        asyncio._set_running_loop(None)
    for loop in (lent, other):
        loop.close()


def test_a_loop_that_was_lent_is_the_users_when_they_run_it() -> None:
    lent, seen = asyncio.new_event_loop(), []
    lender = Lender(lambda: lent)

    async def nothing() -> None:
        pass

    async def main() -> None:
        task = asyncio.create_task(nothing())
        seen.append(running_loop())
        await task

    with lender.lending():
        asyncio.create_task(nothing())
        lent.run_until_complete(main())
    assert seen == [lent]
    lent.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no monitoring events")
@pytest.mark.parametrize("end", ["result", "exception", "another class"])
def test_create_task_pays_nothing_while_a_loop_runs_and_is_lent_the_loop_again_afterwards(end: str) -> None:

    class Other(asyncio.SelectorEventLoop):
        """As nest_asyncio makes it."""

        def run_forever(self) -> None:
            super().run_forever()

    lent, other = asyncio.new_event_loop(), Other() if end == "another class" else asyncio.new_event_loop()
    lender = Lender(lambda: lent)
    calls: list[object] = []
    on_call = lender._on_call

    def count(code: object, *args: object) -> object:
        calls.append(code)
        return on_call(code, *args)  # type: ignore[arg-type]

    lender._on_call = count  # type: ignore[method-assign]

    async def nothing() -> None:
        pass

    async def main() -> None:
        for _ in range(100):
            await asyncio.create_task(nothing())
        if end == "exception":
            raise SystemExit

    with lender.lending():
        for _ in range(3):
            calls.clear()
            try:
                other.run_until_complete(main())
            except SystemExit:
                assert end == "exception"
            assert (len(calls) < 20) is (end != "another class")
            task = asyncio.create_task(nothing())
            assert task.get_loop() is lent
            assert running_loop() is None
            lent.run_until_complete(task)
    assert sys.monitoring.get_tool(5) != "ipyrunner"
    other.close()
    lent.close()


def test_a_loop_that_is_left_running_on_another_stack_is_not_lent() -> None:
    # As by Playwright's sync API.
    greenlet = pytest.importorskip("greenlet")
    lent, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    lender = Lender(lambda: lent)
    outer = greenlet.getcurrent()

    async def nothing() -> None:
        pass

    async def driver() -> None:
        await asyncio.create_task(nothing())
        asyncio.get_running_loop().call_soon(outer.switch)
        await asyncio.sleep(0.01)

    with lender.lending():
        inner = greenlet.greenlet(lambda: other.run_until_complete(driver()))
        inner.switch()
        task = asyncio.create_task(nothing())
        assert task.get_loop() is lent
        inner.switch()
    lent.run_until_complete(task)
    other.close()
    lent.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no monitoring events")
def test_the_end_of_another_threads_loop_changes_nothing() -> None:
    lent, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    lender = Lender(lambda: lent)
    changes: list[int] = []
    watch = lender._watch

    def count(**options: bool) -> None:
        changes.append(threading.get_ident())
        watch(**options)

    lender._watch = count  # type: ignore[method-assign]

    async def nothing() -> None:
        pass

    async def main() -> None:
        await asyncio.create_task(nothing())
        thread = threading.Thread(target=lambda: asyncio.run(nothing()))
        thread.start()
        thread.join(30)
        await asyncio.create_task(nothing())

    with lender.lending():
        other.run_until_complete(main())
        task = asyncio.create_task(nothing())
        assert task.get_loop() is lent
    assert set(changes) == {threading.get_ident()}
    lent.run_until_complete(task)
    other.close()
    lent.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no monitoring events")
def test_while_uvloop_runs_it_is_asked_once_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop")
    lent, other, asked = asyncio.new_event_loop(), uvloop.new_event_loop(), list[object]()
    lender = Lender(lambda: lent)
    loop_of_lender = lender.loop
    monkeypatch.setattr(lender, "loop", lambda: asked.append(running_loop()) or loop_of_lender())

    async def nothing() -> None:
        pass

    async def main() -> None:
        for _ in range(3):
            await asyncio.create_task(nothing())

    with lender.lending():
        other.run_until_complete(main())
        assert asked == [other]
        task = asyncio.create_task(nothing())
        assert task.get_loop() is lent
        other.run_until_complete(main())
        assert asked == [other, None]
        lent.run_until_complete(task)
    for loop in (lent, other):
        loop.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no monitoring events")
def test_a_function_in_the_place_of_get_running_loop_for_one_call() -> None:
    lent = asyncio.new_event_loop()
    lender = Lender(lambda: lent)

    async def nothing() -> None:
        pass

    for _ in range(2):  # before it was seen where create_task asks, and after it
        with lender.lending():
            with mock.patch("asyncio.events.get_running_loop", return_value=lent):
                asyncio.create_task(nothing())
            assert asyncio.create_task(nothing()).get_loop() is lent
    lent.run_until_complete(nothing())
    lent.close()


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_only_asyncios_loops_are_looked_for_on_the_stack(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = pytest.importorskip(module).new_event_loop()
    looked: list[int] = []
    get_frame = sys._getframe
    monkeypatch.setattr(sys, "_getframe", lambda depth=0: looked.append(depth) or get_frame(depth + 1))
    assert is_left_running(loop) == (module == "asyncio") == bool(looked)
    loop.close()
