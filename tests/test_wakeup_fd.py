"""``Wakeup``: a signal wakes the loop that waits, whichever thread it comes to, and whoever had the wakeup fd before."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.sigint.wakeup_fd import Wakeup
from loops import wait_for_rest


def test_a_signal_on_another_thread_wakes_the_loop(runner: NotebookRunner) -> None:
    # The main thread's select() is not interrupted by it: the same as a signal just before the system call.
    ready = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, ready.set)  # by then nothing else is left to do
        await asyncio.sleep(60)

    def send() -> None:
        assert ready.wait(30)
        wait_for_rest(main_thread)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    main_thread = threading.get_ident()
    thread = threading.Thread(target=send)
    thread.start()
    start = runner.get_loop().time()
    with pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert runner.get_loop().time() - start < 30
    thread.join(30)


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


def test_a_wakeup_fd_that_was_there_before_gets_nothing_once_it_is_back(loop: asyncio.AbstractEventLoop) -> None:
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
        reader.close()
        writer.close()


def test_a_wakeup_fd_that_its_owner_has_closed_meanwhile(loop: asyncio.AbstractEventLoop) -> None:
    # asyncio's unix loops take it for their signal handlers, and may be closed in the cell.
    wakeup = Wakeup(loop)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        with wakeup.on_signals():
            writer.close()
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.set_wakeup_fd(before)
        wakeup.close()
        reader.close()


def test_a_loop_that_cannot_watch_takes_the_wakeup_fd_for_each_run(loop: asyncio.AbstractEventLoop) -> None:
    class Proactor(asyncio.SelectorEventLoop):
        add_reader = asyncio.AbstractEventLoop.add_reader

    proactor = Proactor()
    wakeup = Wakeup(proactor)
    before = signal.set_wakeup_fd(-1)
    try:
        with wakeup.on_signals():
            ours = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(ours)
            assert ours == proactor._csock.fileno()
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.set_wakeup_fd(before)
        wakeup.close()
        proactor.close()
    with wakeup.on_signals():  # closed: nothing to wake
        assert signal.set_wakeup_fd(-1) == before
        signal.set_wakeup_fd(before)
