"""One interrupt among busy tasks, in finalizers, in runs inside runs: it ends the cell, and nothing else."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.sigint import interrupt as interrupt_module
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.watchdog_thread import Watchdog, watchdog

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[NotebookRunner]:
    made = NotebookRunner(loop_factory=LOOPS[request.param], interrupt_grace=0.3)
    made.show = lambda failure: None
    loop = made.get_loop()
    yield made
    # After each of these the loop runs on.
    assert made.run(asyncio.sleep(0, "next")) == "next"
    assert made.get_loop() is loop
    made.close()
    asyncio.set_event_loop(None)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Crunch:
    """Forty coroutines that compute and do not yield; the fourth interrupts in the middle."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []

    async def one(self, i: int) -> int:
        self.begun.append(i)
        if i == 3:
            signal.raise_signal(signal.SIGINT)
        spin(0.01)
        self.ended.append(i)
        return i

    def all(self) -> list[Any]:
        return [asyncio.ensure_future(self.one(i)) for i in range(40)]


async def in_a_group(crunch: Crunch) -> None:
    async with asyncio.TaskGroup() as group:
        for i in range(40):
            group.create_task(crunch.one(i))


async def one_by_one(crunch: Crunch) -> None:
    for task in asyncio.as_completed(crunch.all()):
        await task


async def in_a_child(crunch: Crunch) -> None:
    await asyncio.create_task(in_a_group(crunch))


async def gather(crunch: Crunch) -> None:
    await asyncio.gather(*crunch.all())


WAYS: dict[str, Callable[[Crunch], Awaitable[Any]]] = {
    "gather": gather,
    "gather with exceptions": lambda crunch: asyncio.gather(*crunch.all(), return_exceptions=True),
    "group": in_a_group,
    "wait": lambda crunch: asyncio.wait(crunch.all()),
    "as_completed": one_by_one,
    "child": in_a_child,
}


@pytest.mark.parametrize("way", WAYS)
def test_among_busy_tasks_only_the_running_one_goes_on(runner: NotebookRunner, way: str) -> None:
    crunch = Crunch()
    reached: list[str] = []

    async def main() -> None:
        await WAYS[way](crunch)
        reached.append("went on")

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert crunch.begun == crunch.ended == [0, 1, 2, 3]
    assert reached == []


async def sleep_in_children() -> None:
    await asyncio.gather(asyncio.sleep(60), asyncio.create_task(asyncio.sleep(60)))


@pytest.mark.parametrize("waits", [lambda: asyncio.sleep(60), sleep_in_children], ids=["itself", "children"])
def test_busy_workers_of_other_cells_lose_nothing(runner: NotebookRunner, waits: Callable[[], Any]) -> None:
    steps: list[int] = []
    pressed: list[int] = []

    async def worker(i: int) -> None:
        while True:
            steps.append(i)
            if len(steps) == 20:
                signal.raise_signal(signal.SIGINT)
                pressed.append(len(steps))
            spin(0.01)
            await asyncio.sleep(0)

    async def start() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(worker(i)) for i in range(8)]

    workers = runner.run(start())
    with pytest.raises(KeyboardInterrupt):
        runner.run(waits())
    # The cell has ended within the step that ran; the others were not called in between.
    assert pressed == [20]
    assert len(steps) == 20

    async def more() -> None:
        while len(steps) < 20 + 16:
            await asyncio.sleep(0)

    runner.run(more())
    assert steps[20:28] == [(steps[19] + 1 + i) % 8 for i in range(8)]  # in their order, none twice
    assert not any(task.done() for task in workers)


def test_a_main_task_that_cleans_up_among_busy_workers(runner: NotebookRunner) -> None:
    steps, log = [], []

    async def worker() -> None:
        while not log:
            steps.append(1)
            if len(steps) == 5:
                signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [asyncio.create_task(worker()) for _ in range(4)]
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            log.append("cleaned up")
            await asyncio.wait(tasks)

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert log == ["cleaned up"]


async def tight() -> None:
    spin(60)


@pytest.mark.parametrize("way", ["gather", "wait", "child gathers"])
def test_a_forced_interrupt_is_no_result(runner: NotebookRunner, way: str) -> None:
    reached: list[Any] = []

    async def gather() -> Any:
        return await asyncio.gather(tight(), asyncio.sleep(0), return_exceptions=True)

    async def main() -> None:
        match way:
            case "gather":
                reached.append(await gather())
            case "wait":
                reached.append(await asyncio.wait([asyncio.create_task(tight())]))
            case _:
                reached.append(await asyncio.create_task(gather()))

    def press_when_it_spins() -> None:
        deadline = time.monotonic() + 30
        while not spinning() and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def spinning() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        return frame.f_code is spin.__code__

    thread = threading.Thread(target=press_when_it_spins)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        runner.run(main())
    thread.join(30)
    assert reached == []
    # The traceback is that of what was forced.
    assert "tight" in [entry.name for entry in caught.traceback]


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


def by_weakref() -> None:
    dying = Crunch()
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


# On another thread: the main one's select() is woken by the wakeup fd, and the handler runs in the callback that reads it.
@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another thread"])
@pytest.mark.parametrize("base", [BaseException, Exception, SystemExit, KeyboardInterrupt])
def test_what_a_signal_handler_raises_ends_the_cell_that_waits(
    runner: NotebookRunner, base: type[BaseException], elsewhere: bool
) -> None:
    alarm = type("Alarm", (base,), {})

    def ring(*args: object) -> None:
        raise alarm

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, rest.set)
        await asyncio.sleep(60)

    if base in (SystemExit, KeyboardInterrupt) and not isinstance(runner.get_loop(), asyncio.BaseEventLoop):
        pytest.skip("uvloop ends its run by these itself: whose they are cannot be told")
    rest = threading.Event()
    before = signal.signal(signal.SIGUSR1, ring)

    def send() -> None:
        assert rest.wait(30)
        threading.Event().wait(0.1)  # let the main thread enter select()
        signal.pthread_kill(threading.get_ident() if elsewhere else main_thread, signal.SIGUSR1)

    main_thread = threading.get_ident()
    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(alarm):
            runner.run(main())
    finally:
        thread.join(30)
        signal.signal(signal.SIGUSR1, before)


def test_deep_in_a_recursion_the_handler_raises_nothing(runner: NotebookRunner) -> None:
    raised: list[BaseException] = []
    levels: list[int] = []

    def dig() -> None:
        try:
            dig()
        except RecursionError:
            # Almost as deep as a frame can be: the handler can be called, and what that calls cannot.
            levels.append(1)
            if len(levels) == 5:
                signal.raise_signal(signal.SIGINT)
            raise

    async def child() -> None:
        try:
            dig()
        except RecursionError as exc:
            raised.append(exc)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(child())
    assert [type(exc) for exc in raised] == [RecursionError]


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


def test_a_second_interrupt_forces_without_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where no thread can be started; and C code that keeps the GIL leaves the watchdog no chance either.
    monkeypatch.setattr(Watchdog, "call_later", lambda self, seconds, call: None)
    runner = NotebookRunner(interrupt_grace=0.1)

    async def main() -> str:
        signal.raise_signal(signal.SIGINT)
        spin(0.2)
        signal.raise_signal(signal.SIGINT)
        return "went on"

    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert runner.run(asyncio.sleep(0, 1)) == 1
    runner.close()
    asyncio.set_event_loop(None)


def test_a_watchdog_that_cannot_start_says_so_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    dog, called = Watchdog(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not dog.start()
        dog.call_later(0, lambda: called.set())
    assert dog.start()
    assert dog.start()
    assert called.wait(30)
    dog.stop()
    dog.stop()


def test_the_watchdog_survives_what_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    told, called = threading.Event(), threading.Event()
    times = iter([0.01, 0.01, None])
    monkeypatch.setattr(threading, "excepthook", lambda args: told.set())
    dog = Watchdog()
    dog.start()
    dog.call_later(0, lambda: 1 / 0)
    dog.call_later(0.01, lambda: next(times) or called.set())
    assert told.wait(30)
    assert called.wait(30)
    dog.stop()


def test_no_interrupt_is_sent_when_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # The watchdog has looked, and is about to send: the run's end waits for that, and our handler gets the signal.
    sending, leaving = threading.Event(), threading.Event()
    real = interrupt_module.signal_main_thread

    def slowly() -> None:
        sending.set()
        leaving.wait(0.3)  # the main thread waits for us, and cannot set it, unless nothing holds it
        real()

    monkeypatch.setattr(interrupt_module, "signal_main_thread", slowly)
    loop = asyncio.new_event_loop()
    watchdog.start()
    with Interrupt(loop, grace=0.01):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        interrupt = signal.getsignal(signal.SIGINT).__self__  # type: ignore[union-attr]
        interrupt._asks = True  # there is something to do on the main thread
        assert sending.wait(30)
    leaving.set()
    spin(0.5)  # a stray one would be raised in here
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loop.close()


@pytest.mark.parametrize("name", LOOPS)
def test_the_ready_queue_loses_nothing_and_keeps_the_order(name: str) -> None:
    loop = LOOPS[name]()
    queue = ReadyQueue(loop)
    called: list[object] = []

    def cut() -> None:
        called.append("cut")
        loop.call_soon(called.append, "after the cut")
        queue.set_aside()
        queue.set_aside()
        loop.stop()

    for i in range(3):
        loop.call_soon(called.append, i)
    loop.call_soon(cut)
    for i in range(3, 6):
        loop.call_soon(called.append, i)
    assert queue.call_first(lambda: called.append("first"))
    loop.run_forever()
    assert called == ["first", 0, 1, 2, "cut"]
    queue.put_back()
    assert len(queue) == 5  # what was there, and what wakes uvloop: no filler of the second set_aside
    queue.put_back()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert called == ["first", 0, 1, 2, "cut", 3, 4, 5, "after the cut"]
    loop.close()


def test_a_loop_without_a_queue_is_interrupted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipyrunner.aio.introspection.ready_queue.ready_callbacks", lambda loop: None)
    runner = NotebookRunner(interrupt_grace=0.3)
    crunch = Crunch()
    with pytest.raises(KeyboardInterrupt):
        runner.run(WAYS["gather"](crunch))
    assert len(crunch.begun) < 40
    runner.close()
    asyncio.set_event_loop(None)
