"""Cells side by side under fire: random starts, interrupts, cancellations and detachments.

A round begins up to five cells, of which some begin at once, and does up to three things to them. Each has to get one
reply, and nothing but its own output.

    python tests/soak_concurrent.py --rounds 2000
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from kernels import Cell, Kernel, kernel
from setups import SETUPS
from soak import CELLS, CHECK, DEADLINE, ERRORS, MEMORY, OPTIONS, PRELUDE, TIMERS, Press, Soak, fire, prepare

_MOST_FAULTS = 5
# Those that keep no names which another one uses.
KINDS = [
    "sleep",
    "gather of 1000",
    "TaskGroup",
    "timeout",
    "expired timeout",
    "clean-up",
    "subprocess",
    "server",
    "thread",
    "async generator",
    "swallowing",
    "ends just then",
    "ends at once",
    "busy gather",
    "busy",
    "prints and awaits",
    "displays",
    "fails",
    "plain",
    "asyncio.run",
    "%arun",
]
NEVER_BESIDE = {"plain", "asyncio.run", "%arun"}
SETTLED = """
async with asyncio.timeout(20):
    while any(t.get_name().startswith("c_") for t in asyncio.all_tasks()): await asyncio.sleep(0.002)
"""


def begin(k: Kernel, rng: random.Random, number: int) -> tuple[str, str, Cell]:
    """Begin a cell of a random kind, which prints its name first and last; return its kind and its name."""
    kind, name = rng.choice(KINDS), f"c_{number}"
    # The numbers that some print are made its own.
    code = CELLS[kind].replace("print(n)", f"print('<{name}>')").replace("display(n)", f"print('<{name}>')")
    code = f"print('<{name}>')\n{code}\nprint('<{name}>')"
    if kind not in NEVER_BESIDE:
        code = f"%%arun --name {name} {'--concurrent' * (rng.random() < 0.7)}\n{code}"
    return kind, name, k.begin(code)


def one_round(k: Kernel, rng: random.Random, number: int) -> tuple[list[tuple[str, str, Cell]], list[str]]:
    """Begin cells, and do something to them; return them, and what was done."""
    cells: list[tuple[str, str, Cell]] = []
    done: list[str] = []
    threads: list[threading.Thread] = []
    pid = k.manager.provisioner.pid
    steps = ["begin"] * rng.randint(2, 5) + rng.choices(
        ["press", "cancel", "detach", "message", "status"], k=rng.randint(0, 3)
    )
    first = steps.pop(0)
    rng.shuffle(steps)
    for step in [first, *steps]:
        if rng.random() < 0.5:
            k.look(rng.uniform(0, 0.03))
        name = rng.choice(cells)[1] if cells else ""
        if step == "begin":
            cells.append(begin(k, rng, 10 * number + len(cells)))
        elif step == "press":
            threads.append(threading.Thread(target=fire, args=(pid, Press(rng.uniform(0, 0.1), None))))
            threads[-1].start()
        elif step == "message":
            k.client.control_channel.send(
                k.client.session.msg("interrupt_request", {"msg_id": rng.choice(cells)[2].msg_id})
            )
        else:
            line = {"cancel": f"%atasks cancel {name}", "detach": f"%atasks background {name}", "status": "%atasks"}
            cells.append((step, "", k.begin(line[step])))
        done.append(step)
    for thread in threads:
        thread.join()
    for _, _, cell in cells:
        k.finish(cell, DEADLINE)
    while "message" in done:
        done.remove("message")
        k.client.get_control_msg(timeout=DEADLINE)
        done.append("messaged")
    return cells, done


def judge(kind: str, name: str, cell: Cell, done: list[str]) -> str | None:
    """Return what is wrong with a cell that has ended."""
    assert cell.reply is not None
    allowed = {ERRORS.get(kind)}
    allowed |= {"KeyboardInterrupt"} if {"press", "messaged"} & {*done} else set()
    allowed |= {"CancelledError", "TimeoutError"} if "cancel" in done else set()
    allowed |= {"UsageError"} if not name else set()
    if cell.reply["status"] != "ok" and cell.reply["ename"] not in allowed:
        return f"ended as {cell.reply['ename']}: {cell.traceback}"
    others = {each for each in re.findall(r"<(\w+)>", cell.stdout) if each != name} if name else set()
    if others:
        return f"has the output of {others}: {cell.stdout!r}"
    if cell.statuses.count("idle") != 1:
        return f"has the statuses {cell.statuses}"
    return None


def soak_concurrent(k: Kernel, rounds: int, seed: int) -> Soak:
    """Run *rounds* rounds; stop at a hang, a death, or many faults."""
    rng = random.Random(seed)
    result = Soak()
    k.poll = 0.001
    k.ok(PRELUDE)
    for n in range(rounds):
        result.rounds = n + 1
        try:
            cells, done = one_round(k, rng, n)
            k.ok(SETTLED, DEADLINE)
            for kind, name, cell in cells:
                result.outcomes[str(cell.reply and cell.reply.get("ename", "ok"))] += 1
                if (fault := judge(kind, name, cell, done)) is not None:
                    result.faults.append(f"seed {seed}, round {n}, {done}: {kind} {fault}")
            check = k.run(CHECK, DEADLINE)
            if check.ename is not None:
                result.faults.append(f"seed {seed}, round {n}, {done}: after it {check.traceback}")
        except TimeoutError as exc:
            ended = "hang" if k.manager.is_alive() else "death"
            result.faults.append(f"seed {seed}, round {n}: {ended}: {exc}")
            if k.manager.is_alive():
                os.kill(k.manager.provisioner.pid, signal.SIGUSR1)  # the stacks of its threads go to its log
                k.look(2)
            break
        if len(result.faults) >= _MOST_FAULTS:
            break
        k.forget()
        if n % (rounds // 5) == rounds // 10 or n == rounds - 1:
            result.memory.append(int(k.ok(MEMORY).value or 0))
    else:
        result.timers = k.ok(TIMERS).value or ""
    return result


def main() -> int:
    """Run the soak on each loop and print what has come of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time")
    parser.add_argument("--loop", choices=SETUPS, action="append", help="by default all of them")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    failed = False
    for loop in arguments.loop or SETUPS:
        with tempfile.TemporaryDirectory() as directory, kernel(Path(directory), *OPTIONS) as k:
            prepare(k, loop)
            began = time.monotonic()
            result = soak_concurrent(k, arguments.rounds, seed)
            for fault in result.faults:
                print(fault[:3500])
            failed = failed or bool(result.faults)
            if result.faults:
                print(k.log.read_text()[-5000:])
            if result.timers:
                name = f"{loop}, cells side by side"
                print(f"{result.report(name)}, {time.monotonic() - began:.0f} s, seed {seed}", flush=True)
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
