"""ipyrunner: one persistent asyncio.Runner per notebook.

``%load_ext ipyrunner`` loads the extension; :func:`get_runner` returns the notebook's runner. :class:`Runner` and
:func:`run` are asyncio's own as of Python 3.14, on 3.11 and later, without IPython.

The layers, each of which knows only those after it:

* ``kernel``: ipykernel's kernel with the extension loaded, and interrupts by message.
* ``shell``: IPython and ipykernel: cells, magics, tracebacks, the extension.
* ``notebook``: ``NotebookRunner``, what one notebook keeps.
* ``aio``: asyncio alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .aio.runner import Runner, run

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .notebook import NotebookRunner
    from .shell.table import TaskTable

__all__ = ["NotebookRunner", "Runner", "get_runner", "input", "run", "tasks"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "NotebookRunner":
        from .notebook import NotebookRunner

        return NotebookRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_runner() -> NotebookRunner:
    """Return the notebook's runner.

    RuntimeError outside IPython, before ``%load_ext ipyrunner``, and on threads other than the main one.
    """
    from .shell.extension import get_runner

    return get_runner()


async def input(prompt: str = "", *, password: bool = False) -> str:
    """Ask the user, as the builtin ``input`` does (for a *password*, ``getpass``), and let the loop go on meanwhile.

    One question after the other. Cancelling ends the waiting; the front end may go on showing the question. EOFError at
    the end of the input; StdinNotImplementedError where nobody can be asked (papermill, ``jupyter execute``).
    RuntimeError in a task whose cell has ended, outside IPython, before ``%load_ext ipyrunner``, and on threads other
    than the main one: from there ``asyncio.run_coroutine_threadsafe(ipyrunner.input(...), loop).result()``. In a
    terminal a *password* is asked for by ``getpass``, which blocks the loop.
    """
    from .shell.extension import ask

    return await ask(prompt, password=password)


def tasks(*, ended: bool = False) -> TaskTable:
    """Return the tasks of the notebook's loop, what ``%atasks`` shows; with *ended* also the last that have ended.

    A sequence of objects with ``number``, ``name``, ``state``, ``cell``, ``age`` (seconds), ``function``, ``waits_for``
    and ``task``. RuntimeError outside IPython, before ``%load_ext ipyrunner``, and on threads other than the main one.
    """
    from .shell.extension import tasks

    return tasks(ended=ended)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext ipyrunner``: run the shell's cells in one loop and one Context. A second call does nothing."""
    from .shell.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext ipyrunner``: close the loop and restore the shell as it was."""
    from .shell.extension import unload

    unload(shell)
