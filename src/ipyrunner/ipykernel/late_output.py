"""Where nobody watches, output that comes after its cell has ended is moved to a later cell, so that it is not lost.

The problem: nbclient, and so ``jupyter execute``, nbconvert, papermill and nbmake, keeps only output with the header of
the cell that it runs, until that cell is idle. What a task prints after its cell, and the traceback of its failure,
have the header of that earlier cell: they are missing in the saved notebook.

The solution: output with another header than the running cell's is moved to the running cell. Between cells it is sent
as it is, and also kept for the next cell: a page that Voila serves has no next cell, and its widgets wait for those
headers. Output after the last cell is logged at the end of the process.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..aio.replacements import Replacements
from ..aio.sigint.handlers import on_main_thread
from ..audience import Audience, has_audience
from ..installation import Installation
from .output_routing import request_of

if TYPE_CHECKING:
    import logging

    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Unwatched", "install"]

# How many writes and displays are kept for the next cell at most, and how many characters of them.
_MOST = 1000
_LARGEST = 10_000_000


def install(extension: Installation) -> None:
    """Put the part in place."""
    extension.audience = unwatched = Unwatched(extension.shell)
    extension.undo(unwatched.restore)


class _Kept(NamedTuple):
    """A write or a display that waits for the next cell, and its text for the log."""

    send: Callable[[], Any]
    text: str
    size: int


class Unwatched(Audience):
    """Move output of cells that have ended into the cell that runs, for clients where nobody watches."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        # Whether nobody watches the cell that runs, or, between cells, the last one.
        self._active = False
        # The request that runs, and the Context in which to print the output of other cells.
        self._request: str | None = None
        self._context: contextvars.Context | None = None
        self._kept: deque[_Kept] = deque()
        self._size = 0
        self._dropped = 0
        # Whether the code of the cell has ended, and its request has not.
        self._over = False
        self._replacements = Replacements()

    def prepare(self, *, in_charge: bool) -> None:
        """See ``Audience``; and ``Routing.prepare`` for ``uncover``."""
        self._active = in_charge and not has_audience(self._shell)
        if self._active and not self._replacements:
            self._install()
        self._replacements.uncover("write")
        # A terminal has no requests.
        self._request = request_of(self._shell, sys.stdout) if self._active else None

    def begin(self, context: contextvars.Context, *, silent: bool) -> None:
        """When a cell begins, whose output goes where *context* says: print what has come since the last one."""
        self._over = False
        if silent:  # a client that runs a silent cell does not show its output
            return
        self._context = context
        if self._dropped:
            print(f"ipyrunner: {self._take_dropped()}", file=sys.stderr)
        while self._kept:
            kept = self._kept.popleft()
            self._size -= kept.size
            context.copy().run(kept.send)

    def end(self) -> None:
        """When the code of the cell has ended: output after its request is for the next cell."""
        self._over = True
        if not self._replacements:
            self._request = self._context = None

    def _begin_request(self, original: Callable[[], Any]) -> Callable[[], Any]:
        # Input transformers, and this package, may print when the request has begun and the code of its cell has not.
        def pre_handler_hook() -> Any:
            result = original()
            # Requests nest. Clients miss output of requests that are no cells: it is kept for the next cell.
            if self._active and self._request is None and on_main_thread():
                header: dict[str, Any] = self._shell.parent_header.get("header", {})  # type: ignore[attr-defined]
                if header.get("msg_type") == "execute_request":
                    self._request = request_of(self._shell, sys.stdout)
            return result

        return pre_handler_hook

    def _end_request(self, original: Callable[[], Any]) -> Callable[[], Any]:
        # Event hooks may print, and matplotlib shows its figures, when the code has ended and its request has not.
        def post_handler_hook() -> Any:
            # Requests nest, and those of subshells are on threads of their own.
            if self._over and on_main_thread():
                self._request = self._context = None
            return original()

        return post_handler_hook

    def is_stray(self) -> bool:
        """Return whether output of the present Context does not belong to the cell that runs."""
        return self._active and not self._is_own(sys.stderr)

    def is_logged(self) -> bool:
        """Return whether nobody watches."""
        return self._active

    def tell(self, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        """Log the output after the last cell."""
        kept, self._kept = self._kept, deque()
        dropped = self._take_dropped() + "\n" if self._dropped else ""
        if kept and self._active:
            log.warning("ipyrunner: output after the last cell:\n%s%s", dropped, "".join(k.text for k in kept).rstrip())

    def restore(self) -> None:
        """Leave the streams and the publisher as they were."""
        self._replacements.restore()
        self._active = False

    def _install(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "set_parent"):
                self._replacements.subclass(stream, self._moved)
        self._replacements.replace(self._shell.display_pub, "publish", self._publish)
        self._replacements.replace(self._shell.kernel, "pre_handler_hook", self._begin_request)
        self._replacements.replace(self._shell.kernel, "post_handler_hook", self._end_request)

    def _moved(self, own: Any) -> type:
        move = self._move

        class MovedStream(own):  # type: ignore[misc]
            def write(self, text: str) -> Any:
                return move(self, text, len(text), functools.partial(own.write, self, text))

        return MovedStream

    def _publish(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def publish(*args: Any, **kwargs: Any) -> Any:
            data = args[0] if args else kwargs.get("data", {})
            text = f"{data.get('text/plain', '')}\n"
            size = sum(len(value) if isinstance(value, str) else len(text) for value in data.values())
            return self._move(self._shell.display_pub, text, size, functools.partial(original, *args, **kwargs))

        return publish

    def _move(self, output: Any, text: str, size: int, send: Callable[[], Any]) -> Any:
        """Call *send*, which sends *text* to *output*, so that the client sees it; return what *send* returns."""
        if not self._active or self._is_own(output):
            return send()
        if self._context is not None:
            return self._context.copy().run(send)
        if text:
            self._kept.append(_Kept(send, text, size))
            self._size += size
        while len(self._kept) > _MOST or self._size > _LARGEST:
            self._size -= self._kept.popleft().size
            self._dropped += 1
        return send()

    def _is_own(self, output: Any) -> bool:
        return self._request is not None and request_of(self._shell, output) == self._request

    def _take_dropped(self) -> str:
        dropped, self._dropped = self._dropped, 0
        return (
            f"{dropped} pieces of output between two cells were dropped, those that came first: at most {_MOST} pieces "
            f"and {_LARGEST:,} characters are kept"
        )
