from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("kernels", "terminals")

# In a job that a shell has started in the background SIGINT is ignored, and so it would be in every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

from kernels import BEFORE, Kernel, kernel


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
