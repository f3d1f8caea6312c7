"""What cells do in a stock kernel, after nest_asyncio2.apply(), with a loop on a thread, and with ipyrunner.

    python docs/comparison.py

prints the table of comparison.md. All of it is measured on real kernels, which takes about two minutes. It needs what
the tests need.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from kernels import Cell, Kernel, kernel

# What does not happen within so many seconds does not happen.
PATIENCE = 5.0
THREAD = """
import threading
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
def run(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
"""


@dataclass
class Setup:
    """One way to run coroutines in a notebook: how a cell waits for one, how it starts one in the background."""

    name: str
    begin: str = ""
    wait: str = "await {}"
    start: str = "asyncio.create_task({})"
    kernels: ExitStack = field(default_factory=ExitStack)

    def directory(self) -> Path:
        """Return an empty directory."""
        return Path(self.kernels.enter_context(tempfile.TemporaryDirectory()))

    def kernel(self) -> Kernel:
        """Return a fresh kernel."""
        fresh = self.kernels.enter_context(kernel(self.directory(), load=False))
        fresh.ok("import asyncio, contextvars, time\n" + self.begin)
        return fresh


SETUPS = [
    Setup("stock ipykernel"),
    Setup("nest_asyncio", "import nest_asyncio2; nest_asyncio2.apply()", wait="asyncio.run({})"),
    Setup("a loop on a thread", THREAD, wait="run({})", start="asyncio.run_coroutine_threadsafe({}, loop)"),
    Setup("ipyrunner", "%load_ext ipyrunner"),
]


def outcome(cell: Cell) -> str:
    """Return what has become of a cell."""
    return "works" if cell.ename is None else cell.ename


def happens(k: Kernel, condition: Callable[[], bool]) -> bool:
    """Return whether this becomes true soon."""
    try:
        k.wait_until(condition, PATIENCE)
    except TimeoutError:
        return False
    return True


def ends(k: Kernel, cell: Cell) -> bool:
    """Return whether the cell ends soon."""
    return happens(k, lambda: cell.reply is not None and cell.idle)


def plain_run(k: Kernel, setup: Setup) -> str:
    return outcome(k.run("async def main():\n    await asyncio.sleep(0)\nasyncio.run(main())"))


def nested_run(k: Kernel, setup: Setup) -> str:
    library = "def library():\n    asyncio.run(asyncio.sleep(0))\nasync def main():\n    library()"
    k.ok(library)
    first = outcome(k.run(setup.wait.format("main()")))
    if setup.name != "ipyrunner":
        return first
    k = setup.kernel()  # the setting lasts until the kernel restarts
    k.ok(f"%config NotebookRunner.nested = True\n{library}")
    return f"{first}; with `nested` {outcome(k.run(setup.wait.format('main()')))}"


def patched(k: Kernel, setup: Setup) -> str:
    return "no" if k.ok("asyncio.run.__module__").value == "'asyncio.runners'" else "yes"


def between_cells(k: Kernel, setup: Setup) -> str:
    file = setup.directory() / "ticked"
    k.ok(f"""
from pathlib import Path
seen = []
async def tick():
    while True:
        await asyncio.sleep(0.01)
        seen.append(1)
        if len(seen) == 10:
            Path({str(file)!r}).touch()
""")
    k.ok("ticker = " + setup.start.format("tick()"))
    return "goes on" if happens(k, file.exists) else "rests"


def beside_computing(k: Kernel, setup: Setup) -> str:
    code = "before = len(seen)\nend = time.monotonic() + 1\nwhile time.monotonic() < end:\n    pass\nlen(seen) - before"
    ticks = int(k.ok(code).value or 0)
    k.ok("ticker.cancel();")
    return "goes on" if ticks > 1 else "rests"


def failing(k: Kernel, setup: Setup) -> str:
    k.ok("async def fails():\n    raise ValueError('told')")
    cell = k.ok("task = " + setup.start.format("fails()"))
    told = happens(k, lambda: "told" in cell.stderr + cell.stdout)
    return "is reported below its cell" if told else "is not reported"


def context(k: Kernel, setup: Setup) -> str:
    k.ok("var = contextvars.ContextVar('var', default='lost')\nasync def set_it():\n    var.set('kept')")
    k.ok(setup.wait.format("set_it()"))
    return str(k.ok("print(var.get())").stdout.strip())


def scope(k: Kernel, setup: Setup) -> str:
    k.ok("""
import anyio
async def enter():
    global group
    group = await anyio.create_task_group().__aenter__()
async def leave():
    await group.__aexit__(None, None, None)
""")
    k.ok(setup.wait.format("enter()"))
    return outcome(k.run(setup.wait.format("leave()")))


def completion(k: Kernel, setup: Setup) -> str:
    file = setup.directory() / "go on"
    k.ok(f"""
from pathlib import Path
async def waits():
    print("begun", flush=True)
    while not Path({str(file)!r}).exists():
        await asyncio.sleep(0.05)
""")
    cell = k.begin(setup.wait.format("waits()"))
    k.wait_for(cell, "begun")
    request = k.track(k.client.session.msg("complete_request", {"code": "wai", "cursor_pos": 3}))
    at_once = happens(k, lambda: request.reply is not None)
    file.touch()
    k.finish(cell)
    return "answered at once" if at_once else "waits for its end"


def interrupt(k: Kernel, setup: Setup) -> str:
    k.ok("""
async def waits():
    try:
        print("begun", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)
""")
    return interrupted(k, setup, k.begin(setup.wait.format("waits()")))


def stuck(k: Kernel, setup: Setup) -> str:
    k.ok("async def waits():\n    print('begun', flush=True)\n    while True:\n        pass")
    return interrupted(k, setup, k.begin(setup.wait.format("waits()")))


def interrupted(k: Kernel, setup: Setup, cell: Cell) -> str:
    k.wait_for(cell, "begun")
    k.interrupt()
    if not ends(k, cell):
        return "nothing happens"
    end = f"{cell.ename}"
    if not ends(k, k.begin(setup.wait.format("asyncio.sleep(0)"))):
        return f"{end}; the loop hangs"
    return end + ("; cleans up" if "cleaned up" in cell.stdout else "")


def shutdown(k: Kernel, setup: Setup) -> str:
    begun, cleaned = setup.directory() / "begun", setup.directory() / "cleaned"
    k.ok(f"""
from pathlib import Path
async def serves():
    try:
        Path({str(begun)!r}).touch()
        await asyncio.sleep(600)
    finally:
        Path({str(cleaned)!r}).touch()
""")
    k.ok("serving = " + setup.start.format("serves()"))
    k.wait_until(begun.exists)
    k.manager.shutdown_kernel()
    return "cleans up" if cleaned.exists() else "does not clean up"


QUESTIONS: dict[str, Callable[[Kernel, Setup], str]] = {
    "`asyncio.run(main())` in a cell": plain_run,
    "`asyncio.run()` in a function that awaited code calls": nested_run,
    "asyncio is patched": patched,
    "a background task between two cells": between_cells,
    "a background task while a cell computes": beside_computing,
    "a background task that fails, and that a variable holds": failing,
    "a ContextVar that one cell sets in a coroutine, in the next": context,
    "an anyio task group over two cells": scope,
    "Tab while a cell awaits": completion,
    "a background task, when the kernel is shut down": shutdown,
    "the interrupt button, in `asyncio.sleep(60)`": interrupt,
    "the interrupt button, in a coroutine that never yields": stuck,
}
# These may leave the kernel, or its loop, of no more use.
LAST = (interrupt, stuck, shutdown)


def answers(setup: Setup) -> list[str]:
    """Ask one setup all questions."""
    with setup.kernels:
        shared = setup.kernel()
        return [ask(setup.kernel() if ask in LAST else shared, setup) for ask in QUESTIONS.values()]


def table() -> str:
    """Measure, and return the table."""
    lines = ["| | " + " | ".join(setup.name for setup in SETUPS) + " |", "|---" * (len(SETUPS) + 1) + "|"]
    for question, *row in zip(QUESTIONS, *map(answers, SETUPS), strict=True):
        lines.append(f"| {question} | " + " | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
