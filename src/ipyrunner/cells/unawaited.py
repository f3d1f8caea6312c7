"""Calls of coroutine functions without ``await``: the statement ``main()`` runs nothing of the function.

Python warns when the coroutine is collected, which IPython's ``Out`` prevents, and does not say what to write.
"""

from __future__ import annotations

import ast
import inspect
from inspect import getattr_static
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["Unawaited"]

_LOOKS_UP = object.__getattribute__


class Unawaited:
    """Remember the calls that are statements of a cell, and name those that have made a coroutine in vain."""

    def __init__(self) -> None:
        self._names: list[str] | None = None

    def begin(self) -> None:
        """Before a cell: the next tree to be visited is the cell's."""
        self._names = None

    def visit(self, tree: ast.AST) -> None:
        """Remember the calls in the cell's *tree*; ignore the trees of what it runs: a magic's body, another cell."""
        if self._names is None and isinstance(tree, ast.Module):
            calls = [
                node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            ]
            self._names = [ast.unparse(call.func) for call in calls if _is_name(call.func)]

    def notes(self, namespace: dict[str, Any]) -> list[str]:
        """Return a note for each such call, once all statements of the cell have run."""
        names, self._names = dict.fromkeys(self._names or ()), []
        return [
            f"ipyrunner: `{name}(...)` only makes a coroutine and does not run it: write `await {name}(...)`."
            for name in names
            if type(function := _named(name, namespace)) is FunctionType
            and function.__code__.co_flags & inspect.CO_COROUTINE
        ]


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_name(node.value))


def _named(name: str, namespace: dict[str, Any]) -> object:
    """Return what *name* stands for: a variable, one of a module's, or the function of a method of theirs.

    None for what would run code to be looked up.
    """
    first, *rest = name.split(".")
    value = namespace.get(first)
    for attribute in rest:
        if type(value) is ModuleType:
            value = vars(value).get(attribute)
        elif attribute is not rest[-1] or getattr_static(type(value), "__getattribute__") is not _LOOKS_UP:
            return None
        else:
            value = getattr_static(value, attribute, None)
    return value
