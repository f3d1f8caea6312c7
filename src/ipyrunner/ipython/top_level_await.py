"""Compile and run code with top-level ``await``: the body of ``%%arun``, the expression of ``%arun``."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Body", "compile_body", "compile_expression", "evaluate", "is_statement", "run_body"]


_SPACE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


class Body(NamedTuple):
    """Compiled code: statements, a last expression, and whether a semicolon says that its value is not shown."""

    statements: CodeType | None
    expression: CodeType | None
    quiet: bool


def compile_body(shell: InteractiveShell, first_line: str, source: str) -> Body:
    """Compile the body of a cell magic as IPython compiles a cell. SyntaxError for invalid code.

    The body begins on line 2, since that is where the user sees it; *first_line* is for tracebacks.
    """
    body = shell.transform_cell(source)
    transformed = "\n" + body
    # By the text of the whole cell: two cells may have the same body, and a front end's debugger names the file so.
    name = _cache(shell, f"{first_line}\n{body}", f"{first_line}\n{source}")
    module = shell.transform_ast(shell.compile.ast_parse(transformed, filename=name))
    nodes = module.body
    last = nodes.pop() if nodes and isinstance(nodes[-1], ast.Expr) else None
    statements = _compile(shell, ast.Module(nodes, []), name, "exec") if nodes else None
    expression = None if last is None else _compile(shell, ast.Expression(last.value), name, "eval")
    return Body(statements, expression, _is_quiet(transformed))


def compile_expression(shell: InteractiveShell, source: str) -> CodeType:
    """Compile one expression. SyntaxError if it is none."""
    source = source.strip()
    name = _cache(shell, source, source)
    # ast_parse has no 'eval' mode; without this name a SyntaxError would show no line.
    return _compile(shell, ast.parse(source, name, "eval"), name, "eval")


def is_statement(source: str) -> bool:
    """Return whether the source is valid Python but not an expression."""
    try:
        return not isinstance(ast.parse(source).body[0], ast.Expr)
    except (SyntaxError, ValueError, IndexError):
        return False


async def run_body(body: Body, namespace: dict[str, Any]) -> Any:
    """Run the statements in *namespace*; return the value of the last expression, awaited if that is possible."""
    if body.statements is not None:
        await evaluate(body.statements, namespace)
    if body.expression is None:
        return None
    value = await evaluate(body.expression, namespace)
    if inspect.isawaitable(value):
        value = await value
    return None if body.quiet else value


async def evaluate(code: CodeType, namespace: dict[str, Any]) -> Any:
    """Evaluate *code*, which may have top-level ``await``."""
    value = eval(code, namespace)
    return await value if code.co_flags & inspect.CO_COROUTINE else value


def _compile(shell: InteractiveShell, node: ast.AST, name: str, mode: str) -> CodeType:
    ast.fix_missing_locations(node)
    with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
        code: CodeType = shell.compile(node, name, mode)
    return code


def _cache(shell: InteractiveShell, transformed: str, raw: str) -> str:
    result = getattr(shell.displayhook, "exec_result", None)
    number = getattr(result, "execution_count", None) or shell.execution_count
    return str(shell.compile.cache(transformed, number, raw_code=raw))


def _is_quiet(source: str) -> bool:
    """Return whether the code ends with a semicolon: IPython's way to ask for no output."""
    last = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SPACE:
            last = token.string
    return last == ";"
