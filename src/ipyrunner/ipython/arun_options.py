"""The options of ``%%arun``."""

from __future__ import annotations

import keyword
from typing import Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

__all__ = ["ArunArguments", "arun_options", "seconds", "unquoted"]


def seconds(text: str) -> float:
    """Parse an option that is a number of seconds."""
    value = float(text)
    if not value >= 0:
        raise ValueError(text)
    return value


def _variable(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError(text)
    return text


def unquoted(text: str) -> str:
    """Parse an option that may be in quotes."""
    # IPython splits the line and leaves the quotes.
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


_variable.__name__ = "name of a variable"
seconds.__name__ = "number of seconds"  # argparse: "invalid number of seconds value: 'abc'"

_OPTIONS = (
    argument("--timeout", type=seconds, metavar="SECONDS", help="raise TimeoutError after SECONDS; the main task is "
             "cancelled and cleans up first"),
    argument("--name", type=unquoted, metavar="NAME", help="name of the main task"),
    argument("--debug", action="store_true", help="asyncio's debug mode for the length of the cell"),
    argument("--context", choices=["copy"], help="'copy': the cell's ContextVar changes stay in the cell"),
    argument("--fresh", action="store_true", help="a loop and a Context of the cell's own, closed at its end: exactly "
             "asyncio.run"),
    argument("--background", action="store_true", help="return at once: the cell goes on as a task, its output appears "
             "where it stands, its value is a handle to await, cancel and ask"),
    argument("--concurrent", action="store_true", help="begin at once, though another cell awaits, and let others "
             "begin while this one awaits: a task of its own, with a copy of the Context (ipykernel 7, IPython 9.8)"),
    argument("--scope", action="store_true", help="the cell ends when all tasks that it has started have ended; the "
             "first failure cancels the others and is raised as an ExceptionGroup"),
    argument("--progress", action="store_true", help="show, while the cell runs, the time and how many of its tasks "
             "run, are done and have failed (needs tqdm)"),
    argument("-o", "--output", type=_variable, metavar="VAR", help="assign the value to VAR and display nothing"),
)  # fmt: skip


def arun_options(function: Any) -> Any:
    """Decorate a magic with the options; its docstring gets their help."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return magic_arguments()(function)


@arun_options
def arun(self: object, line: str, cell: str) -> None:
    """Stand in for the magic where only its options are read."""


class ArunArguments(NamedTuple):
    """Parsed options."""

    timeout: float | None = None
    name: str | None = None
    debug: bool = False
    context: str | None = None
    fresh: bool = False
    background: bool = False
    concurrent: bool = False
    scope: bool = False
    progress: bool = False
    output: str | None = None

    @classmethod
    def parse(cls, line: str) -> ArunArguments:
        """Parse the line of ``%%arun``. UsageError if it is wrong."""
        try:
            arguments = cls(**vars(parse_argstring(arun, line)))
            if arguments.fresh and (arguments.background or arguments.scope or arguments.progress):
                raise UsageError(
                    "%%arun --fresh has a loop of its own, closed at the end of the cell: leave out --fresh, or "
                    "--background, --scope and --progress"
                )
            if arguments.concurrent and (arguments.fresh or arguments.background):
                raise UsageError(
                    "%%arun --concurrent is for a cell that awaits in the notebook's loop: leave it out, or --fresh "
                    "and --background"
                )
            if arguments.background and arguments.debug:
                raise UsageError("%%arun --debug lasts as long as its cell: `%config NotebookRunner.debug = True`")
        except ValueError as exc:  # of shlex: a quotation that is not closed
            raise UsageError(f"%%arun {line}: {exc}") from None
        return arguments

    @classmethod
    def of(cls, line: str) -> ArunArguments:
        """Parse the line; a wrong one has no options: the magic itself reports it."""
        try:
            return cls.parse(line)
        except UsageError:
            return cls()
