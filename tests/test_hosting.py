"""One loop as the guest of another, without IPython."""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hosts import run_host, wait
from ipyrunner.aio.introspection.running_loop import NOTHING, RunningAs
from ipyrunner.aio.loops.blocking_run import Faults
from ipyrunner.aio.loops.guest_leads import GuestLeads
from ipyrunner.aio.loops.host_and_guest import Hosting
from ipyrunner.aio.loops.host_leads import HostLeads
from ipyrunner.aio.loops.slices import Slices
from ipyrunner.aio.loops.turns_choice import hosting_of
from ipyrunner.aio.sigint.interrupt import Interrupt
from loops import until


@pytest.fixture(params=["fd", "turns"])
def poll(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "turns")


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


def test_other_threads_get_the_gil_sooner_while_the_guest_runs(guest: Any, poll: bool) -> None:
    async def seen() -> float:
        return round(sys.getswitchinterval(), 6)

    async def chooses(seconds: float) -> None:
        sys.setswitchinterval(seconds)

    async def saves_and_restores() -> None:
        saved = sys.getswitchinterval()
        sys.setswitchinterval(0.1)
        await asyncio.sleep(0.01)
        sys.setswitchinterval(saved)

    async def of_child() -> float:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there may be threads of other tests
            pid = os.fork()
        if pid == 0:
            os.write(writer, str(round(sys.getswitchinterval(), 6)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        found = float(os.read(reader, 100))
        os.close(reader)
        os.close(writer)
        return found

    async def main(hosting: Hosting) -> None:
        assert (await seen(), await wait(hosting, seen()), await seen()) == (0.005, 0.00025, 0.005)
        await wait(hosting, saves_and_restores())
        assert (await seen(), await wait(hosting, seen()), await seen()) == (0.005, 0.00025, 0.005)
        assert await wait(hosting, of_child()) == 0.005
        await wait(hosting, chooses(0.003))
        assert (await seen(), await wait(hosting, seen()), await seen()) == (0.003, 0.003, 0.003)

    assert round(sys.getswitchinterval(), 6) == 0.005
    try:
        run_host(guest, poll, main)
    finally:
        sys.setswitchinterval(0.005)


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
