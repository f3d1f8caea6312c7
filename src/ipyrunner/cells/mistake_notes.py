"""Notes on common mistakes with event loops: what has happened, and what to write instead.

The message of an exception is not enough: libraries have their own words for "no running event loop", and the same
words mean different things in different cells. A note is added only where the state confirms it: which loop runs now,
whose loop that is, which exceptions led to this one, and what the frames that raised it hold.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import dis
import os
import re
from collections.abc import Iterable, Iterator
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any

from ..aio.introspection.exceptions import is_a, message_of, traceback_of
from ..aio.introspection.running_loop import running_loop
from ..aio.persistent_runner import PersistentRunner
from ..aio.sigint.handlers import on_main_thread
from ..aio.user_runs.nested_runs import is_allowed

if TYPE_CHECKING:
    from ..notebook import NotebookRunner

__all__ = ["hint"]

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep

# Parts of the messages of RuntimeErrors and ValueErrors.
_IN_LOOP = (
    "cannot be called from a running event loop",
    "Already running asyncio in this thread",
    "event loop is already running",
    "while another loop is running",
)
_OTHER_LOOP = (
    "attached to a different loop",
    "bound to a different event loop",
    "The future belongs to a different loop",
)

# The whole message of aiohttp if its session's loop has no current task.
_NO_TASK = "Timeout context manager should be used inside a task"

# The whole messages of asyncio's futures.
_NOT_ENDED = ("Result is not set.", "Exception is not set.")

_RAISE = dis.opmap["RAISE_VARARGS"]
# Of Python's TypeErrors on a coroutine that is used as if it were the value.
_COROUTINE = re.compile(
    r"^'coroutine' object (?!is not callable)|^object of type 'coroutine'|^unsupported operand .*'coroutine'"
    r"|^can only concatenate .*\"coroutine\""
)

# Classes of anyio and sniffio, raised when no loop of any kind runs.
_MISSING = ("NoEventLoopError", "AsyncLibraryNotFoundError")

# {call} is the call that was refused, {name} the function.
IN_NOTEBOOK = (
    "ipyrunner: this code already runs in the notebook's event loop, because its cell contains await or begins with "
    "%%arun. Write `await main()` instead of `{call}`, or move the call to a cell without await, where it works."
)
FOREVER_IN_NOTEBOOK = (
    "ipyrunner: this code already runs in the notebook's event loop, because its cell contains await or begins with "
    "%%arun. Move `{call}` to a cell without await, where it works. The notebook's own loop and its tasks go on "
    "without it."
)
NOT_NESTED = " If the call is in a library, `%config NotebookRunner.nested = True` lets it work; this patches asyncio."
IN_KERNEL = (
    "ipyrunner: this cell began before ipyrunner was loaded, so it runs in the kernel's event loop. Put `%load_ext "
    "ipyrunner` in a cell of its own. In later cells without await {name}() works."
)
IN_LEFT = (
    "ipyrunner: some code has started another event loop here, which is still running, as Playwright's sync API does "
    "until its `stop()`. After that {name}() works again. Until then write `%arun main()` or `await main()`."
)
IN_OTHER = "ipyrunner: this code already runs in an event loop. Write `await main()` instead of `{call}`."
FOREVER_IN_OTHER = (
    "ipyrunner: this code already runs in an event loop, and `{call}` cannot run another one inside it. Leave the call "
    "out, or make it in a cell without await, outside of async functions."
)
OTHER_LOOP = (
    "ipyrunner: a Future, Task or lock works only in the event loop that it was made for, and this one was made for "
    "another loop: that of an asyncio.run() or %%arun --fresh, or the one before `%arunner restart`. Make a new one in "
    "this cell. If a client or session has made it, use that client in its own loop: `await` or `%arun` for a client "
    "that was made in a cell with await."
)
OTHER_CLIENT = (
    "ipyrunner: this code uses a client, session or connection that was made in another event loop. Each asyncio.run() "
    "has a loop of its own; cells with await share the notebook's. Use it in the loop in which it was made: `await "
    "main()`, or `%arun main()`, for what cells with await have made."
)
NOT_ENDED = (
    "ipyrunner: this task or future has not ended, so it has no result yet. Write `await task`: it waits for the end, "
    "and returns the result."
)
NOT_AWAITED = (
    "ipyrunner: the call of an async function only makes a coroutine. Write `await` in front of the call: it runs the "
    "function, and returns its value."
)
NO_LOOP = (
    "ipyrunner: in a cell without await no event loop is running, as in a script. Begin the cell with %%arun to run "
    "all of it in the notebook's event loop."
)
CLOSED_BEFORE = (
    "ipyrunner: this code uses a client, session or connection that belongs to an earlier event loop of the notebook, "
    "which `%arunner restart` or `%arunner close` has closed. Make a new one."
)
CLOSED_OTHER = (
    "ipyrunner: this code uses a client, session or connection that belongs to a closed event loop, such as that of an "
    "asyncio.run() that has ended. Make a new one in the loop that uses it."
)


def hint(
    exc: BaseException,
    chain: Iterable[BaseException],
    runner: NotebookRunner,
    kernel: asyncio.AbstractEventLoop | None,
) -> str | None:
    """Return the note on *exc*, which a cell has raised; None if there is nothing to say.

    *chain* is *exc* and what led to it; *kernel* is the kernel's loop.
    """
    text = " ".join(message_of(exc))  # not str(exc), which may run code of the user's
    notebooks = None if runner.present is None else runner.present.loop
    if is_a(exc, RuntimeError, ValueError):
        if any(part in text for part in _IN_LOOP):
            return _in_loop(_refused(exc, text), runner, notebooks, kernel)
        if any(part in text for part in _OTHER_LOOP):
            return OTHER_LOOP
        if text == "Event loop is closed":
            return _closed(exc)
        if text == _NO_TASK and _is_of_other_loop(exc):
            return OTHER_CLIENT
    if is_a(exc, asyncio.InvalidStateError) and text in _NOT_ENDED:
        return NOT_ENDED
    if _is_of_coroutine(exc, text):
        return NOT_AWAITED
    if running_loop() is not None or (notebooks is not None and notebooks.is_running()):
        return None
    missing = (
        type(exc).__name__ in _MISSING
        or any(map(_asked_for_running_loop, chain))
        or _holds_resting_loop(exc, text, notebooks)
    )
    return NO_LOOP if missing else None


def _is_of_coroutine(exc: BaseException, text: str) -> bool:
    if is_a(exc, AttributeError):
        return type(vars(AttributeError)["obj"].__get__(exc)) is CoroutineType
    # It does not say of which object.
    return is_a(exc, TypeError) and _COROUTINE.search(text) is not None and not _is_of_raise(exc)


def _is_of_raise(exc: BaseException) -> bool:
    """Return whether a ``raise`` statement has raised *exc*, whose message then says what its author wants to."""
    entry = traceback_of(exc)
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and entry.tb_frame.f_code.co_code[entry.tb_lasti] == _RAISE


def _refused(exc: BaseException, text: str) -> str:
    """Return the name of the function that was to run a loop."""
    for frame in reversed(list(_frames(exc))):
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if code.co_name in ("run_until_complete", "run_forever"):
            return f"loop.{code.co_name}"
        if code.co_name == "run" and module.startswith(("asyncio.", "anyio.")):
            return f"{module.partition('.')[0]}.run" if code.co_qualname == "run" else "runner.run"
    # uvloop's functions have no frames.
    return "asyncio.run" if "asyncio.run" in text else "loop.run_until_complete"


def _in_loop(
    name: str,
    runner: NotebookRunner,
    notebooks: asyncio.AbstractEventLoop | None,
    kernel: asyncio.AbstractEventLoop | None,
) -> str:
    forever = name == "loop.run_forever"
    call = f"{name}({'' if forever else 'main' if name == 'anyio.run' else 'main()'})"
    running = running_loop() if on_main_thread() else None  # that of a subshell's thread is neither of these
    if notebooks is not None and (running is notebooks or (notebooks.is_running() and on_main_thread())):
        can_nest = isinstance(notebooks, asyncio.BaseEventLoop) and not is_allowed(notebooks)
        note = FOREVER_IN_NOTEBOOK if forever else IN_NOTEBOOK
        return note.format(call=call) + (NOT_NESTED if can_nest else "")
    if running is None:
        return (FOREVER_IN_OTHER if forever else IN_OTHER).format(call=call)
    return (IN_KERNEL if running is kernel else IN_LEFT).format(name=name)


def _closed(exc: BaseException) -> str | None:
    # asyncio's own loops raise it in one of their methods; others (uvloop) have no frames, so the loop is not known.
    for frame in _frames(exc):
        loop: Any = frame.f_locals.get("self")
        if issubclass(type(loop), asyncio.BaseEventLoop) and loop.is_closed():  # not its __class__, which may raise
            return CLOSED_BEFORE if loop in PersistentRunner.closed_loops else CLOSED_OTHER
    return None


def _is_of_other_loop(exc: BaseException) -> bool:
    """Return whether the object whose method has raised *exc* has a loop, and another one runs that method."""
    frames = list(_frames(exc))
    try:
        owner = frames[-1].f_locals["self"]._loop  # an attribute of a library's object, not of asyncio's
    except BaseException:  # there is none, or a user's class has raised
        return False
    runs = [f.f_locals.get("self") for f in frames if f.f_code.co_name == "run_until_complete"]
    running = runs[-1] if runs else running_loop()
    return isinstance(owner, asyncio.AbstractEventLoop) and running is not None and owner is not running


def _asked_for_running_loop(exc: BaseException) -> bool:
    """Return whether *exc* is that of ``asyncio.get_running_loop``, or ``get_event_loop``, on this thread."""
    text = " ".join(message_of(exc))
    asked = text == "no running event loop" or text == "There is no current event loop in thread 'MainThread'."
    threads = concurrent.futures.thread.__file__
    return is_a(exc, RuntimeError) and asked and all(f.f_code.co_filename != threads for f in _frames(exc))


def _holds_resting_loop(exc: BaseException, text: str, notebooks: asyncio.AbstractEventLoop | None) -> bool:
    """Return whether a library has found the notebook's loop at rest, and raised *exc* because of that."""
    frames = list(_frames(exc))
    if not frames or notebooks is None:
        return False
    frame = frames[-1]
    return (
        is_a(exc, RuntimeError)
        and "async" in text
        and not frame.f_code.co_filename.startswith(_ASYNCIO)
        and any(value is notebooks for value in frame.f_locals.values())
    )


def _frames(exc: BaseException) -> Iterator[FrameType]:
    tb = traceback_of(exc)
    while tb is not None:
        yield tb.tb_frame
        tb = tb.tb_next
