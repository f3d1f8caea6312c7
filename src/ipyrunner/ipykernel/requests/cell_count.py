"""The number of a cell that begins while others are about to: the kernel announces it, and IPython counts later.

Cells begin in the order of their requests, except those that wait for another cell to end. A cell that runs beside
others gets its number when it is announced, and is announced only when the cells announced before are counted: so no
two cells have the same number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from .cell_record import CellRecord

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CellCount"]

_T = TypeVar("_T")


class CellCount:
    """Give each cell of *shell* the number that was announced for it, and no two cells the same."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        # Cells that do not run beside others, were announced, and were not counted by IPython yet.
        self._announced: set[CellRecord] = set()
        # Set when something has changed.
        self._waiters: list[asyncio.Future[None]] = []

    def announced(self, record: CellRecord, *, counts: bool) -> None:
        """Note that the cell of *record* was announced, with the present number. *counts*: IPython will count it."""
        if not record.beside:
            self._announced.add(record)
        elif counts:
            record.reserve(self._shell.execution_count)
            self._shell.execution_count += 1

    async def run(self, cell: Awaitable[_T], record: CellRecord) -> _T:
        """Await *cell*, a run of IPython's, with the number that was reserved for it."""
        if record.reserved is not None:
            record.next_count, self._shell.execution_count = self._shell.execution_count, record.reserved
        try:
            return await cell
        finally:
            self.counted(record)  # if there was nothing to run, IPython has not said so

    def counted(self, record: CellRecord | None) -> None:
        """Note that IPython has counted the cell of *record*, which the present Context belongs to."""
        if record is None or record.counted:
            return
        record.counted = True
        record.count = self._shell.execution_count - 1
        if record.next_count is not None:
            self._shell.execution_count = record.next_count
        self.ended(record)

    def ended(self, record: CellRecord) -> None:
        """Note that the cell of *record* has ended: it may have failed before IPython has counted it."""
        self._announced.discard(record)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def all_counted(self) -> None:
        """In the kernel's loop: wait until the announced cells are counted."""
        await self._until(lambda: not self._announced)

    async def begun(self, record: CellRecord, cell: asyncio.Future[None]) -> None:
        """In the kernel's loop: wait until the cell of *record* is counted, or *cell*, which runs it, has ended."""
        cell.add_done_callback(lambda _: self.ended(record))
        await self._until(lambda: record.counted or cell.done())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._waiters.append(asyncio.get_running_loop().create_future())
            await self._waiters[-1]
