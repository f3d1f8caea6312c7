"""``Interrupts``: SIGINT for the runs of one loop, one inside the other."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ipyrunner.aio.interrupts import Interrupts
from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.sigint.handlers import Outside


@pytest.fixture
def interrupts() -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    made = Interrupts(loop, ReadyQueue(loop), grace=lambda: 30, outside=Outside(), show=lambda forced: None)
    yield made
    made.close()
    loop.close()


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
