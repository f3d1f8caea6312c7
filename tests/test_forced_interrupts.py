"""One interrupt forced into what does not yield: once for each press, and where it harms nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.frames import uninterruptible
from ipyrunner.aio.sigint.watchdog_thread import Watchdog
from loops import GRACE, spin, until


def test_a_forced_interrupt_loses_no_callback(runner: NotebookRunner) -> None:
    # Callbacks and timers that are due while one of them is interrupted: all of them run.
    ran: list[int] = []

    def stuck() -> None:
        signal.raise_signal(signal.SIGINT)
        while True:
            pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for i in range(50):
            loop.call_soon(ran.append, i)
            loop.call_later(0.001 * i, ran.append, 100 + i)
            if i == 25:
                loop.call_soon(stuck)
        await asyncio.sleep(60)

    loop = runner.get_loop()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    runner.run(until(lambda: len(ran) >= 100))
    assert sorted(ran) == [*range(50), *range(100, 150)]
    assert runner.get_loop() is loop


def test_each_press_is_forced_once(runner: NotebookRunner) -> None:
    # What catches it and goes on has the time that it takes, until the next press.
    caught = []

    def stubborn() -> None:
        while len(caught) < 3:
            signal.raise_signal(signal.SIGINT)
            try:
                spin(60)
            except KeyboardInterrupt:
                caught.append("press")
                spin(2 * GRACE)
                caught[-1] = "saved"

    async def main() -> None:
        asyncio.get_running_loop().call_soon(stubborn)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert caught == ["saved"] * 3


async def cleans_up(log: list[str]) -> None:
    try:
        signal.raise_signal(signal.SIGINT)
        spin(60)
    finally:
        await asyncio.sleep(0.05)
        log.append("cleaned up")


async def in_a_group(log: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(cleans_up(log))


# How the main task waits for what the interrupt is forced into: that is its KeyboardInterrupt, and it gets no other.
WAITS: dict[str, Callable[[list[str]], Any]] = {
    "itself": cleans_up,
    "a child": lambda log: asyncio.create_task(cleans_up(log)),
    "a child's child": lambda log: asyncio.create_task(in_a_group(log)),
    "gather": lambda log: asyncio.gather(asyncio.sleep(60), cleans_up(log)),
    "group": in_a_group,
}


@pytest.mark.parametrize("waits", WAITS)
def test_clean_up_after_a_forced_interrupt_may_await(runner: NotebookRunner, waits: str) -> None:
    log: list[str] = []

    async def main() -> None:
        try:
            await WAITS[waits](log)
        finally:
            await asyncio.sleep(0.05)
            log.append("main")

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["cleaned up", "main"]


@pytest.mark.parametrize("kind", ["tasks", "callbacks"])
def test_several_that_do_not_yield_need_one_press(runner: NotebookRunner, kind: str) -> None:
    log, pressed = [], []

    def spin_forever() -> None:
        try:
            if not pressed:  # the others come after it
                pressed.append(True)
                signal.raise_signal(signal.SIGINT)
            spin(60)
        finally:
            log.append("ended")

    async def stuck() -> None:
        spin_forever()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if kind == "callbacks":
            for _ in range(3):
                loop.call_soon(spin_forever)
            await asyncio.sleep(60)
        await asyncio.gather(*[stuck() for _ in range(3)])

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["ended"] * 3


def test_what_handles_a_forced_interrupt_goes_on(runner: NotebookRunner) -> None:
    async def main() -> str:
        try:
            signal.raise_signal(signal.SIGINT)
            spin(60)
        except KeyboardInterrupt:
            await asyncio.sleep(0.05)
        return "saved"

    assert runner.run(main()) == "saved"


def test_the_press_after_one_that_was_handled_is_a_first_one(runner: NotebookRunner) -> None:
    log = []

    async def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            spin(60)
        except KeyboardInterrupt:
            log.append("saved")
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2 * GRACE)  # after a second press it would be given up by now
            log.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["saved", "cleaned up"]


def test_the_main_task_is_cancelled_when_it_does_not_wait_for_what_was_forced(runner: NotebookRunner) -> None:
    log: list[str] = []

    async def main() -> None:
        asyncio.create_task(cleans_up(log), name="background")
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    runner.run(until(lambda: log))
    assert log == ["cleaned up"]


def test_no_interrupt_is_raised_in_asyncios_own_functions(runner: NotebookRunner) -> None:
    # A callback that keeps asyncio's bookkeeping busy: the interrupt waits for a frame of the user's.
    where: list[str] = []

    def busy() -> None:
        loop = asyncio.get_running_loop()
        signal.raise_signal(signal.SIGINT)
        try:
            while True:
                loop.call_later(3600, print).cancel()
                for _ in range(20):
                    pass
        except KeyboardInterrupt as exc:
            # The last frames are the signal handler's, or of what raises again what Python has dropped; the one before
            # them is what was interrupted.
            frames = traceback.extract_tb(exc.__traceback__)
            where.append([f.filename for f in frames if "/sigint/" not in f.filename.replace(os.sep, "/")][-1])
            raise

    async def main() -> None:
        asyncio.get_running_loop().call_soon(busy)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert where == [__file__]


def test_no_interrupt_is_forced_into_our_own_callbacks(runner: NotebookRunner) -> None:
    log = []

    @uninterruptible
    def ours() -> None:
        signal.raise_signal(signal.SIGINT)
        spin(2 * GRACE)
        log.append("whole")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(ours)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["whole"]


def test_impatient_presses_are_not_slower_than_two(runner: NotebookRunner) -> None:
    # Each press asks the loop anew. Twenty a second must not keep the watchers from ever getting to their end.
    over = threading.Event()

    def press() -> None:
        while not over.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    async def main() -> None:
        try:
            while True:
                pass
        finally:
            over.set()
            thread.join(30)

    thread = threading.Thread(target=press)
    thread.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert time.monotonic() - start < 20


def test_what_cannot_be_cancelled_is_given_up(runner: NotebookRunner) -> None:
    class Stubborn(asyncio.Future):  # type: ignore[type-arg]
        def cancel(self, msg: Any = None) -> bool:
            raise ValueError("never")

    future: asyncio.Future[None] = Stubborn(loop=runner.get_loop())

    async def main() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await future

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    future.set_result(None)
    runner.run(asyncio.sleep(0))


def test_a_second_interrupt_forces_without_the_watchdog(
    asyncio_runner: NotebookRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where no thread can be started; and C code that keeps the GIL leaves the watchdog no chance either.
    monkeypatch.setattr(Watchdog, "call_later", lambda self, seconds, call: None)

    async def main() -> str:
        signal.raise_signal(signal.SIGINT)
        spin(2 * GRACE)
        signal.raise_signal(signal.SIGINT)
        return "went on"

    with pytest.raises(KeyboardInterrupt):
        asyncio_runner.run(main())
