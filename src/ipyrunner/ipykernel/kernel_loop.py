"""The event loop of ipykernel's kernel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["kernel_loop"]


def kernel_loop(shell: InteractiveShell) -> asyncio.AbstractEventLoop | None:
    """Return the loop of the kernel that *shell* belongs to; None in a terminal and before the kernel has started."""
    # tornado's IOLoop; ``kernel.io_loop`` has been there since ipykernel 5, ``asyncio_loop`` since tornado 5.
    io_loop = getattr(getattr(shell, "kernel", None), "io_loop", None)
    loop: asyncio.AbstractEventLoop | None = getattr(io_loop, "asyncio_loop", None)
    return loop
