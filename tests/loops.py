"""What tests in this process share: loops by name, a runner on one, a press, code that does not yield."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.loop_class import new_loop
from ipyrunner.aio.tasks.registry import Tasks

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": new_loop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
# Seconds after which a runner of these tests forces an interrupt.
GRACE = 0.3


@contextmanager
def notebook_runner(name: str) -> Iterator[NotebookRunner]:
    """A notebook's runner; afterwards its loop runs on."""
    made = NotebookRunner(loop_factory=LOOPS[name], interrupt_grace=GRACE)
    made.show = lambda failure: None
    loop = made.get_loop()
    yield made
    assert made.run(asyncio.sleep(0, "next")) == "next"
    assert made.get_loop() is loop
    made.close()
    asyncio.set_event_loop(None)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def wait_for_rest(thread: int) -> None:
    """On another thread: wait until *thread* waits in the select() of a loop."""
    deadline = time.monotonic() + 30
    # uvloop's own functions have no frames: ours is the innermost one while no callback runs.
    while sys._current_frames()[thread].f_code.co_name not in ("select", "drive"):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def put_off(loop: asyncio.AbstractEventLoop, waiting: weakref.WeakSet[asyncio.Future[None]]) -> asyncio.Future[None]:
    """Return a future that *waiting* finds, and nobody but who awaits it holds."""
    future = loop.create_future()
    waiting.add(future)
    return future


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def looked_at(books: Tasks) -> None:
    """Wait until no task is young any more: each is watched, or has ended."""
    await until(lambda: not (books._young.new or books._young._batches))
