"""ipyrunner: one persistent asyncio.Runner per notebook.

``%load_ext ipyrunner`` loads the extension; :func:`get_runner` returns the notebook's runner. :class:`Runner` and
:func:`run` are asyncio's own as of Python 3.14, on 3.11 and later, without IPython.

The layers, each of which knows only those after it:

* ``kernel``: ipykernel's kernel with the extension loaded, and its kernelspec.
* ``extension``: puts the parts in place on one shell, and takes them back.
* ``terminal``: the prompt of the IPython terminal.
* ``ipython``: the way of a cell: source, run, traceback; the magics.
* ``cells``: the first cell, cells inside cells, notes on mistakes.
* ``ipykernel``: requests, signals, output, comms.
* ``installation``: what a part of the extension gets.
* ``notebook``: ``NotebookRunner``, what one notebook keeps.
* ``audience``: who looks at what is printed after its cell.
* ``settings``: the settings of a notebook's runner.
* ``aio``: asyncio alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .aio.runner import Runner, run

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from IPython.core.interactiveshell import InteractiveShell

    from .ipykernel.widget_events import Changes
    from .ipython.magics.tasks_table import TaskTable
    from .notebook import NotebookRunner

__all__ = ["NotebookRunner", "Runner", "await_", "changes", "event", "get_runner", "input", "run", "tasks"]
__version__ = "0.1.0"

_T = TypeVar("_T")


def __getattr__(name: str) -> Any:
    if name == "NotebookRunner":
        from .notebook import NotebookRunner

        return NotebookRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def get_runner() -> NotebookRunner:
    """Return the notebook's runner.

    RuntimeError outside IPython, before ``%load_ext ipyrunner``, and on threads other than the main one.
    """
    from .extension import get_runner

    return get_runner()


def await_(awaitable: Awaitable[_T]) -> _T:
    """Wait for *awaitable* in code that is not async; return its result, or raise its exception. As ``%arun`` does.

    In a cell without ``await``, and in the functions that it calls, the notebook's loop runs until it is done; SIGINT
    cancels it. In a cell that awaits, and in tasks, it works where the task has a portal of greenback (``await
    greenback.ensure_portal()``: once for all cells, which share a task), or with ``NotebookRunner.nested``; the loop
    and other tasks go on meanwhile. Else RuntimeError; also outside IPython, before ``%load_ext ipyrunner``, and on
    threads other than the main one. TypeError for what cannot be awaited.
    """
    from .extension import await_

    return await_(awaitable)


async def input(prompt: object = "", *, password: bool = False) -> str:
    """Ask the user, as the builtin ``input`` does (for a *password*, ``getpass``), and let the loop go on meanwhile.

    Any *prompt* is shown by its ``str()``. One question after the other. Cancelling ends the waiting; the front end may
    go on showing the question. EOFError at the end of the input; StdinNotImplementedError where nobody can be asked
    (papermill, ``jupyter execute``).
    RuntimeError in a task whose cell has ended, outside IPython, before ``%load_ext ipyrunner``, and on threads other
    than the main one: from there ``asyncio.run_coroutine_threadsafe(ipyrunner.input(...), loop).result()``. In a
    terminal a *password* is asked for by ``getpass``, which blocks the loop.
    """
    from .extension import ask

    return await ask(prompt, password=password)


def tasks(*, ended: bool = False) -> TaskTable:
    """Return the tasks of the notebook's loop, what ``%atasks`` shows; with *ended* also the last that have ended.

    A sequence of objects with ``number``, ``name``, ``state``, ``cell``, ``age`` (seconds), ``function``, ``waits_for``
    and ``task``. RuntimeError outside IPython, before ``%load_ext ipyrunner``, and on threads other than the main one.
    """
    from .extension import tasks

    return tasks(ended=ended)


def event(source: Any, name: str | None = None) -> asyncio.Future[Any]:
    """Return a future for what happens next to *source*, a widget or another object with traits: ``await`` it.

    *name* is a trait, whose new value the future gets; by default ``"value"``. Or it is an event, which the widget has
    a method ``on_NAME(callback, remove=False)`` for; by default ``"click"`` where there is ``on_click``. The future
    then gets what the callback would: of a click the button, of ``"msg"`` the tuple ``(widget, content, buffers)``.

    What happens after this call counts, whether or not the future is awaited yet. Cancelling it ends the watching.
    RuntimeError if the widget is closed, now or while somebody waits, and where no event loop runs; TypeError for an
    object without traits, ValueError for a name that it does not have.
    """
    from .ipykernel.widget_events import event

    return event(source, name)


def changes(source: Any, name: str | None = None, *, latest: bool = False) -> Changes:
    """Return an asynchronous iterator over what happens to *source* from now on: ``async for value in ...``.

    *source* and *name* are those of :func:`event`. Nothing is lost that happens between two steps; with *latest*, only
    the last of that is kept. The iteration ends when the widget is closed. Watching ends with the iteration, with
    ``aclose()``, at the end of an ``async with``, and when the iterator is let go: by ``break``, an exception, an
    interrupt.
    """
    from .ipykernel.widget_events import Changes

    return Changes(source, name, latest=latest)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext ipyrunner``: run the shell's cells in one loop and one Context. A second call does nothing."""
    from .extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext ipyrunner``: close the loop and restore the shell as it was."""
    from .extension import unload

    unload(shell)
