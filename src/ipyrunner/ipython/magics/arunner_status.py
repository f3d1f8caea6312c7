"""What ``%arunner`` shows."""

from __future__ import annotations

from typing import NamedTuple

from ...aio.tasks.safe_names import label_of, short
from ...aio.user_runs.nested_runs import is_allowed
from ...notebook import NotebookRunner
from .tasks_table import few

__all__ = ["Status"]


class Status(NamedTuple):
    """The state of a notebook's runner; its text is a table."""

    loop: str
    host: str
    debug: str
    tasks: str
    context: str
    interrupts: str

    @classmethod
    def of(cls, runner: NotebookRunner) -> Status:
        """Read the state of *runner*. Makes no loop."""
        present = runner.present
        if present is None:
            return cls("none yet: a cell that needs it makes it", "-", "-", "-", "-", cls._interrupts(runner))
        loop, hosting = present.loop, present.hosting
        tasks = [task.task for task in present.tasks.started()]
        host = "none at the moment: a cell that awaits blocks until it ends"
        if hosting is not None:
            host = type(hosting.host).__qualname__ + (", in turns of short slices" if hosting.polls else "")
        names = sorted(short(var.name) for var in runner.user_variables())
        return cls(
            loop=f"{type(loop).__module__}.{type(loop).__qualname__}{', closed' if loop.is_closed() else ''}"
            f"{', may run inside itself (nest-asyncio has patched asyncio)' if is_allowed(loop) else ''}",
            host=host,
            debug=str(loop.get_debug()),
            tasks=f"{len(tasks)}{few([label_of(task) for task in tasks])}",
            context=f"{len(names) or 'no'} context variable{'s' if len(names) != 1 else ''} set{few(names)}",
            interrupts=cls._interrupts(runner),
        )

    @staticmethod
    def _interrupts(runner: NotebookRunner) -> str:
        return (
            f"{runner.interrupts} so far; code that does not let the loop run gets KeyboardInterrupt after "
            f"{runner.interrupt_grace:g} s"
        )

    def __repr__(self) -> str:
        return "\n".join(f"{field:<12}{value}" for field, value in self._asdict().items())
