"""One loop as the guest of another, without IPython."""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from ipyrunner.aio.introspection.running_loop import NOTHING, RunningAs, RunningAtRest
from ipyrunner.aio.loops.blocking_run import Faults
from ipyrunner.aio.loops.guest_leads import GuestLeads
from ipyrunner.aio.loops.host_and_guest import Hosting
from ipyrunner.aio.loops.host_leads import HostLeads
from ipyrunner.aio.loops.shutdown import wind_up
from ipyrunner.aio.loops.slices import Slices
from ipyrunner.aio.loops.turns_choice import hosting_of
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.wakeup_fd import Wakeup
from loops import LOOPS, until


@pytest.fixture(params=LOOPS)
def guest(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = LOOPS[request.param]()
    yield loop
    if not loop.is_closed():
        late: set[asyncio.Task[Any]] = set()
        loop.run_until_complete(wind_up(10.0, late))
        assert not late
        loop.close()


@pytest.fixture(params=["fd", "turns"])
def poll(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "turns")


Escaped = list[BaseException]


def run_host(guest: Any, poll: bool, main: Callable[[Hosting], Any], **options: Any) -> Escaped:
    """Run *main* in a host whose guest is *guest*."""
    escaped: Escaped = []

    async def host_main() -> None:
        kind = Slices if poll else GuestLeads
        hosting = kind(asyncio.get_running_loop(), guest, escaped=escaped.append, **options)
        hosting.start()
        try:
            async with asyncio.timeout(30) as limit:
                await main(hosting)
            assert not limit.expired()  # hosting.wait() takes a cancellation for an interrupt
        finally:
            hosting.stop()

    asyncio.run(host_main())
    return escaped


async def wait(hosting: Hosting, coro: Any) -> Any:
    with Interrupt(hosting.guest, grace=1) as interrupt:
        task = hosting.guest.create_task(coro)
        interrupt.attach(task)
        await hosting.wait(task, interrupt)
    return task.result()


def test_the_guest_runs_and_sees_itself(guest: Any, poll: bool) -> None:
    async def inside() -> tuple[bool, bool]:
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop() is guest, len(asyncio.all_tasks()) == 1

    async def main(hosting: Hosting) -> None:
        host = asyncio.get_running_loop()
        assert await wait(hosting, inside()) == (True, True)
        assert asyncio.get_running_loop() is host

    run_host(guest, poll, main)


def test_the_guest_makes_progress_while_nobody_waits(guest: Any, poll: bool) -> None:
    async def main(hosting: Hosting) -> None:
        event = asyncio.Event()
        host = asyncio.get_running_loop()
        guest.call_later(0.01, host.call_soon_threadsafe, event.set)
        await event.wait()

    run_host(guest, poll, main)


def test_the_host_is_woken_by_timers_fds_and_callbacks(guest: Any, poll: bool) -> None:
    async def main(hosting: Hosting) -> None:
        host = asyncio.get_running_loop()
        never = guest.create_task(asyncio.sleep(60))
        await asyncio.sleep(0.01)  # the host's own timer, while the guest leads
        event = asyncio.Event()
        threading.Timer(0.01, host.call_soon_threadsafe, [event.set]).start()
        await event.wait()
        reader, writer = await asyncio.open_connection(*await serve())
        writer.write(b"x\n")
        assert await reader.readline() == b"x\n"
        writer.close()
        event.clear()
        guest.call_soon(lambda: host.call_soon(event.set))  # no fd tells of this
        await event.wait()
        event.clear()
        guest.call_soon(lambda: host.call_later(0.01, event.set))
        await event.wait()
        never.cancel()
        servers[0].close()

    async def serve() -> Any:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        servers.append(await asyncio.start_server(echo, "127.0.0.1", 0))
        return servers[0].sockets[0].getsockname()

    servers: list[asyncio.Server] = []
    run_host(guest, poll, main)


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("who", ["a signal handler", "another thread"])
@pytest.mark.parametrize("what", ["callback", "timer"])
def test_the_host_is_woken_by_what_comes_as_the_guest_begins(
    guest: Any, poll: bool, who: str, what: str, leads: bool
) -> None:
    # As a handler of SIGINT, which is raised where ours is put in place, or ipykernel's control thread at a shutdown.
    event = asyncio.Event()
    works: list[Callable[[], object]] = []

    @contextmanager
    def between() -> Iterator[None]:
        while works:
            if who == "another thread":
                thread = threading.Thread(target=works.pop())
                thread.start()
                thread.join()
            else:
                works.pop()()
        yield

    async def main(hosting: Hosting) -> None:
        host = asyncio.get_running_loop()
        if leads:  # otherwise both loops sleep, where that is possible
            guest.call_later(60, str)
        for _ in range(3):
            event.clear()
            works.append(lambda: host.call_soon(event.set) if what == "callback" else host.call_later(0.01, event.set))
            await event.wait()

    run_host(guest, poll, main, between=between, asleep=between)


@pytest.mark.parametrize("where", ["between", "asleep", "left"])
def test_both_are_woken_by_what_a_signal_handler_does_before_a_turn(guest: Any, where: str) -> None:
    works: list[Callable[[], object]] = []

    def work() -> None:
        while works:
            works.pop()()

    @contextmanager
    def entered() -> Iterator[None]:
        work()
        yield

    async def main(hosting: Hosting) -> None:
        host, event = asyncio.get_running_loop(), asyncio.Event()
        if where == "between":  # otherwise both loops sleep, where that is possible
            guest.call_later(60, str)
        elif where == "asleep" and not isinstance(guest, asyncio.BaseEventLoop):
            pytest.skip("it always leads")
        for works_on in (host, guest, host, guest):
            event.clear()
            if works_on is host:
                works.append(lambda: host.call_soon(event.set))
            else:
                works.append(lambda: guest.call_soon(lambda: host.call_soon(event.set)))
            await event.wait()

    options: dict[str, Any] = {where: work if where == "left" else entered}
    run_host(guest, False, main, **options)


def test_the_host_is_woken_by_another_threads_timer(guest: Any, poll: bool) -> None:
    async def main(hosting: Hosting) -> None:
        host = asyncio.get_running_loop()
        event = asyncio.Event()
        rests = threading.Event()
        thread = threading.Thread(target=lambda: rests.wait(30) and host.call_later(0.01, event.set))
        thread.start()
        guest.call_later(0.01, rests.set)
        await event.wait()
        thread.join()

    run_host(guest, poll, main)


def test_what_rings_and_raises_before_the_turn_does_not_stop_the_next_run(guest: Any) -> None:
    raised: list[ValueError] = []

    @contextmanager
    def between() -> Iterator[None]:
        if not raised:  # as a signal handler may that is called here
            host.call_soon(str)
            raised.append(ValueError())
            raise raised[0]
        yield

    async def main(hosting: Hosting) -> None:
        nonlocal host
        host = asyncio.get_running_loop()
        guest.call_later(60, str)  # so that it leads
        while not raised:
            await asyncio.sleep(0.01)
        hosting.stop()

    host: Any = None
    assert run_host(guest, False, main, between=between) == raised
    assert guest.run_until_complete(asyncio.sleep(0.01, "next")) == "next"


def test_what_is_raised_as_the_guest_gives_way_does_not_keep_it(guest: Any) -> None:
    raised: list[ValueError] = []

    def stop() -> None:
        if not raised:
            raised.append(ValueError())
            raise raised[0]
        guest.stop()

    async def main(hosting: Hosting) -> None:
        guest.call_later(60, str)  # so that it leads
        for _ in range(3):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(str)

    guest.set_exception_handler(lambda loop, context: None)
    run_host(guest, False, main, stop=stop)
    assert raised


def test_a_host_that_leads_hears_of_what_comes_as_the_guest_begins_to_rest() -> None:
    works: list[Callable[[], object]] = []

    class Host(asyncio.SelectorEventLoop):
        def add_reader(self, *args: Any) -> None:
            super().add_reader(*args)
            while works:  # as a signal handler may do here
                works.pop()()

    async def main() -> None:
        visiting = HostLeads(asyncio.get_running_loop(), guest, escaped=[].append)
        visiting.start()
        ran = asyncio.Event()
        for _ in range(3):
            ran.clear()
            works.append(lambda: guest.call_soon(ran.set))
            guest.call_soon_threadsafe(str)  # a visit, after which the guest rests
            async with asyncio.timeout(30):
                await ran.wait()
        visiting.stop()

    guest = asyncio.new_event_loop()
    with asyncio.Runner(loop_factory=Host) as runner:
        runner.run(main())
    guest.close()


def test_the_host_schedules_on_the_resting_guest(guest: Any, poll: bool) -> None:
    async def main(hosting: Hosting) -> None:
        future = guest.create_future()
        asyncio.get_running_loop().call_later(0.01, future.set_result, "from the host")

        async def inside() -> Any:
            return await future

        assert await wait(hosting, inside()) == "from the host"

    run_host(guest, poll, main)


def test_busy_loops_take_turns(guest: Any, poll: bool) -> None:
    async def spin() -> None:
        while not stop:
            await asyncio.sleep(0)
            counts[asyncio.get_running_loop() is guest] += 1

    stop = False
    counts = {True: 0, False: 0}

    async def main(hosting: Hosting) -> None:
        nonlocal stop
        task = guest.create_task(spin())
        host = asyncio.create_task(spin())
        while min(counts.values()) < 100:
            await asyncio.sleep(0)
        stop = True
        await host
        while not task.done():
            await asyncio.sleep(0)

    run_host(guest, poll, main)


def test_exits_do_not_reach_the_host(guest: Any, poll: bool) -> None:
    def leave(exc: BaseException) -> None:
        raise exc

    async def main(hosting: Hosting) -> None:
        guest.call_soon(leave, SystemExit(1))
        await wait(hosting, asyncio.sleep(0.01))  # uvloop tells of the last one only, if there are two at a time
        guest.call_soon(leave, KeyboardInterrupt())
        assert await wait(hosting, asyncio.sleep(0.01, "on")) == "on"

    assert [type(exc) for exc in run_host(guest, poll, main)] == [SystemExit, KeyboardInterrupt]


def test_a_run_of_the_users_between_turns(guest: Any, poll: bool) -> None:
    # A plain cell may run the guest itself, while the host has work that nobody does.
    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        host = asyncio.get_running_loop()
        host.call_soon_threadsafe(lambda: None)
        hosting.pause()
        with RunningAs(NOTHING):
            guest.run_until_complete(asyncio.sleep(0.05))

    run_host(guest, poll, main)


def test_nothing_is_left_on_the_host(guest: Any, poll: bool) -> None:
    async def main(hosting: Hosting) -> None:
        await wait(hosting, asyncio.sleep(0.01))
        hosting.stop()
        hosting.stop()
        await asyncio.sleep(0.01)
        assert not {"call_soon", "call_at", "stop"} & vars(hosting.host).keys()
        assert "select" not in vars(hosting.host._selector)  # type: ignore[attr-defined]

    run_host(guest, poll, main)


def test_a_closed_guest_releases_who_waits(guest: Any, poll: bool) -> None:
    async def main(hosting: Hosting) -> None:
        host, begun = asyncio.get_running_loop(), asyncio.Event()

        async def inside() -> None:
            host.call_soon(begun.set)
            await asyncio.sleep(60)

        task = guest.create_task(inside())
        await begun.wait()
        host.call_later(0.01, guest.close)
        with Interrupt(guest, grace=1) as interrupt:
            interrupt.attach(task)
            await hosting.wait(task, interrupt)
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
        assert not task.done()
        task._log_destroy_pending = False  # closing a loop over a task is what is tested

    run_host(guest, poll, main)


def test_a_cancelled_wait_cancels_the_task_and_lets_it_clean_up(guest: Any, poll: bool) -> None:
    log = []

    async def inside() -> None:
        log.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            log.append("clean")

    async def main(hosting: Hosting) -> None:
        waiting = asyncio.create_task(wait(hosting, inside()))
        await until(lambda: log)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_host(guest, poll, main)
    assert log == ["begun", "clean"]


def test_an_idle_pair_of_loops_sleeps(guest: Any) -> None:
    turns = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def calls(*args: Any) -> Any:
            nonlocal turns
            turns += 1
            return call(*args)

        return calls

    async def main(hosting: Hosting) -> None:
        nonlocal turns
        sleeper = guest.create_task(asyncio.sleep(60))
        for loop in (hosting.host, guest):
            if isinstance(loop, asyncio.BaseEventLoop):
                loop._selector.select = counted(loop._selector.select)  # type: ignore[attr-defined]
        guest.run_forever = counted(guest.run_forever)
        await asyncio.sleep(0.01)
        assert turns > 0
        turns = 0
        await asyncio.sleep(0.5)
        # Of the host's timer, and those of the guest's that were due. A loop that spins does thousands.
        assert turns < 50
        sleeper.cancel()

    run_host(guest, False, main)


class _Loops:
    """A host and a guest that count how often they sleep, and how often the guest runs."""

    def __init__(self, guest: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.guest, self.runs = guest, 0
        run_forever = guest.run_forever

        def counted() -> None:
            self.runs += 1
            run_forever()

        monkeypatch.setattr(guest, "run_forever", counted)
        self.options = options

    def run(self, main: Callable[[Hosting], Any]) -> Escaped:
        return run_host(self.guest, False, main, **self.options)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Loops]:
    guest = asyncio.new_event_loop()
    yield _Loops(guest, monkeypatch)
    guest.close()


def test_a_host_that_has_work_is_as_without_a_guest(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A request takes about ten iterations of the kernel's loop.
    loops = _Loops(guest, monkeypatch)

    async def main(hosting: Hosting) -> None:
        ran = asyncio.Event()
        await asyncio.sleep(0.01)
        guest.call_soon(ran.set)
        before = loops.runs
        for _ in range(5):
            await asyncio.sleep(0)
        assert loops.runs == before
        assert not ran.is_set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert loops.runs > before
        assert ran.is_set()

    loops.run(main)


def test_a_host_that_has_work_goes_first_each_time(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = _Loops(guest, monkeypatch)

    async def main(hosting: Hosting) -> None:
        for _ in range(5):
            await asyncio.sleep(0.01)
            before = loops.runs
            for _ in range(5):
                await asyncio.sleep(0)
            assert loops.runs == before

    loops.run(main)


def test_a_host_that_stops_is_left_alone(guest: Any) -> None:
    host, ran = asyncio.new_event_loop(), []
    hosting = GuestLeads(host, guest, escaped=pytest.fail)
    hosting.start()
    hosting._passed = 1000  # the host has gone first often enough
    guest.call_soon(ran.append, 1)
    host.stop()
    host.run_forever()
    assert not ran
    hosting.stop()
    host.close()


@pytest.mark.parametrize("led", [True, False])
def test_a_host_that_is_run_inside_the_guest(guest: Any, led: bool) -> None:
    # As with nest_asyncio.
    async def main(hosting: Hosting) -> None:
        host: Any = hosting.host

        async def inside() -> str:
            host._selector.select(0.001)
            return "on"

        if led:
            assert await wait(hosting, inside()) == "on"
        else:
            hosting.pause()
            with RunningAs(NOTHING):
                assert guest.run_until_complete(inside()) == "on"

    assert run_host(guest, False, main) == []


def test_before_and_after_each_turn_there_is_a_call(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    run_forever = guest.run_forever
    monkeypatch.setattr(guest, "run_forever", lambda: (log.append("run"), run_forever()))

    async def main(hosting: Hosting) -> None:
        guest.call_later(60, str)  # so that it leads
        await asyncio.sleep(0.01)

    run_host(guest, False, main, left=lambda: log.append("left"))
    assert log[:3] == ["left", "run", "left"]


def test_a_forked_child_ends_in_the_hosts_next_iteration(guest: Any) -> None:
    parent = os.getpid()

    def left() -> None:
        if os.getpid() != parent:
            os._exit(7)

    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there may be threads of other tests
            pid = os.fork()
        if pid == 0:
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

    run_host(guest, False, main, left=left)


def test_the_guest_leads_while_somebody_waits_for_it(idle: _Loops) -> None:
    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        before, runs = idle.runs, []
        future = idle.guest.create_future()

        def end() -> None:
            runs.append(idle.runs)
            future.set_result(None)

        hosting.host.call_later(0.02, end)
        with Interrupt(idle.guest, grace=1) as interrupt:
            await hosting.wait(future, interrupt)
        assert runs[0] > before

    idle.run(main)


def test_what_both_slept_in_is_closed(idle: _Loops) -> None:
    async def main(hosting: Any) -> None:
        await asyncio.sleep(0.01)
        both = hosting._both
        assert both is not None
        hosting.stop()
        assert both.get_map() is None

    idle.run(main)


def test_both_loops_sleep_in_one_call_while_the_guest_is_idle(idle: _Loops) -> None:
    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        before = idle.runs
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert idle.runs == before
        idle.guest.call_later(0.01, list)
        await asyncio.sleep(0.05)
        assert idle.runs > before

    idle.run(main)


@pytest.mark.parametrize("what", ["a thread", "a fd", "a signal handler", "the host"])
def test_an_idle_guest_is_woken(idle: _Loops, what: str) -> None:
    guest, seen = idle.guest, []
    reader, writer = socket.socketpair()

    async def main(hosting: Hosting) -> None:
        host, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            seen.append(asyncio.get_running_loop())
            host.call_soon(woken.set)

        def on_signal(signum: int, frame: object) -> None:
            asyncio.get_running_loop().call_soon(wake)

        await asyncio.sleep(0.01)
        if what == "a thread":
            threading.Timer(0.02, guest.call_soon_threadsafe, [wake]).start()
        elif what == "a fd":
            guest.add_reader(reader, lambda: (guest.remove_reader(reader), wake()))
            threading.Timer(0.02, writer.send, [b"x"]).start()
        elif what == "a signal handler":
            before = signal.signal(signal.SIGUSR1, on_signal)
            threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        else:
            host.call_later(0.02, guest.call_soon, wake)
        try:
            await woken.wait()
        finally:
            if what == "a signal handler":
                signal.signal(signal.SIGUSR1, before)

    wakeup = Wakeup(guest)
    idle.options["asleep"] = wakeup.on_signals
    idle.run(main)
    wakeup.close()
    reader.close()
    writer.close()
    assert seen == [guest]


def test_a_host_that_is_woken_all_the_time_goes_first_but_not_for_ever(idle: _Loops) -> None:
    guest = idle.guest
    readable, other = socket.socketpair()
    other.send(b"x")
    ran: list[int] = []

    async def main(hosting: Hosting) -> None:
        host, over, passes = asyncio.get_running_loop(), asyncio.Event(), 0

        def of_host() -> None:
            nonlocal passes
            passes += 1
            if passes == 100 or ran:
                host.remove_reader(readable)
                over.set()

        def of_guest() -> None:
            guest.remove_reader(readable)
            ran.append(passes)

        await asyncio.sleep(0.01)
        host.add_reader(readable, of_host)
        guest.add_reader(readable, of_guest)
        await over.wait()

    idle.run(main)
    readable.close()
    other.close()
    assert ran
    assert 5 <= ran[0] <= 20


def test_what_a_signal_handler_raises_while_both_sleep_does_not_reach_the_host(idle: _Loops) -> None:
    def on_signal(signum: int, frame: object) -> None:
        raise ValueError("from the handler")

    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        before = signal.signal(signal.SIGUSR1, on_signal)
        threading.Timer(0.02, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1]).start()
        try:
            while not raised():
                await asyncio.sleep(0.05)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert await wait(hosting, asyncio.sleep(0.01, "on")) == "on"
        before = idle.runs
        await asyncio.sleep(0.05)
        sleeps_on.append(idle.runs == before)

    sleeps_on: list[bool] = []

    def raised() -> bool:
        return bool(escaped)

    escaped: list[BaseException] = []
    guest = idle.guest

    async def host_main() -> None:
        hosting = GuestLeads(asyncio.get_running_loop(), guest, escaped=escaped.append)
        hosting.start()
        try:
            async with asyncio.timeout(30):
                await main(hosting)
        finally:
            hosting.stop()

    asyncio.run(host_main())
    assert [str(exc) for exc in escaped] == ["from the handler"]
    assert sleeps_on == [True]


def test_what_is_raised_in_our_own_code_does_not_reach_the_host(guest: Any) -> None:
    raised: list[ValueError] = []

    def left() -> None:
        if not raised:  # as a signal handler may that is called here
            raised.append(ValueError())
            raise raised[0]

    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        assert await wait(hosting, asyncio.sleep(0.01, "on")) == "on"

    assert run_host(guest, False, main, left=left) == raised != []


def test_an_idle_guest_runs_for_other_threads(idle: _Loops) -> None:
    # They ask whether they may run it themselves.
    seen: list[object] = []

    async def main(hosting: Hosting) -> None:
        over = asyncio.Event()

        def look() -> None:
            while not idle.guest.is_running():  # the host has not come to rest yet
                pass
            future = asyncio.Future(loop=idle.guest)  # type: ignore[var-annotated]
            try:
                idle.guest.run_until_complete(future)
            except RuntimeError as exc:
                seen.append(str(exc))
            hosting.host.call_soon_threadsafe(over.set)

        await asyncio.sleep(0.01)
        before = idle.runs
        thread = threading.Thread(target=look)
        thread.start()
        await over.wait()
        thread.join()
        assert idle.runs == before
        assert not idle.guest.is_running()

    idle.run(main)
    assert seen == ["This event loop is already running"]


def test_an_idle_guest_whose_selector_is_replaced_is_woken(idle: _Loops) -> None:
    guest = idle.guest

    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        before = guest._selector
        keys = list(before.get_map().values())
        before.close()
        guest._selector = selectors.DefaultSelector()  # mostly with the same fd
        for key in keys:
            guest._selector.register(key.fileobj, key.events, key.data)
        woken = asyncio.Event()
        wake = partial(hosting.host.call_soon_threadsafe, woken.set)
        threading.Timer(0.05, guest.call_soon_threadsafe, [wake]).start()
        await woken.wait()

    idle.run(main)


class _Torn:
    """Put *owner*'s attribute *name*, a class of context managers, in place so that its first exit does nothing."""

    def __init__(self, own: Any) -> None:
        self.own, self.raised = own, []

    def __call__(self, *args: Any) -> Any:
        torn = self

        class Once(self.own):  # type: ignore[misc,name-defined]
            def __exit__(self, *exc: object) -> None:
                if not torn.raised:  # as a signal handler may that is called before the first instruction
                    torn.raised.append(ValueError())
                    raise torn.raised[0]
                super().__exit__(*exc)

        return Once(*args)


@pytest.mark.parametrize("leads", [True, False])
def test_what_is_raised_as_the_running_loop_is_put_back(
    idle: _Loops, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    torn = _Torn(RunningAs if leads else RunningAtRest)
    if leads:
        monkeypatch.setattr("ipyrunner.aio.loops.host_and_guest.RunningAs", torn)
    else:
        monkeypatch.setattr("ipyrunner.aio.loops.guest_leads.RunningAtRest", torn)

    async def main(hosting: Hosting) -> None:
        if leads:
            idle.guest.call_later(60, str)
        while not torn.raised:
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop() is hosting.host
        assert not idle.guest.is_running()
        assert await wait(hosting, asyncio.sleep(0.01, "on")) == "on"

    assert idle.run(main) == torn.raised


@pytest.mark.parametrize("seconds", [math.inf, 3e6])
def test_a_host_may_have_a_timer_in_a_very_long_time(idle: _Loops, seconds: float) -> None:
    async def main(hosting: Hosting) -> None:
        sleeper = asyncio.create_task(asyncio.sleep(seconds))
        await asyncio.sleep(0.01)
        before, woken = idle.runs, asyncio.Event()
        threading.Timer(0.02, hosting.host.call_soon_threadsafe, [woken.set]).start()
        await woken.wait()
        assert idle.runs == before
        sleeper.cancel()

    assert idle.run(main) == []


@pytest.mark.parametrize("how", ["a class", "an attribute", "a loop"])
def test_a_guest_whose_select_is_the_users_sleeps_in_it(how: str) -> None:
    selects = 0

    def select(self: Any, timeout: float | None = None) -> Any:
        nonlocal selects
        selects += 1
        return selectors.DefaultSelector.select(self, timeout)

    class Hooked(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
        pass

    class Loop(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            nonlocal selects
            selects += 1
            super()._run_once()  # type: ignore[misc]

    async def main(hosting: Hosting) -> None:
        for _ in range(3):
            await asyncio.sleep(0.01)
        assert selects > 2

    guest: Any = Loop() if how == "a loop" else asyncio.SelectorEventLoop()
    if how == "a class":
        guest.close()
        Hooked.select = select
        guest = asyncio.SelectorEventLoop(Hooked())
    elif how == "an attribute":
        guest._selector.select = partial(select, guest._selector)
    assert run_host(guest, False, main) == []
    guest.close()


def test_an_idle_guest_whose_selector_is_closed_is_found_broken(idle: _Loops) -> None:
    async def main(hosting: Hosting) -> None:
        await asyncio.sleep(0.01)
        idle.guest._selector.close()
        while hosting.active:
            await asyncio.sleep(0.01)

    assert idle.run(main)
    idle.guest._selector = selectors.DefaultSelector()  # for the clean-up


def test_the_hosts_selector_may_be_wrapped_by_others(guest: Any) -> None:
    async def main(hosting: Hosting) -> None:
        selector: Any = hosting.host._selector  # type: ignore[attr-defined]
        ours, calls = selector.select, []
        selector.select = lambda timeout=None: calls.append(timeout) or ours(timeout)
        assert await wait(hosting, asyncio.sleep(0.01, "on")) == "on"
        hosting.stop()
        left.clear()
        await asyncio.sleep(0.01)
        await asyncio.to_thread(str)
        assert calls
        assert not left

    left: list[int] = []
    run_host(guest, False, main, left=lambda: left.append(1))


def test_which_way_of_taking_turns_fits(guest: Any) -> None:
    def kind(host: asyncio.AbstractEventLoop, **options: Any) -> type[Hosting]:
        return type(hosting_of(host, guest, escaped=[].append, **options))

    host = asyncio.new_event_loop()
    assert kind(host) is GuestLeads
    assert kind(host, poll=True) is Slices
    assert kind(host, host_leads=True) is HostLeads
    host.close()
    without_fd = asyncio.SelectorEventLoop(selectors.SelectSelector())
    assert kind(without_fd) is Slices
    without_fd.close()


@pytest.mark.parametrize(("kind", "aside"), [(GuestLeads, False), (Slices, True), (Slices, False)])
def test_a_host_that_waits_for_an_empty_queue_finds_one(guest: Any, kind: type[Hosting], aside: bool) -> None:
    async def main() -> int:
        host = asyncio.get_running_loop()
        hosting = kind(host, guest, escaped=[].append, aside=aside)
        hosting.start()
        found, tries = asyncio.Event(), 0

        def look() -> None:  # as prompt_toolkit does before it draws
            nonlocal tries
            tries += 1
            if not host._ready or tries == 100:
                found.set()
            else:
                host.call_soon_threadsafe(look)

        host.call_soon(look)
        try:
            await asyncio.wait_for(found.wait(), 30)
        finally:
            hosting.stop()
        return tries

    assert (asyncio.run(main()) < 10) is (aside or kind is GuestLeads)


def test_to_the_host_the_guest_is_no_slow_callback() -> None:
    guest = asyncio.new_event_loop()

    async def main() -> tuple[float, float]:
        host: Any = asyncio.get_running_loop()
        host.set_debug(True)
        before = host.slow_callback_duration
        hosting = Slices(host, guest, escaped=[].append)
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
