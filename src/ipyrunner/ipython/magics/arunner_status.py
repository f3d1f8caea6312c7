"""What ``%arunner`` shows."""

from __future__ import annotations

from typing import NamedTuple

from ...aio.nested_runs import is_allowed
from ...aio.tasks.safe_names import label_of
from ...notebook import NotebookRunner

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
            return cls("none (made on first use)", "-", "-", "-", "-", cls._interrupts(runner))
        loop, hosting = present.loop, present.hosting
        tasks = [task.task for task in present.tasks.started()]
        host = "none: runs block" if hosting is None else type(hosting.host).__qualname__
        if hosting is not None and hosting.polls:
            host += ", by turns (no pollable fd)"
        variables = sorted(var.name for var in runner.user_variables())
        return cls(
            loop=f"{type(loop).__module__}.{type(loop).__qualname__}{', closed' if loop.is_closed() else ''}"
            f"{', runs inside itself (nest-asyncio has patched asyncio)' if is_allowed(loop) else ''}",
            host=host,
            debug=str(loop.get_debug()),
            tasks=f"{len(tasks)}{_few([label_of(task) for task in tasks])}",
            context=f"{len(variables)} set{_few(variables)}",
            interrupts=cls._interrupts(runner),
        )

    @staticmethod
    def _interrupts(runner: NotebookRunner) -> str:
        return f"{runner.interrupts} so far, forced after {runner.interrupt_grace} s"

    def __repr__(self) -> str:
        return "\n".join(f"{field:<12}{value}" for field, value in self._asdict().items())


def _few(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''})"
