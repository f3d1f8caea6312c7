"""``%%arun --trace``: a timeline of the cell, shown below it however the cell ends."""

from __future__ import annotations

import contextvars
import sys
from functools import partial
from types import TracebackType
from typing import Any

from IPython.core.error import UsageError
from IPython.display import display

from ....aio.introspection.task_origin import origin_of
from ....aio.persistent_runner import PersistentRunner
from ....aio.tasks.safe_names import describe, short
from ...tracebacks import name_file
from .trace import Trace, checked

__all__ = ["CellTrace", "file_of"]


def file_of(option: str) -> str | None:
    """Return the file that the option names; UsageError if it cannot be written to."""
    if not option:
        return None
    try:
        return checked(option)
    except (OSError, ValueError) as exc:  # ValueError: a null character
        reason = getattr(exc, "strerror", None) or str(exc)
        raise UsageError(f"%%arun --trace cannot write to {short(option, 200)!r}: {reason}") from None


class CellTrace:
    """A context manager that traces the cell whose task it is entered in, and displays the trace at its end."""

    def __init__(self, shell: Any, current: PersistentRunner, file: str | None, name: str | None) -> None:
        self._file = file
        origin = origin_of(contextvars.copy_context())
        title = name or ("the cell" if origin is None else origin.label)
        self._trace = Trace(lambda: current, partial(name_file, shell), cell=title)

    def __enter__(self) -> CellTrace:
        try:
            self._trace.start()
        except RuntimeError as exc:
            raise UsageError(f"%%arun --trace: {exc}") from None
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # An error here must not replace the cell's value or its own error.
        try:
            self._trace.stop()
            display(self._trace)
        except Exception as error:
            print(f"ipyrunner: the trace cannot be shown: {describe(error)}", file=sys.stderr)
        if self._file is not None:
            try:
                self._trace.save(self._file)
                print(f"ipyrunner: the trace was written to {self._file}; https://ui.perfetto.dev opens it")
            except Exception as error:
                print(f"ipyrunner: the trace could not be written to {self._file}: {describe(error)}", file=sys.stderr)
