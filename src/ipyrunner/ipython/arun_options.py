"""The options of magics: their help, parsing and completion; and the options of ``%%arun``."""

from __future__ import annotations

import argparse
import difflib
import keyword
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicHelpFormatter, argument, kwds, magic_arguments, parse_argstring

from ..aio.tasks.safe_names import short

__all__ = ["ARUN", "ArunArguments", "MagicOptions", "seconds", "unquoted", "without_comment"]

# Characters of a line of help: an output in JupyterLab may be as narrow.
_WIDTH = 78
# The wrong word in a message of argparse.
_WRONG_WORD = re.compile(r"unrecognized arguments: ([^\s=]+)|invalid choice: '([^']*)'")


def without_comment(line: str) -> str:
    """Return *line* up to a ``#`` that begins a word and is not in quotes."""
    for match in re.finditer(r"(^|\s)#", line):
        before = line[: match.start()]
        if before.count('"') % 2 == before.count("'") % 2 == 0:
            return before
    return line


class _HelpFormatter(MagicHelpFormatter):  # type: ignore[misc]
    """As IPython's, which puts a value that is no plain word into <>: ``--trace <[FILE]>``."""

    _format_action_invocation = argparse.HelpFormatter._format_action_invocation


class MagicOptions:
    """The options of the magic *title*, such as ``%atasks``; *usage* is how it is called, a line for each way."""

    def __init__(self, title: str, usage: Sequence[str], *arguments: Any) -> None:
        self.title = title
        # IPython puts one % in front, and argparse turns %% into %.
        self._usage = "\n  ".join(usage).replace("%", "%%").removeprefix("%%")
        self._arguments = (
            *arguments,
            argument("-h", "--help", action="store_true", help="show this help and do nothing else"),
        )

    def __call__(self, function: Any) -> Any:
        """Decorate the magic: it can be parsed, and its docstring gets the help."""
        for each in reversed(self._arguments):
            function = each(function)
        # argparse takes the width of the terminal that the kernel was started in, which is not where the help is read.
        formatter = partial(_HelpFormatter, width=_WIDTH)
        return magic_arguments()(kwds(usage=self._usage, formatter_class=formatter)(function))

    def parse(self, function: Any, line: str) -> Any:
        """Return the arguments in the *line* of the decorated magic *function*; UsageError if the line is wrong."""
        try:
            return parse_argstring(function, line)
        except (UsageError, ValueError) as exc:  # ValueError of shlex: a quotation that is not closed
            # With one %: for a lone `%%arun --help` IPython only says that the cell is empty.
            shown = self.title.replace("%%", "%")
            advice = self._advice(line, str(exc))
            raise UsageError(f"{self.title} {line}: {exc}.{advice} {shown} --help shows the options") from None

    def _advice(self, line: str, message: str) -> str:
        """Return what may have been meant by the word in *line* that *message* calls wrong; empty if not known."""
        wrong = _WRONG_WORD.search(message)
        if wrong is None or "maybe you meant" in message:  # argparse's own question (Python 3.15)
            return ""
        option, value = wrong.groups()
        # What is no option can only be one of the actions.
        given = self._arguments if option is None else [each for each in self._arguments if each.args[0][0] != "-"]
        choices = [choice for each in given for choice in each.kwds.get("choices", ())]
        if near := difflib.get_close_matches(
            option or value, choices if option is None else [*self.names, *choices], n=1
        ):
            return f" Did you mean {near[0]}?"
        texts = {name for each in self._arguments if each.kwds.get("type") is unquoted for name in each.args}
        if option is not None and not option.startswith("-") and not texts.isdisjoint(re.split(r"[\s=]", line)):
            return " A value with spaces has to be in quotes."
        return ""

    @staticmethod
    def show_help(function: Any) -> None:
        """Print the help of the magic."""
        print(function.parser.format_help().removeprefix("::").strip("\n"))

    @property
    def names(self) -> list[str]:
        """The options, the long names first."""
        names = [name for each in self._arguments for name in each.args if name.startswith("-")]
        return sorted(names, key=lambda name: not name.startswith("--"))

    def values_of(self, option: str) -> list[str] | None:
        """Return the values that may follow *option*: none for a free value; None if the option takes no value."""
        for each in self._arguments:
            if option in each.args and option.startswith("-") and each.kwds.get("action") != "store_true":
                return list(each.kwds.get("choices", ()))
        return None


def seconds(text: str) -> float:
    """Parse an option that is a number of seconds."""
    with suppress(ValueError):
        if (value := float(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"SECONDS has to be a number, 0 or more, not {short(text)!r}")


def _variable(text: str) -> str:
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"VAR has to be the name of a variable, such as result, not {short(text)!r}")
    if keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"VAR has to be the name of a variable: {text} is a keyword of Python")
    return text


def unquoted(text: str) -> str:
    """Parse an option that may be in quotes."""
    # IPython splits the line and leaves the quotes.
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


ARUN = MagicOptions(
    "%%arun",
    ("%arun EXPRESSION", "%%arun [options]"),
    argument("--timeout", type=seconds, metavar="SECONDS", help="cancel the cell after SECONDS; it cleans up and ends "
             "with TimeoutError"),
    argument("--name", type=unquoted, metavar="NAME", help="name of the cell's task, as %%atasks shows it"),
    argument("--debug", action="store_true", help="turn asyncio's debug mode on while the cell runs"),
    argument("--context", choices=["copy"], metavar="copy", help="ContextVars that the cell sets are not "
             "set in later cells"),
    argument("--fresh", action="store_true", help="run the cell as asyncio.run() does: in a new event loop, which is "
             "closed when the cell ends"),
    argument("--background", action="store_true", help="return at once and go on as a background task. Its output "
             "appears below this cell. The cell's value is an object to await, to cancel and to ask for the result"),
    argument("--concurrent", action="store_true", help="start even if another cell is awaiting, and let other cells "
             "start while this one awaits. The cell runs in its own task, with a copy of the ContextVars (needs "
             "ipykernel 7 and IPython 9.8)"),
    argument("--scope", action="store_true", help="wait for all tasks that the cell has started. If one fails, the "
             "others are cancelled and the cell fails with an ExceptionGroup"),
    argument("--progress", action="store_true", help="show a progress bar: how many tasks of the cell are running, "
             "done and failed (needs tqdm)"),
    argument("--profile", action="store_true", help="show at the end where the time went, by await and by function, "
             "of the cell and of the tasks that it has started (needs pyinstrument)"),
    argument("--trace", nargs="?", const="", type=unquoted, metavar="FILE", help="show a timeline of the cell and its "
             "tasks: when each ran, waited or was ready. With FILE also write it there, for ui.perfetto.dev"),
    argument("-o", "--output", type=_variable, metavar="VAR", help="assign the cell's value to VAR instead of "
             "displaying it"),
)  # fmt: skip


@ARUN
def arun(self: object, line: str, cell: str) -> None:
    """Do nothing: this function is for parsing the options without the magic."""


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
    profile: bool = False
    trace: str | None = None
    output: str | None = None
    help: bool = False

    @property
    def awaits(self) -> bool:
        """Whether the notebook's loop runs the body while the cell waits for it."""
        return not (self.fresh or self.background or self.help)

    @classmethod
    def parse(cls, line: str) -> ArunArguments:
        """Parse the line of ``%%arun``. UsageError if it is wrong."""
        arguments = cls(**vars(ARUN.parse(arun, line)))
        traced = arguments.trace is not None
        if arguments.fresh and (
            arguments.background or arguments.scope or arguments.progress or arguments.profile or traced
        ):
            raise UsageError(
                "%%arun --fresh runs the cell in a loop of its own, which is closed when the cell ends. Leave out "
                "--fresh, or leave out --background, --scope, --progress, --profile and --trace"
            )
        if traced and arguments.profile and sys.version_info < (3, 12):
            raise UsageError(
                "%%arun --trace and --profile exclude each other on Python 3.11, where both need the thread's profile "
                "function. Leave one of them out"
            )
        if arguments.concurrent and (arguments.fresh or arguments.background):
            raise UsageError(
                "%%arun --concurrent is for a cell that awaits in the notebook's loop. Leave out --concurrent, or "
                "leave out --fresh and --background"
            )
        if arguments.background and arguments.debug:
            raise UsageError(
                "%%arun --debug ends with its cell, and cannot be combined with --background: leave it out, or turn "
                "debug mode on for all cells with `%config NotebookRunner.debug = True`"
            )
        return arguments

    @classmethod
    def of(cls, line: str) -> ArunArguments:
        """Parse the line; a wrong one has no options: the magic itself reports it."""
        try:
            return cls.parse(line)
        except UsageError:
            return cls()
