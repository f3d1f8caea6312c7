"""IPython's own ``%time``, ``%timeit`` and ``%prun``, for code with top-level ``await`` too.

IPython's magics do all the work. They ask the shell to transform their source and to compile it, and for the length of
one call the shell answers with code that runs on the notebook's loop. ``%time`` and ``%prun`` measure one blocking run;
the loop of ``%timeit`` is inside the run: an ``await`` takes as long there as in a cell.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from functools import partial, wraps
from types import CodeType
from typing import Any

from IPython.core.error import UsageError

from ...aio.introspection.running_loop import running_loop
from ...aio.replacements import Replacement
from ...aio.sigint.handlers import on_main_thread
from ...installation import Installation
from ...notebook import NotebookRunner

__all__ = ["install"]

_MAGICS = ("time", "timeit", "prun")
_MAY_AWAIT = re.compile(r"\b(await|async)\b")
# A name in the user's namespace, from when IPython is given code that calls it until that code runs.
_NAME = "__ipyrunner_blocking__"


def install(extension: Installation) -> None:
    """Put the part in place."""
    # Private, since IPython 7.32: every call of a magic finds it by this method. The table of magics cannot be used:
    # IPython 9 imports its own when they are first looked up there. Without this method the magics are IPython's.
    if hasattr(extension.shell, "_find_with_lazy_load"):
        finding = _Finding(extension)
        extension.replace(extension.shell, "_find_with_lazy_load", lambda find: partial(finding.find, find))


class _Finding:
    """Finds the magics for the shell."""

    def __init__(self, extension: Installation) -> None:
        self._shell: Any = extension.shell
        self._runner, self._in_charge = extension.runner, extension.in_charge

    def find(self, find: Callable[[str, str], Any], kind: str, magic_name: str) -> Any:
        """Return the magic that IPython's *find* finds, wrapped if it is one of these."""
        original = find(kind, magic_name)
        return self._wrap(magic_name, original) if original is not None and magic_name in _MAGICS else original

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def magic(line: str = "", cell: str | None = None, **kwargs: Any) -> Any:
            arguments = (line,) if cell is None else (line, cell)
            may_await = _MAY_AWAIT.search("\n".join(arguments)) is not None and self._shell.autoawait
            if not (may_await and self._in_charge()):
                return original(*arguments, **kwargs)
            call = _Call(self._shell, self._runner, name, line, cell, kwargs.get("local_ns"))
            try:
                return original(*arguments, **kwargs)
            finally:
                call.undo()

        return magic


class _Call:
    """One call of a magic: replaces the shell's compiler and its ``transform_cell`` until the code runs."""

    def __init__(self, shell: Any, runner: NotebookRunner, name: str, line: str, cell: str | None, scope: Any) -> None:
        self._shell, self._runner, self._name, self._scope = shell, runner, name, scope
        self._title = None if cell is None else f"%%{name} {line}".rstrip()
        # The statement in the first line of %%timeit, which IPython transforms before the body.
        self._expects_setup = name == "timeit" and cell is not None
        self._awaits, self._filename = False, ""
        self._compiler, shell.compile = shell.compile, self
        self._replacement = Replacement(shell, "transform_cell", lambda stock: partial(self._transform, stock))

    def undo(self) -> None:
        """Restore the shell. Idempotent."""
        self._replacement.restore()
        if self._shell.compile is self:
            self._shell.compile = self._compiler
        self._shell.user_ns.pop(_NAME, None)

    def _transform(self, original: Callable[[str], str], source: str) -> str | CodeType:
        transformed = original(source)
        if not on_main_thread():  # a cell of a subshell
            return transformed
        setup, self._expects_setup = self._expects_setup, False
        text = transformed if setup else self._place(source, transformed)
        self._awaits = self._awaits or self._is_coroutine(text)
        if not self._awaits and not setup:
            self.undo()
        return self._stand_in(text) if self._awaits else transformed

    def _place(self, source: str, transformed: str) -> str:
        """Put the code on the lines where the user sees it, and register them for tracebacks."""
        # IPython drops empty lines at the beginning. What %%prun transforms has the line of the magic in it.
        above = source[: len(source) - len(source.lstrip())].count("\n")
        above += self._title is not None and self._name != "prun"
        text = "\n" * above + transformed.lstrip("\n")
        shown = text if self._title is None else self._title + text[text.find("\n") :]
        number = getattr(getattr(self._shell.displayhook, "exec_result", None), "execution_count", None)
        self._filename = self._compiler.cache(shown, number or self._shell.execution_count, raw_code=shown)
        return text

    def _is_coroutine(self, text: str) -> bool:
        try:
            return bool(self._compile(text, "exec").co_flags & inspect.CO_COROUTINE)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return False  # IPython will report the error

    def _stand_in(self, text: str) -> str | CodeType:
        """Return the code that IPython's magic compiles and runs instead."""
        if running_loop() is not None:
            magic = f"%{self._name}" if self._title is None else f"%%{self._name}"
            raise UsageError(
                f"{magic} cannot await in this cell: the cell awaits elsewhere or begins with %%arun, so that the "
                "notebook's event loop already runs, and a loop cannot run inside itself. Put the "
                f"{magic} into a cell of its own."
            )
        if self._name == "timeit":
            self._shell.user_ns[_NAME] = self._drive
            return text
        nodes = self._shell.transform_ast(self._compiler.ast_parse(text)).body
        last = [self._compile(ast.Expression(nodes.pop().value), "eval")] if isinstance(nodes[-1], ast.Expr) else []
        codes = [self._compile(ast.Module(nodes, []), "exec"), *last]
        self._shell.user_ns[_NAME] = lambda: self._run(codes)
        # %prun runs code objects as they are. Tracebacks are shown without frames of our files.
        return compile(f"{_NAME}()", __file__, "exec") if self._name == "prun" else f"{_NAME}()"

    def _compile(self, source: Any, mode: str) -> Any:
        with self._compiler.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
            return self._compiler(source, self._filename, mode)

    def __call__(self, tree: Any, filename: str, mode: str) -> Any:
        if not self._awaits or not on_main_thread():
            return self._compiler(tree, filename, mode)
        if self._name != "timeit":
            return self._compiler(tree, __file__, mode)
        if filename == "<magic-timeit>":
            fields = dict(ast.iter_fields(tree.body[0])) | {"decorator_list": [ast.Name(_NAME, ast.Load())]}
            tree = ast.fix_missing_locations(ast.Module([ast.AsyncFunctionDef(**fields)], []))
        return self._compile(tree, mode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler, name)

    def _drive(self, inner: Any) -> Callable[..., float]:
        """Decorate the measuring function, an async one: run it, with the loop of its repetitions, as one run."""
        self.undo()
        # So that tracebacks show it as the code of a cell, and not as a function whose source begins with a def.
        inner.__code__ = inner.__code__.replace(co_name="<module>")
        return lambda _it, _timer: self._runner.run(inner(_it, _timer))

    def _run(self, codes: list[CodeType]) -> Any:
        self.undo()

        async def main() -> Any:
            for code in codes:
                value = eval(code, self._shell.user_ns, self._scope)
                value = await value if code.co_flags & inspect.CO_COROUTINE else value
            return value

        return self._runner.run(main())
