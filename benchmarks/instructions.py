"""Count the instructions of the processor for each task: a busy machine does not change them. Needs valgrind (Linux).

``python benchmarks/instructions.py`` runs asyncio's work in a script, with and without our bookkeeping of tasks, on
asyncio's loop and on uvloop. Each figure is the difference between a long and a short run of a process, so that neither
start nor end count. Instructions are not time: what misses the processor's caches takes longer.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from shapes import SHAPES

# A program takes about so many times longer under valgrind.
SLOWER = 50
# How many tasks, or yields, one run of a shape has. The others need sockets, timers or much time: they are not counted.
COUNTS = {
    "gathers_of_coroutines": 2000,
    "gathers_of_tasks": 2000,
    "task_groups": 2000,
    "tasks_at_once": 2000,
    "tasks_one_by_one": 2000,
    "yields": 4000,
}
# How often a process runs the shape, in the short run and in the long one.
TIMES = (1, 3)
WHO = ("asyncio", "asyncio with ipyrunner", "uvloop", "uvloop with ipyrunner")


def count(who: str, shape: str) -> float:
    """Return the instructions for each task."""
    short, long = (count_process(who, shape, times) for times in TIMES)
    return (long - short) / (TIMES[1] - TIMES[0]) / COUNTS[shape]


def count_process(who: str, shape: str, times: int) -> int:
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [*valgrind, sys.executable, __file__, who, shape, str(times)]
    env = dict(os.environ, PYTHONHASHSEED="0")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(done.stderr[-2000:])
    return int(found[1])


def run_shape(who: str, shape: str, times: int) -> None:
    """In the process whose instructions are counted."""
    from ipyrunner.aio.introspection.loop_class import new_loop
    from ipyrunner.aio.tasks import young_tasks
    from ipyrunner.aio.tasks.registry import Tasks

    async def main() -> None:
        for _ in range(times):
            await SHAPES[shape](COUNTS[shape])

    if who.startswith("uvloop"):
        import uvloop

        factory: Any = uvloop.new_event_loop
    else:
        factory = new_loop if who.endswith("ipyrunner") else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if who.endswith("ipyrunner"):
            # What is done from time to time must not be done more often for each task.
            young_tasks._PAUSE *= SLOWER
            young_tasks._LONGEST_PAUSE *= SLOWER
            young_tasks._HANDED_ON //= SLOWER
            books = Tasks(runner.get_loop(), torn=lambda exc: sys.exit(repr(exc)))
            runner.run(main())
            books.close()
        else:
            runner.run(main())


def main() -> None:
    print(f"python {platform.python_version()}, uvloop {version('uvloop')}, platform {platform.system()}")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = {(who, shape): threads.submit(count, who, shape) for shape in COUNTS for who in WHO}
        print(f"{'instructions for each task':<28}{'asyncio':>10}{'÷ asyncio':>12}{'uvloop':>10}{'÷ uvloop':>12}")
        for shape in COUNTS:
            plain, ours, uvloop, ours_on_uvloop = (found[who, shape].result() for who in WHO)
            print(
                f"{shape:<28}{plain:>10,.0f}{ours / plain:>12.3f}{uvloop:>10,.0f}{ours_on_uvloop / uvloop:>12.3f}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run_shape(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
