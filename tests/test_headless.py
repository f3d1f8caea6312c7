"""``jupyter execute``, ``jupyter nbconvert --execute``, papermill and ``pytest --nbmake``: nothing is lost."""

from __future__ import annotations

import importlib.util
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from headless import BETWEEN, OWN, SETUP, SLEEPING, STARTS, STOCK, Run, notebook, run
from kernels import CONCURRENT

# What the tools are without.
pytestmark = pytest.mark.slow

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


GOOD_RUNS = [*((tool, on[0]) for tool, on in GOOD_ON.items()), ("execute", OWN)]


RESULTS = [
    "await asyncio.sleep(0.01, ('await', x))",
    "asyncio.run(asyncio.sleep(0.01, 'run'))",
    "%arun asyncio.sleep(0.01, 'arun')",
    "await asyncio.sleep(0); var.get()",
    "%%arun --progress\nfor task in [asyncio.create_task(asyncio.sleep(0.15)) for _ in range(3)]: await task\n'progress'",
]


# What may run beside others, and is run here as all others are: with the results of the cells before.
CONCURRENT_RESULTS = (
    {
        "%config NotebookRunner.concurrent = True\norder = ['first']": "",
        "await asyncio.sleep(0.1); order.append('second'); order": "['first', 'second']",
        "%%arun --concurrent\nawait asyncio.sleep(0.1); order.append('third'); order": "['first', 'second', 'third']",
        "order.append('fourth'); order": "['first', 'second', 'third', 'fourth']",
        "%config NotebookRunner.concurrent = False": "",
    }
    if CONCURRENT
    else {}
)


GOOD = [
    SETUP,
    *RESULTS,
    *CONCURRENT_RESULTS,
    STARTS,
    "events['b'].set(); await told(tasks['b'])",
    BETWEEN,
    "await told(tasks['c'])",
    "events['d'].set(); await asyncio.sleep(0); await asyncio.sleep(0)",
]


FAILING = [SETUP, "await asyncio.sleep(0.01); 1 / 0", "leave('never')"]


STOPPED = [SETUP, "leave('begun')\n" + SLEEPING[1]]


# Seconds that no cell but a sleeping one takes.
TIMEOUT = 8


TIMEOUTS = {
    "execute": [f"--timeout={TIMEOUT}"],
    "nbconvert": [f"--ExecutePreprocessor.timeout={TIMEOUT}"],
    "papermill": ["--execution-timeout", str(TIMEOUT)],
    "nbmake": [f"--nbmake-timeout={TIMEOUT}"],
}


def run_in(
    directory: Path, tool: str, kernel: str, cells: list[str], *options: str, parameters: str = "", **more: Any
) -> Run:
    return run(tool, notebook(kernel, *cells, parameters=parameters), directory / "run", *options, **more)


@pytest.fixture(scope="module", params=GOOD_RUNS, ids=lambda values: "-".join(values))
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run]:
    """The tool, and what has come of its run of a notebook that ends well, with failures in the background."""
    tool, kernel = request.param
    if importlib.util.find_spec(MODULES[tool]) is None:
        pytest.skip(f"{tool} is not installed")
    options = ["-p", "x", "3"] if tool == "papermill" else []
    return tool, run_in(tmp_path_factory.mktemp("good"), tool, kernel, GOOD, *options, parameters="x = 1")


class TestGood:
    def test_results_are_saved(self, good: tuple[str, Run]) -> None:
        tool, done = good
        assert done.code == 0, done
        saved = done.saved
        assert saved is not None
        values = [saved.output(code, "execute_result") for code in RESULTS]
        assert values == [f"('await', {3 if tool == 'papermill' else 1})", "'run'", "'arun'", "'set'", "'progress'"]
        assert [saved.output(code, "stderr") for code in RESULTS] == [""] * len(RESULTS)
        values = [saved.output(code, "execute_result") for code in CONCURRENT_RESULTS]
        assert values == [*CONCURRENT_RESULTS.values()]
        if tool == "papermill":
            bar = done.stderr.split("\r")[-1]
            assert re.search(r"Executing: 100%\|█+\| (\d+)/\1 \[", bar), done.stderr

    def test_background_failures_are_in_the_notebook(self, good: tuple[str, Run]) -> None:
        saved = good[1].saved
        assert saved is not None
        starts = saved.number("# starts")
        own = saved.output("# starts", "stderr")
        assert "the task task a (fail) failed, and nobody awaits it" in own
        assert "ValueError: kind a" in own
        assert f"the task task b of In[{starts}] (fail) failed" in saved.output("told(tasks['b'])", "stderr")
        # Between the two, or in the second one.
        assert f"the task task c of In[{starts}] (fail) failed" in saved.output("told(tasks['c'])", "stderr")
        assert all(str(saved.notebook).count(f"ValueError: kind {kind}") <= 1 for kind in "abcd")

    def test_output_of_tasks_is_in_the_notebook(self, good: tuple[str, Run]) -> None:
        saved = good[1].saved
        assert saved is not None
        assert saved.output("events['b'].set()") == "printed late\nand more\n"
        assert saved.output("events['b'].set()", "display_data") == "shown late"

    def test_failures_after_the_last_cell_are_on_stderr(self, good: tuple[str, Run]) -> None:
        tool, done = good
        assert done.saved is not None
        # pytest captures it.
        log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout) if tool == "nbmake" else done.stderr
        starts = done.saved.number("# starts")
        assert f"the task task d of In[{starts}] (fail) failed, and nobody awaits it" in log
        assert log.count("ValueError: kind d") == 1
        assert f"the task task e of In[{starts}] (fail_at_the_end)" in log
        assert log.count("KeyError: 'kind e'") == 1
        assert not re.search("kind [abc]", log)

    def test_tasks_are_cleaned_up(self, good: tuple[str, Run]) -> None:
        assert good[1].left == ["generator", "task"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_failing_cell_fails_the_run(tmp_path: Path, tool: str) -> None:
    done = run_in(tmp_path, tool, GOOD_ON[tool][1], FAILING)
    assert done.code == 1
    assert "ZeroDivisionError" in done.stdout + done.stderr
    assert done.left == ["generator", "task"]
    # jupyter execute and nbconvert write nothing then.
    assert (done.saved is not None) == (tool in ("papermill", "nbmake"))
    if done.saved is not None:
        assert "ZeroDivisionError" in done.saved.output("1 / 0", "error")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_timeout_fails_the_run_and_cleans_up(tmp_path: Path, tool: str) -> None:
    done = run_in(tmp_path, tool, GOOD_ON[tool][0], SLEEPING, *TIMEOUTS[tool])
    assert done.code == 1
    assert "A cell timed out while it was being executed" in done.stdout + done.stderr
    assert done.left == ["cell", "generator", "task"]


@pytest.mark.parametrize("tool", [p for p in TOOLS if p.values == ("nbconvert",)])
def test_a_kernel_that_is_killed_cleans_nothing_up(tmp_path: Path, tool: str) -> None:
    done = run_in(tmp_path, tool, STOCK, [SETUP], "--ExecutePreprocessor.shutdown_kernel=immediate")
    assert done.code == 0
    assert done.left == []


@pytest.mark.parametrize(("tool", "signum"), [("execute", signal.SIGTERM), ("nbconvert", signal.SIGINT)])
def test_a_command_that_is_stopped_cleans_up(tmp_path: Path, tool: str, signum: signal.Signals) -> None:
    if importlib.util.find_spec(MODULES[tool]) is None:
        pytest.skip(f"{tool} is not installed")
    done = run_in(tmp_path, tool, GOOD_ON[tool][0], STOPPED, stop=signum)
    assert done.code != 0
    assert done.left == ["begun", "cell", "generator", "task"]
