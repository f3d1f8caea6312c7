"""The widget of ``%atasks --live``.

The front end says which views are visible, and repeats this while they are. Only in that time the loop is asked, and
its answers are sent as messages: nothing is done for a view that nobody sees, even if its page was closed without a
message.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from ....aio.introspection.frames import uninterruptible
from ....aio.introspection.task_state import cancel
from ....aio.sigint.handlers import on_main_thread
from ....aio.tasks.safe_names import label_of, short
from ....notebook import NotebookRunner
from ...tracebacks import name_file
from ..tasks_table import TaskTable
from .loop_watch import SHARE, Blocked, LoopWatch
from .snapshot import snapshot

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ....aio.persistent_runner import PersistentRunner

__all__ = ["LiveView"]

_HERE = Path(__file__).parent
# Seconds that a view counts as seen after its message, which it repeats every five seconds.
_SEEN = 15.0


class LiveView(anywidget.AnyWidget):  # type: ignore[misc]
    """The tasks of the notebook's loop, as they are at the moment, with buttons. ``close()`` ends it."""

    _esm = (_HERE / "view.js").read_text(encoding="utf-8")
    _css = (_HERE / "view.css").read_text(encoding="utf-8")
    # The table as it was when the view was displayed: this is shown where no kernel answers.
    table = traitlets.Unicode().tag(sync=True)

    def __init__(self, shell: InteractiveShell, runner: NotebookRunner, make_table: Callable[[], TaskTable]) -> None:
        self._make_table = make_table
        self._runner = runner
        self._name_file = partial(name_file, shell)
        self._seen: dict[str, float] = {}
        # Older kernels hear no message while a cell awaits. Until one has come in such a time, none is missed then.
        self._heard_while_awaiting = False
        self._starters: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()
        # Each loop counts its tasks from one: a button is of a task of the loop that it was drawn for.
        self._loops: weakref.WeakKeyDictionary[PersistentRunner, int] = weakref.WeakKeyDictionary()
        self._last_loop = itertools.count(1)
        self._watched: PersistentRunner | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self._loop_watch = LoopWatch(self._loop, answer=self._answer, blocked=self._say_blocked, gone=self._say_gone)
        super().__init__()
        self.on_msg(self._on_message)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle: tuple[dict[str, Any], dict[str, Any]] | None = super()._repr_mimebundle_(**kwargs)
        self.table = repr(self._make_table())
        if bundle is not None:
            bundle[0]["text/plain"] = self.table
        return bundle

    @property
    def is_open(self) -> bool:
        """Whether the view can still be displayed. A page without anywidget closes the comm, ipywidgets does not."""
        # Private, in comm's BaseComm since 0.1; without it such a view stays open, and shows the table.
        return self.comm is not None and not getattr(self.comm, "_closed", False)

    def close(self) -> None:
        """End the view, wherever it is displayed. Idempotent."""
        self._seen.clear()
        self._end()
        super().close()

    # -- asking the loop

    def _loop(self) -> asyncio.AbstractEventLoop | None:
        present = self._runner.present
        return None if present is None else present.loop

    def _is_seen(self) -> bool:
        now, present = time.monotonic(), self._runner.present
        if self._heard_while_awaiting or present is None or not present.awaits:
            for view in [view for view, until in tuple(self._seen.items()) if until < now]:
                self._seen.pop(view, None)
        return bool(self._seen) and self.is_open

    def _answer(self) -> None:
        """In the loop."""
        begin = time.monotonic()
        present = self._runner.present
        if present is None or not self._is_seen():
            self._end()
            return
        if present is not self._watched:
            self._unwatch()
            self._watched, self._unwatch = present, present.tasks.watch(self._on_started)
            if present not in self._loops:
                self._loops[present] = next(self._last_loop)
        cells = [run.task for run in present.interrupts.runs() if run.task is not None]
        shown = snapshot(present.tasks.started(), cells=cells, parent_of=self._starter_of, name_file=self._name_file)
        lags = [round(lag * 1000, 1) for lag in self._loop_watch.lags]
        # How long the view hears nothing after this, see LoopWatch.
        pause = SHARE * (time.monotonic() - begin)
        self._say(type="tasks", loop=self._loops[present], lags=lags, pause=pause, **shown)

    @uninterruptible
    def _on_started(self, task: asyncio.Task[Any], context: object) -> None:
        with suppress(Exception):  # a user's task may be anything; or it is not started by a task
            self._starters[task] = weakref.ref(asyncio.current_task())  # type: ignore[type-var]

    def _starter_of(self, task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
        with suppress(Exception):
            return self._starters[task]()  # type: ignore[no-any-return]
        return None

    def _end(self) -> None:
        """On the loop's thread: stop, since nobody sees the view any more."""
        self._loop_watch.stop()
        self._unwatch()
        self._watched, self._unwatch = None, lambda: None

    # -- in the thread

    def _say_blocked(self, blocked: Blocked) -> None:
        if not self._seen:  # hidden meanwhile: the loop, which ends the thread, does not run
            return
        where = ""
        if blocked.filename is not None:
            function = "" if blocked.function is None else f"{short(blocked.function)}(), "
            where = f" in {function}{self._name_file(blocked.filename)}:{blocked.line}"
        self._say(type="blocked", seconds=int(blocked.seconds), where=where)

    def _say_gone(self) -> None:
        if self._is_seen():
            self._say(type="tasks", loop=0, lags=[], pause=0, rows=[], total=0, rest="", deadlocks=[])
        else:
            self._loop_watch.stop()

    # -- with the front end

    def _say(self, **content: Any) -> None:
        with suppress(Exception):  # closed since, or a kernel that ends
            self.send(content)

    def _on_message(self, _: object, content: Any, buffers: object) -> None:
        match content:
            case {"type": "seen", "view": str(view), "seen": bool(seen)}:
                present = self._runner.present
                self._heard_while_awaiting |= present is not None and present.awaits
                if seen:
                    self._seen[view] = time.monotonic() + _SEEN
                    self._loop_watch.start()
                else:
                    self._seen.pop(view, None)
                    if not self._seen and on_main_thread():
                        self._end()
            case {"type": "cancel" | "background" as action, "number": int(number), "loop": int(loop)}:
                present = self._runner.present
                if present is None or on_main_thread():
                    self._act(action, number, loop)
                else:  # on a subshell's thread: the loop is blocked
                    with suppress(RuntimeError):  # closed since
                        present.loop.call_soon_threadsafe(self._act, action, number, loop)
                        self._say(type="done", text=f"task {number}: as soon as the loop runs again")

    @uninterruptible
    def _act(self, action: str, number: int, loop: int) -> None:
        """Do what a button says, and say what was done."""
        self._say(type="done", text=self._done(action, number, loop))

    def _done(self, action: str, number: int, loop: int) -> str:
        present = self._runner.present
        entries = [] if present is None or self._loops.get(present) != loop else present.tasks.started()
        task = next((entry.task for entry in entries if entry.number == number), None)
        if task is None:
            return f"task {number} has ended"
        label = label_of(task)
        if action == "cancel":
            exc = cancel(task, "cancelled by %atasks --live")
            return f"cancelling {label}" if exc is None else f"{label} cannot be cancelled ({type(exc).__name__})"
        try:
            self._runner.background(task)
        except RuntimeError:
            return f"{label} is no cell that awaits"
        return f"{label} goes on in the background"
