"""What is timed: coroutines, each with the seconds that it took, of the processor's time and of the clock's.

The unfriendly ones first. As a program: a script that stays, reads names by lines and writes the seconds.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any


async def nothing() -> None:
    pass


async def gathers_of_coroutines(count: int = 60_000) -> None:
    for _ in range(count // 1000):
        await asyncio.gather(*[nothing() for _ in range(1000)])


async def gathers_of_tasks(count: int = 20_000) -> None:
    for _ in range(count // 100):
        await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(100)])


async def task_groups(count: int = 20_000) -> None:
    for _ in range(count // 100):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(nothing())


async def tasks_at_once(count: int = 20_000) -> None:
    await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(count)])


async def tasks_one_by_one(count: int = 20_000) -> None:
    for _ in range(count):
        await asyncio.create_task(nothing())


async def sleeping_tasks(count: int = 20_000) -> None:
    await asyncio.gather(*[asyncio.sleep(0.01) for _ in range(count)])


async def waiting_tasks(count: int = 100, times: int = 200) -> None:
    """Tasks that wait often: a hundred workers and a queue."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=count)

    async def work() -> None:
        while True:
            await queue.get()
            queue.task_done()

    workers = [asyncio.create_task(work()) for _ in range(count)]
    for n in range(count * times):
        await queue.put(n)
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def yields(count: int = 150_000) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def echoes(count: int = 3_000) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(count):
        writer.write(b"hello\n")
        await reader.readline()
    writer.close()
    await writer.wait_closed()
    server.close()


async def timers(count: int = 3_000) -> None:
    for _ in range(count):
        async with asyncio.timeout(10):
            await asyncio.sleep(0.00001)


SHAPES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    shape.__name__: shape
    for shape in (
        gathers_of_coroutines,
        gathers_of_tasks,
        task_groups,
        tasks_at_once,
        tasks_one_by_one,
        sleeping_tasks,
        waiting_tasks,
        yields,
        echoes,
        timers,
    )
}


async def timed(name: str, *args: int) -> tuple[float, float]:
    """Return the seconds of the process's processor time, and of wall time."""
    gc.collect()  # otherwise chance decides whether a large collection falls into this measurement or the next one
    # A kernel's other threads, which write the history and send messages, are not done at once: beside a busy loop they
    # wait for the GIL for hundreds of iterations, in some cells, which takes processor time.
    await asyncio.sleep(0.2)
    start = time.process_time(), time.perf_counter()
    await SHAPES[name](*args)
    return time.process_time() - start[0], time.perf_counter() - start[1]


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        factory = uvloop.new_event_loop
    else:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        for line in sys.stdin:
            print(*runner.run(timed(line.strip())), flush=True)
