"""``Runner`` and ``run``: asyncio's own; before Python 3.14 with what 3.14 has added.

https://docs.python.org/3.14/library/asyncio-runner.html
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from .introspection.running_loop import running_loop

__all__ = ["Runner", "as_coroutine", "run"]

_T = TypeVar("_T")

if sys.version_info >= (3, 14):
    Runner = asyncio.Runner
    run = asyncio.run
else:
    # Typeshed says that it is final, and a comment in asyncio that it is not meant to be subclassed. We use only public
    # methods, of releases whose API no longer changes.
    class Runner(asyncio.Runner):  # type: ignore[misc]
        """``asyncio.Runner`` whose :meth:`run` takes any awaitable."""

        def run(self, coro: Awaitable[_T], *, context: contextvars.Context | None = None) -> _T:
            """Run *coro*, any awaitable, in the loop until it is done; return its result or raise its exception.

            TypeError for what cannot be awaited. RuntimeError while a loop runs in this thread, and after ``close``.
            """
            if running_loop() is not None:
                raise RuntimeError("Runner.run() cannot be called from a running event loop")
            self.get_loop()  # raises if the runner is closed, before a coroutine is made
            return super().run(as_coroutine(coro), context=context)

    def run(
        main: Awaitable[_T],
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> _T:
        """As ``asyncio.run``: run *main*, any awaitable, in a new loop, close the loop and return the result.

        *debug* and *loop_factory* are as for ``asyncio.Runner``. RuntimeError while a loop runs in this thread,
        TypeError for what cannot be awaited.
        """
        if running_loop() is not None:
            raise RuntimeError(
                "ipyrunner.run() cannot be called from a running event loop: write `await main()` instead"
            )
        with Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(as_coroutine(main))


def as_coroutine(awaitable: Awaitable[_T]) -> Coroutine[Any, Any, _T]:
    """Return a coroutine that awaits *awaitable*; the same object if it is one. TypeError if it cannot be awaited."""
    if asyncio.iscoroutine(awaitable):
        return cast("Coroutine[Any, Any, _T]", awaitable)
    if not inspect.isawaitable(awaitable):
        raise TypeError("An asyncio.Future, a coroutine or an awaitable is required")

    async def wait() -> _T:
        return await awaitable

    return wait()
