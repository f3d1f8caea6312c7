"""A call on the loop after a while: by a file descriptor on Linux, elsewhere by a timer."""

from __future__ import annotations

import asyncio
import contextvars
import os
import selectors
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ipyrunner.aio.tasks import alarm as alarm_module
from ipyrunner.aio.tasks.alarm import Alarm
from ipyrunner.aio.tasks.registry import Tasks

Loop = Any
HAS_FD = sys.platform == "linux"
needs_fd = pytest.mark.skipif(not HAS_FD, reason="only Linux has timerfd")


def numbers() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if HAS_FD else set()


@pytest.fixture(params=["fd", "timer"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fd" and not HAS_FD:
        pytest.skip("only Linux has timerfd")
    if request.param == "timer":
        monkeypatch.setattr(alarm_module, "_create", lambda: None)
    return str(request.param)


class Rung:
    """An alarm, and when it has rung."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.times, self.future = loop, list[float](), loop.create_future()
        self.contexts: list[contextvars.Context] = []
        self.alarm = Alarm(loop, self)

    def __call__(self) -> None:
        self.times.append(self.loop.time())
        self.contexts.append(contextvars.copy_context())
        if not self.future.done():
            self.future.set_result(None)


@pytest.fixture
def rung(loop: asyncio.AbstractEventLoop) -> Iterator[Rung]:
    rung = Rung(loop)
    yield rung
    rung.alarm.close()


def rings(rung: Rung) -> None:
    """Wait until the alarm has rung."""
    rung.loop.run_until_complete(asyncio.wait_for(rung.future, 30))
    rung.future = rung.loop.create_future()


def test_it_rings_once_each_time_that_it_is_set(how: str, rung: Rung) -> None:
    for n in range(1, 4):
        start = rung.loop.time()
        rung.alarm.set(0.01)
        rings(rung)
        assert len(rung.times) == n
        assert rung.times[-1] - start >= 0.009
    rung.loop.run_until_complete(asyncio.sleep(0.05))
    assert len(rung.times) == 3


def test_its_context_is_empty(how: str, rung: Rung) -> None:
    contextvars.ContextVar[int]("a variable").set(1)
    rung.alarm.set(0.01)
    rings(rung)
    assert not list(rung.contexts[0])


def test_the_loop_has_no_timer(rung: Rung) -> None:
    rung.alarm.set(3600)
    assert bool(rung.loop._scheduled) is not HAS_FD


def test_while_the_loop_rests(how: str, rung: Rung) -> None:
    rung.alarm.set(0.001)
    while how == "fd" and not (rung.loop._selector.select(0)):
        pass
    rings(rung)


@needs_fd
def test_it_watches_again_after_the_loops_selector_was_replaced(rung: Rung) -> None:
    rung.alarm.set(3600)
    fd = rung.alarm._fd
    assert fd is not None
    rung.loop.remove_reader(fd)
    rung.alarm.set(0.01, again=True)
    rings(rung)
    assert not rung.loop._scheduled


@needs_fd
@pytest.mark.parametrize("first", ["the loop", "the alarm"])
def test_nothing_is_left_after_its_end(first: str) -> None:
    before = numbers()
    loop: Loop = asyncio.SelectorEventLoop()
    rung = Rung(loop)
    rung.alarm.set(3600)
    assert len(numbers() - before) > 1
    for close in (loop.close, rung.alarm.close)[:: 1 if first == "the loop" else -1]:
        close()
    rung.alarm.close()
    assert numbers() <= before


@needs_fd
def test_the_books_close_it(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        await loop.create_task(asyncio.sleep(0))

    before = numbers()
    books = Tasks(loop, torn=lambda exc: None)
    loop.run_until_complete(main())
    assert numbers() - before
    books.close()
    assert numbers() <= before


def refuse(*arguments: object) -> None:
    raise NotImplementedError


def many(*arguments: object, **options: object) -> int:
    raise OSError(24, "Too many open files")


@needs_fd
@pytest.mark.parametrize("why", ["the loop watches no fd", "it refuses", "too many files are open"])
def test_without_a_file_descriptor_it_is_a_timer(rung: Rung, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = numbers()
    if why == "the loop watches no fd":
        monkeypatch.setattr(alarm_module, "selector_fd", lambda loop: None)
    elif why == "it refuses":
        monkeypatch.setattr(rung.loop, "add_reader", refuse)
    elif sys.version_info >= (3, 13):
        monkeypatch.setattr(os, "timerfd_create", many)
    else:
        monkeypatch.setattr(alarm_module, "_libc", many)
    rung.alarm.set(0.01)
    assert numbers() == before
    assert rung.loop._scheduled
    rings(rung)


@needs_fd
def test_when_it_was_set_again_as_it_rings(rung: Rung) -> None:
    rung.alarm.set(0.001)
    assert rung.alarm._fd is not None
    while not rung.loop._selector.select(0):
        pass
    rung.alarm.set(3600)  # so there is nothing to read
    rung.alarm._ring(rung.alarm._fd)
    assert len(rung.times) == 1


def answered(loop: Loop) -> bool:
    """Whether the loop watches sockets that are made now, whatever numbers they have."""

    async def main() -> None:
        for _ in range(4):
            ours, theirs = socket.socketpair()
            sockets.extend((ours, theirs))
            ours.setblocking(False)
            theirs.send(b"x")
            await asyncio.wait_for(loop.sock_recv(ours, 1), 30)
            # At once something is there, so that is no proof; what comes later has to be waited for.
            loop.call_later(0.01, theirs.send, b"y")
            await asyncio.wait_for(loop.sock_recv(ours, 1), 30)

    sockets: list[socket.socket] = []
    try:
        loop.run_until_complete(main())
    finally:
        for each in sockets:
            each.close()
    return True


@needs_fd
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_signal_handler_that_raises_as_it_is_watched(
    rung: Rung, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_reader = rung.loop.add_reader

    def add(*arguments: Any) -> None:
        add_reader(*arguments)
        raise error

    before = numbers()
    with monkeypatch.context() as patch:
        patch.setattr(rung.loop, "add_reader", add)
        with suppress(KeyboardInterrupt):
            rung.alarm.set(0.01)
    assert numbers() == before
    assert answered(rung.loop)


@needs_fd
@pytest.mark.parametrize("again", [False, True])
def test_a_selector_that_is_replaced_for_a_while(rung: Rung, again: bool) -> None:
    rung.alarm.set(3600)
    selector, rung.loop._selector = rung.loop._selector, selectors.SelectSelector()
    rung.alarm.set(0.01, again=again)
    rung.alarm.set(0.01)
    other, rung.loop._selector = rung.loop._selector, selector
    other.close()
    assert answered(rung.loop)
    rung.alarm.set(0.01)
    rings(rung)


@needs_fd
def test_somebody_has_closed_it_and_the_number_is_anothers(rung: Rung) -> None:
    rung.alarm.set(3600)
    fd = rung.alarm._fd
    assert fd is not None
    os.close(fd)
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == fd
    rung.alarm.set(0.01)
    rings(rung)
    rung.alarm.close()
    assert os.readlink(f"/proc/self/fd/{other}") == os.devnull
    os.close(other)


@needs_fd
def test_somebody_has_closed_it(rung: Rung) -> None:
    rung.alarm.set(3600)
    assert rung.alarm._fd is not None
    os.close(rung.alarm._fd)
    rung.alarm.close()
    rung.alarm.set(0.01)
    rings(rung)


@needs_fd
@pytest.mark.parametrize("when", ["remove_reader", "close"])
def test_an_end_that_is_interrupted_is_done_again(rung: Rung, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = numbers()
    rung.alarm.set(0.001)
    owner: Any = os if when == "close" else rung.loop
    original = getattr(owner, when)

    def interrupted(fd: int) -> None:
        original(fd)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, when, interrupted)
        rung.alarm.close()
    rung.alarm.close()
    assert numbers() == before
    assert answered(rung.loop)


@needs_fd
def test_a_call_that_is_late_still_comes_if_it_is_asked_for_again(rung: Rung) -> None:
    async def main() -> None:
        rung.alarm.set(0.001)
        while not rung.loop._selector.select(0):
            pass
        rung.alarm.set(3600, again=True)  # a step that blocks does this in each iteration
        await rung.future

    rung.loop.run_until_complete(asyncio.wait_for(main(), 30))


@needs_fd
@pytest.mark.parametrize("what", ["set", "set again", "close"])
def test_a_child_leaves_the_parents_alarm_alone(rung: Rung, what: str) -> None:
    rung.alarm.set(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
        child = os.fork()
    if not child:
        try:
            if what == "close":
                rung.alarm.close()
            else:
                rung.alarm.set(3600, again="again" in what)
                rung.alarm.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    rings(rung)
