"""The coroutines that are timed; each returns the seconds of processor time that its thread took.

Wall time would count what other programs do on the machine.
"""

from __future__ import annotations

import asyncio
import time


async def yields(count: int = 50_000) -> float:
    start = time.thread_time()
    for _ in range(count):
        await asyncio.sleep(0)
    return time.thread_time() - start


async def spawns(count: int = 20_000) -> float:
    async def nothing() -> None:
        pass

    start = time.thread_time()
    for _ in range(count // 1000):
        await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(1000)])
    return time.thread_time() - start


async def echoes(count: int = 2_000) -> float:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    start = time.thread_time()
    for _ in range(count):
        writer.write(b"hello\n")
        await reader.readline()
    duration = time.thread_time() - start
    writer.close()
    await writer.wait_closed()
    server.close()
    return duration


WORK = {"yields": yields, "spawns": spawns, "echoes": echoes}

if __name__ == "__main__":
    # A script that stays: names come in by lines, durations go out. A new process each time would be timed cold.
    import sys

    for line in sys.stdin:
        print(asyncio.run(WORK[line.strip()]()), flush=True)
