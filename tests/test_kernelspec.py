"""``python -m ipyrunner install`` and ``uninstall``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from ipyrunner.kernel.kernelspec import RESOURCES, main
from kernels import RUNNER_KERNEL, kernel

FILES = ["kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipyrunner", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """Where kernelspecs below the prefix tmp_path are."""
    return tmp_path / "share" / "jupyter" / "kernels"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernelspecs of a user are that has none."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    return tmp_path / "user" / "kernels"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_it_says_alone() -> None:
    alone = run()
    assert alone.returncode == 0
    assert "python -m ipyrunner" in alone.stdout
    assert "uninstall" in alone.stdout
    assert run("--bad").returncode == 2


def test_a_kernel_with_a_loop_of_ones_own(tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not made for this platform")
    options = ["--prefix", str(tmp_path), "--name", "Fast", "--display-name", "Fast loop"]
    installed = run("install", *options, "--loop-factory", "uvloop.new_event_loop")
    assert installed.returncode == 0, installed.stderr
    assert installed.stdout.startswith(f"Installed kernelspec fast in {kernels / 'fast'}\n")
    # The front ends of this environment do not look there; it is said how they do.
    variable, value = installed.stdout.split("Start it with ")[1].split(",")[0].split("=")
    monkeypatch.setenv(variable, value)
    spec = KernelSpecManager().get_kernel_spec("fast")
    assert spec.display_name == "Fast loop"
    assert spec.argv[0] == sys.executable
    with kernel(tmp_path, name="fast", forked=False) as k:
        assert k.ok("type(asyncio.get_running_loop()).__module__, await asyncio.sleep(0, 1)").value == "('uvloop', 1)"
        assert k.ok("%config NotebookRunner.interrupt_grace").value == "1.0"
        k.expect_alive()
    removed = run("uninstall", *options[:4])
    assert (removed.returncode, removed.stdout) == (0, f"Removed kernelspec fast from {kernels / 'fast'}\n")
    assert names(kernels) == []


def test_the_user_and_the_environment(
    tmp_path: Path, user: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for option, folder in (("--user", user), ("--sys-prefix", kernels)):
        assert main(["install", option]) == 0
        assert main(["install", option, "--interrupt-mode", "message"]) == 0  # it replaces its own
        assert names(folder / "ipyrunner") == FILES
        spec = json.loads((folder / "ipyrunner" / "kernel.json").read_text())
        assert spec["interrupt_mode"] == "message"
        assert RUNNER_KERNEL in spec["argv"]
    # Where one is, the error says; then it is gone from both.
    for option, other in (("--user", "--sys-prefix"), ("--sys-prefix", None)):
        assert main(["uninstall", option]) == 0
        capsys.readouterr()
        assert main(["uninstall", option]) == 1
        error = capsys.readouterr().err
        assert "there is no kernelspec ipyrunner in" in error
        assert (f"run this command with {other}" if other else "`jupyter kernelspec list`") in error


def test_the_same_as_pip_installs(tmp_path: Path, kernels: Path) -> None:
    assert main(["install", "--prefix", str(tmp_path)]) == 0
    pips = KernelSpecManager().get_kernel_spec("ipyrunner")
    ours = json.loads((kernels / "ipyrunner" / "kernel.json").read_text())
    assert ours["argv"][:1] + pips.argv[1:] == ours["argv"]
    assert ours["display_name"] == pips.display_name
    assert (ours["language"], ours["interrupt_mode"]) == (pips.language, pips.interrupt_mode)
    for logo in FILES[1:]:
        assert (kernels / "ipyrunner" / logo).read_bytes() == Path(pips.resource_dir, logo).read_bytes()


def test_the_packages_own_is_left_to_pip(
    tmp_path: Path, user: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    shutil.copytree(RESOURCES, kernels / "ipyrunner")
    for option in ("--user", "--sys-prefix"):
        assert main(["uninstall", option]) == 1
        error = capsys.readouterr().err
        assert "belongs to the package: `pip uninstall ipyrunner` removes both" in error
        assert "run this command" not in error
    assert names(kernels / "ipyrunner") == FILES


MISTAKES = {
    "a name with a space": (
        ["install", "--name", "my kernel"],
        "'my kernel' is not a valid name for a kernel",
        "--display-name",
    ),
    "the folder above": (
        ["install", "--name", ".."],
        "'..' is not a valid name for a kernel",
        "--name takes ASCII letters",
    ),
    "a path": (["uninstall", "--name", "../kernels"], "'../kernels' is not a valid name", "--name takes ASCII letters"),
    "no such module": (
        ["install", "--loop-factory", "no_such.loop"],
        "No module named 'no_such'",
        "Install its package there",
    ),
    "no such function": (["install", "--loop-factory", "asyncio.no_such"], "asyncio.no_such", "name another function"),
    "no factory": (
        ["install", "--loop-factory", "json.decoder"],
        "loop_factory has to be a callable",
        "name another function",
    ),
    "no loop": (
        ["install", "--loop-factory", "builtins.dict"],
        "TypeError: loop_factory returned {}",
        "name another function",
    ),
    "not there": (["uninstall", "--name", "nobody"], "there is no kernelspec nobody", "`jupyter kernelspec list`"),
}


@pytest.mark.parametrize(("arguments", "cause", "call"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(
    tmp_path: Path,
    user: Path,
    kernels: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    cause: str,
    call: str,
) -> None:
    assert main([*arguments, "--prefix", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"python -m ipyrunner {arguments[0]}: ")
    assert cause in error
    assert call in error
    assert not kernels.exists()


def test_a_prefix_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["install", "--prefix", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'file'}" in error
    assert "Not a directory" in error
    assert "--user" in error
    assert "--sys-prefix" in error


def test_what_has_failed_is_not_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "file"))
    assert main(["install", "--user"]) == 1
    assert "with --sys-prefix, or into another place with --prefix" in (error := capsys.readouterr().err)
    assert "--user" not in error
    monkeypatch.setattr("sys.prefix", str(tmp_path / "file"))
    assert main(["install", "--sys-prefix"]) == 1
    assert "with --user, or into another place with --prefix" in (error := capsys.readouterr().err)
    assert "--sys-prefix" not in error


def test_the_kernelspecs_of_others_stay(tmp_path: Path, kernels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kernels / "python3").mkdir(parents=True)
    spec = '{"argv": ["python", "-m", "ipykernel_launcher"], "display_name": "Mine", "language": "python"}'
    (kernels / "python3" / "kernel.json").write_text(spec)
    (kernels / "broken").mkdir()
    (kernels / "broken" / "kernel.json").write_text("[")
    for name in ("python3", "broken"):
        for command in ("install", "uninstall"):
            assert main([command, "--prefix", str(tmp_path), "--name", name]) == 1
            error = capsys.readouterr().err
            assert f"{kernels / name} " in error
            assert "does not belong to ipyrunner" in error
        assert names(kernels / name) == ["kernel.json"]
    assert (kernels / "python3" / "kernel.json").read_text() == spec
