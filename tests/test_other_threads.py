"""Threads that a message has come for get the GIL beside a loop that never rests, the kernel's own among them."""

from __future__ import annotations

import asyncio
import os
import select
import statistics
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hosts import run_host, wait
from ipyrunner.aio.loops import other_threads
from ipyrunner.aio.loops.host_and_guest import Hosting
from ipyrunner.aio.loops.other_threads import OtherThreads
from ipyrunner.ipykernel.thread_sockets import thread_fds
from kernels import Kernel

pytestmark = pytest.mark.skipif(not other_threads._Edges.is_possible, reason="without epoll and kqueue")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments for which the loop has slept."""
    found: list[float] = []

    monkeypatch.setattr(other_threads, "sleep", found.append)
    return found


async def iterations(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_thread_handles_a_message_within_a_few_iterations(
    loop: asyncio.AbstractEventLoop, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    handled = 0

    def serve() -> None:
        nonlocal handled
        while select.select([reader], [], []) and os.read(reader, 1) == b"x":
            for _ in range(4):
                time.sleep(0)  # wants the GIL again
            handled += 1

    async def main() -> list[int]:
        counts = []
        for n in range(30):
            os.write(writer, b"x")
            count = 0
            while handled == n:
                count += 1
                for _ in range(1000):
                    pass
                await asyncio.sleep(0)
            counts.append(count)
            await iterations(2 * other_threads._TIMES)  # what was left of them
        return counts

    others = OtherThreads(loop, [reader])
    others.watch()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert statistics.median(loop.run_until_complete(main())) < 30
    finally:
        os.write(writer, b"e")
        thread.join()
        others.close()


def test_each_message_makes_a_busy_loop_sleep_a_few_times(
    loop: asyncio.AbstractEventLoop, pipe: tuple[int, int], sleeps: list[float]
) -> None:
    others = OtherThreads(loop, [pipe[0]])
    others.watch()
    others.watch()

    async def main() -> None:
        await iterations(50)
        assert not sleeps
        os.write(pipe[1], b"x")
        await iterations(50)
        assert len(sleeps) == other_threads._TIMES  # though nobody has read it
        os.write(pipe[1], b"x")
        await iterations(5)
        os.write(pipe[1], b"x")
        await iterations(100)
        assert 2 * other_threads._TIMES < len(sleeps) < 3 * other_threads._TIMES
        sleeps.clear()
        others.rest()
        others.rest()
        os.write(pipe[1], b"x")
        await iterations(50)
        assert not sleeps

    loop.run_until_complete(main())
    others.close()
    others.close()
    others.watch()


def test_a_loop_that_waits_does_not_sleep(
    loop: asyncio.AbstractEventLoop, pipe: tuple[int, int], sleeps: list[float]
) -> None:
    others = OtherThreads(loop, [pipe[0]])
    others.watch()
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        original()

    original, others._go_on = others._go_on, count  # type: ignore[method-assign]

    async def main() -> None:
        for n in range(3):
            os.write(pipe[1], b"x")
            while seen == n:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    others.close()
    assert seen == 3  # once for each, though nobody reads them
    assert not sleeps


def test_it_goes_on_after_a_signal_handler_has_raised(
    loop: asyncio.AbstractEventLoop, pipe: tuple[int, int], sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = OtherThreads(loop, [pipe[0]])
    others.watch()
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))

    def tear() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        with monkeypatch.context() as patch:
            os.write(pipe[1], b"x")
            while not sleeps:
                await asyncio.sleep(0)
            patch.setattr(others, "_go_on", tear)
            await iterations(5)
        sleeps.clear()
        os.write(pipe[1], b"x")
        await iterations(50)

    loop.run_until_complete(main())
    others.close()
    assert [type(exc) for exc in reports] == [ZeroDivisionError]
    assert len(sleeps) == other_threads._TIMES


def test_fds_may_be_closed_and_used_again(
    loop: asyncio.AbstractEventLoop, pipe: tuple[int, int], sleeps: list[float]
) -> None:
    reader, writer = os.pipe()
    others = OtherThreads(loop, [reader])
    others.watch()
    os.close(reader)
    os.close(writer)
    again = os.dup(pipe[0])

    async def main() -> None:
        os.write(pipe[1], b"x")
        await iterations(20)
        read = loop.create_future()
        loop.add_reader(again, lambda: read.done() or read.set_result(os.read(again, 1)))
        assert await read == b"x"
        loop.remove_reader(again)

    loop.run_until_complete(main())
    assert again == reader  # else this test says nothing
    os.close(again)
    others.close()
    assert not sleeps


def test_fds_that_cannot_be_watched(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises((OSError, ValueError)):
        OtherThreads(loop, [-1])
    others = OtherThreads(loop, [])
    others.watch()
    others.rest()
    others.close()


class _Closed:
    @property
    def FD(self) -> int:  # noqa: N802
        raise OSError("closed")


def test_the_sockets_of_the_kernels_threads() -> None:
    def socket(fd: int) -> Any:
        return SimpleNamespace(FD=fd)

    channel = SimpleNamespace(manager=SimpleNamespace(_main_to_shell_channel=SimpleNamespace(to_socket=socket(3))))
    kernel = SimpleNamespace(
        shell_stream=SimpleNamespace(socket=socket(1)),
        control_stream=SimpleNamespace(socket=socket(2)),
        shell_channel_thread=channel,
    )
    shell: Any = SimpleNamespace(kernel=kernel)
    assert thread_fds(shell) == [1, 2, 3]
    kernel.control_stream.socket = _Closed()
    kernel.shell_channel_thread = None
    assert thread_fds(shell) == [1]
    assert thread_fds(SimpleNamespace()) == []  # type: ignore[arg-type]


def test_nothing_is_watched_when_it_is_closed(loop: asyncio.AbstractEventLoop, pipe: tuple[int, int]) -> None:
    others = OtherThreads(loop, [pipe[0]])
    others.watch()
    assert others._edges is not None
    fd = others._edges.fd
    others.close()
    assert not loop.remove_reader(fd)


def test_a_guest_runs_though_its_hosts_sockets_are_closed(guest: Any) -> None:
    async def main(hosting: Hosting) -> None:
        assert await wait(hosting, asyncio.sleep(0.01, "slept")) == "slept"

    run_host(guest, False, main, thread_fds=[-1])


COUNT = """
import asyncio, time
from ipyrunner.aio.loops import other_threads
moments = []
other_threads.sleep = lambda seconds: (moments.append(seconds), time.sleep(seconds))
async def compute():
    while True:
        for _ in range(4000): pass
        await asyncio.sleep(0)
"""


def sleeps_after(k: Kernel, code: str) -> bool:
    """Return whether the loop sleeps when *code* runs: not if its request comes while the last one is handled."""
    k.ok("moments.clear()")
    for _ in range(100):
        k.ok(code)
        if k.ok("len(moments) > 0").value == "True":
            return True
    return False


def test_a_kernel_beside_busy_tasks(fresh: Kernel) -> None:
    fresh.ok(COUNT)
    for code in ("1", "await asyncio.sleep(0.01, 1)"):
        assert fresh.ok(code).value == "1"
    assert fresh.ok("len(moments)").value == "0"
    start = "tasks = [asyncio.create_task(compute()) for _ in range(3)]"
    fresh.ok(start)
    for code in ("1", "await asyncio.sleep(0.01, 1)", "%arunner status"):
        assert sleeps_after(fresh, code), code
    # The new loop watches them as well.
    fresh.ok("%arunner restart")
    fresh.ok(start)
    assert sleeps_after(fresh, "1")
    fresh.ok("%unload_ext ipyrunner")
    assert fresh.ok("1").value == "1"
