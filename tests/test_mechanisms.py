"""Small mechanisms that only show where two things meet: each of these fails when its mechanism is taken out."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.private_api import is_pythons, ready_callbacks
from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.introspection.running_loop import running_loop
from ipyrunner.aio.loops.create_task import Lender
from ipyrunner.aio.loops.guest_leads import Faults, Hosting
from ipyrunner.aio.loops.shutdown import wind_up
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.main_task import MainTask
from ipyrunner.aio.sigint.wakeup_fd import Wakeup
from ipyrunner.aio.sigint.watchdog_thread import watchdog
from ipyrunner.aio.tasks.exception_handler import Failure, Failures
from ipyrunner.aio.tasks.registry import Tasks
from kernels import Kernel

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def test_to_the_host_the_guest_is_no_slow_callback() -> None:
    guest = asyncio.new_event_loop()

    async def main() -> tuple[float, float]:
        host: Any = asyncio.get_running_loop()
        host.set_debug(True)
        before = host.slow_callback_duration
        hosting = Hosting(host, guest, escaped=[].append)
        hosting.start()
        meanwhile = host.slow_callback_duration
        hosting.stop()
        assert host.slow_callback_duration == before
        return before, meanwhile

    before, meanwhile = asyncio.run(main())
    assert before < meanwhile == math.inf
    guest.close()


def test_a_loop_that_makes_progress_is_not_broken() -> None:
    loop = asyncio.new_event_loop()
    faults = Faults(loop)
    for _ in range(3):
        assert not any(faults.add() for _ in range(4))
        loop.run_until_complete(asyncio.sleep(0))
    assert [faults.add() for _ in range(5)] == [False] * 4 + [True]
    loop.close()
    assert faults.add()


def test_wakeups_nest_and_pass_on_what_comes() -> None:
    loops = [asyncio.new_event_loop() for _ in range(2)]
    outer, inner = (Wakeup(loop) for loop in loops)
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGUSR1, lambda *args: None)
    try:
        with outer.on_signals():
            with inner.on_signals():
                with inner.on_signals():  # a run inside a run
                    os.kill(os.getpid(), signal.SIGUSR1)
                # Still the inner one's: the block inside it has changed nothing.
                os.kill(os.getpid(), signal.SIGUSR1)
                loops[1].call_soon(loops[1].stop)
                loops[1].run_forever()
                loops[1].call_soon(loops[1].stop)
                loops[1].run_forever()
            loops[0].call_soon(loops[0].stop)
            loops[0].run_forever()
            loops[0].call_soon(loops[0].stop)
            loops[0].run_forever()
        assert reader.recv(10) == bytes([signal.SIGUSR1] * 2)
        assert signal.set_wakeup_fd(writer.fileno()) == writer.fileno()
    finally:
        signal.signal(signal.SIGUSR1, handler)
        signal.set_wakeup_fd(before)
        for wakeup, loop in zip((outer, inner), loops, strict=True):
            wakeup.close()
            loop.close()
        reader.close()
        writer.close()


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


def test_a_failure_is_shown_though_its_context_is_entered() -> None:
    loop = asyncio.new_event_loop()
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
    loop.close()
    assert shown == ["of the task"]


def test_a_press_of_an_earlier_request_does_nothing_in_a_later_one(fresh: Kernel) -> None:
    # The press comes when the cell's code has ended, and is looked at again after the grace period: by then another
    # request runs a hook, which would get it.
    fresh.ok(
        "import signal, threading\n%config NotebookRunner.interrupt_grace = 0.3\n"
        "from ipyrunner.aio.sigint.watchdog_thread import watchdog\nfrom ipyrunner import extension\n"
        "class Press:\n    count = 0\n"
        "    def press(self, *args):\n"
        "        get_ipython().events.unregister('post_run_cell', self.press)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    def wait(self, *args):\n"
        "        get_ipython().events.unregister('post_run_cell', self.wait)\n"
        "        # As if it had been pressed again, late, in this request: only the old look is due.\n"
        "        looked = threading.Event(); watchdog.call_later(0.5, lambda: looked.set())\n"
        "        owner = extension._extensions[get_ipython()]._guard\n"
        "        owner._pressed = True\n"
        "        try: looked.wait(30); self.count = 1\n"
        "        finally: owner._pressed = False\n"
        "press = Press(); None"
    )
    fresh.ok("get_ipython().events.register('post_run_cell', press.press)")
    fresh.ok("get_ipython().events.register('post_run_cell', press.wait)")
    assert fresh.ok("press.count").value == "1"
    fresh.expect_alive()


def test_the_watchdog_ends_with_the_unloading(fresh: Kernel) -> None:
    find = "import threading\n[t.name for t in threading.enumerate() if 'watchdog' in t.name]"
    assert fresh.ok(find).value == "['ipyrunner: watchdog']"
    fresh.ok("dogs = [t for t in threading.enumerate() if 'watchdog' in t.name]\n%unload_ext ipyrunner")
    assert fresh.ok("[dog.join(30) for dog in dogs]; [dog.is_alive() for dog in dogs]").value == "[False]"
    fresh.ok("%load_ext ipyrunner")
    fresh.ok("import asyncio; kept = 'kept'; loop_id = id(asyncio.get_event_loop())")
    fresh.interrupted(fresh.begin("print('go'); await asyncio.sleep(60)"), "go")
    fresh.expect_alive()


def test_a_child_process_starts_a_watchdog_of_its_own() -> None:
    assert watchdog.start()
    called = threading.Event()
    before = watchdog._requests
    watchdog.after_fork()  # what os.fork calls in the child
    try:
        assert watchdog._requests is not before
        assert watchdog.start()
        watchdog.call_later(0, lambda: called.set())
        assert called.wait(30)
    finally:
        before.put(None)


def test_what_is_ready_is_set_aside_once() -> None:
    # The second time nobody would put it back: the run that has waited is over.
    loop = asyncio.new_event_loop()
    queue = ReadyQueue(loop)
    called: list[int] = []

    async def main() -> None:
        loop.call_soon(called.append, 1)
        assert interrupted._release_if_done()
        queue.put_back()
        assert interrupted._release_if_done()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    interrupted = MainTask(loop, queue)
    interrupted.task = interrupted.end = loop.create_task(asyncio.sleep(0))
    loop.run_until_complete(interrupted.task)
    loop.run_until_complete(main())
    assert called == [1]
    loop.close()


@pytest.mark.parametrize("name", LOOPS)
def test_nothing_is_lost_that_other_threads_schedule_while_cells_are_interrupted(name: str) -> None:
    runner = NotebookRunner(loop_factory=LOOPS[name], interrupt_grace=5)
    loop = runner.get_loop()
    sent, called, over = 0, 0, threading.Event()

    def count() -> None:
        nonlocal called
        called += 1

    def flood() -> None:
        nonlocal sent
        while not over.wait(0.0001):
            loop.call_soon_threadsafe(count)
            sent += 1

    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    async def start() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(busy()) for _ in range(200)]

    async def cell() -> None:
        loop.call_later(0.002, signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(60)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=flood)
    try:
        runner.run(start())
        thread.start()
        for _ in range(100):
            with pytest.raises(KeyboardInterrupt):
                runner.run(cell())
    finally:
        over.set()
        thread.join(30)
        sys.setswitchinterval(interval)
    runner.run(asyncio.sleep(0.05))
    assert called == sent > 0
    runner.close()
    asyncio.set_event_loop(None)


def test_an_interrupt_in_the_last_step_of_a_blocking_run_is_the_cells() -> None:
    runner = NotebookRunner()

    async def last() -> str:
        signal.raise_signal(signal.SIGINT)
        return "ended"

    with pytest.raises(KeyboardInterrupt):
        runner.run(last())
    assert runner.run(asyncio.sleep(0, "next")) == "next"
    runner.close()
    asyncio.set_event_loop(None)


def test_what_the_last_run_has_returned_is_not_kept() -> None:
    runner = NotebookRunner()

    class Result:
        pass

    async def work() -> Result:
        await asyncio.sleep(0)
        return Result()

    ref = weakref.ref(runner.run(work()))
    runner.run(asyncio.sleep(0))  # what is left to do for the end of that task
    gc.collect()
    assert ref() is None
    runner.close()
    asyncio.set_event_loop(None)


def test_many_and_eager_tasks_that_nobody_holds_survive_a_collection_at_once() -> None:
    runner = NotebookRunner()
    loop = runner.get_loop()
    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    async def lonely() -> None:
        future = loop.create_future()
        waiting.add(future)
        await future

    async def main(eager: bool) -> int:
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        number = 10 if eager else 3000
        for _ in range(number):
            loop.create_task(lonely())
        loop.set_task_factory(None)
        if not eager:
            await asyncio.sleep(0)
        gc.collect()
        found = len(waiting)
        for future in list(waiting):
            future.set_result(None)
        del future
        await asyncio.sleep(0.01)
        return number - found

    assert runner.run(main(eager=False)) == 0
    if hasattr(asyncio, "eager_task_factory"):
        assert runner.run(main(eager=True)) == 0
    runner.close()
    asyncio.set_event_loop(None)


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[NotebookRunner]:
    made = NotebookRunner(loop_factory=LOOPS[request.param], interrupt_grace=0.2)
    yield made
    made.close()
    asyncio.set_event_loop(None)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Deleted:
    def __del__(self) -> None:
        spin(0.5)


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


def test_a_wakeup_fd_that_was_there_before_gets_nothing_once_it_is_back() -> None:
    loop = asyncio.new_event_loop()
    wakeup = Wakeup(loop)
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGUSR1, lambda *args: None)
    try:
        with wakeup.on_signals():
            signal.raise_signal(signal.SIGUSR1)
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()
        with pytest.raises(BlockingIOError):
            reader.recv(10)
    finally:
        signal.signal(signal.SIGUSR1, handler)
        signal.set_wakeup_fd(before)
        wakeup.close()
        loop.close()
        reader.close()
        writer.close()


def test_the_collector_is_not_watched_in_a_cell_without_await(runner: NotebookRunner) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        for _ in range(3000):
            asyncio.create_task(nothing())

    def watched() -> bool:
        return any(isinstance(getattr(callback, "__self__", None), Tasks) for callback in gc.callbacks)

    gc.disable()  # the collector would sort them
    try:
        runner.run(main())
        assert watched()
        assert not runner.run_sync(watched)
    finally:
        gc.enable()


def test_sigint_that_the_watchdog_has_sent_is_no_press_when_the_interrupt_is_over() -> None:
    loop = asyncio.new_event_loop()
    with Interrupt(loop, grace=1) as interrupt:
        pass
    interrupt._sent = True
    interrupt.on_sigint(signal.SIGINT, None)
    assert interrupt.presses == 0
    interrupt.on_sigint(signal.SIGINT, None)
    assert interrupt.presses == 1
    loop.close()


def test_a_keyboard_interrupt_that_a_task_raises_is_the_tasks(runner: NotebookRunner) -> None:
    if not isinstance(runner.get_loop(), asyncio.BaseEventLoop):
        pytest.skip("uvloop does not say where it comes from")

    async def stop() -> None:
        raise KeyboardInterrupt

    async def main() -> str:
        task = asyncio.create_task(stop())
        await asyncio.sleep(0.1)
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
        await asyncio.sleep(0.1)
        task.exception()
        return "went on"

    assert runner.run(main()) == "went on"
    assert told == []


@pytest.mark.parametrize("then", ["awaits", "spins"])
def test_a_dropped_interrupt_counts_again_where_a_debugger_traces(runner: NotebookRunner, then: str) -> None:
    async def main() -> None:
        press()
        Deleted()
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


def test_a_cancellation_that_was_caught_has_had_its_effect(runner: NotebookRunner) -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_later(0.05, press)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "caught"
        return "slept"

    assert runner.run(main()) == "caught"


def test_callbacks_of_uvloops_own_keep_their_place() -> None:
    # They are about connections that uvloop frees at the end of an iteration: moved, they end in a segmentation fault.
    loop = uvloop.new_event_loop()
    queue, seen = ReadyQueue(loop), list[bool]()
    order: list[str] = []

    def look() -> None:
        own = not all(map(is_pythons, tuple(ready_callbacks(loop) or ())))
        seen.append(own)
        if own and not order:
            order.append("nothing moves")
            assert not queue.call_first(order.append)
            queue.set_aside()
            assert not queue._aside
        if not loop.is_closed() and len(seen) < 10_000 and not order:
            loop.call_soon(look)

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop.call_soon(look)
        for _ in range(20):
            transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
            transport.close()
            await asyncio.sleep(0)
        server.close()

    loop.call_soon(seen.clear)
    assert len(queue) == 1
    assert all(map(is_pythons, ready_callbacks(loop) or ()))
    loop.run_until_complete(main())
    loop.close()
    assert order == ["nothing moves"]
