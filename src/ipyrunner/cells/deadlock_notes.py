"""Notes on tasks that wait for each other: in a table of tasks, and with the interrupt of a cell that waited there."""

from __future__ import annotations

from collections.abc import Callable

from ..aio.tasks.safe_names import label_of
from ..aio.tasks.waits.deadlocks import Deadlock, Link

__all__ = ["deadlock_lines", "deadlock_note", "deadlock_text"]

# How many tasks of a circle are named.
_MOST = 5


def deadlock_text(deadlock: Deadlock, name_file: Callable[[str], str]) -> str:
    """Return which task waits for which, and where, on one line."""
    links = [_text(link, name_file) for link in deadlock[:_MOST]]
    if len(deadlock) > _MOST:
        links.append(f"and {len(deadlock) - _MOST:,} more, up to {label_of(deadlock[0].task)} again")
    return f"deadlock: {', '.join(links)}"


def deadlock_lines(deadlocks: list[Deadlock], name_file: Callable[[str], str]) -> list[str]:
    """Return a line for each of the first few deadlocks."""
    lines = [deadlock_text(deadlock, name_file) for deadlock in deadlocks[:_MOST]]
    return lines + [f"and {len(deadlocks) - _MOST:,} more deadlocks"] * (len(deadlocks) > _MOST)


def deadlock_note(deadlock: Deadlock, name_file: Callable[[str], str]) -> str:
    """Return the note on the KeyboardInterrupt of a cell that has waited for *deadlock*, or was in it."""
    return f"ipyrunner: this cell could not go on, because of a {deadlock_text(deadlock, name_file)}"


def _text(link: Link, name_file: Callable[[str], str]) -> str:
    other = label_of(link.other)
    if link.locked:
        held = "it holds itself" if link.other is link.task else f"{other} holds"
        other = f"the lock that {held}"
    place = "" if link.step is None else f" ({name_file(link.step.filename)}:{link.step.line})"
    return f"{label_of(link.task)} waits for {other}{place}"
