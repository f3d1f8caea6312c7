"""SIGINT for the runs of one loop, from the first step of a run to its last, one run inside the other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.interrupts import Interrupts
from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.introspection.running_callback import Holder
from ipyrunner.aio.sigint.handlers import Outside
from ipyrunner.aio.sigint.interrupt import Interrupt
from loops import press


@pytest.fixture
def interrupts(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    made = Interrupts(loop, ReadyQueue(loop), grace=lambda: 30, outside=Outside(), show=lambda forced: None)
    yield made
    made.close()


def test_a_cell_that_waits_sets_nothing_aside_while_the_loop_is_wound_up(interrupts: Any) -> None:
    loop, called = interrupts._loop, []

    async def main() -> None:
        loop.call_soon(called.append, 1)
        run._release_if_done()  # as after a press
        await asyncio.sleep(0)

    with interrupts.of_run(contextvars.copy_context()) as run:
        ended = loop.create_task(asyncio.sleep(0))
        loop.run_until_complete(ended)
        run.attach(ended, ended)
        with interrupts.of_shutdown(5):
            loop.run_until_complete(main())
    assert called == [1]


@pytest.mark.parametrize("block", ["of_run", "between_runs"])
def test_an_answered_signal_goes_to_nobody_else(interrupts: Any, block: str) -> None:
    loop = interrupts._loop
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    rests = signal.signal(signal.SIGINT, signal.SIG_IGN if block == "between_runs" else signal.default_int_handler)
    try:
        with interrupts.of_run(contextvars.copy_context()) if block == "of_run" else interrupts.between_runs():
            assert signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.default_int_handler)
            signal.raise_signal(signal.SIGINT)
        with interrupts.between_runs():
            loop.run_until_complete(asyncio.sleep(0.01))
        with pytest.raises(BlockingIOError):
            reader.recv(1)
    finally:
        signal.signal(signal.SIGINT, rests)
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_press_before_the_first_step_counts(runner: NotebookRunner) -> None:
    async def main() -> None:
        await asyncio.sleep(60)

    tasks = runner.current.tasks
    start = tasks.start

    def start_after_a_press(*args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        tasks.start = start  # type: ignore[method-assign]
        signal.raise_signal(signal.SIGINT)
        return start(*args, **kwargs)

    tasks.start = start_after_a_press  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert runner.run(asyncio.sleep(0, "next")) == "next"


def test_an_interrupted_run_raises_one_keyboard_interrupt(runner: NotebookRunner) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        await asyncio.sleep(30)

    with pytest.raises(KeyboardInterrupt) as caught:
        runner.run(main())
    assert caught.value.__suppress_context__
    assert not isinstance(caught.value.__context__, KeyboardInterrupt)


def test_a_cancellation_that_was_caught_has_had_its_effect(runner: NotebookRunner) -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_later(0.05, press)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "caught"
        return "slept"

    assert runner.run(main()) == "caught"


def test_a_press_in_the_last_step_hides_no_failure_and_keeps_no_result(runner: NotebookRunner) -> None:
    class Result:
        pass

    shown: list[object] = []
    runner.show = shown.append
    made: weakref.WeakSet[Result] = weakref.WeakSet()

    async def fails() -> None:
        press()
        raise ValueError("of the task")

    async def returns() -> Result:
        made.add(result := Result())
        press()
        return result

    with pytest.raises(KeyboardInterrupt) as caught:
        runner.run(fails())
    assert isinstance(caught.value.__context__, ValueError)
    with pytest.raises(KeyboardInterrupt):
        runner.run(returns())
    del caught
    gc.collect()
    assert not made
    runner.run(asyncio.sleep(0.3))
    assert not shown


def test_a_press_at_the_very_end_of_a_blocking_run_is_the_cells(runner: NotebookRunner) -> None:
    def profile(frame: FrameType, event: str, argument: object) -> None:
        # Called when the interrupt is over, and before the handler is handed back.
        if event == "call" and frame.f_code is Holder.forget.__code__:
            sys.setprofile(None)
            press()

    sys.setprofile(profile)
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run(asyncio.sleep(0))
    finally:
        sys.setprofile(None)
    assert runner.interrupts == 1
    assert runner.run(asyncio.sleep(0, "next")) == "next"


def test_what_nobody_interrupted_waits_for_is_left_alone_for_the_grace_period(
    runner: NotebookRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also after the second press: the watchdog asks the handler once, and not every 10 ms, which would end system calls
    # of the callback and hide a third press.
    signals, ended, on_sigint = list[int](), list[bool](), Interrupt.on_sigint

    def counted(self: Interrupt, signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        on_sigint(self, signum, frame)

    def callback() -> None:
        for _ in range(2):
            press()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        ended.append(True)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(60)

    runner.interrupt_grace = 30.0
    monkeypatch.setattr(Interrupt, "on_sigint", counted)
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert ended == [True]
    assert len(signals) <= 4
    assert runner.interrupts == 2
    assert runner.run(asyncio.sleep(0, "next")) == "next"
