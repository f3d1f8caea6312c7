"""Write magics.md and settings.md from the help of the magics and of the settings.

python docs/reference/generate.py

`make docs` does it too, and a test compares them with what is committed, so the pages say what `%arun?` says.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipyrunner.ipython.magics.arun import RunnerMagics
from ipyrunner.ipython.magics.atasks import TaskMagics
from ipyrunner.settings import Settings

HERE = Path(__file__).parent
NOTE = "<!-- Written by generate.py in this directory, from the help in src. Change it there. -->\n"

# What the help cannot have: links.
MAGICS = {
    "`%arun` and `%%arun`": (
        RunnerMagics.arun,
        "See [background work](../howto/background.md) for `--background`, `--scope` and `--progress`, "
        "[traces](../howto/tracing.md) for `--trace`, "
        "[cells side by side](../howto/concurrent.md) for `--concurrent`, "
        "[profiling](../howto/profiling.md#where-the-time-of-a-cell-goes) for `--profile`, and "
        "[which loop a cell sees](../explanation/loops.md) for `--context` and `--fresh`.",
    ),
    "`%atasks`": (
        TaskMagics.atasks,
        "See [background work](../howto/background.md#atasks) for the table, "
        "[the live view](../howto/live.md), and "
        "[cells side by side](../howto/concurrent.md#send-a-running-cell-to-the-background) for `background`.",
    ),
    "`%arunner`": (
        RunnerMagics.arunner,
        "See [what ends](../explanation/safety.md#the-end-of-a-loop) for `restart` and `close`, and "
        "[one `main()`](../explanation/main.md) for `leave`.",
    ),
}
SEE = {
    "slow_callback": "See [blocking code](../howto/background.md#blocking-code).",
    "shutdown_timeout": "See [what ends](../explanation/safety.md#the-end-of-a-loop).",
    "interrupt_grace": "At least 0.05. See [interrupts](../explanation/interrupts.md).",
    "nested": "See [runs inside runs](../howto/nesting.md#what-is-left-runs-inside-runs).",
    "concurrent": "See [cells side by side](../howto/concurrent.md).",
}


def magics() -> str:
    lines = [
        NOTE,
        "# Magics",
        "",
        "In a notebook `%arun?` shows the same. A wrong option is a UsageError, which says what to write.",
    ]
    for title, (magic, links) in MAGICS.items():
        parser: Any = magic.parser
        actions = [action for action in parser._actions if action.help]
        lines += ["", f"## {title}", "", indented_as_code(inspect.cleandoc(parser.description)), ""]
        lines += ["| | |", "|---|---|", *(row for action in actions for row in rows(action)), "", links]
    return "\n".join(lines) + "\n"


def rows(action: Any) -> Iterator[str]:
    """Return the rows of a table on one option. A word of several that may be given has one of its own."""
    if action.option_strings:
        value = action.metavar or "|".join(action.choices or ())
        value = f"[{value}]" if action.nargs == "?" else value
        yield row(
            ", ".join(f"`{option} {value}`" if value else f"`{option}`" for option in action.option_strings),
            action.help,
        )
    elif action.choices:
        for part in action.help.split("; "):
            words, _, text = part.partition(": ")
            word, _, default = words.partition(" ")  # "(default)"
            if word in action.choices:
                yield row(f"`{word}` {default}".rstrip(), text)
            else:  # the text before it has a semicolon
                raise ValueError(f"the help of {word!r}: {action.help}")
    else:
        yield row(f"`{action.metavar}`", action.help)


def row(name: str, text: str) -> str:
    """Return a row of a table."""
    text = text.replace("%%", "%")  # argparse's
    return f"| {name.replace('|', chr(92) + '|')} | {text} |"


def indented_as_code(text: str) -> str:
    """Return a docstring whose indented lines are in a fence."""
    lines: list[str] = []
    code: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("    "):
            code.append(line[4:])
            continue
        if code:
            lines += ["```python", *code, "```"]
            code = []
        lines.append(line)
    return "\n".join(lines).rstrip()


def settings() -> str:
    lines = [
        NOTE,
        "# Settings",
        "",
        "`%config NotebookRunner.NAME = VALUE` sets one in a notebook, `c.NotebookRunner.NAME = VALUE` in",
        "`ipython_config.py` for all notebooks. `%config NotebookRunner` lists them. An invalid value",
        "is an error that says what is valid (in Python, TraitError), and the setting keeps its old value.",
        "",
        "| name | default | |",
        "|---|---|---|",
    ]
    for name, trait in sorted(Settings.class_own_traits(config=True).items()):
        text = " ".join(filter(None, [trait.help, SEE.get(name)]))
        lines.append(f"| `{name}` | {trait.default_value} | {text} |")
    lines += [
        "",
        "If a `loop_factory` fails at `%arunner restart`, its error is raised, and the old loop stays. Without an old",
        "loop, asyncio's own is used, and the output says so.",
    ]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Return the text of each page."""
    return {"magics.md": magics(), "settings.md": settings()}


def write() -> None:
    """Write the pages that have changed."""
    for name, text in pages().items():
        page = HERE / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
