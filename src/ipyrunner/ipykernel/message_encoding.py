r"""The kernel's messages can be sent whatever text of the user's is in them.

The problem: a string may contain a lone surrogate (``"\ud800"``), which has no encoding in UTF-8. A message with one in
it is not sent: a traceback, a value or a reply is lost. So is all that was printed since the last flush, and the cell
waits ten seconds for the thread that sends it.

The solution: the kernel's session serializes all messages. If it fails for this reason it serializes the message again,
with such characters written as in the source of a string. Bytes of file names (``"\udcff"``), which
Jupyter can send, stay as they are in messages that need no change.

A cell whose source has one in it, say half of an emoji, runs as if it were written like this too: Python cannot compile
it otherwise, and IPython's history stops saving once it has such a line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..installation import Installation

__all__ = ["install"]


def install(extension: Installation) -> None:
    """Put the part in place. A terminal has no kernel."""
    kernel = getattr(extension.shell, "kernel", None)
    if kernel is not None:
        extension.replace(kernel, "do_execute", _do_execute)
    session = getattr(kernel, "session", None)
    if session is not None:
        extension.replace(session, "serialize", _serialize)


# Not its packer: that is called four times for each message, and there are ten messages or so around each cell.
def _serialize(original: Callable[..., list[bytes]]) -> Callable[..., list[bytes]]:
    def serialize(message: Any, *args: Any, **kwargs: Any) -> list[bytes]:
        try:
            return original(message, *args, **kwargs)
        except UnicodeEncodeError:
            return original(_escaped(message), *args, **kwargs)

    return serialize


def _do_execute(original: Callable[..., Any]) -> Callable[..., Any]:
    def do_execute(code: str, *args: Any, **kwargs: Any) -> Any:
        return original(_escaped(code), *args, **kwargs)

    return do_execute


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return str.encode(value, errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_escaped(item) for item in value]
    return value
