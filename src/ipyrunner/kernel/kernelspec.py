"""The kernelspec, by which front ends find and start the kernel: ``python -m ipyrunner install`` and ``uninstall``.

``pip install`` already puts one into the environment: an unchanged copy of the folder ``resources``. The commands are
for other places, names and settings, and write the path of this Python into the kernelspec.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_core.paths import SYSTEM_JUPYTER_PATH, jupyter_data_dir, jupyter_path
from traitlets import TraitError

from .. import __version__
from ..notebook import NotebookRunner

__all__ = ["KernelSpecError", "install", "main", "uninstall"]

RESOURCES = Path(__file__).parent / "resources"
NAME = "ipyrunner"
DISPLAY_NAME = "Python 3 (ipyrunner)"
_KERNEL_CLASS = "--IPKernelApp.kernel_class=ipyrunner.kernel.RunnerKernel"
# As front ends and file systems allow it: a name is that of a folder, and must not be "..".
_VALID_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]*")
# Where there are signals, they reach more than messages do: C code that keeps the GIL, child processes without psutil.
_INTERRUPT_MODE = "message" if os.name == "nt" else "signal"


class KernelSpecError(Exception):
    """A kernelspec cannot be installed or uninstalled; the message says why, and what to do."""


def install(
    *,
    user: bool = False,
    prefix: str | None = None,
    name: str = NAME,
    display_name: str | None = None,
    loop_factory: str | None = None,
    interrupt_mode: str = _INTERRUPT_MODE,
) -> Path:
    """Install a kernelspec that starts the kernel with this Python; return its folder.

    System-wide, or for the *user*, or below *prefix*. Replaces an earlier kernelspec of ipyrunner, but not one of
    another kernel. KernelSpecError for an invalid name, for a *loop_factory* that makes no loop here, and for a place
    that cannot be written.
    """
    folder = _folder(name, user=user, prefix=prefix)
    if os.path.lexists(folder) and not _is_ours(folder):
        raise KernelSpecError(
            f"{folder} already exists and does not belong to ipyrunner. Choose another name with --name, or delete the "
            "folder first"
        )
    arguments = [_KERNEL_CLASS]
    if loop_factory is not None:
        _check(loop_factory)
        arguments.append(f"--NotebookRunner.loop_factory={loop_factory}")
    # ipykernel's own: it knows what the front end may expect of the version that is installed (debugger, encryption).
    spec: dict[str, Any] = get_kernel_dict(extra_arguments=arguments)
    # As with ipykernel's own command: if the user chooses a name, that is shown.
    spec["display_name"] = display_name or (DISPLAY_NAME if folder.name == NAME else name)
    spec["interrupt_mode"] = interrupt_mode
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for logo in RESOURCES.glob("logo-*"):
            (folder / logo.name).write_bytes(logo.read_bytes())
        (folder / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise KernelSpecError(
            f"cannot write {folder} ({exc.strerror or exc}): {_elsewhere(user=user, prefix=prefix)}"
        ) from exc
    return folder


def uninstall(*, user: bool = False, prefix: str | None = None, name: str = NAME) -> Path:
    """Remove the kernelspec that :func:`install` with the same arguments has installed; return its folder.

    KernelSpecError if it is not there, if it is not ours or belongs to the package, and if it cannot be removed.
    """
    folder = _folder(name, user=user, prefix=prefix)
    if not os.path.lexists(folder):
        raise KernelSpecError(f"there is no kernelspec {folder.name} in {folder.parent}. {_where_instead(folder.name)}")
    if not _is_ours(folder):
        raise KernelSpecError(f"{folder} does not belong to ipyrunner. To remove it all the same, delete the folder")
    if _is_the_packages(folder):
        raise KernelSpecError(
            f"{folder} belongs to the package: `pip uninstall ipyrunner` removes both. To remove the kernel alone, run "
            f"`jupyter kernelspec remove {folder.name}`"
        )
    try:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except OSError as exc:
        raise KernelSpecError(
            f"cannot remove {folder} ({exc.strerror or exc}): run this command as the owner of the folder"
        ) from exc
    return folder


def _folder(name: str, *, user: bool, prefix: str | None) -> Path:
    if not _VALID_NAME.fullmatch(name.lower()):
        raise KernelSpecError(
            f"{name!r} is not a valid name for a kernel: --name takes ASCII letters and digits, and `-`, `.` and `_` "
            "after the first character. Use --display-name for the name that people see"
        )
    if user:
        kernels = Path(jupyter_data_dir()) / "kernels"
    elif prefix is not None:
        kernels = Path(prefix).absolute() / "share" / "jupyter" / "kernels"
    else:
        kernels = Path(SYSTEM_JUPYTER_PATH[0]) / "kernels"
    return kernels / name.lower()


def _is_ours(folder: Path) -> bool:
    try:
        return _KERNEL_CLASS in json.loads((folder / "kernel.json").read_text(encoding="utf-8"))["argv"]
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or it is broken
        return False


def _is_the_packages(folder: Path) -> bool:
    """Return whether ``pip`` has installed this kernelspec: an unchanged copy of ours."""
    return (folder / "kernel.json").read_bytes() == (RESOURCES / "kernel.json").read_bytes()


def _where_instead(name: str) -> str:
    for option, user, prefix in (("--user", True, None), ("--sys-prefix", False, sys.prefix)):
        if _is_ours(folder := _folder(name, user=user, prefix=prefix)):
            if _is_the_packages(folder):
                return f"The one in {folder.parent} belongs to the package: `pip uninstall ipyrunner` removes both"
            return f"There is one for {option}: run this command with {option}"
    return "`jupyter kernelspec list` lists those that there are"


def _elsewhere(*, user: bool, prefix: str | None) -> str:
    """Return advice for a place that cannot be written: the other places."""
    places = [("--user", "for yourself", user), ("--sys-prefix", "into this environment", prefix == sys.prefix)]
    others = [f"{text} with {option}" for option, text, tried in places if not tried]
    return f"install {', '.join(others)}, or into another place with --prefix"


def _check(loop_factory: str) -> None:
    """Make a loop with *loop_factory*, as the kernel will. KernelSpecError if that fails."""
    try:
        runner = NotebookRunner(loop_factory=loop_factory)
        runner.restart()
    except Exception as exc:  # the user's code may raise anything
        cause = str(exc) if isinstance(exc, TraitError) else f"{type(exc).__name__}: {exc}"
        raise KernelSpecError(
            f"--loop-factory {loop_factory} cannot make an event loop in {sys.executable} ({cause}). Install its "
            "package there, name another function, or leave out --loop-factory for asyncio's own loop"
        ) from exc
    runner.close()


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m ipyrunner``; return the exit code."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    command = options.pop("command")
    if command is None:
        parser.print_help()
        return 0
    try:
        if command == "uninstall":
            folder = uninstall(**options)
            print(f"Removed kernelspec {folder.name} from {folder}")
            return 0
        folder = install(**options)
    except KernelSpecError as exc:
        print(f"python -m ipyrunner {command}: {exc}", file=sys.stderr)
        return 1
    print(f"Installed kernelspec {folder.name} in {folder}")
    if str(folder.parent) not in jupyter_path("kernels"):
        print(
            f"Jupyter does not look for kernels there. Start it with JUPYTER_PATH={folder.parent.parent}, or start the "
            "Jupyter of that prefix."
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ipyrunner",
        description="Install and uninstall ipyrunner's kernelspec: a Python kernel that gives each notebook its own "
        "asyncio event loop. `pip install` has already put one into this environment. Use these commands for other "
        "places, names and settings.",
    )
    parser.add_argument("--version", action="version", version=f"ipyrunner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="{install,uninstall}")
    for command, does in (
        ("install", "Install a kernelspec that starts the kernel with this Python, system-wide by default."),
        ("uninstall", "Remove the kernelspec that `install` with the same options has installed."),
    ):
        sub = commands.add_parser(command, help=does, description=does)
        place = sub.add_mutually_exclusive_group()
        place.add_argument("--user", action="store_true", help="For the current user only.")
        place.add_argument("--prefix", help="Into the environment with this prefix.")
        place.add_argument(
            "--sys-prefix",
            action="store_const",
            const=sys.prefix,
            dest="prefix",
            help="Into this Python's environment. Shorthand for --prefix='{}'.".format(sys.prefix.replace("%", "%%")),
        )
        sub.add_argument(
            "--name", default=NAME, help="Name of the kernelspec; two kernels need two names. (default: %(default)s)"
        )
        if command == "install":
            sub.add_argument(
                "--display-name", help=f"Name that front ends show. (default: {DISPLAY_NAME}, or that of --name)"
            )
            sub.add_argument(
                "--loop-factory",
                help="Import string of the function that makes the event loop, such as uvloop.new_event_loop. "
                "(default: asyncio's own loop)",
            )
            sub.add_argument(
                "--interrupt-mode",
                choices=["signal", "message"],
                default=_INTERRUPT_MODE,
                help="How front ends interrupt the kernel. Use message where they cannot send signals: on Windows, or "
                "if the kernel runs on another machine. (default here: %(default)s)",
            )
    return parser
