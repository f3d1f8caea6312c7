"""The benchmarks run: what they measure is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ipykernel
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it measures processor time by /proc")
def test_each_part_measures_something(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    parts = ["cells", "interrupts"]
    if ipykernel.version_info >= (7, 0):  # before, the kernel answers nobody else while a cell awaits
        parts.append("answers")
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--rounds", "1", "--json", str(file), "--parts", *parts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(file.read_text())
    assert {"machine", *parts} == set(measured)
    for part in parts:
        assert measured[part]


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 12), reason="it counts by sys.monitoring")
def test_the_instructions_of_an_empty_cell_are_counted() -> None:
    command = [sys.executable, str(BENCHMARKS / "bytecode.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "empty await cell: " in done.stdout
    assert " guest_leads.py GuestLeads._selecting.<locals>.select\n" in done.stdout
