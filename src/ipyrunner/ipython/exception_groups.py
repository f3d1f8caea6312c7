"""Show any exception as IPython does, and the exceptions in a group as well.

IPython prints groups by Python's ``traceback``: with the frames of IPython, asyncio and this package, without
``%xmode`` and colours, and without an error message to the front end. Here each exception of a group is formatted as
IPython formats a single one. If its class or IPython raises meanwhile, the exception is shown more plainly.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..aio.introspection.exceptions import inner_of, is_a, links_of, traceback_from, traceback_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["chain_of", "format_exception", "text_of"]

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
# How many exceptions of a group are shown, and how deep: as many as by Python's own ``traceback``.
_WIDTH = 15
_DEPTH = 10


def chain_of(exc: BaseException) -> Iterator[BaseException]:
    """Yield *exc* and its causes and contexts, directly or indirectly; not the exceptions in groups."""
    seen: set[int] = set()
    pending = [exc]
    while pending:
        link = pending.pop()
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += links_of(link)


def text_of(exc: BaseException) -> str:
    """Return ``str(exc)``, or a text that says that it cannot be shown."""
    try:
        return "".join(str(exc))  # a plain str, of no class of the user's
    except BaseException:
        return "(its message cannot be shown)"


def format_exception(
    shell: InteractiveShell,
    exc: BaseException,
    tb: TracebackType | None,
    *,
    tb_offset: int | None = None,
    within: tuple[BaseException, ...] = (),
) -> list[str]:
    """Return the lines of *exc*, by the formatter of *shell*; raises nothing. *within*: the groups that it is in."""
    lines = _format_one(shell, exc, tb, tb_offset)
    if len(within) == _DEPTH:
        return lines
    for group in chain_of(exc):
        # It may be in this group itself: `except ExceptionGroup as group: raise group.exceptions[0]`
        inner = () if any(group is outer for outer in within) else inner_of(group)
        if inner and group is not exc:
            lines += [f"In the {type(group).__name__} above: {text_of(group)}"]
        for n, each in enumerate(inner[:_WIDTH], 1):
            own_tb = _without_asyncio(traceback_of(each))
            shown = format_exception(shell, each, own_tb, tb_offset=0, within=(*within, group))
            lines.append(f"  +---------------- {n} of {len(inner)} ----------------")
            lines += ["  | " + line for line in "\n".join(shown).splitlines()]
        if inner[_WIDTH:]:
            lines.append(f"  +---------------- and {len(inner) - _WIDTH} more")
    return lines


def _format_one(
    shell: InteractiveShell, exc: BaseException, tb: TracebackType | None, tb_offset: int | None
) -> list[str]:
    formatter: Any = shell.InteractiveTB
    tb = _without_asyncio(tb, at_the_end=True) if is_a(exc, BaseExceptionGroup) else tb
    try:
        lines = formatter.structured_traceback(type(exc), exc, tb, tb_offset=tb_offset)
        return ["".join(line) for line in lines]
    except BaseException:  # its class raises, or IPython does: use Python's ``traceback``
        pass
    try:
        return "".join(
            traceback.format_exception(type(exc), exc, tb, chain=not is_a(exc, BaseExceptionGroup))
        ).splitlines()
    except BaseException:
        return [*_entries(tb), f"{type(exc).__name__}: {text_of(exc)}"]


def _entries(tb: TracebackType | None) -> list[str]:
    try:
        return "".join(traceback.format_tb(tb)).splitlines()
    except BaseException:  # generated code, without the positions of its instructions
        return []


def _without_asyncio(tb: TracebackType | None, *, at_the_end: bool = False) -> TracebackType | None:
    """Drop asyncio's entries at the beginning (for a task), or at the end (for a TaskGroup)."""
    entries: list[TracebackType] = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    place = -1 if at_the_end else 0
    while len(entries) > 1 and entries[place].tb_frame.f_code.co_filename.startswith(_ASYNCIO):
        del entries[place]
    return traceback_from(entries)
