"""Whether the source of a cell, as IPython has transformed it, needs a running loop."""

from __future__ import annotations

import ast
import inspect
import re
from typing import NamedTuple

__all__ = [
    "ArunCell",
    "arun_call",
    "has_awaiting_statement",
    "is_status_cell",
    "names_running_loop",
    "read_arun_cell",
]

# Functions that need a running loop but no await. Existing notebooks use them at the top level of cells.
_NAMES = frozenset({"get_running_loop", "current_task", "all_tasks"})


class ArunCell(NamedTuple):
    """A cell that begins with ``%%arun``."""

    line: str
    body: str


def names_running_loop(source: str) -> bool:
    """Return whether the top-level code of a cell names ``asyncio.get_running_loop`` or the like.

    Bodies of functions and lambdas do not count: they run when they are called.
    """
    if not any(name in source for name in _NAMES):
        return False
    tree = _parse(source)
    pending: list[ast.AST] = [] if tree is None else [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Name) and node.id in _NAMES:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _NAMES:
            return True
        if isinstance(node, ast.Lambda):
            pending.append(node.args)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += [node.args, *node.decorator_list]
        else:
            pending += ast.iter_child_nodes(node)
    return False


def has_awaiting_statement(source: str) -> bool:
    """Return whether one of the top-level statements awaits, even if the source as a whole does not compile.

    A source with ``return`` at the top level does not. IPython, which compiles each statement when its turn comes,
    treats it as a source without ``await``, and then fails at the ``await``.
    """
    if "await" not in source and "async" not in source:
        return False
    tree = _parse(source)
    return any(map(_awaits, [] if tree is None else tree.body))


def _awaits(statement: ast.stmt) -> bool:
    try:
        code = compile(ast.Module([statement], []), "<statement>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return bool(code.co_flags & inspect.CO_COROUTINE)


def read_arun_cell(source: str) -> ArunCell | None:
    """Return the line and the body of a cell that begins with ``%%arun``; None for any other cell."""
    if not source.startswith("get_ipython().run_cell_magic('arun',"):
        return None
    tree = _parse(source)
    call = None if tree is None else arun_call(tree)
    return None if call is None else ArunCell(*(ast.literal_eval(argument) for argument in call.args[1:]))


def is_status_cell(source: str, *, queued: bool) -> bool:
    """Return whether the cell is ``%atasks`` or ``%arunner`` alone, to be answered at once while another one awaits.

    False for actions that block or change the loop. If cells are *queued* behind the one that awaits, ``cancel`` and
    ``background`` only count for cells (``In[5]``): another name may be that of a task which the queued cells start.
    """
    match _parse(source):
        case ast.Module(
            body=[
                ast.Expr(
                    value=ast.Call(
                        func=ast.Attribute(attr="run_line_magic"),
                        args=[ast.Constant(value=str(name)), ast.Constant(value=str(line))],
                    )
                )
            ]
        ):
            pass
        case _:
            return False
    action, *tasks = line.split() or [""]
    if name == "arunner":
        return action in ("", "status") and not tasks
    if name != "atasks" or "wait" in tasks:
        return False
    if action in ("cancel", "background"):
        return not queued or all(re.fullmatch(r"In\[\d+\]", task) for task in tasks)
    return action in ("", "tree", "show", "-a", "--all", "--live")


def _parse(source: str) -> ast.Module | None:
    # A wrong source is reported when the cell runs.
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def arun_call(tree: ast.AST) -> ast.Call | None:
    """Return the call of the magic if *tree* is a module that consists of it: a cell that begins with ``%%arun``."""
    match tree:
        case ast.Module(
            body=[
                ast.Expr(
                    value=ast.Call(
                        func=ast.Attribute(attr="run_cell_magic"),
                        args=[ast.Constant(value="arun"), ast.Constant(value=str()), ast.Constant(value=str())],
                    ) as call
                )
            ]
        ):
            return call
    return None
