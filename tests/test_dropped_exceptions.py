"""What Python drops in a finalizer interrupts all the same; what a task raises by itself, and holds, does not."""

from __future__ import annotations

import asyncio
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from loops import press, spin

torn: list[int] = []


def finalize() -> None:
    try:
        spin(0.02)
    except KeyboardInterrupt:
        torn.append(1)
        raise


class Deleted:
    def __del__(self) -> None:
        finalize()


class Dying:
    pass


def by_weakref() -> None:
    dying = Dying()
    ref = weakref.ref(dying, lambda _: finalize())
    del dying
    assert ref() is None


def by_generator() -> None:
    def generator() -> Iterator[int]:
        try:
            yield 1
        finally:
            finalize()

    next(generator())


DROPPED: dict[str, Callable[[], object]] = {"__del__": Deleted, "weakref": by_weakref, "generator": by_generator}


@pytest.mark.parametrize("kind", DROPPED)
def test_an_interrupt_that_python_drops_is_raised_again(
    runner: NotebookRunner, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    collect = DROPPED[kind]
    torn.clear()
    hook = sys.unraisablehook

    async def main() -> str:
        signal.raise_signal(signal.SIGINT)
        for _ in range(500):
            collect()
        return "went on"

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert len(torn) <= 1  # and not one after the other, until there is a moment in between
    assert sys.unraisablehook is hook
    assert sys.gettrace() is None or not sys.gettrace().__module__.startswith("ipyrunner")
    assert "ignored" not in capsys.readouterr().err


class DeletedSlowly:
    def __del__(self) -> None:
        spin(0.5)


@pytest.mark.parametrize("then", ["awaits", "spins"])
def test_a_dropped_interrupt_counts_again_where_a_debugger_traces(runner: NotebookRunner, then: str) -> None:
    async def main() -> None:
        press()
        DeletedSlowly()
        if then == "awaits":
            await asyncio.sleep(30)
        else:
            spin(30)

    before = sys.gettrace()
    sys.settrace(lambda *args: None)
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
    finally:
        sys.settrace(before)


def test_a_keyboard_interrupt_that_a_task_raises_is_the_tasks(runner: NotebookRunner) -> None:
    if not isinstance(runner.get_loop(), asyncio.BaseEventLoop):
        pytest.skip("uvloop does not say where it comes from")

    async def stop() -> None:
        raise KeyboardInterrupt

    async def main() -> str:
        task = asyncio.create_task(stop())
        await asyncio.wait([task])
        task.exception()
        return "went on"

    assert runner.run(main()) == "went on"


def test_a_system_exit_that_a_task_holds_is_told_once(runner: NotebookRunner) -> None:
    told: list[Any] = []

    async def stop() -> None:
        raise SystemExit(3)

    async def main() -> str:
        vars(asyncio.get_running_loop())["default_exception_handler"] = told.append
        task = asyncio.create_task(stop())
        await asyncio.wait([task])
        task.exception()
        return "went on"

    assert runner.run(main()) == "went on"
    assert told == []
