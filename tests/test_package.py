"""What the wheel and the sdist contain."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import ipyrunner

ROOT = Path(__file__).parent.parent
KERNELSPEC = ["kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, env={**os.environ, "PYTHONWARNINGS": ""})
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    with tarfile.open(build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))) as sdist:
        sdist.extractall(folder := tmp_path_factory.mktemp("unpacked"), filter="data")
    (top,) = folder.iterdir()
    return top


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts
    }


def test_the_wheel_contains_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"ipyrunner-{ipyrunner.__version__}.dist-info/"
    data = f"ipyrunner-{ipyrunner.__version__}.data/data/share/jupyter/kernels/ipyrunner/"
    files = {name for name in wheel.namelist() if not name.startswith(info)}
    assert files - {data + name for name in KERNELSPEC} == files_of(ROOT / "src")
    assert "ipyrunner/py.typed" in files


def test_the_wheel_brings_the_kernelspec(wheel: zipfile.ZipFile) -> None:
    data = [name for name in wheel.namelist() if "/data/share/jupyter/kernels/ipyrunner/" in name]
    assert sorted(Path(name).name for name in data) == KERNELSPEC
    for name in data:  # install copies from the package
        assert wheel.read(name) == wheel.read(f"ipyrunner/kernel/resources/{Path(name).name}")


def test_the_metadata(wheel: zipfile.ZipFile) -> None:
    info = f"ipyrunner-{ipyrunner.__version__}.dist-info/"
    metadata = Parser().parsestr(wheel.read(f"{info}METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("ipyrunner", ipyrunner.__version__)
    required = [name for name in metadata.get_all("Requires-Dist") or () if "extra ==" not in name]
    assert sorted(required) == ["ipykernel>=6.17", "ipython>=7.34"]
    assert wheel.read(f"{info}licenses/LICENSE").decode() == (ROOT / "LICENSE").read_text()


def test_the_sdist_has_what_the_tests_need(unpacked: Path) -> None:
    files = files_of(unpacked)
    for folder in ("src", "tests", "notebooks", "docs", "benchmarks"):
        committed = {f"{folder}/{name}" for name in files_of(ROOT / folder) if "_build/" not in name}
        assert committed <= files, folder
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml"} <= files


def test_the_sdist_builds_the_same_wheel(wheel: zipfile.ZipFile, unpacked: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", unpacked, tmp_path)) as again:
        assert {name: again.read(name) for name in again.namelist()} == {
            name: wheel.read(name) for name in wheel.namelist()
        }
