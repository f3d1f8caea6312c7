"""``%%arun --progress``: one line that says how far the tasks of a cell are, by tqdm."""

from __future__ import annotations

import asyncio
import warnings
from types import TracebackType
from typing import Any

from IPython.core.error import UsageError

from ...aio.tasks.registry import Tasks
from ...aio.tasks.task_scope import Brood

__all__ = ["Progress", "require_tqdm"]

# Seconds between two updates.
_PERIOD = 0.1
_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def require_tqdm() -> Any:
    """Return tqdm's bar for the present front end; UsageError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no ipywidgets: then it is a line of text
            from tqdm.auto import tqdm
    except ImportError:
        raise UsageError(
            "%%arun --progress needs tqdm, which is not installed: run `%pip install tqdm`, or leave out --progress"
        ) from None
    return tqdm


class Progress:
    """A context manager that shows a bar while the block runs: tasks done, of those it has started. Gone at its end.

    UsageError if tqdm is not installed.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._bar_class: Any = require_tqdm()
        self._brood = Brood(tasks.watch)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._brood.__enter__()
        # With a total, though it is not known yet: without one tqdm's widget is a square of 20 pixels, always full.
        self._bar = self._bar_class(total=1, leave=False, bar_format=_FORMAT, desc="tasks", miniters=0, mininterval=0)
        self._update()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._brood.__exit__()
        self._bar.total = self._bar.n  # in notebooks tqdm keeps a bar that is not full, in red
        self._bar.close()

    def _update(self) -> None:
        brood, bar = self._brood, self._bar
        bar.total, bar.n = len(brood.running) + brood.done, brood.done
        # The widget of notebooks has its own total; `bar.reset(total)` would also set back the time.
        for widget in getattr(getattr(bar, "container", None), "children", ()):
            if hasattr(widget, "max"):
                widget.max = max(bar.total, 1)
        bar.set_postfix_str(
            f"{len(brood.running)} running, {brood.done - brood.failed} done, {brood.failed} failed", False
        )
        bar.refresh()
        self._timer = self._loop.call_later(_PERIOD, self._update)
