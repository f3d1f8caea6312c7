"""The layout shows the architecture, and imports point one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from kernels import Kernel

SOURCE = Path(__file__).parent.parent / "src" / "ipyrunner"
# Each layer knows those to its right. A package is one layer, but for aio, whose own are layers.
LAYERS = [
    "kernel",
    "extension",
    "terminal",
    "ipython.magics",
    "ipython",
    "cells",
    "ipykernel",
    "installation",
    "notebook",
    "audience",
    "settings",
    "log_handler",
]
LAYERS += [
    f"aio.{name}"
    for name in (
        "persistent_runner",
        "notices",
        "main",
        "user_runs",
        "interrupts",
        "runner",
        "loops",
        "tasks",
        "sigint",
        "introspection",
        "replacements",
        "exit_and_fork",
    )
]
# Each can be deleted, with its line in the extension: nothing else knows it.
ROOMS = [
    "terminal",
    "ipykernel.message_encoding",
    "ipykernel.late_output",
    "ipykernel.gui_loops",
    "ipython.debugger",
    "ipython.magics.timeit",
    "ipython.magics.completion",
]
MODULES = sorted(SOURCE.rglob("*.py"))
PRIVATE = {
    # What is used of asyncio's private names, and the one module that may.
    "_get_running_loop": "aio/introspection/running_loop.py",
    "_set_running_loop": "aio/introspection/running_loop.py",
    "_enter_task": "aio/introspection/running_loop.py",
    "_leave_task": "aio/introspection/running_loop.py",
    "_selector": "aio/introspection/private_api.py",
    "_csock": "aio/introspection/private_api.py",
    "_current_frames": "aio/introspection/stacks.py",
    "_ready": "aio/introspection/private_api.py",
    "_scheduled": "aio/introspection/private_api.py",
    "_stopping": "aio/introspection/private_api.py",
    "_fut_waiter": "aio/introspection/private_api.py",
    "_exception": "aio/introspection/private_api.py",
    "_log_traceback": "aio/introspection/private_api.py",
    "_children": "aio/introspection/private_api.py",
    "_source_traceback": "aio/introspection/private_api.py",
    "_filename_map": "ipython/tracebacks.py",
    "_find_with_lazy_load": "ipython/magics/timeit.py",
    "_default_executor": "aio/loops/shutdown.py",
    "_executor_shutdown_called": "aio/loops/shutdown.py",
    "_run": "aio/introspection/running_callback.py",
    "_callback": "aio/introspection/private_api.py",
    "_callbacks": "aio/introspection/private_api.py",
    "_previous_sigint_handler": "ipython/debugger.py",
    "_asyncio_runner": "installation.py",
    "_pseudo_sync_runner": "cells/first_cell.py",
    "_parent_header": "ipykernel/output_routing.py",
    "_cancel_on_sigint": "ipykernel/requests/request_sigint.py",
    "_last_traceback_during_displayhook": "ipykernel/requests/request_status.py",
    "_aborting": "ipykernel/requests/request_status.py",
    "_send_abort_reply": "ipykernel/requests/request_status.py",
    "_forward_input": "ipykernel/requests/cell_replies.py",
    "_restore_input": "ipykernel/requests/cell_replies.py",
    "_register_atexit": "aio/exit_and_fork.py",
    "_default_root": "ipykernel/gui_loops.py",
    "_allow_stdin": "ipython/input.py",
    "_parent_ident": "ipykernel/requests/request_status.py",
    "_signal_children": "kernel/runner_kernel.py",
}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def dotted(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")


def layer(module: str) -> int:
    """Return which layer a module belongs to, by its name relative to the package; -1: the package itself."""
    return next((i for i, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}.")), -1)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> list[str]:
    """The names, relative to the package, of our own modules that the module imports anywhere."""
    names = []
    parts = path.relative_to(SOURCE).with_suffix("").parts
    modules = {dotted(module) for module in MODULES}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                names.append(".".join((*parts[: len(parts) - node.level], node.module or "")).strip("."))
            elif (node.module or "").startswith("ipyrunner"):
                names.append((node.module or "").removeprefix("ipyrunner").strip("."))
            else:
                continue
            names += modules & {f"{names[-1]}.{alias.name}".strip(".") for alias in node.names}
    return [n for n in names if n]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    own = layer(dotted(path))
    for target in imported(path):
        assert layer(target) >= own, f"{name(path)} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_the_extension_alone_knows_the_optional_rooms(path: Path) -> None:
    own = dotted(path)
    for target in imported(path):
        for room in ROOMS:
            assert in_room(own, room) or not in_room(target, room), f"{own} imports {target}"
    for target in re.findall(r'_room\("(.+)"\)', path.read_text()):
        assert own == "extension"
        assert any(in_room(target, room) for room in ROOMS), target


def in_room(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


@pytest.mark.parametrize("path", sorted((SOURCE / "aio").rglob("*.py")), ids=name)
def test_aio_knows_neither_ipython_nor_debuggers(path: Path) -> None:
    modules = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add((node.module or "").partition(".")[0])
    assert not modules & {"IPython", "bdb", "ipykernel", "pdb", "tornado", "traitlets"}


@pytest.mark.parametrize("package", sorted(SOURCE.rglob("__init__.py")), ids=name)
def test_packages_list_their_modules(package: Path) -> None:
    text = ast.get_docstring(ast.parse(package.read_text())) or ""
    listed = re.findall(r"^\* (?::mod:)?`+(\w+)`+:", text, re.MULTILINE)
    inside = {path.stem for path in package.parent.glob("*.py")} | {
        path.parent.name for path in package.parent.glob("*/__init__.py")
    }
    assert sorted(listed) == sorted(inside - {"__init__", "__main__"}), package
    assert len(listed) <= 12


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_private_names_are_used_in_one_place(path: Path) -> None:
    tree = parsed(path)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.args[1].value for node in ast.walk(tree) if _is_getattr(node)}
    for private in used & PRIVATE.keys():
        own = private == "_run" and name(path).startswith("ipython/")
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


def test_what_is_not_used_is_not_imported(shared: Kernel) -> None:
    shared.ok("import asyncio; t = asyncio.create_task(asyncio.sleep(0)); await t")
    shared.ok("%%arun\nawait asyncio.sleep(0)")
    assert "no tasks" in (shared.ok("%atasks").value or "")
    rooms = ("live", "timeline", "profile")
    names = [f"ipyrunner.ipython.magics.{room}" for room in rooms] + ["ipyrunner.aio.tasks.trace"]
    libraries = ["anywidget", "pyinstrument", "tqdm", "rich.live"]
    loaded = shared.ok(f"import sys; [name for name in {names + libraries} if name in sys.modules]").value
    assert loaded == "[]"


def test_public_names() -> None:
    import ipyrunner

    assert sorted(ipyrunner.__all__) == [
        "LogHandler",
        "NotebookRunner",
        "Runner",
        "await_",
        "changes",
        "event",
        "get_runner",
        "input",
        "run",
        "tasks",
        "trace",
    ]
    for public in ipyrunner.__all__:
        assert getattr(ipyrunner, public).__doc__


def test_the_tests_readme_names_every_test_file() -> None:
    tests = Path(__file__).parent
    named = set(re.findall(r"`([a-z_]+)`", (tests / "README.md").read_text()))
    assert {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")} <= named
