"""What a runner reports. Other code shows it, in the Context of the cell that it belongs to."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from .main import Request
from .sigint.forced_interrupt import Forced
from .tasks.exception_handler import Failure
from .tasks.slow_callbacks import Slow

__all__ = ["Cancelled", "ChildEnds", "Failure", "Forced", "GivenUp", "Notice", "Slow"]


class GivenUp(NamedTuple):
    """A main task that has ignored its cancellation, and still runs; nobody waits for it any more."""

    task: asyncio.Task[Any]


class ChildEnds(NamedTuple):
    """A child process made by ``os.fork`` ends, because its code awaits on the parent's loop."""


class Cancelled(NamedTuple):
    """*request* to cancel the main task has come while no cell ran; it will cancel the next cell."""

    request: Request


Notice = Failure | Forced | Slow | GivenUp | ChildEnds | Cancelled
