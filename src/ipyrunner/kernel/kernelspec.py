"""The kernelspec, by which front ends find and start the kernel: ``python -m ipyrunner install`` and ``uninstall``.

``pip install`` puts one into the environment already: the folder ``resources``, as it is. The commands are for other
places, names and settings, and write the path of this Python into it.
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
# As a front end and the file system take it: a name is the name of a folder, and not of the one above.
_VALID_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]*")
# Signals reach more than messages do (C code that keeps the GIL, child processes without psutil), where there are any.
_INTERRUPT_MODE = "message" if os.name == "nt" else "signal"


class KernelSpecError(Exception):
    """What keeps a kernelspec from being installed or uninstalled."""


def install(
    *,
    user: bool = False,
    prefix: str | None = None,
    name: str = NAME,
    display_name: str | None = None,
    loop_factory: str | None = None,
    interrupt_mode: str = _INTERRUPT_MODE,
) -> Path:
    """Install a kernelspec that starts the kernel by this Python; return its folder.

    System-wide, or for the *user*, or below *prefix*. Replaces one of ours, and of nobody else. KernelSpecError for a
    name that is none, a *loop_factory* that makes no loop here, and a place that cannot be written.
    """
    folder = _folder(name, user=user, prefix=prefix)
    if os.path.lexists(folder) and not _is_ours(folder):
        raise KernelSpecError(
            f"{folder} is there, and is no kernelspec of ipyrunner's: choose another --name, or remove it by "
            f"`jupyter kernelspec uninstall {folder.name}`"
        )
    arguments = [_KERNEL_CLASS]
    if loop_factory is not None:
        _check(loop_factory)
        arguments.append(f"--NotebookRunner.loop_factory={loop_factory}")
    # ipykernel's own: it knows what the front end may expect of the version that is installed (debugger, encryption).
    spec: dict[str, Any] = get_kernel_dict(extra_arguments=arguments)
    # As with ipykernel's own command: a name of the user's own is what is shown.
    spec["display_name"] = display_name or (DISPLAY_NAME if folder.name == NAME else name)
    spec["interrupt_mode"] = interrupt_mode
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for logo in RESOURCES.glob("logo-*"):
            (folder / logo.name).write_bytes(logo.read_bytes())
        (folder / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise KernelSpecError(
            f"cannot write {folder} ({exc.strerror or exc}): install for yourself with --user, into this environment "
            "with --sys-prefix, or elsewhere with --prefix"
        ) from exc
    return folder


def uninstall(*, user: bool = False, prefix: str | None = None, name: str = NAME) -> Path:
    """Remove the kernelspec that :func:`install` with the same arguments, or ``pip``, has installed; return its folder.

    KernelSpecError if it is not there, if it is not ours, and if it cannot be removed.
    """
    folder = _folder(name, user=user, prefix=prefix)
    if not os.path.lexists(folder):
        raise KernelSpecError(f"there is no kernelspec {folder.name} in {folder.parent}: {_where_instead(folder.name)}")
    if not _is_ours(folder):
        raise KernelSpecError(
            f"{folder} is no kernelspec of ipyrunner's: `jupyter kernelspec uninstall {folder.name}` removes any"
        )
    try:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except OSError as exc:
        raise KernelSpecError(
            f"cannot remove {folder} ({exc.strerror or exc}): call this as its owner, or delete the folder"
        ) from exc
    return folder


def _folder(name: str, *, user: bool, prefix: str | None) -> Path:
    if not _VALID_NAME.fullmatch(name.lower()):
        raise KernelSpecError(
            f"{name!r} is no name for a kernel: --name takes letters and digits of ASCII, and `-`, `.` and `_` after "
            "the first; what is shown to people is --display-name"
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
    except (OSError, ValueError, LookupError, TypeError):  # none, or a broken one
        return False


def _where_instead(name: str) -> str:
    for option, user, prefix in (("--user", True, None), ("--sys-prefix", False, sys.prefix)):
        if _is_ours(_folder(name, user=user, prefix=prefix)):
            return f"there is one where {option} puts it, so call this with {option}"
    return "`jupyter kernelspec list` shows which there are"


def _check(loop_factory: str) -> None:
    """Make a loop by it, as the kernel will."""
    try:
        runner = NotebookRunner(loop_factory=loop_factory)
        runner.restart()
    except Exception as exc:  # the user's code: anything
        cause = str(exc) if isinstance(exc, TraitError) else f"{type(exc).__name__}: {exc}"
        raise KernelSpecError(
            f"--loop-factory {loop_factory} makes no loop in {sys.executable} ({cause}): install its package there, or "
            "name another, such as uvloop.new_event_loop"
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
            f"Jupyter does not look there yet: set JUPYTER_PATH={folder.parent.parent} for it, or use the one of that "
            "prefix."
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ipyrunner",
        description="Install and uninstall the kernelspec of ipyrunner, a Python kernel whose cells run in one asyncio "
        "loop. `pip install` has put one into the environment; these are for other places, names and settings.",
    )
    parser.add_argument("--version", action="version", version=f"ipyrunner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="{install,uninstall}")
    for command, does in (
        ("install", "Install a kernelspec that starts the kernel by this Python, system-wide by default."),
        ("uninstall", "Remove a kernelspec from where `install` with the same options puts it."),
    ):
        sub = commands.add_parser(command, help=does, description=does)
        place = sub.add_mutually_exclusive_group()
        place.add_argument("--user", action="store_true", help="For the current user instead of system-wide.")
        place.add_argument("--prefix", help="Below this prefix, such as another environment's.")
        place.add_argument(
            "--sys-prefix",
            action="store_const",
            const=sys.prefix,
            dest="prefix",
            help="In this Python's environment. Shorthand for --prefix='{}'.".format(sys.prefix.replace("%", "%%")),
        )
        sub.add_argument(
            "--name", default=NAME, help="Name of the kernelspec: each kernel has its own. (default: %(default)s)"
        )
        if command == "install":
            sub.add_argument(
                "--display-name", help=f"What front ends show. (default: {DISPLAY_NAME}, or the name of your own)"
            )
            sub.add_argument(
                "--loop-factory",
                help="Import string of what makes the loop, such as uvloop.new_event_loop. (default: asyncio's own)",
            )
            sub.add_argument(
                "--interrupt-mode",
                choices=["signal", "message"],
                default=_INTERRUPT_MODE,
                help="How front ends interrupt: message is for where they cannot send signals, on Windows or remotely. "
                "(default here: %(default)s)",
            )
    return parser
