"""A short soak; the long one is ``make soak``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels import kernel
from soak import CELLS, LOOPS, NESTED, prepare, soak


@pytest.mark.parametrize("loop", LOOPS)
def test_random_interrupts_lose_nothing(tmp_path: Path, loop: str) -> None:
    with kernel(tmp_path) as k:
        prepare(k, loop)
        result = soak(k, 50, seed=1, cells={**CELLS, **(NESTED if loop == "nested" else {})})
    assert result.faults == []
    assert result.outcomes["interrupted"] > 10
    assert result.timers.startswith("[0, ")
