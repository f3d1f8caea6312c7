"""Measure what the documentation claims, each figure against its counterpart in the same run: ``make bench``.

Rounds alternate between all who are compared, after one to warm up. Ratios are medians of the ratios of each round, and
less is better; in brackets the quarter below and the quarter above. The second table of the shapes compares the fastest
rounds alone: a machine that does other things as well can only add time. Processor time is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from contestants import TIMEOUT, Contestants, Kernel, Timed, cpu_seconds, in_cell, megabytes, pid_of
from shapes import SHAPES

# What is compared with what: the columns of the table of shapes.
COLUMNS = {
    "cell ÷ stock": ("cell", "stock"),
    "cell ÷ script": ("cell", "script"),
    "plain ÷ script": ("plain", "script"),
    "uvloop ÷ script": ("cell, uvloop", "script, uvloop"),
    "nest ÷ script": ("nest_asyncio2", "script"),
}

PARTS = ("shapes", "cells", "interrupts", "answers", "busy", "scale")


def ratios(results: dict[str, list[tuple[float, float]]], ours: str, theirs: str, which: int = 0) -> list[float]:
    return sorted(a[which] / b[which] for a, b in zip(results[ours], results[theirs], strict=True))


def told(values: list[float]) -> str:
    quarter = len(values) // 4
    return f"{statistics.median(values):.2f} [{values[quarter]:.2f} {values[-1 - quarter]:.2f}]"


def alternate(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    results: dict[str, list[Any]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
    for i in range(rounds):
        for name in list(contestants)[:: 1 if i % 2 else -1]:
            results[name].append(contestants[name]())
    return results


def shapes(c: Contestants, rounds: int) -> dict[str, Any]:
    """Processor time of asyncio's work."""
    ours = c.kernel()
    timed: dict[str, Timed] = {
        "cell": in_cell(ours),
        "plain": in_cell(ours, "asyncio.run(timed({!r}))"),
        "stock": in_cell(c.kernel(load=False)),
        "script": c.script(),
        "nest_asyncio2": in_cell(
            c.kernel(load=False, setup="import nest_asyncio2; nest_asyncio2.apply()"), "asyncio.run(timed({!r}))"
        ),
        "cell, uvloop": in_cell(
            c.kernel(setup="%config NotebookRunner.loop_factory = 'uvloop.new_event_loop'\n%arunner restart")
        ),
        "script, uvloop": c.script("uvloop"),
    }
    print(f"{'processor time':<24}" + "".join(f"{name:>20}" for name in COLUMNS))
    found: dict[str, Any] = {}
    for shape in SHAPES:
        results = alternate({name: lambda call=call: call(shape) for name, call in timed.items()}, rounds)
        found[shape] = results
        print(f"{shape:<24}" + "".join(f"{told(ratios(results, *pair)):>20}" for pair in COLUMNS.values()), flush=True)
    print(f"\n{'the fastest rounds':<24}" + "".join(f"{name:>20}" for name in COLUMNS))
    for shape, results in found.items():
        fastest = {name: min(cpu for cpu, _ in rounds) for name, rounds in results.items()}
        print(f"{shape:<24}" + "".join(f"{fastest[a] / fastest[b]:>20.2f}" for a, b in COLUMNS.values()), flush=True)
    return found


def cells(c: Contestants, rounds: int) -> dict[str, Any]:
    """What a cell costs that does nothing, alone and beside a hundred tasks."""
    kernels = {"cell": c.kernel(), "stock": c.kernel(load=False)}
    pids = {name: pid_of(k) for name, k in kernels.items()}
    for k in kernels.values():
        k.poll = 0.002
        k.ok("async def tick():\n    while True: await asyncio.sleep(0.01)")
    found: dict[str, Any] = {}
    for load in ("", ", beside 100 tasks"):
        for name, code in (("await", "await asyncio.sleep(0)"), ("plain", "1")):

            def twenty(which: str, code: str = code) -> tuple[float, float]:
                cpu, start = cpu_seconds(pids[which]), time.perf_counter()
                for _ in range(20):
                    kernels[which].ok(code)
                return (cpu_seconds(pids[which]) - cpu) / 20, (time.perf_counter() - start) / 20

            results = alternate({which: lambda which=which: twenty(which) for which in kernels}, rounds)
            found[f"{name}{load}"] = results
            print(
                f"empty {name} cell{load}: ÷ stock {told(ratios(results, 'cell', 'stock'))} processor time, "
                f"{told(ratios(results, 'cell', 'stock', 1))} to the reply "
                f"({statistics.median(w for _, w in results['cell']) * 1e3:.2f} ms)",
                flush=True,
            )
        for k in kernels.values():
            k.ok("ticking = [asyncio.create_task(tick()) for _ in range(100)]; await asyncio.sleep(0)")
    return found


BUSY = """
async def crunch(n, seconds=0.1):
    end = time.monotonic() + seconds
    if n == 3: print('go', flush=True)
    while time.monotonic() < end: pass
async def spin():
    while True: await asyncio.sleep(0)
async def ready():
    loop, count = asyncio.get_running_loop(), 0
    def again():
        nonlocal count
        count += 1
        if count == 200_000: print('go', flush=True)
        loop.call_soon(again)
    for _ in range(100_000): loop.call_soon(again)
    await asyncio.sleep(60)
async def sleeping():
    sleepers = asyncio.gather(*[asyncio.sleep(60) for _ in range(10_000)])
    await asyncio.sleep(1)
    print('go', flush=True)
    await sleepers
"""
INTERRUPTED = {
    "an idle loop": "print('go', flush=True); await asyncio.sleep(60)",
    "40 tasks of 100 ms in a gather": "await asyncio.gather(*map(crunch, range(40)))",
    "10,000 sleeping tasks": "await sleeping()",
    "100,000 ready callbacks": "await ready()",
}


def interrupts(c: Contestants, rounds: int) -> dict[str, Any]:
    """From the interrupt to the reply; in a script to the end of asyncio.run(). The stock kernel may never answer."""
    found: dict[str, Any] = {}
    for name, code in INTERRUPTED.items():
        k, script = c.kernel(setup=BUSY), c.interrupted_script(BUSY)
        k.poll = 0.0005
        k.ok("gc.collect(); None")
        times = [interrupted(k, code) for _ in range(rounds)]
        theirs = [script(code) for _ in range(rounds)]
        found[name] = {"cell": times, "script": theirs}
        print(
            f"interrupt of {name}: {statistics.median(times) * 1e3:.1f} ms, at most {max(times) * 1e3:.1f} ms; "
            f"script {statistics.median(theirs) * 1e3:.1f} ms, at most {max(theirs) * 1e3:.1f} ms",
            flush=True,
        )
        if name == "100,000 ready callbacks":
            k.ok("%arunner restart")
    return found


def interrupted(k: Kernel, code: str) -> float:
    """Return the seconds from the interrupt to the reply."""
    cell = k.begin(code)
    k.wait_for(cell, "go")
    start = time.perf_counter()
    k.interrupt()
    k.finish(cell, TIMEOUT)
    return time.perf_counter() - start


def answers(c: Contestants, rounds: int) -> dict[str, Any]:
    """Requests of others while a cell awaits."""
    k = c.kernel()
    k.poll = 0.0005
    cell = k.begin("print('go')\nawait asyncio.Event().wait()")
    k.wait_for(cell, "go")
    found: dict[str, Any] = {}
    for name, code in (("complete", "asyncio.sl"), ("inspect", "asyncio.sleep")):
        content = {"code": code, "cursor_pos": len(code), "detail_level": 0}
        times = []
        for _ in range(rounds + 1):  # jedi is loaded by the first one
            start = time.perf_counter()
            k.finish(k.track(k.client.session.msg(f"{name}_request", content)))
            times.append(time.perf_counter() - start)
        found[name] = times[1:]
        print(f"{name} request while a cell awaits: {statistics.median(found[name]) * 1e3:.1f} ms")
    k.interrupt()
    k.finish(cell)
    return found


BUSY_TASKS = """
async def compute():
    while True:
        for _ in range({steps}): pass
        await asyncio.sleep(0)
tasks = [asyncio.create_task(compute()) for _ in range({count})]
async def say(times):
    for _ in range(times):
        print('said', time.time())
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            await asyncio.sleep(0)
"""
# In the stock kernel one of them may take many seconds.
MOST_CELLS = 7


def late_by(cell: Any) -> list[float]:
    """Return the seconds between each line that :data:`BUSY_TASKS` says and its message."""
    return [
        message["header"]["date"].timestamp() - float(line.split()[1])
        for message in cell.messages
        if message["header"]["msg_type"] == "stream"
        for line in message["content"]["text"].splitlines()
        if line.startswith("said ")
    ]


def in_ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:,.0f} ms, at most {max(seconds) * 1e3:,.0f} ms"


def busy(c: Contestants, rounds: int) -> dict[str, Any]:
    """An empty plain cell, and what a cell prints, beside tasks that each count to a number and then await sleep(0)."""
    found: dict[str, Any] = {}
    for count, steps in ((20, 200), (20, 2000), (1, 4000)):
        for which, load in (("ipyrunner", True), ("stock", False)):
            with Contestants() as alone:
                k = alone.kernel(load=load, setup=BUSY_TASKS.format(count=count, steps=steps))
                times = [timed_cell(k, "1") for _ in range(min(rounds, MOST_CELLS))]
                said = late_by(k.ok(f"await say({2 * MOST_CELLS})", TIMEOUT))
            name = f"{count} x {steps:,}, {which}"
            found[name] = {"cells": times, "output": said}
            print(f"{name:<24}cell {in_ms(times):<32}output {in_ms(said)}", flush=True)
    return found


LARGE = """
async def many(count):
    start = time.perf_counter()
    global tasks
    tasks = [asyncio.create_task(asyncio.sleep(600)) for _ in range(count)]
    await asyncio.sleep(0)
    return time.perf_counter() - start
async def end():
    start = time.perf_counter()
    for task in tasks: task.cancel()
    await asyncio.wait(tasks)
    return time.perf_counter() - start
async def over_time(count):
    for _ in range(count // 1000):
        await asyncio.gather(*[asyncio.sleep(0) for _ in range(1000)])
async def large():
    return bytearray(8_000_000)
async def peak(count):
    open('/proc/self/clear_refs', 'w').write('5')
    before = resident('VmHWM')
    for _ in range(count):
        asyncio.create_task(large())
        await asyncio.sleep(0)
    return resident('VmHWM') - before
def resident(which):
    return int(open('/proc/self/status').read().split(which + ':')[1].split()[0]) / 1000
handled = 0
def on_comm(comm, message):
    @comm.on_msg
    def count(message):
        global handled
        handled += 1
get_ipython().kernel.comm_manager.register_target('bench', on_comm)
async def chatter(megabytes):
    for _ in range(megabytes * 10):
        sys.stdout.write('x' * 99_999 + '\\n')
        await asyncio.sleep(0)
"""


def scale(c: Contestants, quick: bool) -> dict[str, Any]:
    """Many tasks, many cells, much output: here and in the stock kernel."""
    few = 10 if quick else 1
    found: dict[str, Any] = {}
    for name, k in (("ipyrunner", c.kernel(setup=LARGE)), ("stock", c.kernel(load=False, setup=LARGE))):
        row: dict[str, float] = {}
        row["100,000 tasks, start (s)"] = float(k.ok(f"await many({100_000 // few})", TIMEOUT).value or "nan")
        if name == "ipyrunner":
            row["%atasks of them (s)"] = timed_cell(k, "%atasks\nNone")
        row["cancel them (s)"] = float(k.ok("await end()", TIMEOUT).value or "nan")
        k.ok("tasks = None; await over_time(20_000)", TIMEOUT)
        before = megabytes(k)
        row["1,000,000 tasks over time (s)"] = timed_cell(k, f"await over_time({1_000_000 // few})")
        row["... memory (MB)"] = megabytes(k) - before
        before = megabytes(k)
        start = time.perf_counter()
        for _ in range(1000 // few):
            k.ok("await asyncio.sleep(0)")
        row["1,000 cells (s)"] = time.perf_counter() - start
        row["... memory (MB)  "] = megabytes(k) - before
        row["100 tasks of 8 MB, peak (MB)"] = float(k.ok(f"await peak({100 // few})", TIMEOUT).value or "nan")
        k.send_comm("comm_open", {"comm_id": "bench", "target_name": "bench", "data": {}})
        k.poll = 0.0005
        row["comm message (ms)"] = statistics.median(comm(k) for _ in range(200 // few)) * 1e3
        row["10,000 queued comm messages (s)"] = queued(k, 10_000 // few)
        row["100 MB of output (s)"] = timed_cell(k, f"await chatter({100 // few})")
        pid = pid_of(k)
        cpu = cpu_seconds(pid)
        time.sleep(20 / few)
        row["idle (% of a core)"] = 100 * (cpu_seconds(pid) - cpu) / (20 / few)
        if name == "ipyrunner":
            k.ok("%config NotebookRunner.poll = True\n%arunner restart")
            k.ok("await asyncio.sleep(0)")
            cpu = cpu_seconds(pid)
            time.sleep(20 / few)
            row["... by turns"] = 100 * (cpu_seconds(pid) - cpu) / (20 / few)
        found[name] = row
    for what in found["ipyrunner"]:
        print(f"{what:<32}" + "".join(f"{name:>12} {found[name].get(what, float('nan')):8.3f}" for name in found))
    return found


def comm(k: Kernel) -> float:
    """Return the seconds from a comm message to the end of its handling."""
    start = time.perf_counter()
    k.finish_comm(k.send_comm("comm_msg", {"comm_id": "bench", "data": {}}))
    return time.perf_counter() - start


def queued(k: Kernel, number: int) -> float:
    """Return the seconds from the end of a cell that blocks, while comm messages pile up, until all are handled."""
    k.ok("handled = 0")
    cell = k.begin("print('go', flush=True); time.sleep(5)")
    k.wait_for(cell, "go")
    for _ in range(number):
        k.send_comm("comm_msg", {"comm_id": "bench", "data": {}})
    k.finish(cell, TIMEOUT)
    start = time.perf_counter()
    k.finish_comm(k.send_comm("comm_msg", {"comm_id": "bench", "data": {}}), TIMEOUT)
    assert k.ok("handled").value == str(number + 1)
    return time.perf_counter() - start


def timed_cell(k: Kernel, code: str) -> float:
    start = time.perf_counter()
    k.ok(code, TIMEOUT)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured (default: 15)")
    parser.add_argument("--quick", action="store_true", help="three rounds, a tenth of the large numbers")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure these alone")
    parser.add_argument("--json", metavar="FILE", help="write all measurements there")
    parser.add_argument("--plot", metavar="FILE", help="draw the shapes there (needs matplotlib)")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    import ipykernel
    import IPython

    machine = {
        "python": platform.python_version(),
        "ipython": IPython.__version__,
        "ipykernel": ipykernel.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "rounds": rounds,
    }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    found: dict[str, Any] = {"machine": machine}
    for part in (shapes, cells, interrupts, answers, busy):
        if part.__name__ not in options.parts or (part is cells and sys.platform != "linux"):
            continue
        print(f"\n{part.__doc__}")
        with Contestants() as c:
            found[part.__name__] = part(c, rounds)
    if "scale" in options.parts and sys.platform == "linux":
        print(f"\n{scale.__doc__}")
        with Contestants() as c:
            found["scale"] = scale(c, options.quick)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    if options.plot and "shapes" in found:
        from plot import draw

        draw(found, options.plot)


if __name__ == "__main__":
    main()
