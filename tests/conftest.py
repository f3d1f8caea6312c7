from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("kernels", "loops", "terminals")

# In a job that a shell has started in the background SIGINT is ignored, and so it would be in every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

from ipyrunner import NotebookRunner
from ipyrunner.aio.tasks.registry import Tasks
from kernels import BEFORE, Kernel, kernel
from loops import LOOPS, notebook_runner


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
        yield started


@pytest.fixture
def shared(_shared: Kernel) -> Kernel:
    """A kernel that the tests of a module share; each starts with a new loop and Context."""
    _shared.ok("%reset -f")
    _shared.ok("%arunner restart")
    _shared.ok(BEFORE)
    return _shared


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
    """A loop in this process, which nothing runs on."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def books(loop: asyncio.AbstractEventLoop) -> Iterator[Tasks]:
    """The bookkeeping of that loop's tasks."""
    made = Tasks(loop, torn=lambda exc: pytest.fail(repr(exc)))
    yield made
    made.close()
