"""A short soak; the long one is ``make soak``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels import CONCURRENT, kernel
from setups import SETUPS
from soak import CELLS, LOOPS, NESTED, prepare, soak
from soak_concurrent import soak_concurrent

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loop", LOOPS)
def test_random_interrupts_lose_nothing(tmp_path: Path, loop: str) -> None:
    with kernel(tmp_path) as k:
        prepare(k, loop)
        result = soak(k, 50, seed=1, cells={**CELLS, **(NESTED if loop == "nested" else {})})
    assert result.faults == []
    assert result.outcomes["interrupted"] > 10
    assert result.timers.startswith("[0, ")


@pytest.mark.skipif(not CONCURRENT, reason="cells run side by side on ipykernel 7 and IPython 9.8")
@pytest.mark.parametrize("loop", SETUPS)
def test_cells_side_by_side_lose_nothing(tmp_path: Path, loop: str) -> None:
    with kernel(tmp_path) as k:
        prepare(k, loop)
        result = soak_concurrent(k, 40, seed=1)
    assert result.faults == []
    assert result.outcomes["KeyboardInterrupt"] > 5
    assert result.outcomes["CancelledError"] > 1
    assert result.timers.startswith("[0, ")


def test_cancelled_connections_do_not_end_a_kernel_with_uvloop(tmp_path: Path) -> None:
    with kernel(tmp_path) as k:
        prepare(k, "uvloop")
        result = soak(k, 80, seed=7, cells={"server": CELLS["server"]})
    assert result.faults == []
    assert result.timers.startswith("[0, ")
