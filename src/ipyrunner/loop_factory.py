"""``NotebookRunner.loop_factory``: what it may be, and what it has to return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from traitlets import TraitError
from traitlets.utils.importstring import import_item

__all__ = ["make_loop", "resolve_factory"]

_Factory = Callable[[], asyncio.AbstractEventLoop]


def make_loop(factory: _Factory | None, present: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """Make a loop; TypeError or ValueError if what *factory* returns is none that is new. *present* is in use."""
    loop = asyncio.new_event_loop() if factory is None else factory()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop_factory returned {loop!r}, which is no event loop")
    if loop.is_closed() or loop.is_running() or loop is present:
        state = "closed" if loop.is_closed() else "running already" if loop.is_running() else "the present one"
        raise ValueError(f"loop_factory returned a loop that is {state}: it has to make a new one each time")
    return loop


def resolve_factory(value: Any) -> _Factory | None:
    """Return the factory that *value*, a callable, an import string or None, stands for. Else TraitError."""
    if isinstance(value, str):
        try:
            value = import_item(value)
        except (ImportError, ValueError) as exc:
            raise TraitError(f"loop_factory: cannot import {value!r}: {exc}") from exc
    if value is not None and not callable(value):
        raise TraitError(
            f"loop_factory is a callable, an import string such as 'uvloop.new_event_loop', or None, not {value!r}"
        )
    return value  # type: ignore[no-any-return]
