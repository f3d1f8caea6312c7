"""``jupyter execute``, ``jupyter nbconvert --execute``, papermill, ``pytest --nbmake`` and nbclient: nothing is lost.

All commands begin with the first test that wants one, four at a time; each has a notebook and a directory of its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError

from headless import KERNELS, OWN, STOCK, Run, Saved, notebook, run

# What the tools are without.
MODULES = {"execute": "nbclient", "nbconvert": "nbconvert", "papermill": "papermill", "nbmake": "nbmake"}
# Each tool meets both kernels.
GOOD_ON = {
    "execute": (STOCK, OWN),
    "nbconvert": (OWN, STOCK),
    "papermill": (STOCK, OWN),
    "nbmake": (OWN, STOCK),
}
TOOLS = [
    pytest.param(
        tool, marks=pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{tool} is not installed")
    )
    for tool, module in MODULES.items()
]
GOOD_RUNS = [pytest.param(*p.values, GOOD_ON[p.values[0]][0], marks=p.marks) for p in TOOLS] + [("execute", OWN)]

# In cells each of which is found by a text that it alone contains.
SETUP = """
import asyncio, contextvars, time  # set up
from IPython.display import display
var = contextvars.ContextVar("var"); var.set("set")
def leave(text):
    with open("left", "a") as file: file.write(text + "\\n")
async def lasting():
    try: await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        leave("task")
async def generator():
    try: yield 1
    finally: leave("generator")
kept = asyncio.create_task(lasting()); g = generator(); await anext(g)
"""
RESULTS = [
    "await asyncio.sleep(0.01, ('await', x))",
    "asyncio.run(asyncio.sleep(0.01, 'run'))",
    "%arun asyncio.sleep(0.01, 'arun')",
    "await asyncio.sleep(0); var.get()",
    "%%arun --progress\nfor task in [asyncio.create_task(asyncio.sleep(0.15)) for _ in range(3)]: await task\n'progress'",
]
STARTS = """
async def fail(kind):  # starts
    await events[kind].wait()
    raise ValueError("kind " + kind)
async def fail_at_the_end():
    try: await asyncio.sleep(60)
    finally: raise KeyError("kind e")
async def talk():
    await events["b"].wait()
    print("printed late"); display({"text/plain": "shown late"}, raw=True); print("and more")
async def told(task):
    while not task.done() or task._log_traceback: await asyncio.sleep(0.01)
    await asyncio.sleep(0)
events = {kind: asyncio.Event() for kind in "abcd"}
tasks = {kind: asyncio.create_task(fail(kind), name="task " + kind) for kind in "abcd"}
others = [asyncio.create_task(fail_at_the_end(), name="task e"), asyncio.create_task(talk())]
events["a"].set(); await told(tasks["a"])
"""
# The task of this one fails when the cell has ended: no loop runs meanwhile.
BETWEEN = "events['c'].set()"
GOOD = [
    SETUP,
    *RESULTS,
    STARTS,
    "events['b'].set(); await told(tasks['b'])",
    BETWEEN,
    "await told(tasks['c'])",
    "events['d'].set(); await asyncio.sleep(0); await asyncio.sleep(0)",
]
FAILING = [SETUP, "await asyncio.sleep(0.01); 1 / 0", "leave('never')"]
SLEEPING = [
    SETUP,
    "try: await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.05)\n    leave('cell')",
    "leave('never')",
]
STOPPED = [SETUP, "leave('begun')\n" + SLEEPING[1]]
# Seconds that no cell but a sleeping one takes.
TIMEOUT = 8
TIMEOUTS = {
    "execute": [f"--timeout={TIMEOUT}"],
    "nbconvert": [f"--ExecutePreprocessor.timeout={TIMEOUT}"],
    "papermill": ["--execution-timeout", str(TIMEOUT)],
    "nbmake": [f"--nbmake-timeout={TIMEOUT}"],
}
Runs = Callable[..., Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    begun: dict[tuple[str, ...], Future[Run]] = {}
    tools = [tool for tool, module in MODULES.items() if importlib.util.find_spec(module)]
    with ThreadPoolExecutor(4) as pool:

        def begin(
            tool: str, kernel: str, what: str, cells: list[str], *options: str, parameters: str = "", **more: Any
        ) -> None:
            made = notebook(kernel, *cells, parameters=parameters)
            directory = tmp_path_factory.mktemp("runs") / f"{tool}-{kernel}-{what}"
            begun[tool, kernel, what] = pool.submit(run, tool, made, directory, *options, **more)

        for tool in tools:
            good, other = GOOD_ON[tool]
            begin(tool, good, "good", GOOD, *(["-p", "x", "3"] if tool == "papermill" else []), parameters="x = 1")
            begin(tool, other, "failing", FAILING)
            begin(tool, good, "timeout", SLEEPING, *TIMEOUTS[tool])
        begin("execute", OWN, "good", GOOD, parameters="x = 1")
        begin("execute", STOCK, "stopped", STOPPED, stop=signal.SIGTERM)
        if "nbconvert" in tools:
            begin("nbconvert", OWN, "stopped", STOPPED, stop=signal.SIGINT)
            begin("nbconvert", STOCK, "killed", [SETUP], "--ExecutePreprocessor.shutdown_kernel=immediate")
        try:
            yield lambda *key: begun[key].result(100)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@pytest.mark.parametrize(("tool", "kernel"), GOOD_RUNS)
class TestGood:
    """A notebook that ends well, with failures in the background."""

    def test_results_are_saved(self, runs: Runs, tool: str, kernel: str) -> None:
        done = runs(tool, kernel, "good")
        assert done.code == 0, done
        saved = done.saved
        assert saved is not None
        values = [saved.output(code, "execute_result") for code in RESULTS]
        assert values == [f"('await', {3 if tool == 'papermill' else 1})", "'run'", "'arun'", "'set'", "'progress'"]
        assert [saved.output(code, "stderr") for code in RESULTS] == [""] * len(RESULTS)

    def test_background_failures_are_in_the_notebook(self, runs: Runs, tool: str, kernel: str) -> None:
        saved = runs(tool, kernel, "good").saved
        assert saved is not None
        starts = saved.number("# starts")
        own = saved.output("# starts", "stderr")
        assert "the task task a (fail) failed, and nobody awaits it" in own
        assert "ValueError: kind a" in own
        assert f"the task task b of In[{starts}] (fail) failed" in saved.output("told(tasks['b'])", "stderr")
        # Between the two, or in the second one.
        assert f"the task task c of In[{starts}] (fail) failed" in saved.output("told(tasks['c'])", "stderr")
        assert all(str(saved.notebook).count(f"ValueError: kind {kind}") <= 1 for kind in "abcd")

    def test_output_of_tasks_is_in_the_notebook(self, runs: Runs, tool: str, kernel: str) -> None:
        saved = runs(tool, kernel, "good").saved
        assert saved is not None
        assert saved.output("events['b'].set()") == "printed late\nand more\n"
        assert saved.output("events['b'].set()", "display_data") == "shown late"

    def test_failures_after_the_last_cell_are_on_stderr(self, runs: Runs, tool: str, kernel: str) -> None:
        done = runs(tool, kernel, "good")
        assert done.saved is not None
        # pytest captures it.
        log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout) if tool == "nbmake" else done.stderr
        starts = done.saved.number("# starts")
        assert f"the task task d of In[{starts}] (fail) failed, and nobody awaits it" in log
        assert log.count("ValueError: kind d") == 1
        assert f"the task task e of In[{starts}] (fail_at_the_end)" in log
        assert log.count("KeyError: 'kind e'") == 1
        assert not re.search("kind [abc]", log)

    def test_tasks_are_cleaned_up(self, runs: Runs, tool: str, kernel: str) -> None:
        assert runs(tool, kernel, "good").left == ["generator", "task"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_failing_cell_fails_the_run(runs: Runs, tool: str) -> None:
    done = runs(tool, GOOD_ON[tool][1], "failing")
    assert done.code == 1
    assert "ZeroDivisionError" in done.stdout + done.stderr
    assert done.left == ["generator", "task"]
    # jupyter execute and nbconvert write nothing then.
    assert (done.saved is not None) == (tool in ("papermill", "nbmake"))
    if done.saved is not None:
        assert "ZeroDivisionError" in done.saved.output("1 / 0", "error")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_timeout_fails_the_run_and_cleans_up(runs: Runs, tool: str) -> None:
    done = runs(tool, GOOD_ON[tool][0], "timeout")
    assert done.code == 1
    assert "A cell timed out while it was being executed" in done.stdout + done.stderr
    assert done.left == ["cell", "generator", "task"]


@pytest.mark.parametrize("tool", [p for p in TOOLS if p.values == ("nbconvert",)])
def test_a_kernel_that_is_killed_cleans_nothing_up(runs: Runs, tool: str) -> None:
    done = runs(tool, STOCK, "killed")
    assert done.code == 0
    assert done.left == []


@pytest.mark.parametrize(
    ("tool", "kernel"), [pytest.param(*p.values, GOOD_ON[p.values[0]][0], marks=p.marks) for p in TOOLS[:2]]
)
def test_a_command_that_is_stopped_cleans_up(runs: Runs, tool: str, kernel: str) -> None:
    done = runs(tool, kernel, "stopped")
    assert done.code != 0
    assert done.left == ["begun", "cell", "generator", "task"]


@pytest.mark.parametrize("tool", [p for p in TOOLS if p.values == ("papermill",)])
def test_the_bar_of_papermill_is_whole(runs: Runs, tool: str) -> None:
    done = runs(tool, STOCK, "good")
    last = done.stderr.split("\r")[-1]
    assert re.search(r"Executing: 100%\|█+\| (\d+)/\1 \[", last), done.stderr


# -- nbclient itself


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nbclient.NotebookClient]:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def make(made: nbformat.NotebookNode, **options: Any) -> nbclient.NotebookClient:
        return nbclient.NotebookClient(made, resources={"metadata": {"path": str(tmp_path)}}, **options)

    return make


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_an_interrupt_on_timeout_ends_the_cell_alone(client: Any, tmp_path: Path, kernel: str) -> None:
    made = notebook(
        kernel,
        SETUP + "\nkept_loop = asyncio.get_running_loop()",
        "try: await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.05); print('clean')",
        "import ipyrunner; print(await asyncio.sleep(0.01, asyncio.get_running_loop() is kept_loop), kept.done(),\n"
        "    ipyrunner.get_runner().interrupts)",
        tags={"sleep(60)\nfinally:\n    await asyncio.sleep(0.05); print": "raises-exception"},
    )
    client(made, timeout_func=lambda cell: 2 if cell.metadata.tags else None, interrupt_on_timeout=True).execute()
    saved = Saved(made)
    assert saved.output("print('clean')") == "clean\n"
    assert saved.output("print('clean')", "error").startswith("KeyboardInterrupt\n")
    assert saved.output("is kept_loop") == "True False 1\n"
    assert sorted((tmp_path / "left").read_text().split()) == ["generator", "task"]


def test_output_between_cells_is_in_the_next_one(client: Any, tmp_path: Path) -> None:
    # Of a task whose cell has ended and of a thread. Nothing runs when they print: the hook waits for that.
    path = tmp_path / "printed"
    made = notebook(
        STOCK,
        SETUP,
        STARTS + "\nimport pathlib, sys, threading\n"
        "async def between():\n"
        "    await events['c'].wait()\n"
        "    for _ in range(1500): sys.stdout.write('x')\n"
        "    for n in range(3): print('line', n)\n"
        "    display({'text/plain': 'shown'}, raw=True)\n"
        "    thread = threading.Thread(target=print, args=['of a thread']); thread.start(); thread.join()\n"
        "    await told(tasks['c'])\n"
        f"    pathlib.Path({str(path)!r}).touch()\n"
        "    while True:\n"
        "        await asyncio.sleep(0.01)\n"
        "others.append(asyncio.create_task(between())); await asyncio.sleep(0)",
        BETWEEN,
        "print('next')",
        "'after'",
    )
    saved = Saved(made)

    async def wait(cell: Any, cell_index: int) -> None:
        if "'next'" in cell.source:
            async with asyncio.timeout(30):
                while not path.exists():
                    await asyncio.sleep(0.01)

    client(made, on_cell_start=wait, coalesce_streams=True).execute()
    printed = saved.output("'next'")
    assert printed.lstrip("x") == "line 0\nline 1\nline 2\nof a thread\nnext\n"
    assert 900 < printed.count("x") < 1000  # a thousand pieces are kept
    assert "the last pieces are kept (1000 at most)" in saved.output("'next'", "stderr")
    assert saved.output("'next'", "display_data") == "shown"
    starts = saved.number("# starts")
    assert f"the task task c of In[{starts}] (fail) failed" in saved.output("'next'", "stderr")
    assert len(saved.cell("'after'").outputs) == 1


def test_a_cell_that_people_watch_keeps_its_output(client: Any) -> None:
    # The client's own clients say that they can be asked: as in JupyterLab, output goes to the cell that started it.
    made = notebook(STOCK, SETUP, STARTS, "events['b'].set(); await told(tasks['b'])")
    nb = client(made)

    def ask(**options: Any) -> None:
        nb.kc.allow_stdin = True

    nb.on_notebook_start = ask
    nb.execute()
    assert Saved(made).cell("told(tasks['b'])").outputs == []


def test_an_unloaded_extension_leaves_the_streams_alone(client: Any) -> None:
    made = notebook(
        STOCK,
        SETUP,
        "print('here')",
        "%unload_ext ipyrunner",
        "print('there')",
        "import sys; type(sys.stdout).__name__",
    )
    client(made).execute()
    saved = Saved(made)
    assert saved.output("print('here')") == "here\n"
    assert saved.output("print('there')") == "there\n"
    assert saved.output("__name__", "execute_result") == "'OutStream'"


def test_a_timeout_without_an_interrupt(client: Any, tmp_path: Path) -> None:
    made = notebook(STOCK, *SLEEPING)
    with pytest.raises(CellTimeoutError):
        client(made, timeout_func=lambda cell: 2 if "leave('cell')" in cell.source else None).execute()
    assert sorted((tmp_path / "left").read_text().split()) == ["cell", "generator", "task"]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_what_event_hooks_print_is_in_the_notebook_once(client: Any, kernel: str) -> None:
    # They are called when the code of the cell has ended, as matplotlib's, which shows the figures.
    register = (
        "from IPython.display import display\ndef hook(*result): print('hooked'); display('shown')\n"
        "get_ipython().events.register('post_run_cell', hook)"
    )
    made = notebook(
        kernel, register, "'a plain one'", "import asyncio; await asyncio.sleep(0); 'one that awaits'", "'last'"
    )
    client(made).execute()
    saved = Saved(made)
    for text in ("'a plain one'", "'one that awaits'", "'last'"):
        assert saved.output(text) == "hooked\n"
        assert saved.output(text, "display_data") == "'shown'"


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_what_is_printed_before_the_code_of_a_cell_is_in_the_notebook_once(client: Any, kernel: str) -> None:
    # By an input transformer, which ipykernel calls twice for a cell without await, and by us about a closed loop.
    register = (
        "import asyncio, itertools\nfrom IPython.display import display\ncalls = itertools.count()\n"
        "def transform(lines):\n"
        "    if lines[0].startswith('# tell'): n = next(calls); print('told', n); display(n)\n    return lines\n"
        "get_ipython().input_transformers_cleanup.append(transform)"
    )
    made = notebook(
        kernel,
        register,
        "# tell\n'a plain one'",
        "# tell\nawait asyncio.sleep(0); 'one that awaits'",
        "# tell\n1 / 0",
        "asyncio.get_event_loop().close()",
        "'after'",
        tags={"1 / 0": "raises-exception"},
    )
    client(made).execute()
    saved = Saved(made)
    for text in ("'a plain one'", "'one that awaits'", "1 / 0"):
        told, shown = saved.output(text).split("\n")[:-1], saved.output(text, "display_data")
        assert told
        assert len(set(told)) == len(told)
        assert "".join(told).replace("told ", "") == shown
    assert saved.output("'after'").count("the notebook's loop was closed") == 1
