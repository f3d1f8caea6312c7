"""SIGINT while the kernel handles a request: raised only in the user's code, kept for that before, dropped after it.

The problem: ipykernel puts Python's default handler in place for the whole request. KeyboardInterrupt is then raised in
whatever runs: the unpacking of the message, the history, the sending of the reply. The reply is lost, and the front end
waits for it for ever; raised in the kernel's loop itself, it ends the kernel.

The solution: our handler is in place for the request, and it raises nothing. IPython runs each statement of the user by
``InteractiveShell.run_code``. There, and only there, Python's default handler is in place, which libraries look for
(``asyncio.run`` and trio take SIGINT over from no other handler); ``run_ast_nodes``, the caller, catches what is raised
at the beginning and the end of it. An awaiting cell takes SIGINT over by ``Interrupt``. A SIGINT that came before the
user's code interrupts that code; one that comes after it is dropped, as one between cells.

One thing that the user's code calls must not be interrupted either: flushing stdout waits for ipykernel's output thread
by a ``threading.Event``, and KeyboardInterrupt in there may leave the event's lock held. The thread then waits for the
lock for ever, and no more output and no reply comes. (Printing and displaying take no such locks.)

The kernel itself flushes both streams twice at the end of each cell. Where nothing was printed since the last time,
waiting for the thread has no effect, and takes a fifth of what an empty cell takes: so its calls return at once then.
Other code always waits: it may be about to end the process.

Other code that the kernel calls must be stopped too: IPython's event hooks, user expressions, completion, comm
handlers. If a SIGINT has had no effect for the length of the grace period, KeyboardInterrupt is raised there, and
ipykernel and IPython catch it. Anywhere else in a request it may lose the reply, so it is raised there only at a second
SIGINT that comes a second or more after the first.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Awaitable, Callable, Container
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ipykernel import parentpoller
from ipykernel.kernelbase import Kernel

from ...aio.exit_and_fork import in_forked_children
from ...aio.introspection.frames import uninterruptible
from ...aio.replacements import Replacements
from ...aio.sigint.defer_sigint import Held
from ...aio.sigint.handlers import (
    Outside,
    handler_of,
    interrupts_at_once,
    is_default_handler,
    on_main_thread,
    signal_main_thread,
)
from ...aio.sigint.interrupt import Interrupt
from ...aio.sigint.watchdog_thread import watchdog
from .cell_record import present_record
from .request_status import set_display_failed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ...notebook import NotebookRunner

__all__ = ["Guard"]

# Seconds: a second press this long after the first may lose the reply.
_INSISTENCE = 1.0
# The kernel's functions that flush both streams.
_FLUSHERS = {getattr(getattr(Kernel, name, None), "__code__", None) for name in ("execute_request", "dispatch_shell")}


class Guard(Outside):
    """Handle SIGINT for the kernel of *shell*, outside of user code. Nothing in a terminal."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._pressed = False
        # Which request goes on; the watcher of a press that came in an earlier one does nothing.
        self._request = 0
        self._sent = False
        # The handlers that were there before the requests that go on.
        self._before: list[Any] = []
        self._grace: Callable[[], float] = lambda: 1.0
        self._replacements = Replacements()
        kernel: Any = getattr(shell, "kernel", None)
        # A kernel class with hooks of its own keeps them, and stays unguarded.
        self._shell: Any = shell
        self._kernel: Any = kernel if _is_ipykernels(getattr(kernel, "pre_handler_hook", None)) else None
        self._calls: set[CodeType] = set()
        self._request_code: CodeType | None = None
        if self._kernel is not None:
            self._calls, self._request_code = _codes(shell, kernel)
        self._first_press = 0.0
        # Interrupts cells that run beside others, also between requests.
        self._press_peers: Callable[[], None] | None = None

    def begin(self, runner: NotebookRunner, in_charge: Callable[[], bool]) -> None:
        """Guard from the next request on. *in_charge* says whether a cell that begins is one that *runner* runs."""
        if self._kernel is None:
            return
        self._grace = lambda: runner.interrupt_grace
        in_forked_children(self)
        replace = self._replacements.replace
        replace(self._kernel, "pre_handler_hook", lambda original: self._begin_request(original, in_charge))
        replace(self._kernel, "post_handler_hook", self._end_request)
        replace(self._shell, "run_code", self._run_code)
        for stream in (sys.stdout, sys.stderr):
            if _is_ipykernels(stream.flush):
                replace(stream, "flush", partial(self._flush, stream=stream))
        if not hasattr(signal, "pthread_kill") and hasattr(parentpoller, "interrupt_main"):
            # On Windows: a thread of ipykernel's simulates SIGINT by this function, which wakes no loop.
            replace(parentpoller, "interrupt_main", lambda original: signal_main_thread)
        if hasattr(self._kernel, "_cancel_on_sigint"):
            # Private, since ipykernel 5.2: cancels the awaiting cell from outside, and loses the reply if the cell has
            # not begun. If it is missing, there is nothing to prevent.
            replace(self._kernel, "_cancel_on_sigint", lambda original: self._leave_to_us(original, in_charge))

    def restore(self) -> None:
        """Leave SIGINT to the kernel again."""
        self._replacements.restore()
        self._press_peers = None
        self._before.clear()
        if self._kernel is None:
            return
        if getattr(self._kernel, "saved_sigint_handler", None) == self._on_sigint_at_rest:  # of the present request
            self._kernel.saved_sigint_handler = signal.SIG_IGN
        if handler_of(signal.SIGINT) == self._on_sigint_at_rest:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def after_fork(self) -> None:
        """In a child process: restore Python's handler for SIGINT."""
        if self._guards() or handler_of(signal.SIGINT) == self._on_sigint_at_rest:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # -- Outside

    def replaces(self, handler: object) -> bool:
        """Return whether a run takes SIGINT over from *handler*: from ours, Python's own, or ipykernel's."""
        return (
            handler == self._on_sigint
            or is_default_handler(handler)
            or str(getattr(handler, "__module__", "")).startswith("ipykernel")
        )

    def rests(self, handler: object) -> bool:
        """Return whether *handler* is in place while no cell runs: one of ours, or SIG_IGN between requests."""
        return handler is signal.SIG_IGN or handler in (self._on_sigint, self._on_sigint_at_rest)

    def begin_peers(self, press: Callable[[], None]) -> None:
        """From now on call *press* on SIGINT, also between requests, where ipykernel ignores it."""
        self._press_peers = press
        self._exchange(signal.SIG_IGN, self._on_sigint_at_rest)

    def end_peers(self) -> None:
        """Stop calling *press*."""
        self._press_peers = None
        self._exchange(self._on_sigint_at_rest, signal.SIG_IGN)

    def _exchange(self, present: Any, other: Any) -> None:
        """Replace the handler between requests by *other*, if it is *present*."""
        if self._before:  # a request goes on, which will put it back
            self._before = [other if handler == present else handler for handler in self._before]
        elif handler_of(signal.SIGINT) == present:
            signal.signal(signal.SIGINT, other)

    def keep(self) -> None:
        """Keep a press for the cell that begins."""
        self._pressed = True

    def take(self) -> bool:
        """Return, once, whether there was a press before."""
        pressed, self._pressed = self._pressed, False
        return pressed

    # -- what is replaced

    def _begin_request(self, original: Callable[[], None], in_charge: Callable[[], bool]) -> Callable[[], None]:
        def pre_handler_hook() -> None:
            if not on_main_thread():
                original()  # of a subshell, whose thread gets no signals
                return
            self._request += 1
            self._pressed = self._sent = False
            watchdog.start()
            if not self._before:
                self._forget_display()
            # Another runner of cells (%autoawait trio) takes SIGINT over only from Python's handler.
            handler = self._on_sigint if in_charge() else signal.default_int_handler
            before = signal.signal(signal.SIGINT, handler)
            # Requests nest: a cell may run the kernel's next one (do_one_iteration). If the extension is unloaded
            # before the end of the first one, ipykernel's own hook restores the handler that this one has found.
            if not self._before:
                self._kernel.saved_sigint_handler = before
            self._before.append(before)

        return pre_handler_hook

    def _end_request(self, original: Callable[[], None]) -> Callable[[], None]:
        def post_handler_hook() -> None:
            if self._before and on_main_thread():
                signal.signal(signal.SIGINT, self._before.pop())
            else:
                original()

        return post_handler_hook

    def _forget_display(self) -> None:
        """Forget the value that an interrupted cell was about to display.

        Private: with ``displayhook.msg`` left behind, ipykernel 7.4 takes the next traceback for one of a display, sets
        the flag, and reports every awaiting cell from then on as failed. Where there is no such name, nothing is set.
        """
        if getattr(self._shell.displayhook, "msg", None) is not None:
            self._shell.displayhook.msg = None
        set_display_failed(self._shell, False)

    def _run_code(self, original: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        def run_code(*args: Any, **kwargs: Any) -> Awaitable[bool]:
            code = original(*args, **kwargs)
            # Not for the code of an awaiting cell: each of its steps would be slower.
            return self._let_through(code) if self._guards() else code

        return run_code

    async def _let_through(self, code: Any) -> bool:
        try:
            if self.take():
                raise KeyboardInterrupt
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return await code  # type: ignore[no-any-return]
        finally:
            # Inline, since a call is one more place to be interrupted. signal.signal() raises what has come before it.
            try:
                if interrupts_at_once():
                    signal.signal(signal.SIGINT, self._on_sigint)
            except KeyboardInterrupt:  # it came when the code had ended
                signal.signal(signal.SIGINT, self._on_sigint)
            code.close()

    def _leave_to_us(self, original: Callable[..., Any], in_charge: Callable[[], bool]) -> Callable[..., Any]:
        def cancel_on_sigint(future: Any) -> AbstractContextManager[object]:
            # Ours are also a cell that code in the notebook's loop awaits, where the outer run's handler is in place,
            # and a cell that runs beside others, for which no request's handler is.
            record = present_record()
            ours = self._guards() or Interrupt.owns(handler_of(signal.SIGINT)) or (record is not None and record.beside)
            return nullcontext() if in_charge() and ours else original(future)

        return cancel_on_sigint

    def _flush(self, original: Callable[[], None], stream: Any) -> Callable[[], None]:
        @uninterruptible
        def flush() -> None:
            if interrupts_at_once():
                with Held(then_raise=True):
                    original()
            elif (
                # Private, since ipykernel 4.4: set by write(), until the output thread begins to send. Without it the
                # kernel's own calls wait for that thread as well.
                getattr(stream, "_flush_pending", True)
                or getattr(stream, "echo", None) is not None
                or not _is_kernels(sys._getframe().f_back)  # of the replaced method
            ):
                original()

        return flush

    # -- SIGINT

    def _guards(self) -> bool:
        return on_main_thread() and handler_of(signal.SIGINT) == self._on_sigint

    def _on_sigint_at_rest(self, signum: int, frame: FrameType | None) -> None:
        if self._press_peers is not None:
            self._press_peers()

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._press_peers is not None and not self._sent:
            self._press_peers()
        if self._sent:
            self._sent = False
            if self._pressed and _runs(frame, self._calls):
                self._pressed = False
                raise KeyboardInterrupt
            return
        if not self._pressed:
            self._first_press = now
        elif now - self._first_press > _INSISTENCE and _runs(frame, {self._request_code}):
            self._pressed = False
            raise KeyboardInterrupt
        self._pressed = True
        request = self._request

        def send_again() -> None:
            """In the watchdog's thread: send SIGINT again if the press has had no effect yet."""
            if self._pressed and self._request == request:
                self._sent = True
                signal_main_thread()

        watchdog.call_later(self._grace(), send_again)


def _codes(shell: Any, kernel: Any) -> tuple[set[CodeType], CodeType]:
    """Return the code of the functions that call code of others, and of the function that handles a request."""
    methods = [type(shell.events).trigger, type(shell).user_expressions]
    methods += [getattr(type(kernel), name) for name in ("do_complete", "do_inspect")]
    methods += [getattr(type(kernel.comm_manager), name) for name in ("comm_open", "comm_msg", "comm_close")]
    return {method.__code__ for method in methods}, type(kernel).dispatch_shell.__code__


def _is_kernels(frame: FrameType | None) -> bool:
    """Return whether the kernel itself has called *frame*, and not other code, or C code of no Python frame."""
    caller = None if frame is None else frame.f_back
    return caller is not None and caller.f_code in _FLUSHERS


def _runs(frame: FrameType | None, codes: Container[CodeType | None]) -> bool:
    """Return whether one of *codes* has called *frame*, directly or indirectly."""
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def _is_ipykernels(method: Any) -> bool:
    return str(getattr(method, "__module__", "")).startswith("ipykernel.")
