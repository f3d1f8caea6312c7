"""IPython's ``%time``, ``%timeit``, ``%prun`` and ``%%capture`` with top-level ``await``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import Kernel

BEFORE = """
loops = []
async def f(value=1):
    loops.append(id(asyncio.get_running_loop()) == loop_id)
    await asyncio.sleep(0)
    return value
async def numbers():
    for number in range(3):
        await asyncio.sleep(0)
        yield number
class Manager:
    async def __aenter__(self): return await f('entered')
    async def __aexit__(self, *args): await f()
"""
# What a call changes on the shell is as it was before.
LOOK = """
def state():
    shell = get_ipython()
    return vars(shell).get('transform_cell'), shell.compile, {name for name in globals() if 'ipyrunner' in name}
stock = state()
"""
# On a busy machine %timeit says more: that its runs differ.
REPORT = re.compile(r"CPU times: user .*, sys: .*, total: .*\nWall time: .*\n")
PER_LOOP = re.compile(r"[\d.]+ \S+ ± [\d.]+ \S+ per loop \(mean ± std. dev. of (\d+) runs?, (\d+) loops? each\)\n")


@pytest.fixture
def k(shared: Kernel) -> Iterator[Kernel]:
    shared.ok(BEFORE)
    shared.ok(LOOK)
    yield shared
    assert shared.ok("state() == stock").value == "True"
    shared.expect_alive()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("%time await f(5)", "5"),
        ("%time [number async for number in numbers()]", "[0, 1, 2]"),
        ("%%time\nx = await f(6)\nx + 1", "7"),
        ("%%time\n\n\nawait f(7)", "7"),
        (
            "%%time\nasync with Manager() as x: pass\nasync for number in numbers(): pass\nx, number",
            "('entered', 2)",
        ),
        ("%%time\nasync for number in numbers(): pass", None),
        ("%%time\nhere = %pwd\nawait f(8)", "8"),
    ],
)
def test_time(k: Kernel, cell: str, value: str | None) -> None:
    ran = k.ok(cell)
    assert REPORT.fullmatch(ran.stdout), ran.stdout
    assert ran.value == value
    assert k.ok("all(loops)").value == "True"


def test_time_assigns_in_the_notebooks_namespace(k: Kernel) -> None:
    k.ok("%time x = await f(6)")
    assert k.ok("x").value == "6"
    k.ok("%%time\nasync def made(): return await f(x)\ny = await made()")
    assert k.ok("y, await made()").value == "(6, 6)"


def test_in_a_function_its_variables_are_visible(k: Kernel) -> None:
    k.ok("def get(u):\n    answer = %time await f(u)\n    return answer")
    assert k.ok("get('local')").value == "'local'"
    k.ok("def measure(u):\n    result = %timeit -q -o -n 2 -r 1 await f(u)\n    return result.loops")
    assert k.ok("measure('local')").value == "2"


def test_time_is_one_run_whose_contextvars_are_kept(k: Kernel) -> None:
    k.ok("import contextvars; var = contextvars.ContextVar('var', default='unset')")
    assert (
        k.ok("%%time\ntask = asyncio.current_task(); var.set(await f('set'))\nasyncio.current_task() is task").value
        == "True"
    )
    assert k.ok("var.get()").value == "'set'"
    # Without an await of its own the last expression is in the run too.
    assert k.ok("%%time\nawait f()\nid(asyncio.get_running_loop()) == loop_id").value == "True"


def test_timeit(k: Kernel) -> None:
    report = PER_LOOP.search(k.ok("%timeit -n 3 -r 2 await f()").stdout)
    assert report is not None
    assert report.groups() == ("2", "3")
    assert k.ok("len(loops), all(loops)").value == "(6, True)"


def test_timeit_of_a_cell_with_a_setup(k: Kernel) -> None:
    ran = k.ok(
        "%%timeit -n 2 -r 3 start = await f(7)\nloops.append(start)\nasync for number in numbers(): pass\nawait f()"
    )
    assert PER_LOOP.search(ran.stdout), ran.stdout
    assert k.ok("len(loops), loops.count(7)").value == "(15, 6)"
    assert k.ok("%%timeit -n 2 -r 1 start = await f(7)\nstart").stdout
    assert k.ok("%%timeit -n 2 -r 1 start = 7\nawait f(start)").stdout
    assert k.ok("'start' in globals()").value == "False"


def test_timeit_measures_inside_one_run(k: Kernel) -> None:
    # Not one blocking run per iteration, which would cost more than the await: all iterations are in one task.
    k.ok("tasks = []\nasync def note(): tasks.append(asyncio.current_task())")
    k.ok("%timeit -n 4 -r 2 await note()")
    assert k.ok("len(tasks), len(set(tasks)), tasks[0] is tasks[3]").value == "(8, 2, True)"
    # The timer is called there as well.
    k.ok("import timeit, time\ndef timer():\n    asyncio.get_running_loop()\n    return time.perf_counter()")
    k.ok("before, timeit.default_timer = timeit.default_timer, timer")
    assert k.ok("%timeit -n 1 -r 1 await f()").stdout
    k.ok("timeit.default_timer = before")


def test_timeit_options(k: Kernel) -> None:
    assert k.ok("result = %timeit -q -o -n 3 -r 2 await f()\nresult.loops, result.repeat").value == "(3, 2)"
    assert k.ok("%timeit -q -n 1 -r 1 await f()").stdout == ""
    assert re.match(r"[\d.]+ ", k.ok("%timeit -c -p 9 -n 1 -r 1 await f()").stdout)
    # The number of iterations is found as ever: until they take long enough.
    assert PER_LOOP.search(k.ok("%timeit -r 1 await asyncio.sleep(0.21)").stdout)


def test_prun(k: Kernel, tmp_path: Path) -> None:
    text, stats = tmp_path / "profile.txt", tmp_path / "profile.stats"
    ran = k.ok(f"%prun -q -s cumulative -T {text} -D {stats} x = await f(9)")
    assert "Profile stats marshalled" in ran.stdout
    assert "Ordered by: cumulative time" in text.read_text()
    assert "(f)" in text.read_text()
    assert stats.stat().st_size > 0
    assert k.ok("x, loops").value == "(9, [True])"
    assert k.ok("s = %prun -q -r await f()\ntype(s).__name__").value == "'Stats'"


def test_prun_of_a_cell(k: Kernel) -> None:
    ran = k.ok("%%prun -l f\ny = await f(3)\nasync for number in numbers(): pass\nprint(y, number)")
    assert ran.stdout.strip() == "3 2"
    assert ran.reply is not None
    page = str(ran.reply["payload"])
    assert "function calls" in page
    assert "(f)" in page


def test_capture(k: Kernel) -> None:
    ran = k.ok(
        "%%capture out\nimport sys\nprint('printed', await f(1))\nprint('error', file=sys.stderr)\n"
        "display(await f('displayed'))\nawait f('value')"
    )
    assert (ran.stdout, ran.stderr, ran.value) == ("", "", None)
    assert not [m for m in ran.messages if m["msg_type"] == "display_data"]
    assert k.ok("out.stdout, out.stderr").value == r"('printed 1\n', 'error\n')"
    assert k.ok("[o.data['text/plain'] for o in out.outputs]").value == "[\"'displayed'\", \"'value'\"]"
    assert k.ok("%%capture --no-stdout\nprint(await f('through'))").stdout == "through\n"
    assert k.ok("all(loops)").value == "True"


@pytest.mark.parametrize(
    ("cell", "line", "others"),
    [
        ("%time await f(1/0)", 1, "await f(1/0)"),
        ("%%time\nawait f()\n1/0 # here", 3, "1/0 # here"),
        ("%%time\n\nawait f()\n1/0 # here\n7", 4, "1/0 # here"),
        ("%timeit -n 1 -r 1 await f(1/0)", 1, "await f(1/0)"),
        ("%%timeit -n 1 -r 1\nawait f()\n1/0 # here", 3, "1/0 # here"),
        ("%%prun -q\nawait f()\n1/0 # here", 3, "1/0 # here"),
        ("%%prun -q await f()\n\n1/0 # here", 3, "1/0 # here"),
    ],
)
def test_an_exception_shows_the_users_line(k: Kernel, cell: str, line: int, others: str) -> None:
    ran = k.run(cell)
    assert ran.ename == "ZeroDivisionError"
    assert re.search(rf"^-+> {line} {re.escape(others)}$", ran.traceback, re.MULTILINE), ran.traceback
    for machinery in ("magics/timeit.py", "persistent_runner.py", "__ipyrunner", "registry.py"):
        assert machinery not in ran.traceback
    assert k.ok("state() == stock").value == "True"


def test_exceptions_that_time_does_not_raise(k: Kernel) -> None:
    if k.ok("import IPython; IPython.version_info >= (9,)").value == "False":
        pytest.skip("an option of IPython 9")
    ran = k.ok("%%time --no-raise-error\nawait f()\n1/0")
    assert REPORT.fullmatch(ran.stdout)


@pytest.mark.parametrize("magic", ["%time", "%timeit -n 1", "%prun -q"])
def test_in_a_cell_that_awaits_elsewhere(k: Kernel, magic: str) -> None:
    ran = k.run(f"await f()\n{magic} await f()")
    assert ran.ename == "UsageError"
    assert "a loop cannot run inside itself" in ran.stderr
    assert f"Put the {magic.split()[0]} into a cell of its own" in ran.stderr
    # Without an await of its own it needs no loop to run.
    assert k.ok(f"await f()\n{magic} len('async')").ename is None


@pytest.mark.parametrize(
    "cell",
    ["%time await asyncio.sleep(60)", "%timeit await asyncio.sleep(60)", "%%prun -q\nawait asyncio.sleep(60)"],
)
def test_an_interrupt(k: Kernel, cell: str) -> None:
    k.ok("async def wait():\n    print('marker', flush=True)\n    await asyncio.sleep(60)")
    ran = k.begin(cell.replace("asyncio.sleep(60)", "wait()"))
    k.interrupted(ran, "marker", 30)
    assert ran.ename == "KeyboardInterrupt"
    k.expect_alive()


def test_without_await_nothing_is_changed(k: Kernel) -> None:
    assert k.ok("%time 'await'").value == "'await'"
    assert k.ok("%timeit -n 1 -r 1 asyncio.run(asyncio.sleep(0))").stdout
    k.ok("seen = []")
    k.ok("%timeit -n 1 -r 1 seen.append((state() == stock, 'async'))")
    k.ok("%time seen.append((state() == stock, 'async'))")
    assert k.ok("{same for same, _ in seen}").value == "{True}"
    assert k.run("%time await f(").ename in ("SyntaxError", "_IncompleteInputError")
    assert k.run("%time return await f()").ename == "SyntaxError"
    assert k.run("%%timeit\nawait f(\n").ename in ("SyntaxError", "_IncompleteInputError")


def test_the_code_sees_the_shell_as_it_was(k: Kernel) -> None:
    assert k.ok("%%time\nawait f()\nstate() == stock").value == "True"
    k.ok("seen = []")
    k.ok("%timeit -n 1 -r 1 seen.append((await f(), state() == stock))")
    k.ok("%prun -q seen.append((await f(), state() == stock))")
    assert k.ok("seen").value == "[(1, True), (1, True)]"
    # One in the other: the inner one is a cell's own line.
    assert k.ok("%%time\n%time await f(4)").value == "4"


def test_help_and_flags_are_ipythons(k: Kernel) -> None:
    k.ok("from IPython.core.magics.execution import ExecutionMagics")
    for name in ("time", "timeit", "prun"):
        k.ok(f"ours, own = get_ipython()._find_with_lazy_load('line', '{name}'), ExecutionMagics.{name}")
        k.ok("flags = {name: value for name, value in vars(own).items() if name != '__wrapped__'}")
        assert k.ok("own.__doc__ == ours.__doc__ and flags.items() <= vars(ours).items()").value == "True"
    reply = k.ok("%time?").reply
    assert reply is not None
    assert "Time execution of a Python statement" in str(reply["payload"])


def test_unloaded_they_are_ipythons_own(fresh: Kernel) -> None:
    fresh.ok("shell = get_ipython(); table = shell.magics_manager.magics['line']")
    assert fresh.ok("%time await asyncio.sleep(0, 'value')").value == "'value'"
    # Whatever is in the table is what is wrapped.
    fresh.ok("time = table['time']; table['time'] = lambda line, **kwargs: ('mine', time(line, **kwargs))")
    assert fresh.ok("shell.run_line_magic('time', 'await asyncio.sleep(0, 1)')").value == "('mine', 1)"
    fresh.ok("mine = table['time']")
    fresh.ok("%unload_ext ipyrunner")
    assert (
        fresh.ok(
            "shell._find_with_lazy_load('line', 'time') is mine and '_find_with_lazy_load' not in vars(shell)"
        ).value
        == "True"
    )
    fresh.ok("table['time'] = time")
    assert fresh.run("%time await asyncio.sleep(0)").ename == "SyntaxError"
