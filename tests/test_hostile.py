"""Every cell gets a reply, with the name of the user's error, whatever the user's objects do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile import CELLS, EXCEPTIONS, HANG_IN_ASYNCIO, PRELUDE
from kernels import BEFORE, RUNNER_KERNEL, Kernel, kernel

REFUSALS = ["RuntimeError", "SystemExit", "KeyboardInterrupt"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython")) as started:
        yield started


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_every_cell_gets_a_reply(hostile: Kernel, exception: str) -> None:
    for refusal in REFUSALS:
        hostile.ok(PRELUDE.replace("REFUSAL", refusal))
        hostile.ok(f"make = lambda: {EXCEPTIONS[exception]}")
        for kind, (code, ename) in CELLS.items():
            if exception in HANG_IN_ASYNCIO and kind in ("asyncio.run", "%%arun --fresh"):
                continue
            if exception == "Str" and kind == "asyncio.run" and sys.version_info < (3, 12):
                # asyncio.run leaves its SIGINT handler there, which holds the task, since signal.getsignal calls repr()
                # of it; so does signal.signal, which ipykernel calls for each request.
                continue
            cell = hostile.run(code)
            assert (kind, refusal, cell.ename) == (kind, refusal, ename or exception)
        hostile.expect_alive()


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_a_task_that_nobody_awaits_is_told_and_fails_no_other_cell(hostile: Kernel, exception: str) -> None:
    for refusal in REFUSALS:
        hostile.ok(PRELUDE.replace("REFUSAL", refusal))
        hostile.ok(f"make = lambda: {EXCEPTIONS[exception]}")
        cell = hostile.begin("ended = asyncio.create_task(fails()); await asyncio.wait([ended])\ndel ended")
        hostile.finish(cell)
        assert cell.ename is None
        hostile.ok("await asyncio.sleep(0.3)")
        hostile.wait_until(lambda cell=cell: exception in cell.stderr)
        hostile.expect_alive()


GROUP = """
async def one():
    raise ValueError("first")

async def two():
    try: raise KeyError("inner")
    except KeyError as exc: raise LookupError("second") from exc

async with asyncio.TaskGroup() as g:
    g.create_task(one())
    g.create_task(two())
"""


@pytest.mark.parametrize("start", ["", "%%arun --scope\n"])
@pytest.mark.parametrize("arguments", [(), (RUNNER_KERNEL,)], ids=["extension", "kernel"])
def test_a_group_is_shown_by_the_lines_of_the_users_code(
    tmp_path: Path, arguments: tuple[str, ...], start: str
) -> None:
    with kernel(tmp_path, *arguments, load=False) as k:
        if not arguments:
            k.ok("%load_ext ipyrunner")
        cell = k.run(f"{start}import asyncio\n{GROUP}")  # the first traceback of the kernel's life
        assert cell.ename == "ExceptionGroup"
        shown = cell.traceback
        for line in ('raise ValueError("first")', "ValueError: first", "LookupError: second", "KeyError: 'inner'"):
            assert line in shown
        assert "+---------------- 2 of 2" in shown
        for theirs in ("interactiveshell.py", "taskgroups.py", "/ipyrunner/"):
            assert theirs not in shown
        k.ok(BEFORE)
        k.expect_alive()


def test_a_group_in_the_context_of_what_is_in_it_is_shown_once(hostile: Kernel) -> None:
    code = """
def raise_all_again():
    try: raise ExceptionGroup("of three", [ValueError(n) for n in range(3)])
    except ExceptionGroup as group:
        for each in group.exceptions:
            try: raise each
            except ValueError: pass
        raise group.exceptions[0]
"""
    hostile.ok(code)
    for start in ("", "await asyncio.sleep(0); "):
        cell = hostile.run(f"import asyncio\n{start}raise_all_again()")
        assert cell.ename == "ValueError"
        assert cell.traceback.count("of 3 ----") == 3
    hostile.expect_alive()
