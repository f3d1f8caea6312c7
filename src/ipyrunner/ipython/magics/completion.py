"""Tab completion of the magics: options, actions, and the numbers and names of tasks.

IPython has hooks for it (``set_hook("complete_command")``). But with jedi, its default, names that jedi finds in the
line as Python code (``--ti`` is ``- - time``) come first. So the two public methods that front ends call are replaced,
and where this module knows what may follow, only its own completions are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from IPython.core.completer import Completion

from ...aio.sigint.handlers import on_main_thread
from ...aio.tasks.safe_names import name_of
from ...installation import Installation
from ..arun_options import ARUN
from .arun import ACTIONS as ARUNNER_ACTIONS
from .arun import ARUNNER
from .atasks import ACTIONS, ATASKS

__all__ = ["install"]

_LINE = re.compile(r"\s*(?:[\w., ]+=\s*)?(%{0,2})(arun|arunner|atasks)\s+(.*)")
# A name that needs no quotes.
_PLAIN = re.compile(r"[\w.\[\]-]{1,60}")
_MOST = 100


def install(extension: Installation) -> None:
    """Put the part in place."""
    completion = _MagicCompletion(extension)
    extension.replace(extension.shell.Completer, "completions", lambda original: partial(completion.rich, original))
    extension.replace(extension.shell, "complete", lambda original: partial(completion.plain, original))


class _MagicCompletion:
    """What may follow in the line of a magic."""

    def __init__(self, extension: Installation) -> None:
        self._shell: Any = extension.shell
        self._runner = extension.runner

    def rich(self, original: Callable[..., Iterator[Completion]], text: str, offset: int) -> Iterator[Completion]:
        """Replace ``Completer.completions``, which kernels and prompts call; the cursor is at *offset* in *text*."""
        word, matches = self._complete(text[:offset].rpartition("\n")[2])
        if not matches:
            return original(text, offset)
        return iter([Completion(offset - len(word), offset, match, type="magic") for match in matches])

    def plain(
        self, original: Callable[..., Any], text: str, line: str | None = None, cursor_pos: int | None = None
    ) -> Any:
        """Replace ``shell.complete``, for kernels that ask for no details."""
        word, matches = self._complete((line or "")[:cursor_pos])
        return (word, matches) if matches else original(text, line, cursor_pos)

    def _complete(self, before: str) -> tuple[str, list[str]]:
        """Return the word at the cursor, and its completions; none if IPython is to complete it."""
        with suppress(Exception):  # while the user types, an error cannot be shown
            if (found := _LINE.fullmatch(before)) is not None and self._is_magic(found[1], found[2]):
                *words, word = re.split(r"\s+", found[3])
                matches = self._candidates(found[1] + found[2], words, word)
                return word, [match for match in matches if match.startswith(word)]
        return "", []

    def _is_magic(self, percents: str, name: str) -> bool:
        if percents or name == "arun":
            return bool(percents) and (name == "arun" or percents == "%")
        return bool(self._shell.automagic) and name not in self._shell.user_ns

    def _candidates(self, magic: str, words: list[str], word: str) -> list[str]:
        if magic == "%arun":  # what follows is Python
            return ["--help"] if word.startswith("-") else []
        options = ARUN if magic == "%%arun" else ATASKS if magic.endswith("atasks") else ARUNNER
        if words and (choices := options.values_of(words[-1])) is not None:
            return choices
        if word.startswith("-") or magic == "%%arun":
            return [option for option in options.names if option not in words]
        plain = [each for each in words if not each.startswith("-")]
        if magic.endswith("arunner"):
            return [] if plain else list(ARUNNER_ACTIONS)
        return self._tasks(plain[0]) if plain and plain[0] in ACTIONS else [] if plain else list(ACTIONS)

    def _tasks(self, action: str) -> list[str]:
        """Return the names and numbers of tasks that *action* is for, and ``all``."""
        if action == "tree":
            return []
        present = self._runner.present
        if present is None or not on_main_thread():
            return ["all"]
        runs = [run for run in present.interrupts.runs() if run.name is not None]
        if action == "background":
            return [str(run.name) for run in runs]
        started = present.tasks.started()[:_MOST]
        names = dict.fromkeys([*(str(run.name) for run in runs), *(name_of(each.task) for each in started)])
        return [*filter(_PLAIN.fullmatch, names), *(str(each.number) for each in started), "all"]
