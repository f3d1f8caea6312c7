"""Instructions without a line: where Python has none an interrupt may come, and generated code has none at all."""

from __future__ import annotations

import re
import sys

import IPython
import pytest

from ipyrunner.aio.tasks.slow_callbacks import place_of
from kernels import Kernel

# Entries of a table of lines that say "no line", for eight instructions each, or no table at all.
TABLES = {"no lines": "bytes([255]) * (units // 8) + bytes([247 + units % 8]) * (units % 8 > 0)", "no table": "b''"}
PRELUDE = """
import asyncio, sys, time
def lineless(function):
    code = function.__code__
    units = len(code.co_code) // 2
    function.__code__ = code.replace(co_linetable=TABLE)
    return function
@lineless
def fails(): 1 / 0
@lineless
async def afails(): 1 / 0
@lineless
async def awaits(): await asyncio.sleep(60)
@lineless
def spins():
    print("go")
    while True: pass
@lineless
async def aspins(): spins()
"""
FAILING = [
    "fails()",
    "await asyncio.sleep(0); fails()",
    "await afails()",
    "await asyncio.gather(afails())",
    "%arun afails()",
    "%%arun\nawait afails()",
    "asyncio.run(afails())",
]
SPINNING = [
    "spins()",
    "await aspins()",
    "await asyncio.create_task(aspins())",
    "asyncio.get_running_loop().call_soon(spins); await asyncio.sleep(60)",
    "%arun aspins()",
]


@pytest.fixture(params=TABLES)
def lineless(request: pytest.FixtureRequest, shared: Kernel) -> Kernel:
    shared.ok(PRELUDE.replace("TABLE", TABLES[request.param]))
    return shared


def test_the_users_error_is_shown(lineless: Kernel) -> None:
    line = lineless.ok("try: fails()\nexcept Exception as exc: print(exc.__traceback__.tb_next.tb_lineno)")
    assert line.stdout == "None\n"
    for code in FAILING:
        cell = lineless.run(code)
        assert (code, cell.ename) == (code, "ZeroDivisionError")
        assert "division by zero" in cell.traceback
        if IPython.version_info >= (8,):  # by IPython, and not more plainly
            assert "--> " in cell.traceback
    group = lineless.run("async with asyncio.TaskGroup() as g: g.create_task(afails())")
    assert group.ename == "ExceptionGroup"
    assert "ZeroDivisionError: division by zero" in group.traceback
    lineless.expect_alive()


def test_an_error_there_that_cannot_be_shown_has_its_name(lineless: Kernel) -> None:
    lineless.ok(
        "class Silent(Exception):\n    def __str__(self): raise SystemExit\n@lineless\ndef refuses(): raise Silent"
    )
    for code in ("refuses()", "await asyncio.sleep(0); refuses()"):
        cell = lineless.run(code)
        assert cell.ename == "Silent"
        assert "Silent" in cell.traceback
    lineless.expect_alive()


def test_a_task_that_nobody_awaits_is_told(lineless: Kernel) -> None:
    cell = lineless.ok("t = asyncio.create_task(afails()); await asyncio.wait([t])\ndel t")
    lineless.ok("import gc; gc.collect()")
    lineless.wait_until(lambda: "ZeroDivisionError: division by zero" in cell.stderr)
    lineless.expect_alive()


def test_what_waits_there_is_listed(lineless: Kernel) -> None:
    lineless.ok("t = asyncio.create_task(awaits(), name='there')\nawait asyncio.sleep(0)")
    for line in ("%atasks", "%atasks tree"):
        assert re.search(r"there.*:\d+ in awaits", lineless.ok(line).value or "")
    assert lineless.run("t.cancel(); await t").ename == "CancelledError"
    lineless.expect_alive()


def test_code_that_holds_the_loop_there_has_a_place() -> None:
    def where() -> object:
        return place_of([sys._getframe()])

    where.__code__ = where.__code__.replace(co_linetable=b"")
    assert where() == (where.__code__, where.__code__.co_firstlineno)


@pytest.mark.parametrize("code", SPINNING)
def test_an_interrupt_there_ends_the_cell(lineless: Kernel, code: str) -> None:
    cell = lineless.begin(code)
    lineless.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    lineless.expect_alive()
