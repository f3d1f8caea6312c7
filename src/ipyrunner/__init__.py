"""ipyrunner gives a notebook its own asyncio event loop, which lasts as long as the kernel.

``%load_ext ipyrunner`` loads the extension; :func:`get_runner` returns the notebook's runner. :class:`Runner` and
:func:`run` are those of asyncio in Python 3.14, also for Python 3.11 to 3.13. They do not need IPython.

The layers, each of which knows only those after it:

* ``kernel``: ipykernel's kernel with the extension loaded, and its kernelspec.
* ``extension``: puts the parts in place on one shell, and removes them.
* ``terminal``: the prompt of the IPython terminal.
* ``ipython``: how a cell is read, run and reported; the magics.
* ``cells``: the first cell, cells inside cells, notes on mistakes.
* ``ipykernel``: requests, signals, output, comms.
* ``installation``: what each part of the extension gets.
* ``notebook``: ``NotebookRunner``, what one notebook keeps.
* ``audience``: whether somebody sees output that is printed after its cell.
* ``settings``: the settings of a notebook's runner.
* ``log_handler``: a handler of ``logging``.
* ``aio``: all that needs only asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .aio.runner import Runner, run

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Awaitable

    from IPython.core.interactiveshell import InteractiveShell

    from .ipykernel.widget_events import Changes
    from .ipython.magics.tasks_table import TaskTable
    from .ipython.magics.timeline.trace import Trace
    from .log_handler import LogHandler
    from .notebook import NotebookRunner

__all__ = [
    "LogHandler",
    "NotebookRunner",
    "Runner",
    "await_",
    "changes",
    "event",
    "get_runner",
    "input",
    "run",
    "tasks",
    "trace",
]
__version__ = "0.1.0"

_T = TypeVar("_T")


def __getattr__(name: str) -> Any:
    if name == "NotebookRunner":
        from .notebook import NotebookRunner

        return NotebookRunner
    if name == "LogHandler":
        from .log_handler import LogHandler

        return LogHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def get_runner() -> NotebookRunner:
    """Return the notebook's runner: its event loop, its ContextVars, and its settings.

    RuntimeError outside IPython, before ``%load_ext ipyrunner``, and in threads other than the main one.
    """
    from .extension import get_runner

    return get_runner()


def await_(awaitable: Awaitable[_T]) -> _T:
    """Wait for *awaitable* in code that is not async, as ``%arun`` does; return its result or raise its exception.

    Works in cells without ``await`` and in the functions that they call: the notebook's loop runs until *awaitable* is
    done. An interrupt cancels it. In cells with ``await``, and in tasks, it works after ``await
    greenback.ensure_portal()`` (once is enough for all cells, which share one task), or with ``%config
    NotebookRunner.nested = True``. The loop and other tasks go on in the meantime.

    RuntimeError in a cell with ``await`` otherwise, outside IPython, before ``%load_ext ipyrunner``, and in threads
    other than the main one. TypeError for what cannot be awaited.
    """
    from .extension import await_

    return await_(awaitable)


async def input(prompt: object = "", *, password: bool = False) -> str:
    """Ask the user and return the answer, as the builtin ``input`` does; background tasks go on in the meantime.

    With *password* the answer is not shown, as with ``getpass``. In a terminal this blocks the loop. The prompt is
    ``str(prompt)``. Questions are asked one after the other. If the call is cancelled it stops waiting, but the front
    end may still show the question.

    EOFError at the end of the input; StdinNotImplementedError where nobody can be asked (papermill, ``jupyter
    execute``). RuntimeError in a task whose cell has ended, outside IPython, before ``%load_ext ipyrunner``, and in
    threads other than the main one: there use ``asyncio.run_coroutine_threadsafe(ipyrunner.input(...), loop)``.
    """
    from .extension import ask

    return await ask(prompt, password=password)


def tasks(*, ended: bool = False) -> TaskTable:
    """Return the tasks of the notebook's loop, as ``%atasks`` shows them; with *ended* also those that ended last.

    A sequence of objects with ``number``, ``name``, ``state``, ``cell``, ``age`` (seconds, or None), ``function``,
    ``waits_for`` and ``task``. RuntimeError outside IPython, before ``%load_ext ipyrunner``, and in threads other than
    the main one.
    """
    from .extension import tasks

    return tasks(ended=ended)


def trace(file: str | os.PathLike[str] | None = None) -> Trace:
    """Return a trace of the notebook's loop: a timeline of all its tasks, from its ``start()`` to its ``stop()``.

    ``with ipyrunner.trace() as t: ...`` traces the block. Displayed, ``t`` is a picture; ``t.summary`` says the same in
    words, and ``t.save(file)`` writes a file for https://ui.perfetto.dev. With *file* it is saved there at the end;
    OSError now if that cannot be written. ``%%arun --trace`` traces one cell.

    RuntimeError outside IPython, before ``%load_ext ipyrunner``, and in threads other than the main one.
    """
    from .extension import trace

    return trace(file)


def event(source: Any, name: str | None = None) -> asyncio.Future[Any]:
    """Return a future for the next change or event of *source*, a widget or another object with traits.

    ``await ipyrunner.event(slider)`` waits for the next value, ``await ipyrunner.event(button)`` for the next click.

    *name* is a trait, and the result is its new value; or an event for which the widget has a method
    ``on_NAME(callback, remove=False)``, and the result is what the callback is called with: the button for a click,
    ``(widget, content, buffers)`` for ``"msg"``. The default is ``"click"`` if there is ``on_click``, else ``"value"``.

    What happens after this call counts, even before the future is awaited. To stop watching, cancel the future.
    RuntimeError if the widget is closed, now or later, and where no event loop runs; TypeError for an object without
    traits, ValueError for a name that it does not have.
    """
    from .ipykernel.widget_events import event

    return event(source, name)


def changes(source: Any, name: str | None = None, *, latest: bool = False) -> Changes:
    """Return an asynchronous iterator over all changes or events of *source* from now on: ``async for value in ...``.

    *source* and *name* are as for :func:`event`. Changes between two steps are kept; with *latest* only the last one.
    The iteration ends when the widget is closed. Watching stops when the iteration ends, also by ``break``, an
    exception or an interrupt, with ``aclose()``, and at the end of an ``async with`` block.
    """
    from .ipykernel.widget_events import Changes

    return Changes(source, name, latest=latest)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext ipyrunner``: give the notebook its own event loop. A second call does nothing."""
    from .extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext ipyrunner``: close the loop and restore the shell as it was."""
    from .extension import unload

    unload(shell)
