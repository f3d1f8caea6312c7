"""``%%arun --profile``: where the time of a cell went, by await and by function, shown by pyinstrument.

pyinstrument samples the thread and draws the tree; :mod:`samples` says which samples belong to the cell. pyinstrument
uses the thread's profile function (``sys.setprofile``): if somebody else has set one, the cell is not run.
"""

from __future__ import annotations

import asyncio
import html
import inspect
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from IPython.core.error import UsageError
from IPython.display import display

from ....aio.introspection.exceptions import is_a
from ....aio.tasks.registry import Tasks
from ....aio.tasks.safe_names import describe, repr_of
from ....aio.tasks.task_scope import Brood
from ...tracebacks import name_file
from .samples import Samples

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CellProfile", "require_profiler"]

# Seconds between two samples while Python runs.
_INTERVAL = 0.001
# And while it waits: pyinstrument takes samples only when a function is called, and uvloop waits without a call.
_WAITING_INTERVAL = 0.01
# Lines of the text.
_LONGEST = 300


def require_profiler() -> None:
    """Raise UsageError if pyinstrument is not installed, or if another profiler is active in this thread."""
    try:
        import pyinstrument.stack_sampler  # noqa: F401
    except ImportError:
        raise UsageError(
            "%%arun --profile needs pyinstrument, which is not installed: run `%pip install pyinstrument`, or leave "
            "out --profile"
        ) from None
    hook = sys.getprofile()
    if hook is not None and not any(each.is_hook(hook) for each in CellProfile.active):
        raise UsageError(
            "%%arun --profile: the cell was not run, because another profiler is active in this thread "
            f"(sys.getprofile() returns {repr_of(hook, 100)}). Stop that one first, or leave out --profile"
        )


class CellProfile:
    """A context manager: profiles the block and the tasks that it starts, and displays the profile at its end.

    UsageError if :func:`require_profiler` raises it. Several may go on at a time, each for its own tasks. Nothing is
    left when the block has ended, neither in ``sys.getprofile()`` nor in the Context.
    """

    active: ClassVar[set[CellProfile]] = set()

    def __init__(self, shell: InteractiveShell, tasks: Tasks, title: str) -> None:
        require_profiler()
        from pyinstrument.stack_sampler import get_stack_sampler

        self._shell = shell
        self._sampler = get_stack_sampler()
        self._brood = Brood(tasks.watch)
        self._title = title
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> CellProfile:
        self._samples = Samples(self._brood, self._title, inspect.currentframe(), self._named)
        self._take = self._samples.take
        self._began, self._cpu_began = time.time(), time.process_time()
        self._sampler.subscribe(self._take, desired_interval=_INTERVAL, use_async_context=False)
        self._hook: Any = sys.getprofile()
        CellProfile.active.add(self)
        self._shell.events.register("post_execute", self._look)
        self._brood.__enter__()
        self._tick()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self not in CellProfile.active:
            return  # its loop was closed before, and there is no output any more
        took, cpu = time.time() - self._began, time.process_time() - self._cpu_began
        is_complete = self._stop()
        self._brood.__exit__()
        try:
            self._show(took, cpu)
        except Exception as error:  # the outcome of the cell must not be lost
            print(f"ipyrunner: the profile cannot be shown: {describe(error)}", file=sys.stderr)
        if not is_complete and not is_a(exc, KeyboardInterrupt):  # an interrupt may have ended the profiler, too
            print(
                "ipyrunner: the profile is not complete. It ended before the cell did, by sys.setprofile(), by an "
                "exception of a signal handler, or at the recursion limit",
                file=sys.stderr,
            )
        # Tasks that go on keep their Context, and so the brood; nothing must keep the samples.
        del self._samples, self._take

    def _stop(self) -> bool:
        """Stop sampling; return whether no samples are missing."""
        hook = sys.getprofile()
        self._sampler.unsubscribe(self._take)
        if not self.is_hook(hook) and callable(hook) and sys.getprofile() is None:
            sys.setprofile(hook)  # the cell has set it
        CellProfile.active.discard(self)
        with suppress(ValueError):  # the cell has removed it
            self._shell.events.unregister("post_execute", self._look)
        self._timer.cancel()
        return self.is_hook(hook)

    def _look(self) -> None:
        """After each cell: stop if the loop is closed. A task that ignores its cancellation never leaves the block."""
        if self._loop.is_closed():
            self._stop()

    def is_hook(self, hook: object) -> bool:
        """Return whether *hook*, which ``sys.getprofile()`` has returned, is pyinstrument's."""
        return type(hook) is type(self._hook)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_WAITING_INTERVAL, self._tick)

    def _named(self, filename: str) -> str:
        name = name_file(self._shell, filename)
        return name if name.startswith("In[") else filename

    def _show(self, took: float, cpu: float) -> None:
        from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer
        from pyinstrument.session import Session
        from pyinstrument.util import file_supports_color, file_supports_unicode

        samples = self._samples
        summary = f"{samples.root}: {took:.3f} s, of which {cpu:.3f} s of processor time ({samples.count} samples)\n\n"

        class TextRenderer(ConsoleRenderer):
            def render_preamble(self, session: Session) -> str:
                return summary

        session = Session.from_json(
            {
                "frame_records": samples.records,
                "start_time": self._began,
                "duration": took,
                "cpu_time": cpu,
                "min_interval": _INTERVAL,
                "max_interval": _INTERVAL,
                "sample_count": samples.count,
                "start_call_stack": [samples.root],
                "target_description": samples.root,
                "sys_path": [path for path in sys.path if type(path) is str],
                "sys_prefixes": Session.current_sys_prefixes(),
            }
        )
        notebook = hasattr(self._shell, "kernel")
        coloured = str(self._shell.colors).lower() != "nocolor" and file_supports_color(sys.stdout)
        renderer = TextRenderer(unicode=notebook or file_supports_unicode(sys.stdout), color=coloured and not notebook)
        lines = renderer.render(session).rstrip().splitlines()
        bundle = {"text/plain": "\n".join(lines[:_LONGEST] + ["…"] * (len(lines) > _LONGEST))}
        if notebook and samples.records:
            page = html.escape(HTMLRenderer().render(session), quote=False).replace("'", "&#x27;")
            bundle["text/html"] = (
                f"<iframe title='Profile' srcdoc='{page}' width='100%' height='400' "
                "style='border: 0; resize: vertical'></iframe>"
            )
        display(bundle, raw=True)
