"""The settings of a notebook's runner, and which values are valid."""

from __future__ import annotations

import asyncio
import difflib
import math
from collections.abc import Callable
from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, TraitError, default, observe, validate
from traitlets.config import LoggingConfigurable
from traitlets.utils.importstring import import_item

from .aio.introspection.loop_class import new_loop
from .aio.introspection.task_state import is_done, tasks_of
from .aio.persistent_runner import PersistentRunner
from .aio.tasks.safe_names import repr_of, short
from .aio.user_runs.nested_runs import allow, is_applied, library

__all__ = ["Settings", "make_loop", "not_nested"]

_Factory = Callable[[], asyncio.AbstractEventLoop]


def make_loop(
    factory: _Factory | None, present: asyncio.AbstractEventLoop | None, *, nested: bool
) -> asyncio.AbstractEventLoop:
    """Make a loop; TypeError or ValueError if *factory* returns no loop, or not a new one. *present* is in use.

    *nested*: the loop must be one of asyncio's own.
    """
    loop = new_loop() if factory is None else factory()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop_factory returned {repr_of(loop)}, which is not an event loop")
    if loop.is_closed() or loop.is_running() or loop is present:
        state = "closed" if loop.is_closed() else "already running" if loop.is_running() else "already the notebook's"
        raise ValueError(f"loop_factory returned a loop that is {state}: it has to make a new one each time")
    if nested and not isinstance(loop, asyncio.BaseEventLoop):
        loop.close()
        raise ValueError(not_nested(loop))
    return loop


def not_nested(loop: asyncio.AbstractEventLoop) -> str:
    """Return the error message for a loop that cannot have ``NotebookRunner.nested``."""
    return (
        f"NotebookRunner.nested works only with asyncio's own loops, and the notebook's is a {type(loop).__module__}."
        f"{type(loop).__qualname__}. Run `%config NotebookRunner.loop_factory = None` and `%arunner restart` first"
    )


def _resolve_factory(value: Any) -> _Factory | None:
    """Return the factory that *value* stands for: a callable, an import string or None. TraitError if it is no such."""
    if isinstance(value, str):
        try:
            value = import_item(value)
        except (ImportError, ValueError) as exc:
            missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
            # If it is a part of a package, the package is there.
            advice = f". If it is a package: `%pip install {missing}`" if missing and missing.isidentifier() else ""
            raise TraitError(f"loop_factory: cannot import {repr_of(value)}: {exc}{advice}") from exc
    if value is not None and not callable(value):
        raise TraitError(
            "loop_factory has to be a callable, an import string such as 'uvloop.new_event_loop', or None, not "
            f"{repr_of(value)}"
        )
    return value  # type: ignore[no-any-return]


class Settings(LoggingConfigurable):
    """What ``%config NotebookRunner`` and ``c.NotebookRunner`` set."""

    # The message that says why cells cannot run side by side here; empty if they can.
    why_not_concurrent = ""

    @property
    def present(self) -> PersistentRunner | None:
        """The runner of the present loop; None if there is no loop."""
        return None

    def __repr__(self) -> str:
        current = self.present
        if current is None:
            return "<NotebookRunner: no event loop yet, one is made when it is needed>"
        kind = type(current.loop)
        tasks = sum(not is_done(task) for task in tasks_of(current.loop))
        state = "closed" if current.loop.is_closed() else f"{tasks} task{'' if tasks == 1 else 's'}"
        return f"<NotebookRunner: {kind.__module__}.{kind.__qualname__}, {state}; %arunner shows more>"

    loop_factory = AnyTrait(
        None,
        allow_none=True,
        help="The function that makes the event loop, or its import string, such as 'uvloop.new_event_loop'. None: "
        "asyncio's own loop. Takes effect at `%arunner restart`.",
    ).tag(config=True)
    debug = Bool(
        None,
        allow_none=True,
        help="Whether asyncio's debug mode is on. None: as the environment variable PYTHONASYNCIODEBUG says. Takes "
        "effect at once.",
    ).tag(config=True)
    interrupt_grace = Float(
        1.0,
        help="If code blocks the event loop for this many seconds after an interrupt, KeyboardInterrupt is raised in "
        "that code.",
    ).tag(config=True)
    shutdown_timeout = Float(
        2.0,
        help="How many seconds `%arunner restart`, `%arunner close` and the end of the kernel wait at most until "
        "cancelled tasks, asynchronous generators and the threads of asyncio.to_thread have ended.",
    ).tag(config=True)
    slow_callback = Float(
        0.0,
        help="Report code that blocks the event loop for more than this many seconds: once for each function, with "
        "the line that took the time, in the output of the cell that started it. 0: report nothing. Takes effect at "
        "once.",
    ).tag(config=True)
    poll = Bool(
        False,
        help="Let the notebook's loop and the kernel's run by turns, in short slices. Loops without a file descriptor "
        "that can be polled always run this way. Takes effect at `%arunner restart`.",
    ).tag(config=True)

    nested = Bool(
        False,
        help="Let asyncio.run() and loop.run_until_complete() work in cells with await, and in what they call. Patches "
        "asyncio for the whole process with nest-asyncio, and makes tasks slower. Works only with asyncio's own loops, "
        "and cannot be turned off until the kernel restarts. Takes effect at once.",
    ).tag(config=True)

    concurrent = Bool(
        False,
        help="Let every cell with await start even if another cell is awaiting, as with `%%arun --concurrent`. Each of "
        "them runs in its own task, with a copy of the ContextVars. Needs ipykernel 7 and IPython 9.8. Takes effect "
        "at the next cell.",
    ).tag(config=True)

    def update_config(self, config: Any) -> None:
        """Apply what ``%config NotebookRunner`` sets; TraitError, which IPython prints, for an unknown name."""
        for name in config:
            if name != "NotebookRunner" and difflib.get_close_matches(name, ["NotebookRunner"], cutoff=0.85):
                raise TraitError(f"there is no {short(name)}. Did you mean `%config NotebookRunner`?")
        known = self.trait_names(config=True)
        for name in config.get("NotebookRunner", {}):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise TraitError(
                    f"NotebookRunner has no setting {short(name)!r}.{f' Did you mean {near[0]!r}?' if near else ''} "
                    "`%config NotebookRunner` lists the settings"
                )
        super().update_config(config)

    @validate("loop_factory")
    def _resolve_loop_factory(self, proposal: Any) -> Callable[[], asyncio.AbstractEventLoop] | None:
        return _resolve_factory(proposal["value"])

    @validate("interrupt_grace", "shutdown_timeout", "slow_callback")
    def _check_seconds(self, proposal: Any) -> float:
        seconds: float = proposal["value"]
        least = 0.05 if proposal["trait"].name == "interrupt_grace" else 0.0
        if not least <= seconds < math.inf:
            raise TraitError(f"{proposal['trait'].name} has to be a number of seconds, {least} or more, not {seconds}")
        return seconds

    @default("nested")
    def _is_nested(self) -> bool:
        return is_applied()  # by an earlier runner in this process

    @validate("nested")
    def _allow_nested(self, proposal: Any) -> bool:
        nested: bool = proposal["value"]
        loop = None if self.present is None else self.present.loop
        if not nested and is_applied():
            raise TraitError("NotebookRunner.nested stays on: asyncio is patched until the kernel restarts")
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
