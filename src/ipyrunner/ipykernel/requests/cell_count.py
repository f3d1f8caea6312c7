"""The number of a cell that begins while others are about to: the kernel announces it, and IPython counts later.

A cell beside others has its number at once, and begins before those that were sent after it. It is announced when the
other one that was announced is counted.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from .cell_record import CellRecord

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CellCount"]

_T = TypeVar("_T")


class CellCount:
    """Let each cell of *shell* have the number that was said of it, and no two the same."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        # What stands for a cell that was announced, and that IPython has not counted; one that never begins vanishes.
        self._announced: weakref.WeakSet[Any] = weakref.WeakSet()
        self._beside: weakref.WeakSet[CellRecord] = weakref.WeakSet()

    def announced(self, call: object, record: CellRecord | None) -> None:
        """Say that a cell, which *call* stands for, has its number: the present one, or a reserved one."""
        if record is not None and record.beside and not record.begun:
            self._beside.add(record)
        else:
            self._announced.add(call)

    async def run(self, cell: Awaitable[_T], record: CellRecord) -> _T:
        """Await *cell*, a run of IPython's, with the number that was reserved for it."""
        if record.reserved is not None:
            record.next_count, self._shell.execution_count = self._shell.execution_count, record.reserved
        try:
            return await cell
        finally:
            self.counted(record)  # there was nothing to run

    def counted(self, record: CellRecord | None) -> None:
        """Say that IPython has counted the cell of *record*, which has the present Context."""
        if record is None or record.counted:
            return
        record.counted = True
        record.count = self._shell.execution_count - 1
        if record.next_count is not None:
            self._shell.execution_count = record.next_count
        self._beside.discard(record)
        if not record.beside:
            self._announced.clear()

    def ended(self, call: object, record: CellRecord) -> None:
        """Say that a cell has ended: it may have failed before IPython has counted it."""
        self._announced.discard(call)
        self._beside.discard(record)

    async def before(self, *, beside: bool) -> None:
        """Wait until a cell, one *beside* others or not, may be announced."""
        while self._announced if beside else self._beside:
            await asyncio.sleep(0)
