r"""The kernel's messages can be sent whatever text of the user's is in them.

The problem: a string may contain a lone surrogate (``"\ud800"``), which has no encoding in UTF-8. A message with one in
it is not sent: a traceback, a value or a reply is lost. So is all that was printed since the last flush, and the cell
waits ten seconds for the thread that sends it.

The solution: all messages are made by the packer of the kernel's session. If it fails for this reason it packs the
message again, with such characters written as in the source of a string. Bytes of file names (``"\udcff"``), which
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
        extension.replace(session, "pack", _pack)


def _pack(original: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def pack(message: Any) -> bytes:
        try:
            return original(message)
        except UnicodeEncodeError:
            return original(_escaped(message))

    return pack


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
