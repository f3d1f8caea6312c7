"""The layout shows the architecture, and imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ipyrunner"
# Each layer knows those to its right.
LAYERS = ["kernel", "shell", "notebook", "aio"]
MODULES = sorted(SOURCE.rglob("*.py"))
PRIVATE = {
    # What is used of asyncio's private names, and the one module that may.
    "_get_running_loop": "aio/running.py",
    "_set_running_loop": "aio/running.py",
    "_enter_task": "aio/running.py",
    "_leave_task": "aio/running.py",
    "_selector": "aio/peeking.py",
    "_csock": "aio/peeking.py",
    "_ready": "aio/peeking.py",
    "_scheduled": "aio/peeking.py",
    "_stopping": "aio/peeking.py",
    "_fut_waiter": "aio/peeking.py",
    "_exception": "aio/peeking.py",
    "_log_traceback": "aio/peeking.py",
    "_children": "aio/peeking.py",
    "_source_traceback": "aio/tasks.py",
    "_filename_map": "shell/extension.py",
    "_find_with_lazy_load": "shell/timing.py",
    "_default_executor": "aio/closing.py",
    "_executor_shutdown_called": "aio/closing.py",
    "_run": "aio/callbacks.py",
    "_callback": "aio/callbacks.py",
    "_callbacks": "aio/peeking.py",
    "_previous_sigint_handler": "aio/signalling.py",
    "_asyncio_runner": "shell/cells.py",
    "_parent_header": "shell/routing.py",
    "_cancel_on_sigint": "shell/guarding.py",
    "_last_traceback_during_displayhook": "shell/guarding.py",
    "_register_atexit": "aio/exiting.py",
    "_default_root": "shell/gui.py",
    "_allow_stdin": "shell/asking.py",
    "_parent_ident": "shell/asking.py",
    "_signal_children": "kernel/runner_kernel.py",
}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def layer(path: Path) -> int:
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return LAYERS.index(first) if first in LAYERS else -1


def imported(path: Path) -> list[str]:
    """The names, relative to the package, of our own modules that the module imports anywhere."""
    names = []
    parts = path.relative_to(SOURCE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                names.append(".".join((*parts[: len(parts) - node.level], node.module or "")).strip("."))
            elif (node.module or "").startswith("ipyrunner"):
                names.append((node.module or "").removeprefix("ipyrunner").strip("."))
    return [n for n in names if n]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    for target in imported(path):
        assert LAYERS.index(target.split(".")[0]) >= layer(path), f"{name(path)} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_private_names_are_used_in_one_place(path: Path) -> None:
    tree = ast.parse(path.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.args[1].value for node in ast.walk(tree) if _is_getattr(node)}
    for private in used & PRIVATE.keys():
        own = private == "_run" and name(path).startswith("shell/")
        assert PRIVATE[private] == name(path) or own, f"{name(path)} uses {private}"


def _is_getattr(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and isinstance(node.args[1], ast.Constant)
    )


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_package_imports_no_ipython_by_itself() -> None:
    code = "import sys, ipyrunner; ipyrunner.run; sys.exit(any(m.startswith(('IPython', 'traitlets')) for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names() -> None:
    import ipyrunner

    assert sorted(ipyrunner.__all__) == [
        "NotebookRunner",
        "Runner",
        "changes",
        "event",
        "get_runner",
        "input",
        "run",
        "tasks",
    ]
    for public in ipyrunner.__all__:
        assert getattr(ipyrunner, public).__doc__
