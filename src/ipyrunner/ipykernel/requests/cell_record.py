"""What is known of one cell, found by its Context: IPython knows it only for the last cell that has begun."""

from __future__ import annotations

import contextvars
from typing import Any, ClassVar

__all__ = ["CellRecord", "present_record", "recorded"]


class CellRecord:
    """One run of ``run_cell_async``: its number, its result, its last traceback, and how its code begins."""

    _reservations: ClassVar[int] = 0

    def __init__(self, outer: CellRecord | None = None, *, beside: bool = False) -> None:
        self._reserved_before = CellRecord._reservations
        # Whether it runs though other cells do; whether it has begun, and IPython has counted it.
        self.beside = beside
        self.begun = self.counted = False
        # Its number; for a cell that has none, the number of the cell that has run it.
        self.count: int | None = None if outer is None else outer.count
        # The number that it was announced with, and that no other cell gets: IPython uses it when the cell begins, and
        # then goes on with next_count.
        self.reserved: int | None = None
        self.next_count: int | None = None
        # Its last traceback, as the kernel's reply has it; whether that came from displaying its value.
        self.error: dict[str, Any] | None = None
        self.display_failed = False
        # Whether the error of the cell's own code is being shown, and whether the last traceback was of that.
        self.shows_own = self.has_shown_own = False
        self.displayed: dict[str, Any] | None = None
        # An exception, and the one that was shown in its place.
        self.shown: tuple[BaseException, BaseException] | None = None
        # What front ends are asked to do when it has ended (set_next_input); shared with the cells that it runs.
        self.payloads: list[Any] = [] if outer is None else outer.payloads
        # IPython's result, once its code runs, and whether that has ended.
        self.result: Any = None
        self.has_ended = False
        # Set while a cell that begins with %%arun starts: the magic returns a coroutine, and the cell awaits it.
        self.expects_call = False
        self.expects_coroutine = False

    @property
    def own_count(self) -> int | None:
        """Its number, if the shell may have another cell's, which has begun while this one runs; otherwise None."""
        return self.count if self.beside or CellRecord._reservations != self._reserved_before else None

    @property
    def own_error(self) -> BaseException | None:
        """What the cell's code has raised: what showing it raises does not take its place. None without a kernel."""
        return None if self.result is None else self.result.error_in_exec  # type: ignore[no-any-return]

    @property
    def own_error_shown(self) -> bool:
        """Whether the last traceback was that of :attr:`own_error`, if there is one."""
        return self.has_shown_own and not self.display_failed

    def end(self) -> None:
        """Let go of what the cell has returned or raised: its tasks keep the record in their Context."""
        self.result = self.shown = self.displayed = None

    def reserve(self, number: int) -> None:
        """Give the cell *number*, and keep it from other cells."""
        self.reserved = number
        CellRecord._reservations += 1


_record: contextvars.ContextVar[CellRecord | None] = contextvars.ContextVar("ipyrunner record", default=None)


def present_record() -> CellRecord | None:
    """Return the record of the cell that the present Context belongs to; None if there is none."""
    return _record.get()


class recorded:  # noqa: N801  (a generator would be half of what a record costs)
    """For the length of the block let the present Context belong to the cell of *record*."""

    __slots__ = ("_before", "_record")

    def __init__(self, record: CellRecord) -> None:
        self._record = record

    def __enter__(self) -> CellRecord:
        self._before = _record.get()
        _record.set(self._record)
        return self._record

    def __exit__(self, *_: object) -> None:
        _record.set(self._before)  # not by the token: the block may end in another Context
