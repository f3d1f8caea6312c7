"""What is special to the kernel of its own: the extension is in it, and may be taken out.

The kernelspec is the one that the package has installed into this environment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

import headless
from kernels import BEFORE, DEADLINE, Kernel, kernel

# Seconds in which an interrupted cell ends, all of which would go on for a minute or more.
SOON = 30


@pytest.fixture(params=["signal", "message"])
def k(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernel]:
    with kernel(tmp_path, name="ipyrunner", by_message=request.param == "message") as started:
        yield started


def test_nbclient_and_the_installed_kernelspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = "import asyncio\nasyncio.run(asyncio.sleep(0.01, 'no extension to load'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    headless.client(notebook, tmp_path, kernel_name="ipyrunner").execute()
    assert notebook.cells[0].outputs[0].data["text/plain"] == "'no extension to load'"


STUCK = {
    "await": "print('go'); await asyncio.sleep(60)",
    "plain": "import time; print('go'); time.sleep(60)",
    "never yields": "await asyncio.sleep(0); print('go')\nwhile True: pass",
    "child process": "import subprocess, sys\nprint('go')\nsubprocess.run(['sleep', '60'])",
}


def test_interrupts_and_shutdown(k: Kernel) -> None:
    for name, code in STUCK.items():
        cell = k.begin(code)
        k.interrupted(cell, "go", SOON)
        assert cell.ename == "KeyboardInterrupt", name
        k.expect_alive()
    path = Path(k.log.parent) / "left"
    k.ok(
        "async def task():\n    try: await asyncio.sleep(60)\n"
        f"    finally: open({str(path)!r}, 'w').write('clean')\n"
        "t = asyncio.create_task(task()); await asyncio.sleep(0)"
    )
    k.manager.shutdown_kernel()
    assert path.read_text() == "clean"


def test_signals_reach_code_that_keeps_the_gil(own: Kernel, tmp_path: Path) -> None:
    # Why the kernelspec says "signal": the thread that answers messages would not get the GIL before the end, which is
    # minutes away. Nor may the one that sends what is printed.
    assert own.manager.kernel_spec.interrupt_mode == "signal"
    marker = tmp_path / "go"
    cell = own.begin(f"open({str(marker)!r}, 'w').close(); x = 7 ** 10 ** 8")
    wait_for(marker)
    own.interrupt()
    assert own.finish(cell, SOON).ename == "KeyboardInterrupt"
    own.expect_alive()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.01)


LOOP = "id(asyncio.get_event_loop()) == loop_id"


def test_loading_it_again_changes_nothing(own: Kernel) -> None:
    own.ok("t = asyncio.create_task(asyncio.sleep(60)); await asyncio.sleep(0)")
    assert own.ok("%load_ext ipyrunner").stdout == ""
    own.expect_alive()
    assert own.ok("t.done()").value == "False"
    own.ok("t.cancel(); await asyncio.wait([t])")


def test_reloading_it_gives_a_new_loop(k: Kernel) -> None:
    k.ok("async def task():\n    try: await asyncio.sleep(60)\n    finally: print('cleaned')")
    started = k.ok("t = asyncio.create_task(task()); await asyncio.sleep(0)")
    k.ok("%reload_ext ipyrunner")
    k.wait_for(started, "cleaned")
    assert k.ok("(t.cancelled(), loop_id == id(t.get_loop()), t.get_loop().is_closed())").value == "(True, True, True)"
    expect_runner(k)


def test_messages_need_no_signal(tmp_path: Path) -> None:
    with kernel(tmp_path, name="ipyrunner", by_message=True) as k:
        for before in ("None", "%reload_ext ipyrunner"):
            k.ok(before)
            k.ok(BEFORE)
            cell = k.begin(
                "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
                "print('go'); await asyncio.sleep(60)"
            )
            k.interrupted(cell, "go", SOON)
            assert cell.ename == "KeyboardInterrupt"
            assert k.ok("signal.sigpending()").value == "set()"
            k.ok("signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])")
            k.expect_alive()


def test_unloading_it_leaves_a_plain_kernel(k: Kernel) -> None:
    k.ok("%unload_ext ipyrunner")
    expect_plain(k)
    k.ok("%load_ext ipyrunner")
    expect_runner(k)
    assert "already loaded" in k.ok("%load_ext ipyrunner").stdout  # the user has loaded it


def expect_runner(k: Kernel) -> None:
    """The extension is there: cells are interrupted as cells, on one loop."""
    k.ok(BEFORE)
    assert k.ok("asyncio.run(asyncio.sleep(0.01, 'ran'))").value == "'ran'"
    cell = k.begin(
        "try: print('go'); await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.01)\n    print('cleaned')"
    )
    k.interrupted(cell, "go", SOON)
    assert (cell.ename, cell.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")
    k.expect_alive()


def expect_plain(k: Kernel) -> None:
    """The extension is not there: cells run as in ipykernel's own kernel, and are interrupted as there."""
    assert "asyncio.run() cannot be called" in k.run("import asyncio; asyncio.run(asyncio.sleep(0))").traceback
    assert k.run("%arunner").ename == "UsageError" or "`%arunner` not found" in k.run("%arunner").stderr
    assert k.ok("await asyncio.sleep(0.01, 'awaited')").value == "'awaited'"
    cell = k.begin("import time; print('go'); time.sleep(60)")
    k.interrupted(cell, "go", SOON)
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("1 + 1").value == "2"


@pytest.mark.parametrize("setting", ["loop_factory=no_such_module.new_event_loop", "interrupt_grace=-1"])
def test_a_setting_that_cannot_be_leaves_a_plain_kernel(tmp_path: Path, setting: str) -> None:
    with kernel(tmp_path, f"--NotebookRunner.{setting}", name="ipyrunner", load=False, by_message=True) as k:
        first = k.ok("1")
        assert "ipyrunner: the extension could not be loaded (TraitError: " in first.stderr
        assert setting.partition("=")[0] in first.stderr
        assert "or run `%load_ext ipyrunner` to try again" in first.stderr
        assert k.ok("2").stderr == ""
        assert "the extension could not be loaded" in k.log.read_text()
        expect_plain(k)
        assert k.run("%load_ext ipyrunner").ename == "TraitError"
        # The setting mended, as the message says.
        k.ok("del get_ipython().config['NotebookRunner']")
        k.ok("%load_ext ipyrunner")
        expect_runner(k)


@pytest.mark.parametrize("name", ["ipyrunner", "python3"])
def test_code_that_runs_before_the_kernel_starts(tmp_path: Path, name: str) -> None:
    # It runs as cells do. The kernel must not start on the notebook's loop, which is the current one in such cells.
    profile = tmp_path / "profile_default"
    profile.mkdir()
    lines = [
        "import asyncio; kept = 'kept'; loop_id = id(asyncio.get_event_loop())",
        "x = await asyncio.sleep(0.01, 5)",
        "t = asyncio.create_task(asyncio.sleep(0.01, 7))",
    ]
    (profile / "ipython_config.py").write_text(
        f"c.InteractiveShellApp.extensions = ['ipyrunner']\nc.InteractiveShellApp.exec_lines = {lines!r}\n"
    )
    with kernel(tmp_path, name=name, load=False) as k:
        assert k.ok("(x, await t, id(t.get_loop()) == loop_id)").value == "(5, 7, True)"
        cell = k.begin("print('go'); await asyncio.sleep(60)")
        k.interrupted(cell, "go", SOON)
        k.expect_alive()


def test_the_installed_kernelspec() -> None:
    spec = KernelSpecManager().get_kernel_spec("ipyrunner")
    folder = Path(spec.resource_dir)
    assert folder == Path(sys.prefix, "share", "jupyter", "kernels", "ipyrunner")
    assert spec.argv[0] == "python"  # which a front end replaces by its own
    assert (spec.display_name, spec.language) == ("Python 3 (ipyrunner)", "python")
    assert spec.metadata["debugger"] is True
    for size in (32, 64):
        png = (folder / f"logo-{size}x{size}.png").read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        assert [int.from_bytes(png[i : i + 4]) for i in (16, 20)] == [size, size]
    assert "<svg" in (folder / "logo-svg.svg").read_text()
