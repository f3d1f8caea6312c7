"""``Interrupt`` and ``Wakeup`` in this process: what real kernels show by chance only."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import uvloop

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.frames import uninterruptible
from ipyrunner.aio.introspection.running_callback import Holder
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.wakeup_fd import Wakeup

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[NotebookRunner]:
    made = NotebookRunner(loop_factory=LOOPS[request.param], interrupt_grace=0.2)
    yield made
    made.close()
    asyncio.set_event_loop(None)


def interrupt_from_a_thread(loop: Any, when: threading.Event, signalled: Callable[[int], None]) -> threading.Thread:
    """Send SIGINT as soon as *when* is set and the loop is at rest in its select()."""

    def send() -> None:
        assert when.wait(30)
        me = threading.get_ident()
        signalled(me)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_signal_on_another_thread_wakes_the_loop(runner: NotebookRunner) -> None:
    # The main thread's select() is not interrupted by it: the same as a signal just before the system call.
    ready = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, ready.set)  # by then nothing else is left to do
        await asyncio.sleep(60)

    def send(me: int) -> None:
        threading.Event().wait(0.1)  # let the main thread enter select()
        signal.pthread_kill(me, signal.SIGINT)

    thread = interrupt_from_a_thread(runner.get_loop(), ready, send)
    start = runner.get_loop().time()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert runner.get_loop().time() - start < 30
    thread.join(30)


def test_handler_and_wakeup_fd_are_handed_back(runner: NotebookRunner) -> None:
    runner.run(asyncio.sleep(0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_what_the_user_sets_meanwhile_stays(runner: NotebookRunner) -> None:
    ends = socket.socketpair()
    ends[1].setblocking(False)

    def mine(*args: object) -> None:
        pass

    async def main() -> None:
        signal.signal(signal.SIGINT, mine)
        signal.set_wakeup_fd(ends[1].fileno())

    try:
        loop = asyncio.new_event_loop()
        wakeup = Wakeup(loop)
        with wakeup.on_signals(), Interrupt(loop, grace=1):
            loop.run_until_complete(main())
        assert signal.getsignal(signal.SIGINT) is mine
        assert signal.set_wakeup_fd(-1) == ends[1].fileno()
        wakeup.close()
        wakeup.close()
        loop.close()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for end in ends:
            end.close()


def test_a_handler_of_the_users_is_not_replaced(runner: NotebookRunner) -> None:
    def mine(*args: object) -> None:
        log.append("mine")

    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)

    log: list[str] = []
    signal.signal(signal.SIGINT, mine)
    try:
        runner.run(main())
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert log == ["mine"]


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
    runner.run(asyncio.sleep(0.1))
    assert sorted(ran) == [*range(50), *range(100, 150)]
    assert runner.get_loop() is loop


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


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
                spin(0.5)  # more than the grace period
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
            await asyncio.sleep(0.3)  # after a second press it would be given up by now
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
    runner.run(asyncio.sleep(0.2))
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
            # The last frames are the signal handler's, the one before them what it has interrupted.
            frames = traceback.extract_tb(exc.__traceback__)
            where.append([f.filename for f in frames if not f.filename.endswith("interrupt.py")][-1])
            raise

    async def main() -> None:
        asyncio.get_running_loop().call_soon(busy)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert where == [__file__]


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


def test_a_signal_handler_of_the_loop_is_called_in_later_cells(runner: NotebookRunner) -> None:
    loop = runner.get_loop()
    came = asyncio.Event()

    async def install() -> None:
        loop.add_signal_handler(signal.SIGUSR1, came.set)

    async def wait() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 10)

    runner.run(install())
    runner.run(wait())
    loop.remove_signal_handler(signal.SIGUSR1)


def test_no_interrupt_is_forced_into_our_own_callbacks(runner: NotebookRunner) -> None:
    log = []

    @uninterruptible
    def ours() -> None:
        signal.raise_signal(signal.SIGINT)
        spin(0.5)  # more than the grace period
        log.append("whole")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(ours)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["whole"]


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("ending", ["goes on", "ends", "ends at once"])
def test_a_press_deep_in_a_recursion_is_not_lost(runner: NotebookRunner, ending: str) -> None:
    deepest, refused = 0, list[int]()

    def down(depth: int) -> None:
        nonlocal deepest
        deepest = depth
        if depth != target:
            down(depth + 1)
            return
        try:
            press()
        except RecursionError:
            refused.append(target)  # so few frames are left that no handler can be called: not in a script either

    async def main() -> None:
        with contextlib.suppress(RecursionError):
            down(0)
        if ending == "goes on":
            await asyncio.sleep(0 if refused or target < 0 else 30)
        elif ending == "ends":
            await asyncio.sleep(0)

    target = -1
    runner.run(main())
    for left in range(2, 40):
        target, before = deepest - left, runner.interrupts
        refused.clear()
        try:
            runner.run(main())
        except KeyboardInterrupt:
            assert runner.interrupts > before
        else:
            assert refused, left
            assert left < 8
        assert runner.run(asyncio.sleep(0, "next")) == "next"


def test_a_press_that_a_handler_of_the_users_took_is_not_ours(runner: NotebookRunner) -> None:
    taken: list[int] = []

    async def main() -> str:
        before = signal.signal(signal.SIGINT, lambda signum, frame: taken.append(signum))
        press()
        signal.signal(signal.SIGINT, before)
        await asyncio.sleep(0.1)
        return "not interrupted"

    assert runner.run(main()) == "not interrupted"
    assert taken == [signal.SIGINT]


def test_an_interrupted_run_raises_one_keyboard_interrupt(runner: NotebookRunner) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        await asyncio.sleep(30)

    with pytest.raises(KeyboardInterrupt) as caught:
        runner.run(main())
    assert caught.value.__suppress_context__
    assert not isinstance(caught.value.__context__, KeyboardInterrupt)


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


def test_sigint_while_another_is_handled_waits_for_its_end(runner: NotebookRunner) -> None:
    # Where a handler takes longer than the watchdog waits between two looks, handlers would interrupt each other for ever.
    nested, handled = 0, 0

    def profile(frame: FrameType | None, event: str, argument: object) -> None:
        nonlocal nested, handled
        if event != "call" or frame is None or frame.f_code is not Holder.look.__code__:
            return
        depth = 0
        while frame is not None:
            depth += frame.f_code is Interrupt.on_sigint.__code__
            frame = frame.f_back
        nested, handled = max(nested, depth), handled + (depth > 0)
        if depth and handled < 20:
            press()

    async def main() -> None:
        sys.setprofile(profile)
        press()
        await asyncio.sleep(30)

    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
    finally:
        sys.setprofile(None)
    assert handled > 0
    assert nested == 1
    assert runner.interrupts > 1
    assert runner.run(asyncio.sleep(0, "next")) == "next"
