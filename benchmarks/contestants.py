"""Who is compared: kernels with ipyrunner, the stock kernel, and a script, all of which stay while rounds go by."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests")]

from kernels import Kernel, kernel

PREPARE = f"import sys; sys.path.insert(0, {str(HERE)!r}); from shapes import timed; import asyncio, gc, os, time"
# Seconds that one cell may take.
TIMEOUT = 600

INTERRUPTED = """
import ast, asyncio, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
{setup}
for line in sys.stdin:
    names = globals() | dict(code=compile(line, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    try:
        asyncio.run(eval(names["code"], names))
    except KeyboardInterrupt:
        pass
    print("over", flush=True)
"""

Timed = Callable[[str], tuple[float, float]]


class Contestants:
    """Start who is asked for; a context manager. Each is asked with an expression, and waits meanwhile."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Contestants:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def kernel(self, *, load: bool = True, setup: str = "") -> Kernel:
        """Start a kernel, with ipyrunner or (*load* false) without."""
        started = self._stack.enter_context(kernel(tempfile.mkdtemp(), load=load, forked=False))
        started.ok(PREPARE)
        if setup:
            started.ok(setup)
        started.poll = 0.05  # this process must not compete for the processor
        return started

    def script(self, *options: str) -> Timed:
        """Start a script, and return what runs a shape in it."""
        command = [sys.executable, str(HERE / "shapes.py"), *options]
        process = self._stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        )
        self._stack.callback(process.stdin.close)

        def timed(name: str) -> tuple[float, float]:
            process.stdin.write(name + "\n")
            cpu, wall = process.stdout.readline().split()
            return float(cpu), float(wall)

        return timed

    def interrupted_script(self, setup: str) -> Callable[[str], float]:
        """Start a script that runs what it is asked for; return what interrupts it, and how long that took."""
        command = [sys.executable, "-c", INTERRUPTED.format(setup=setup)]
        process = self._stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        )
        self._stack.callback(process.stdin.close)

        def interrupted(code: str) -> float:
            process.stdin.write(code + "\n")
            assert process.stdout.readline() == "go\n"
            start = time.perf_counter()
            process.send_signal(signal.SIGINT)
            while process.stdout.readline() != "over\n":
                pass
            return time.perf_counter() - start

        return interrupted


def in_cell(k: Kernel, code: str = "await timed({!r})") -> Timed:
    """Return what runs a shape in a cell of *k*."""

    def timed(name: str) -> tuple[float, float]:
        cpu, wall = (k.ok(code.format(name), TIMEOUT).value or "").strip("()").split(",")
        return float(cpu), float(wall)

    return timed


def cpu_seconds(pid: int) -> float:
    """Return the seconds that all threads of a process were on a processor. Linux."""
    # nanoseconds; utime in /proc/pid/stat has ticks of 10 ms
    return sum(int(f.read_text().split()[0]) for f in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def pid_of(k: Kernel) -> int:
    """Return the process of a kernel."""
    return int(k.ok("os.getpid()").value or 0)


def megabytes(k: Kernel) -> float:
    """Return the memory that a kernel has resident, after a collection. Linux."""
    k.ok("gc.collect(); None")
    status = Path(f"/proc/{pid_of(k)}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000
