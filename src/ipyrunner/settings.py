"""The settings of a notebook's runner, and what they may be."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, TraitError, default, observe, validate
from traitlets.config import LoggingConfigurable
from traitlets.utils.importstring import import_item

from .aio.introspection.loop_class import new_loop
from .aio.nested_runs import allow, is_applied, library
from .aio.persistent_runner import PersistentRunner

__all__ = ["Settings", "make_loop", "not_nested"]

_Factory = Callable[[], asyncio.AbstractEventLoop]


def make_loop(
    factory: _Factory | None, present: asyncio.AbstractEventLoop | None, *, nested: bool
) -> asyncio.AbstractEventLoop:
    """Make a loop; TypeError or ValueError if what *factory* returns is none that is new. *present* is in use.

    *nested*: it has to be asyncio's own.
    """
    loop = new_loop() if factory is None else factory()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop_factory returned {loop!r}, which is no event loop")
    if loop.is_closed() or loop.is_running() or loop is present:
        state = "closed" if loop.is_closed() else "running already" if loop.is_running() else "the present one"
        raise ValueError(f"loop_factory returned a loop that is {state}: it has to make a new one each time")
    if nested and not isinstance(loop, asyncio.BaseEventLoop):
        loop.close()
        raise ValueError(not_nested(loop))
    return loop


def not_nested(loop: asyncio.AbstractEventLoop) -> str:
    """Return what is said of a loop that cannot have ``NotebookRunner.nested``."""
    return (
        f"NotebookRunner.nested works with asyncio's own loops, and this is a {type(loop).__module__}."
        f"{type(loop).__qualname__}, which cannot run inside itself: set NotebookRunner.loop_factory = None, then "
        "`%arunner restart`"
    )


def _resolve_factory(value: Any) -> _Factory | None:
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


class Settings(LoggingConfigurable):
    """What ``%config NotebookRunner`` and ``c.NotebookRunner`` set."""

    # What keeps cells from running side by side here, as an error's message says it; empty: nothing.
    why_not_concurrent = ""

    @property
    def present(self) -> PersistentRunner | None:
        """What runs the present loop; None if there is none."""
        return None

    loop_factory = AnyTrait(
        None,
        allow_none=True,
        help="What makes the loop: a callable or the import string of one ('uvloop.new_event_loop'); None for "
        "asyncio's own. Takes effect at `%arunner restart`.",
    ).tag(config=True)
    debug = Bool(
        None,
        allow_none=True,
        help="asyncio's debug mode: True, False, or None for what PYTHONASYNCIODEBUG says. Takes effect at once.",
    ).tag(config=True)
    interrupt_grace = Float(
        1.0,
        help="Seconds that the loop has to answer the first interrupt before KeyboardInterrupt is forced into "
        "the callback that blocks it.",
    ).tag(config=True)
    shutdown_timeout = Float(
        2.0,
        help="Seconds that restart, close and the end of the process take at most: for tasks, asynchronous generators "
        "and the default executor together.",
    ).tag(config=True)
    slow_callback = Float(
        0.0,
        help="Seconds: a callback that holds the loop for longer is named on stderr, once for each function, with the "
        "line that it was at, in the output of the cell that started it. 0: none is. Takes effect at once.",
    ).tag(config=True)
    poll = Bool(
        False,
        help="Take turns with the kernel in short slices, as on loops without a pollable fd, even where there is "
        "one. Takes effect at `%arunner restart`.",
    ).tag(config=True)

    nested = Bool(
        False,
        help="Whether asyncio.run() and loop.run_until_complete() work where the notebook's loop runs already, as in "
        "what a cell with await calls. It patches asyncio for the whole process, by nest-asyncio, and makes tasks "
        "slower; it works with asyncio's own loops alone, and lasts until the kernel restarts. Takes effect at once.",
    ).tag(config=True)

    concurrent = Bool(
        False,
        help="Whether each cell that awaits begins at once, though others await, as with `%%arun --concurrent`: a task "
        "of its own, with a copy of the Context. Needs ipykernel 7 and IPython 9.8. Takes effect at the next cell.",
    ).tag(config=True)

    @validate("loop_factory")
    def _resolve_loop_factory(self, proposal: Any) -> Callable[[], asyncio.AbstractEventLoop] | None:
        return _resolve_factory(proposal["value"])

    @validate("interrupt_grace", "shutdown_timeout", "slow_callback")
    def _check_seconds(self, proposal: Any) -> float:
        seconds: float = proposal["value"]
        least = 0.05 if proposal["trait"].name == "interrupt_grace" else 0.0
        if not least <= seconds < math.inf:
            raise TraitError(f"{proposal['trait'].name} is a number of seconds, {least} or more, not {seconds}")
        return seconds

    @default("nested")
    def _is_nested(self) -> bool:
        return is_applied()  # by a runner of before, in this process

    @validate("nested")
    def _allow_nested(self, proposal: Any) -> bool:
        nested: bool = proposal["value"]
        loop = None if self.present is None else self.present.loop
        if not nested and is_applied():
            raise TraitError("NotebookRunner.nested stays True: asyncio is patched until the kernel restarts")
        if nested and loop is not None and not isinstance(loop, asyncio.BaseEventLoop):
            raise TraitError(not_nested(loop))
        if nested:
            try:
                library() if loop is None else allow(loop)
            except Exception as exc:
                raise TraitError(f"NotebookRunner.nested: {type(exc).__name__}: {exc}") from exc
        return nested

    @validate("concurrent")
    def _allow_concurrent(self, proposal: Any) -> bool:
        concurrent: bool = proposal["value"]
        if concurrent and self.why_not_concurrent:
            raise TraitError(f"NotebookRunner.concurrent: {self.why_not_concurrent}")
        return concurrent

    @observe("debug")
    def _apply_debug(self, change: Any) -> None:
        if self.present is not None and change["new"] is not None:
            self.present.loop.set_debug(change["new"])

    @observe("slow_callback")
    def _apply_slow_callback(self, change: Any) -> None:
        if self.present is not None and not self.present.loop.is_closed():
            self.present.show_slow(change["new"])
