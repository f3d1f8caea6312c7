"""The kernel's calls of user code: the kernel has to go on whatever exception they raise."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..aio.introspection.exceptions import traceback_of
from ..aio.sigint.forced_interrupt import is_forced
from ..aio.tasks.safe_names import describe

__all__ = ["contained"]


def contained(call: Callable[[], Any], what: str) -> Any:
    """Return ``call()``. An exception that is no ``Exception``, such as SystemExit, is shown and not raised."""
    try:
        return call()
    except Exception:
        raise  # the kernel reports it
    except BaseException as exc:
        if is_forced(exc):
            raise
        with suppress(BaseException):
            print("".join(traceback.format_tb(traceback_of(exc))), end="", file=sys.stderr)
        print(f"ipyrunner: {describe(exc)} in {what} is ignored: it does not end the kernel", file=sys.stderr)
        return None
