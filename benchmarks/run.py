"""Measure what the README claims, each figure against its counterpart in the same run: ``make bench``."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests")]

from kernels import Kernel, kernel


def ratio(name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> None:
    """Time the two in turn; print the median of the ratios, and the least of each."""
    # The order changes, so that neither always comes first.
    pairs = [(ours(), theirs()) if i % 2 else (theirs(), ours())[::-1] for i in range(rounds)]
    quotients = sorted(a / b for a, b in pairs)
    mine, other = (min(column) for column in zip(*pairs, strict=True))
    quarter = len(quotients) // 4
    print(
        f"{name:<34}{statistics.median(quotients):6.3f}   (half of {rounds} rounds: {quotients[quarter]:.2f} to "
        f"{quotients[-1 - quarter]:.2f}; at best {mine * 1e3:.2f} ms against {other * 1e3:.2f} ms)",
        flush=True,
    )


def throughput(k: Kernel, rounds: int) -> None:
    k.poll = 0.1  # this process must not compete for the processor
    k.ok(f"import sys; sys.path.insert(0, {str(HERE)!r}); from work import WORK")
    command = [sys.executable, HERE / "work.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as script:

        def in_script(work: str) -> float:
            script.stdin.write(work + "\n")
            return float(script.stdout.readline())

        for work in ("yields", "spawns", "echoes"):
            ours, theirs = lambda work=work: float(k.ok(f"await WORK[{work!r}]()").value), partial(in_script, work)
            ours(), theirs()  # warm both
            ratio(f"cell / script: {work}", ours, theirs, rounds)
        script.stdin.close()
    k.poll = 0.0005


SPAWNING = """
import asyncio, gc, time
async def step(): await asyncio.sleep(0)
async def spawn(bookkeeping):
    loop = asyncio.get_running_loop()
    ours = vars(loop).pop("create_task")
    if bookkeeping:
        vars(loop)["create_task"] = ours
    gc.collect()
    start = time.process_time()
    await asyncio.gather(*(step() for _ in range(100_000)))
    await asyncio.sleep(0.1)  # the sweep that comes after
    taken = time.process_time() - start
    vars(loop)["create_task"] = ours
    return taken
"""


def bookkeeping(k: Kernel, rounds: int) -> None:
    """The same cell with and without what keeps the notebook's tasks."""
    k.ok(SPAWNING)

    def timed(with_it: bool) -> float:
        return float(k.ok(f"await spawn({with_it})").value)

    timed(True), timed(False)
    ratio("100,000 tasks / not kept", lambda: timed(True), lambda: timed(False), rounds)


# What 300 tasks that each return 8 MB take at most, beyond what is in use before.
RESULTS = """
import asyncio, gc
def megabytes():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: line for line in status}["VmHWM"].split()[1]
async def work(seconds=None):
    if seconds is not None: await asyncio.sleep(seconds)
    return bytearray(b"x") * 8_000_000
async def one_by_one(*args):
    for _ in range(300): await asyncio.create_task(work(*args))
async def at_once(*args):
    for _ in range(300): asyncio.create_task(work(*args))
    await asyncio.sleep(0.1)
async def eager():
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    try: await at_once()
    finally: loop.set_task_factory(before)
async def peak(shape, *args):
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark, from now on
    before = int(megabytes())
    await shape(*args)
    return (int(megabytes()) - before) / 1000
"""


def results(k: Kernel, stock: Kernel) -> None:
    """What tasks that have ended keep."""
    shapes = {
        "one after the other": "one_by_one",
        "one after the other, sleeping": "one_by_one, 0.001",
        "at once, nobody holds them": "at_once",
        "at once, sleeping": "at_once, 0.01",
        "eager, at once": "eager",
    }
    print("Peak memory of 300 tasks that return 8 MB each, and of the stock kernel:")
    for which in (k, stock):
        which.ok(RESULTS)
    for name, shape in shapes.items():
        ours, theirs = (float(which.ok(f"await peak({shape})").value or "nan") for which in (k, stock))
        print(f"  {name:<32}{ours:8.1f} MB {theirs:8.1f} MB")


# Forty tasks that compute for 0.1 s each; the interrupt comes in the middle of the fourth.
BUSY = """
import time
async def crunch(n):
    end = time.monotonic() + 0.1
    if n == 3: print('go', flush=True)
    while time.monotonic() < end: pass
async def group():
    async with asyncio.TaskGroup() as g:
        for n in range(40): g.create_task(crunch(n))
"""


def busy_interrupts(k: Kernel) -> None:
    k.ok(BUSY)
    for name, code in (("gather", "await asyncio.gather(*map(crunch, range(40)))"), ("TaskGroup", "await group()")):
        times = [k.interrupted(k.begin(code), "go") for _ in range(10)]
        show(f"interrupt among 40 busy, {name}", times)


def empty_cell(k: Kernel, stock: Kernel, rounds: int) -> None:
    def timed(which: Kernel) -> float:
        start = time.perf_counter()
        for _ in range(20):
            which.ok("await asyncio.sleep(0)")
        return (time.perf_counter() - start) / 20

    stock.ok("import asyncio")
    stock.poll = k.poll
    ratio("empty async cell / stock kernel", lambda: timed(k), lambda: timed(stock), rounds)


def comm_latency(k: Kernel) -> None:
    k.ok(
        "from ipykernel.comm import Comm\n"
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda message: comm.send({}))\n"
        "    comm.send({})\n"
        "get_ipython().kernel.comm_manager.register_target('bench', opened)"
    )
    cell = k.begin("print('go')\nawait asyncio.Event().wait()")
    k.wait_for(cell, "go")
    k.wait_for_message(k.send_comm("comm_open", {"comm_id": "c", "target_name": "bench", "data": {}}), "comm_msg")
    times = []
    for _ in range(100):
        start = time.perf_counter()
        k.wait_for_message(k.send_comm("comm_msg", {"comm_id": "c", "data": {}}), "comm_msg")
        times.append(time.perf_counter() - start)
    k.interrupt()
    k.finish(cell)
    show("comm round trip while a cell awaits", times)


def answer_latency(k: Kernel) -> None:
    cell = k.begin("print('go')\nawait asyncio.Event().wait()")
    k.wait_for(cell, "go")
    for name, code in (("complete", "asyncio.sl"), ("inspect", "asyncio.sleep")):
        content = {"code": code, "cursor_pos": len(code), "detail_level": 0}
        times = []
        for _ in range(31):  # jedi is loaded by the first one
            start = time.perf_counter()
            k.finish(k.track(k.client.session.msg(f"{name}_request", content)))
            times.append(time.perf_counter() - start)
        show(f"{name} request while a cell awaits", times[1:])
    k.interrupt()
    k.finish(cell)


def interrupt_latency(k: Kernel) -> None:
    times = []
    for _ in range(30):
        cell = k.begin("print('go')\nawait asyncio.sleep(60)")
        times.append(k.interrupted(cell, "go"))
    show("interrupt of an await, to its reply", times)


def idle_cpu(k: Kernel, stock: Kernel, seconds: float) -> None:
    k.ok("tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(100)]")
    for name, which in (("with 100 sleeping tasks", k), ("stock kernel", stock)):
        print(f"{'idle CPU, ' + name:<34}{idle_share(which, seconds):6.3f} % of a core")


def idle_cpu_by_turns(k: Kernel, seconds: float) -> None:
    k.ok("%config NotebookRunner.poll = True")
    k.ok("%arunner restart")
    k.ok("tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(100)]; await asyncio.sleep(0)")
    print(f"{'idle CPU, by turns':<34}{idle_share(k, seconds):6.3f} % of a core")


def idle_share(k: Kernel, seconds: float) -> float:
    pid = int(k.ok("import os; os.getpid()").value or 0)
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / seconds


def cpu_seconds(pid: int) -> float:
    # nanoseconds on a CPU, per thread; utime in /proc/pid/stat has ticks of 10 ms
    return sum(int(f.read_text().split()[0]) for f in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def show(name: str, times: list[float]) -> None:
    print(
        f"{name:<35}{statistics.median(times) * 1e3:6.2f} ms median, {max(times) * 1e3:.2f} ms at most ({len(times)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--idle-seconds", type=float, default=20)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]} on {sys.platform}; ratios are medians of paired rounds, less is better")
    with ExitStack() as stack:
        k = stack.enter_context(kernel(tempfile.mkdtemp()))
        stock = stack.enter_context(kernel(tempfile.mkdtemp(), load=False))
        throughput(k, options.rounds)
        bookkeeping(k, options.rounds)
        empty_cell(k, stock, options.rounds)
        comm_latency(k)
        answer_latency(k)
        interrupt_latency(k)
        busy_interrupts(k)
        if sys.platform == "linux":
            results(k, stock)
        idle_cpu(k, stock, options.idle_seconds)
        idle_cpu_by_turns(k, options.idle_seconds)


if __name__ == "__main__":
    main()
