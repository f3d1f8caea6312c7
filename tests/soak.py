"""Random interrupts into every kind of cell: a kernel under fire.

``make soak`` runs thousands of rounds on each loop; test_soak.py runs a few. A round sends a cell, presses once or
twice at a random moment, and waits for the reply. All rounds of a kernel share one loop, on which background tasks
tick, timers are due and a server answers: none of them may be lost.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kernels import BEFORE, Cell, Kernel, kernel
from setups import SETUPS

# Seconds. What may delay a reply at most: the length of the longest cell and the loops' grace periods.
DEADLINE = 20.0
_MOST_FAULTS = 5

PRELUDE = """
import asyncio, contextlib, faulthandler, gc, itertools, linecache, os, signal, subprocess, sys, threading, time

# ipykernel redirects the file descriptor, and keeps a copy.
faulthandler.enable(file=getattr(sys.stderr, "_original_stdstream_copy", 2))
faulthandler.register(signal.SIGUSR1, file=getattr(sys.stderr, "_original_stdstream_copy", 2))

# Collections begin at any moment, in any thread, and let other threads go on.
gc.callbacks.append(lambda phase, info: time.sleep(0))
gc.set_threshold(20, 1000)

# What must not be lost: a task that ticks, timers that are due, a server that answers.
ticks = scheduled = fired = 0

def fire():
    global fired
    fired += 1

async def ticker():
    global ticks, scheduled
    while True:
        await asyncio.sleep(0.005)
        ticks += 1
        scheduled += 1
        asyncio.get_running_loop().call_later(ticks % 50 / 100, fire)

async def answer(reader, writer):
    writer.write(await reader.readline())
    writer.close()

ticking = asyncio.create_task(ticker())
server = await asyncio.start_server(answer, "127.0.0.1", 0)
port = server.sockets[0].getsockname()[1]

async def ask():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"echo\\n")
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply

def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

async def tight(seconds):
    spin(seconds)

def count():
    for n in itertools.count():
        yield n
        if n > 200_000:
            return

async def agen():
    for n in range(40):
        await asyncio.sleep(0.005)
        yield n

# No result may be a KeyboardInterrupt that nobody here has raised.
results = []

async def crunch(n):
    spin(0.02)
    return n

async def crunch_and_note(n):
    try: results.append(await crunch(n))
    except KeyboardInterrupt as exc: results.append(exc)

busy_steps = 0

async def busy(end):
    global busy_steps
    while time.monotonic() < end:
        spin(0.02)
        busy_steps += 1
        await asyncio.sleep(0)
    return busy_steps

class Deleted:
    def __del__(self): spin(0.005)

class Alarm(BaseException): pass

COUNTING = {"fire", "ticker", "answer"}
RESTING = {"select", "_turn", "drive"}  # the last two are what a loop without frames shows
CELL = (lambda: None).__code__.co_filename.rpartition(os.sep)[0]

# What a handler raises in a loop's own functions, in a handler that has interrupted one, or in those that count, loses a
# timer in a script as well: later then.
def ring(signum, frame):
    code, outer = frame.f_code, frame
    while outer is not None and outer.f_code.co_name not in COUNTING: outer = outer.f_back
    if outer is None and (code.co_name in RESTING or code.co_filename.startswith(CELL)): raise Alarm
    signal.setitimer(signal.ITIMER_REAL, 0.001)

signal.signal(signal.SIGALRM, ring)
"""
# It changes asyncio for the whole process: a setup of its own.
NEST = "%config NotebookRunner.nested = True"
LOOPS = {**SETUPS, "nested": ""}
NESTED = {
    "nested run": "await asyncio.sleep(0); asyncio.run(asyncio.sleep(0.1))",
    "nested run in a child": "async def inner(): asyncio.run(asyncio.sleep(0.1))\nawait asyncio.gather(inner(), ask())",
    "run in a background task": "async def inner(): asyncio.run(asyncio.sleep(0.1))\nt = asyncio.create_task(inner())\nawait asyncio.sleep(0.05)",
    "await_": "import ipyrunner\nawait asyncio.sleep(0); ipyrunner.await_(asyncio.sleep(0.1))",
    "nested runs": "async def inner(n):\n    if n: asyncio.run(inner(n - 1))\n    else: await asyncio.sleep(0.1)\nawait inner(3)",
}

# Every cell ends by itself: a press that comes before it begins or after it has ended changes nothing.
CELLS = {
    "sleep": "await asyncio.sleep(0.2)",
    "gather of 1000": "await asyncio.gather(*[asyncio.sleep(0.1) for _ in range(1000)]);",
    "TaskGroup": "async with asyncio.TaskGroup() as g:\n    for n in range(10): g.create_task(asyncio.sleep(0.02 * n))",
    "timeout": "async with asyncio.timeout(5):\n    await asyncio.sleep(0.2)",
    "expired timeout": "with contextlib.suppress(TimeoutError):\n    async with asyncio.timeout(0.05):\n"
    "        await asyncio.sleep(5)",
    "tight coroutine": "await asyncio.sleep(0)\nspin(2)",
    "tight child": "await asyncio.create_task(tight(2))",
    "tight callback": "asyncio.get_running_loop().call_soon(spin, 2)\nawait asyncio.sleep(0.1)",
    "C callback": "asyncio.get_running_loop().call_soon(time.sleep, 0.5)\nawait asyncio.sleep(0.1)",
    "busy": "for _ in range(20_000): await asyncio.sleep(0)",
    "shielded": "await asyncio.shield(asyncio.create_task(asyncio.sleep(0.2)))",
    "swallowing": "end = time.monotonic() + 0.3\nwhile time.monotonic() < end:\n"
    "    with contextlib.suppress(asyncio.CancelledError): await asyncio.sleep(0.01)",
    "clean-up": "try: await asyncio.sleep(0.1)\nfinally: await asyncio.sleep(0.05)",
    "subprocess": "p = await asyncio.create_subprocess_exec('sleep', '0.1')\nawait p.wait();",
    "server": "for _ in range(5): assert await ask() == b'echo\\n'",
    "thread": "await asyncio.to_thread(time.sleep, 0.1)",
    "async generator": "async for n in agen(): pass",
    "%%arun": "%%arun\nawait asyncio.sleep(0.2)",
    "%%arun --timeout": "%%arun --timeout 5\nawait asyncio.gather(*[asyncio.sleep(0.1) for _ in range(10)]);",
    "%arun": "%arun asyncio.sleep(0.1)",
    "tight %arun": "%arun tight(1)",
    "nested %arun": "def f():\n    for _ in range(3):\n        %arun asyncio.sleep(0.05)\nf()",
    "asyncio.run": "asyncio.run(asyncio.sleep(0.1))",
    "plain": "spin(0.1)",
    "sync C call": "time.sleep(0.1)",
    "generator": "for n in count(): pass",
    "plain that spawns": "t = [asyncio.create_task(asyncio.sleep(0)) for _ in range(500)]",
    "prints": "for n in range(200): print(n)",
    "displays": "for n in range(30): display(n)",
    "prints and awaits": "for n in range(100): print(n); await asyncio.sleep(0.001)",
    "magic": "%time spin(0.05)",
    "ends at once": "await asyncio.sleep(0)",
    "plain that ends at once": "1 + 1",
    "ends just then": "await asyncio.sleep(0.05); 1",
    "busy gather": "await asyncio.gather(*[crunch(n) for n in range(20)]);",
    "busy gather of results": "results += await asyncio.gather(*[crunch(n) for n in range(20)], return_exceptions=True)",
    "busy TaskGroup": "async with asyncio.TaskGroup() as g:\n    for n in range(20): g.create_task(crunch_and_note(n))",
    "busy wait": "await asyncio.wait([asyncio.create_task(crunch_and_note(n)) for n in range(5)]);",
    "busy workers": "end = time.monotonic() + 0.3\nworkers = [asyncio.create_task(busy(end)) for _ in range(8)]\n"
    "await asyncio.sleep(0.2)",
    "__del__": "await asyncio.sleep(0)\nfor n in range(60): Deleted()",
    "alarm": "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
    "try: await asyncio.sleep(0.2)\nfinally: signal.setitimer(signal.ITIMER_REAL, 0)",
    "fails": "await asyncio.sleep(0.02); 1 / 0",
    "plain that fails": "1 / 0",
}
# What a cell may end as, besides "ok" and KeyboardInterrupt.
ERRORS = {"fails": "ZeroDivisionError", "plain that fails": "ZeroDivisionError", "alarm": "Alarm"}

# asyncio's own Runner raises the second KeyboardInterrupt wherever it is: where the loop has just taken a task's wake-up
# from its queue, Runner.close() waits for that task for ever, in a script too. Such cells get one press.
ONE_PRESS = {"asyncio.run"}

CHECK = """
import asyncio
seen = ticks
async with asyncio.timeout(10):
    while ticks == seen: await asyncio.sleep(0.001)
assert not ticking.done(), ticking
assert id(asyncio.get_running_loop()) == loop_id, "another loop"
assert kept == "kept"
async with asyncio.timeout(10):
    assert await ask() == b"echo\\n"
assert server.is_serving()
assert not [r for r in results if isinstance(r, BaseException) and not isinstance(r, asyncio.CancelledError)], results
for worker in globals().pop("workers", ()):
    assert await worker > 0, worker
results.clear()
"""
TIMERS = """
ticking.cancel()
async with asyncio.timeout(10):
    while fired < scheduled: await asyncio.sleep(0.01)
[scheduled - fired, scheduled]
"""
# What IPython and jupyter_client keep of each cell is let go first, and what malloc keeps between allocations.
MEMORY = """
get_ipython().run_line_magic("reset", "-f in out")
for name in ("outputs", "exceptions"): getattr(get_ipython().history_manager, name, {}).clear()
get_ipython().kernel.session.digest_history.clear()
getattr(get_ipython().compile, "_filename_map", {}).clear()
linecache.clearcache()
gc.collect()
import ctypes; getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)
with open("/proc/self/statm") as f: pages = int(f.read().split()[1])
pages * os.sysconf("SC_PAGE_SIZE")
"""


# The history's database keeps up to two megabytes of its file in memory, which it takes thousands of cells to fill.
OPTIONS = ["--HistoryManager.enabled=False"]


@dataclass
class Press:
    """When to press, in seconds after the request, and after that again."""

    first: float
    again: float | None

    @classmethod
    def random(cls, rng: random.Random) -> Press:
        # Dense around the start of cells, and around the end of those that last 50 and 100 ms.
        kind = rng.random()
        if kind < 0.3:
            first = rng.uniform(0, 0.012)
        elif kind < 0.4:
            first = rng.uniform(0.05, 0.06)
        elif kind < 0.5:
            first = rng.uniform(0.1, 0.11)
        else:
            first = rng.uniform(0, 0.2)
        return cls(first, rng.choice([rng.uniform(0, 0.003), rng.uniform(0, 0.2)]) if rng.random() < 0.4 else None)


@dataclass
class Soak:
    """What has come of the rounds so far."""

    rounds: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    timers: str = ""
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """How much more memory is in use at the end than after three tenths of the rounds, as a share."""
        return self.memory[-1] / self.memory[1] - 1

    def report(self, name: str) -> str:
        outcomes = ", ".join(f"{n} {kind}" for kind, n in self.outcomes.most_common())
        return (
            f"{name}: {self.rounds} rounds ({outcomes}), {len(self.faults)} faults, {self.timers} timers lost, "
            f"memory {', '.join(f'{m / 2**20:.1f}' for m in self.memory)} MiB ({self.growth:+.1%})"
        )


def fire(pid: int, press: Press) -> None:
    """Press as a kernel manager does: SIGINT to the kernel's process group."""
    began = time.perf_counter()
    for moment in (press.first, None if press.again is None else press.first + press.again):
        if moment is not None:
            time.sleep(max(0.0, began + moment - time.perf_counter()))
            os.killpg(os.getpgid(pid), signal.SIGINT)


def one_round(k: Kernel, pid: int, code: str, press: Press) -> Cell:
    cell = k.begin(code)
    thread = threading.Thread(target=fire, args=(pid, press))
    thread.start()
    try:
        k.finish(cell, DEADLINE)
    finally:
        thread.join()
    return cell


def prepare(k: Kernel, loop: str) -> None:
    """Choose the loop of a fresh kernel. Tracebacks stay short: IPython keeps the syntax trees of all that they show."""
    k.ok(LOOPS[loop] + "%config NotebookRunner.interrupt_grace = 0.1\n%xmode Plain")
    k.ok("%arunner restart")
    k.ok(BEFORE)
    if loop == "nested":
        k.ok(NEST)


def soak(k: Kernel, rounds: int, seed: int, *, cells: dict[str, str] = CELLS) -> Soak:
    """Run *rounds* rounds of *cells* on a kernel that has run :data:`PRELUDE`; stop at a hang, a death, or many faults."""
    rng = random.Random(seed)
    result = Soak()
    pid = k.manager.provisioner.pid
    k.poll = 0.001
    names: list[str] = []
    k.ok(PRELUDE)
    for n in range(rounds):
        if not names:
            names = rng.sample(list(cells), len(cells))
        name, press = names.pop(), Press.random(rng)
        if name in ONE_PRESS:
            press.again = None
        where = f"seed {seed}, round {n}: {name}, {press}"
        result.rounds = n + 1
        try:
            cell = one_round(k, pid, cells[name], press)
            if cell.reply["status"] == "ok":
                result.outcomes["ended"] += 1
            elif cell.reply["ename"] == "KeyboardInterrupt":
                result.outcomes["interrupted"] += 1
            elif cell.reply["ename"] == ERRORS.get(name):
                result.outcomes["failed as written"] += 1
            else:
                result.faults.append(f"{where} ended as {cell.reply['ename']}: {cell.traceback or cell.reply}")
            check = k.run(CHECK, DEADLINE)
            if check.ename is not None:
                result.faults.append(f"{where}: after it {check.traceback}")
        except TimeoutError as exc:
            ended = "hang" if k.manager.is_alive() else f"death ({k.manager.provisioner.process.poll()})"
            result.faults.append(f"{where}: {ended}: {exc}")
            if k.manager.is_alive():
                os.kill(pid, signal.SIGUSR1)  # the stacks of its threads go to its log
                end = time.monotonic() + 5
                # The main thread comes last, and its first frame at the end.
                while "ipykernel_launcher" not in k.log.read_text() and time.monotonic() < end:
                    k.look(0.1)
            break
        if len(result.faults) >= _MOST_FAULTS:
            break
        k.forget()
        if n % (rounds // 5) == rounds // 10 or n == rounds - 1:
            result.memory.append(int(k.ok(MEMORY).value))
    else:
        result.timers = k.ok(TIMERS).value or ""
    return result


def main() -> int:
    """Run the soak on each loop and print what has come of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="by default all of them")
    parser.add_argument("--cell", choices=[*CELLS, *NESTED], action="append", help="by default all of them")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    failed = False
    for loop in arguments.loop or LOOPS:
        kinds = {**CELLS, **NESTED} if loop == "nested" else dict(CELLS)
        kinds = {name: code for name, code in kinds.items() if name in (arguments.cell or kinds)}
        with tempfile.TemporaryDirectory() as directory, kernel(Path(directory), *OPTIONS) as k:
            prepare(k, loop)
            began = time.monotonic()
            result = soak(k, arguments.rounds, seed, cells=kinds)
            for fault in result.faults:
                print(fault[:1000])
            # A few rounds are noise. IPython keeps a thousand bytes of each cell, which is 5 % after 2000 rounds. The
            # tasks that nest-asyncio brings are written in Python: there memory grows in a few large steps.
            leaks = loop != "nested" and arguments.rounds >= 1000 and bool(result.timers) and result.growth > 0.1
            failed = failed or bool(result.faults) or leaks
            if result.faults:
                print(k.log.read_text())
            if result.timers:
                print(f"{result.report(loop)}, {time.monotonic() - began:.0f} s, seed {seed}", flush=True)
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
