from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("hosts", "kernels", "loops", "setups", "side_by_side", "terminals")

# In a job that a shell has started in the background SIGINT is ignored, and so it would be in every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

# jedi's cache is not for processes that write at the same time: a kernel that reads half a file completes nothing.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parent.parent / ".pytest_cache" / "workers" / worker)

# Where no bytecode is written, each kernel compiles the extension again, for a quarter of a second, and each worker the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# jsonschema looks for it when a notebook is checked, and it takes more than a second to import: no notebook has what it is for.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.loop_class import new_loop
from ipyrunner.aio.loops.shutdown import wind_up
from ipyrunner.aio.tasks.registry import Tasks
from kernels import BEFORE, CONCURRENT, Kernel, kernel
from loops import LOOPS, notebook_runner
from setups import SETUPS, kernel_on

if TYPE_CHECKING:
    from terminals import Terminal


# What tests are repeated with: other loops, interrupts by message, the older library of the nested mode.
REPEATED = {"uvloop", "turns", "message", "nest_asyncio"}
EACH_PYTHON = {"nest_asyncio"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is repeated as slow."""
    for item in items:
        parameters = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        names = {value for value in parameters if isinstance(value, str)}
        if names & REPEATED:
            item.add_marker(pytest.mark.slow)
        if names & EACH_PYTHON:
            item.add_marker(pytest.mark.each_python)


def pytest_collection_finish() -> None:
    """Let no collection look at what is there before the first test: a tenth of a second, some thousand times."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel of the test's own, with the extension loaded."""
    with kernel(tmp_path) as started:
        yield started


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel of the test's own, without the extension."""
    with kernel(tmp_path, load=False) as started:
        yield started


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython")) as started:
        yield started.settled()


@pytest.fixture
def shared(_shared: Kernel) -> Kernel:
    """A kernel that the tests of a module share; each starts with a new loop and Context."""
    return _shared.renewed()


@pytest.fixture(scope="module", params=SETUPS)
def _on_each_loop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel_on(request.param, tmp_path_factory.mktemp("ipython")) as started:
        yield started.settled()


@pytest.fixture
def on_each_loop(_on_each_loop: Kernel) -> Kernel:
    """The same on asyncio's loop, on uvloop, and by turns, with a grace period of 0.3 s."""
    return _on_each_loop.renewed()


@pytest.fixture(scope="module", params=[*SETUPS, "message"] if CONCURRENT else [])
def _side_by_side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel_on(request.param, tmp_path_factory.mktemp("ipython")) as started:
        yield started.settled()


@pytest.fixture
def side_by_side(_side_by_side: Kernel) -> Iterator[Kernel]:
    """A kernel on each loop, for cells side by side: afterwards none runs, nor a task."""
    yield _side_by_side
    _side_by_side.expect_alive()
    assert _side_by_side.ok("%atasks").value == "no tasks"
    _side_by_side.ok(f"%reset -f\n{BEFORE}")


@pytest.fixture(scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython"), name="ipyrunner") as started:
        yield started.settled()


@pytest.fixture
def own(_own: Kernel) -> Kernel:
    """The kernel of our own, for the tests of a module that leave it as it was."""
    _own.ok(f"%reset -f\n{BEFORE}")
    return _own


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts IPython in a terminal with options, and with a setup of cells."""
    from terminals import BEFORE, IPYTHON, Terminal  # there are none on Windows

    started: list[Terminal] = []

    def start(*options: str, setup: str = "") -> Terminal:
        terminal = Terminal(tmp_path, *IPYTHON, *options)
        started.append(terminal)
        terminal.run("%load_ext ipyrunner")
        for line in setup.splitlines():
            terminal.run(line)
        if setup.startswith("%config"):
            terminal.run("%arunner restart")
        terminal.run(BEFORE)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture
def terminal(start: Callable[..., Terminal]) -> Terminal:
    """With prompt_toolkit's prompt."""
    return start()


@pytest.fixture(params=["prompt", "simple"])
def either(start: Callable[..., Terminal], request: pytest.FixtureRequest) -> Terminal:
    """With prompt_toolkit's prompt, and with a plain one."""
    return start(*(["--simple-prompt"] if request.param == "simple" else []))


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[NotebookRunner]:
    """A notebook's runner in this process, on each loop. After the test its loop runs on."""
    with notebook_runner(request.param) as made:
        yield made


@pytest.fixture
def asyncio_runner() -> Iterator[NotebookRunner]:
    """The same on asyncio's own loop alone."""
    with notebook_runner("asyncio") as made:
        yield made


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in this process, of a notebook's class, which nothing runs on."""
    made = new_loop()
    yield made
    made.close()


@pytest.fixture(params=LOOPS)
def guest(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is to run inside another one."""
    loop = LOOPS[request.param]()
    yield loop
    if not loop.is_closed():
        late: set[asyncio.Task[object]] = set()
        loop.run_until_complete(wind_up(10.0, late))
        assert not late
        loop.close()


@pytest.fixture
def books(loop: asyncio.AbstractEventLoop) -> Iterator[Tasks]:
    """The bookkeeping of that loop's tasks."""
    made = Tasks(loop, torn=lambda exc: pytest.fail(repr(exc)))
    yield made
    made.close()
