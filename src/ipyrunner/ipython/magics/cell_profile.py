"""``%%arun --profile``: where the time of a cell went, by await and by function, of its task and those it starts.

pyinstrument takes a sample of the thread's stack each millisecond in which Python runs. Its mode for asyncio is made for
one task: as soon as another one ends, the time in which all wait is that of the event loop. So here it is used without
that mode, and each sample is sorted by us. If the code that runs was started by the cell, which a ContextVar tells, the
sample is its stack, without the kernel and the loop below it. If not, the cell waits, and the sample is the line where
one of its tasks waits: each of them in turn, so that they share the time.
"""

from __future__ import annotations

import asyncio
import html
import inspect
import os
import random
import sys
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.display import display

from ...aio.introspection.frames import OURS
from ...aio.introspection.wait_graph import awaited, frames_of
from ...aio.tasks.registry import Tasks
from ...aio.tasks.safe_names import describe, repr_of, short
from ...aio.tasks.task_scope import Brood
from ..loop_reports import name_file
from ..top_level_await import run_body

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CellProfile", "require_pyinstrument"]

# Seconds between two samples while Python runs, and between two of the tasks that wait while nothing does.
_INTERVAL = 0.001
_WAITING_INTERVAL = 0.01
# Functions in all samples together, which limits memory and output: with more, pairs of samples become one.
_MOST = 20_000
_DEEPEST = 100
# Tasks that are looked at to find one that waits for no other task of the cell.
_LOOKS = 10
_AWAIT = "[await]"
_LOOP_FUNCTIONS = ("run_forever\x00", "_run_once\x00", "_run\x00", "__step\x00", "run_until_complete\x00")
_ASYNCIO = os.path.dirname(asyncio.__file__)


def require_pyinstrument() -> None:
    """Raise UsageError if pyinstrument is not installed, or if another profiler is active in this thread."""
    try:
        import pyinstrument.stack_sampler  # noqa: F401
    except ImportError:
        raise UsageError(
            "%%arun --profile needs pyinstrument, which is not installed: run `%pip install pyinstrument`, or leave "
            "out --profile"
        ) from None
    active = sys.getprofile()
    if active is not None and active is not CellProfile.hook:
        raise UsageError(
            f"%%arun --profile: another profiler is active in this thread (sys.getprofile() is {repr_of(active, 100)}). "
            "Stop it, or leave out --profile"
        )


class CellProfile:
    """A context manager that profiles the block and the tasks that it starts, and displays the profile at its end.

    UsageError as :func:`require_pyinstrument` has it. Several can be active at a time: each has its own tasks.
    """

    # What pyinstrument has put in the place that sys.getprofile() shows.
    hook: Any = None

    def __init__(self, shell: InteractiveShell, tasks: Tasks, title: str) -> None:
        require_pyinstrument()
        from pyinstrument.stack_sampler import get_stack_sampler

        self._shell, self._title = shell, title
        self._sampler = get_stack_sampler()
        self._brood = Brood(tasks.watch)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._turn: Iterator[asyncio.Task[Any]] = iter(())
        self._root = short(title, 200)
        self._last = [self._root, _AWAIT]
        self._records: list[tuple[list[str], float]] = []
        self._samples = self._size = 0
        self._random = random.Random(0)
        self._names: dict[str, str] = {}
        code = run_body.__code__
        self._body = f"{code.co_name}\x00{code.co_filename}\x00{code.co_firstlineno}"

    def __enter__(self) -> CellProfile:
        self._below = set(_functions(inspect.currentframe()))
        self._began, self._cpu_began = time.time(), time.process_time()
        self._brood.__enter__()
        self._tick()
        self._sampler.subscribe(self._take, desired_interval=_INTERVAL, use_async_context=False)
        CellProfile.hook = self._hook = sys.getprofile()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        hook = sys.getprofile()
        self._sampler.unsubscribe(self._take)
        if hook is not CellProfile.hook and callable(hook) and sys.getprofile() is None:
            sys.setprofile(hook)  # one that the cell leaves behind
        self._timer.cancel()
        self._brood.__exit__()
        try:
            self._show()
            if hook is not self._hook:
                print(
                    "ipyrunner: the profile is not complete: code in the cell has called sys.setprofile(), or raised "
                    "RecursionError in the profiler",
                    file=sys.stderr,
                )
        except Exception as error:  # the cell's own outcome is not to be lost
            print(f"ipyrunner: the profile cannot be shown: {describe(error)}", file=sys.stderr)
        finally:
            self._records.clear()  # tasks that go on keep their Context, and that keeps this object

    def _take(self, stack: list[str], seconds: float, _async_state: object) -> None:
        """Take a sample. Called in the middle of any code of the thread."""
        try:
            own = self._trimmed(stack) if self._brood.is_here() else []
            sample = [self._root, *own] if own else self._waiting()
        except Exception:
            return  # it would be raised in that code
        self._samples += 1
        if self._records and self._records[-1][0] == sample:
            self._records[-1] = sample, self._records[-1][1] + seconds
            return
        self._records.append((sample, seconds))
        self._size += len(sample)
        if self._size > _MOST:
            self._thin()

    def _trimmed(self, stack: list[str]) -> list[str]:
        """Return the names in the stack without those of the kernel and the loop, which are its first."""
        functions = [info.partition("\x01")[0] for info in stack]
        start = 0
        if self._body in functions:
            start = len(functions) - functions[::-1].index(self._body)
            below: set[str] = set()
        else:
            below = self._below
        while start < len(functions) and (functions[start] in below or _is_machinery(functions[start])):
            start += 1
        return [self._named(info) for info in stack[start : start + _DEEPEST]]

    def _waiting(self) -> list[str]:
        """Return where a task of the cell waits; where one did, if that cannot be told at this moment."""
        running = self._brood.running
        for _ in range(_LOOKS):
            task = next(self._turn, None)
            if task is None:
                self._turn = iter([self._task, *running] if self._task is not None else [*running])
                continue
            if task.done() or task is asyncio.current_task(self._loop):
                continue
            if running and any(future in running for future in awaited([task])):
                continue
            functions = list(_functions_of(task))
            if task is self._task and running and self._body not in (f.partition("\x01")[0] for f in functions):
                continue  # its code has ended, and it waits for the others
            self._last = [self._root, *self._trimmed(functions), _AWAIT]
            break
        return self._last

    def _tick(self) -> None:
        # That Python runs makes pyinstrument take a sample: uvloop waits for a long time without any.
        self._timer = self._loop.call_later(_WAITING_INTERVAL, self._tick)

    def _thin(self) -> None:
        """Make one of each two samples: the one or the other at random, in proportion to their times."""
        records, self._records = self._records, []
        for i in range(0, len(records), 2):
            pair = records[i : i + 2]
            times = [seconds for _, seconds in pair]
            total = sum(times)
            stack = self._random.choices([stack for stack, _ in pair], times if total > 0 else None)[0]
            self._records.append((stack, total))
        self._size = sum(len(stack) for stack, _ in self._records)

    def _named(self, info: str) -> str:
        """Return pyinstrument's text for a function, with the number of the cell that it is in."""
        known = self._names.get(info)
        if known is not None:
            return known
        function, _, attributes = info.partition("\x01")
        name, filename, line, *rest = [*function.split("\x00"), "", "", ""]
        text = short(name, 200)
        if line.isdigit() and not any(rest):
            cell = name_file(self._shell, filename)
            text += f"\x00{short(cell if cell.startswith('In[') else filename, 300)}\x00{line}"
            text += "".join(f"\x01{short(attribute, 200)}" for attribute in attributes.split("\x01") if attribute)
        # The page has them in a script element, which these would end.
        text = self._names[info] = text.replace("</", "<\\/").replace("<!", "<\\!")
        return text

    def _show(self) -> None:
        from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer
        from pyinstrument.session import Session
        from pyinstrument.util import file_supports_color, file_supports_unicode

        took, cpu = time.time() - self._began, time.process_time() - self._cpu_began
        summary = f"{self._title}: {took:.3f} s, of which {cpu:.3f} s of processor time ({self._samples} samples)\n\n"

        class TextRenderer(ConsoleRenderer):
            def render_preamble(self, session: Session) -> str:
                return summary

        session = Session.from_json(
            {
                "frame_records": self._records,
                "start_time": self._began,
                "duration": took,
                "cpu_time": cpu,
                "min_interval": _INTERVAL,
                "max_interval": _INTERVAL,
                "sample_count": self._samples,
                "start_call_stack": [self._root],
                "target_description": self._root,
                "sys_path": [path for path in sys.path if type(path) is str],
                "sys_prefixes": Session.current_sys_prefixes(),
            }
        )
        live = hasattr(self._shell, "kernel")
        text = TextRenderer(
            unicode=live or file_supports_unicode(sys.stdout), color=not live and file_supports_color(sys.stdout)
        ).render(session)
        bundle = {"text/plain": text.rstrip()}
        if live:
            page = html.escape(HTMLRenderer().render(session))
            bundle["text/html"] = (
                f'<iframe title="profile" srcdoc="{page}" width="100%" height="400" '
                'style="border: 0; resize: vertical"></iframe>'
            )
        display(bundle, raw=True)


def _is_machinery(function: str) -> bool:
    """Return whether the function is the thread, a part of ipyrunner, or one by which asyncio runs callbacks."""
    filename = function.split("\x00")[1] if "\x00" in function else ""
    loop = filename.startswith(_ASYNCIO) and function.startswith(_LOOP_FUNCTIONS)
    return loop or filename == "<thread>" or filename.startswith(OURS)


def _functions(frame: FrameType | None) -> Iterator[str]:
    """Give the functions from *frame* outwards, as pyinstrument names them."""
    while frame is not None:
        code = frame.f_code
        yield f"{code.co_name}\x00{code.co_filename}\x00{code.co_firstlineno}"
        frame = frame.f_back


def _functions_of(task: asyncio.Task[Any]) -> Iterator[str]:
    """Give those in which a task waits, the outermost first."""
    for frame in frames_of(task):
        code = frame.f_code
        yield f"{code.co_name}\x00{code.co_filename}\x00{code.co_firstlineno}\x01l{frame.f_lineno}"
