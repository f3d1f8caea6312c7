"""Cells side by side: how tests begin them and look at them."""

from __future__ import annotations

from typing import Any

import pytest

from kernels import CONCURRENT, DEADLINE, Cell, Kernel

__all__ = ["BESIDE", "WAITING", "concurrent_only", "counts", "interrupt_cell", "number", "started"]

concurrent_only = pytest.mark.skipif(not CONCURRENT, reason="cells run side by side on ipykernel 7 and IPython 9.8")
WAITING = (
    "import asyncio\ntry:\n    print('go')\n    await asyncio.sleep(600)\n"
    "finally: await asyncio.sleep(0.01); print('cleaned')"
)
BESIDE = f"%%arun --concurrent\n{WAITING}"


def counts(cell: Cell) -> set[int]:
    """All numbers that were said of the cell."""
    said = {m["content"]["execution_count"] for m in cell.messages if "execution_count" in m["content"]}
    assert cell.reply is not None
    return said | {cell.reply["execution_count"]}


def number(cell: Cell) -> int:
    """The number of a cell that has begun."""
    said: int = next(m["content"]["execution_count"] for m in cell.messages if m["msg_type"] == "execute_input")
    return said


def started(k: Kernel, code: str) -> Cell:
    """A cell that has begun."""
    cell = k.begin(code)
    k.wait_for(cell, "go")
    return cell


def interrupt_cell(k: Kernel, msg_id: str) -> dict[str, Any]:
    """Interrupt one cell by message; return the content of the reply."""
    k.client.control_channel.send(k.client.session.msg("interrupt_request", {"msg_id": msg_id}))
    content: dict[str, Any] = k.client.get_control_msg(timeout=DEADLINE)["content"]
    return content
