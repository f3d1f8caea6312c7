"""A guest that leads where its host would sleep, and what both sleep in."""

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
from functools import partial
from typing import Any

import pytest

from hosts import Escaped, run_host, wait
from ipyrunner.aio.introspection.running_loop import NOTHING, RunningAs, RunningAtRest
from ipyrunner.aio.loops.guest_leads import GuestLeads
from ipyrunner.aio.loops.host_and_guest import Hosting
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.wakeup_fd import Wakeup


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
