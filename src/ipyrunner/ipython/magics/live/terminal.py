"""``%atasks --live`` in a terminal: the table, drawn again twice a second by rich until the interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ....notebook import NotebookRunner
from ..tasks_table import TaskTable

__all__ = ["show_live"]

# Seconds between two pictures.
_PERIOD = 0.5


def show_live(runner: NotebookRunner, make_table: Callable[..., TaskTable]) -> bool:
    """Show the table until Ctrl-C; return False at once if rich is not installed. Only while the loop is at rest."""
    try:
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        return False

    def draw() -> Any:
        table = make_table(but=asyncio.current_task())
        return Text(f"{table!r}\n\nCtrl-C ends the view; the tasks go on.", no_wrap=True, overflow="ellipsis")

    async def watch() -> None:
        with Live(draw(), auto_refresh=False) as live:
            while True:
                await asyncio.sleep(_PERIOD)
                live.update(draw(), refresh=True)

    try:
        runner.run(watch())
    except KeyboardInterrupt:
        print()  # the shell shows no traceback of what the user has ended
    return True
