"""The kinds of cells: those that need a running loop, and those that begin at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..installation import Installation
from .arun_options import ArunArguments, without_comment
from .needs_loop import ArunCell, has_awaiting_statement, is_status_cell, names_running_loop, read_arun_cell

__all__ = ["CellKinds"]


class CellKinds:
    """Tell the kinds of cells by their sources, as IPython has transformed them, and by the settings."""

    def __init__(self, extension: Installation) -> None:
        self._extension = extension
        self._shell = extension.shell
        # IPython's own should_run_async, which compiles the cell, for the last source that it was asked about.
        self.verdict: tuple[str, bool] = ("", False)
        self._parsed: tuple[ArunCell | None, ArunArguments] = (None, ArunArguments())

    def ask(self, raw_cell: str, source: str, stock: Callable[..., bool]) -> bool:
        """Return what IPython's own ``should_run_async``, *stock*, says of the cell."""
        if self.verdict[0] != source:
            self.verdict = source, stock(raw_cell, transformed_cell=source, preprocessing_exc_tuple=None)
        return self.verdict[1]

    def needs_loop(self, stock: bool, source: str, *, awaited: bool = False) -> bool:
        """Return whether the code of a cell has to see a running loop; *awaited*: the cell can be awaited."""
        if stock or not self._shell.autoawait:
            return stock
        arun = read_arun_cell(source)
        if arun is None:
            return names_running_loop(source) or has_awaiting_statement(source)
        # --background only starts a task, --fresh has a loop of its own, and an %%arun cell that cannot be awaited is a
        # blocking run like %arun.
        return awaited and self.arguments(arun).awaits

    def is_concurrent(self, arun: ArunCell | None) -> bool:
        """Return whether a cell that awaits, and begins with *arun* if that is not None, may run beside others."""
        return self._extension.runner.concurrent or (arun is not None and self.arguments(arun).concurrent)

    def at_once(self, content: dict[str, Any], *, queued: bool, stock: Callable[..., bool]) -> bool:
        """Return whether the cell of a request with this *content* begins at once, though another one awaits.

        *queued*: other cells wait for the end of the one that awaits. *stock*: IPython's own ``should_run_async``.
        False for clients that allow no input: these run notebooks, one cell after the other.
        """
        self.forget()
        code = content["code"]
        runner = self._extension.runner
        awaits = runner.present is not None and runner.present.awaits
        if (
            runner.why_not_concurrent
            or not self._extension.in_charge()
            or not content.get("allow_stdin", True)
            or not (
                runner.concurrent or "--concurrent" in code or (awaits and ("%atasks" in code or "%arunner" in code))
            )
        ):
            return False
        source = self._shell.transform_cell(code)  # raises what will be shown when the cell runs
        arun = read_arun_cell(source)
        if arun is not None and not self.arguments(arun).awaits:
            return False
        if awaits and is_status_cell(source, queued=queued):
            return True
        return self.is_concurrent(arun) and self.needs_loop(self.ask(code, source, stock), source, awaited=True)

    def arguments(self, arun: ArunCell) -> ArunArguments:
        """Return the options of a cell that begins with ``%%arun``."""
        if self._parsed[0] == arun:
            return self._parsed[1]
        line = without_comment(arun.line)
        if "$" in line or "{" in line:
            with suppress(BaseException):  # the user's code raises; the magic will report it
                # Only with the user's variables, not with those of our frames: no frame is so deep.
                line = self._shell.var_expand(line, depth=sys.getrecursionlimit())
        self._parsed = arun, ArunArguments.of(line)
        return self._parsed[1]

    def forget(self) -> None:
        """Before a cell begins: forget its options, since the variables in them may have changed."""
        self._parsed = None, ArunArguments()
