"""Measure what a trace costs while it is on: python benchmarks/tracing.py [uvloop]

Processor time of the process, with a trace over without one, by turns; medians. Each shape is the worst there is: tasks
and callbacks that do nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time

import shapes

import ipyrunner
from ipyrunner.ipython.magics.timeline.trace import Trace

# The argument of a shape, how often it then does what it does, and what that is.
COUNTS = {
    "yields": (30_000, 30_000, "yield"),
    "gathers_of_tasks": (10_000, 10_000, "task"),
    "waiting_tasks": (100, 20_000, "item through a queue"),
    "echoes": (1_000, 1_000, "line there and back"),
}


def measure(runner: ipyrunner.NotebookRunner, shape: str, *, traced: bool) -> float:
    async def main() -> float:
        trace = Trace(lambda: runner.current, str)
        if traced:
            trace.start()
        begin = time.process_time()
        await getattr(shapes, shape)(COUNTS[shape][0])
        seconds = time.process_time() - begin
        if traced:
            trace.stop()
        return seconds

    return runner.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", nargs="?", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    factory = "uvloop.new_event_loop" if options.loop == "uvloop" else asyncio.new_event_loop
    runner = ipyrunner.NotebookRunner(loop_factory=factory)
    print(f"Python {platform.python_version()}, {options.loop}: trace ÷ none")
    for shape, (_, count, unit) in COUNTS.items():
        measure(runner, shape, traced=True)
        pairs = [
            (measure(runner, shape, traced=True), measure(runner, shape, traced=False)) for _ in range(options.rounds)
        ]
        ratio = statistics.median(on / off for on, off in pairs)
        more = statistics.median(on - off for on, off in pairs) / count
        print(f"  {shape:<20}{ratio:6.1f}   {more * 1e6:8.1f} µs more for each {unit}")
    runner.close()


if __name__ == "__main__":
    main()
