"""Windows: no signal to a thread, no fd that stands for a loop's, no loop that watches fds. See ``windows.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import Kernel
from windows import ON_PROACTOR, SETUPS, modules_like_windows, windows_kernel


@pytest.fixture(scope="module", params=SETUPS)
def _k(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with windows_kernel(tmp_path_factory.mktemp("ipython"), request.param) as started:
        started.setup = request.param
        yield started.settled()


@pytest.fixture
def k(_k: Kernel) -> Kernel:
    """A kernel on each setup; each test starts with a new loop and Context."""
    return _k.renewed()


def test_it_is_as_on_windows(k: Kernel) -> None:
    k.ok("import os, select, signal")
    assert k.ok("[hasattr(signal, 'pthread_kill'), hasattr(os, 'fork'), hasattr(select, 'epoll')]").value == str(
        [False] * 3
    )
    k.ok("watches = type(asyncio.get_event_loop()).add_reader is not asyncio.AbstractEventLoop.add_reader")
    assert k.ok("watches").value == str(k.setup != ON_PROACTOR)
    # In slices, for want of an fd to wait for.
    assert k.ok("import ipyrunner; ipyrunner.get_runner().present.hosting.polls").value == "True"


def test_cells_run(k: Kernel) -> None:
    assert k.ok("await asyncio.sleep(0.01, 1)").value == "1"
    assert k.ok("asyncio.run(asyncio.sleep(0.01, 2))").value == "2"
    assert k.ok("%arun asyncio.sleep(0.01, 3)").value == "3"
    assert k.ok("await asyncio.to_thread(lambda: 4)").value == "4"
    assert k.ok("task = asyncio.create_task(asyncio.sleep(0.01, 5)); await task").value == "5"
    k.expect_alive()


def test_tasks_make_progress_while_no_cell_runs(k: Kernel) -> None:
    started = k.ok(
        "async def count():\n"
        "    for i in range(5): await asyncio.sleep(0.01); print(i)\n"
        "    print('counted')\n"
        "counting = asyncio.create_task(count())"
    )
    k.wait_for(started, "counted")
    assert started.stdout == "0\n1\n2\n3\n4\ncounted\n"


def test_a_server_answers_while_no_cell_runs(k: Kernel) -> None:
    k.ok("async def serve(reader, writer): writer.write(await reader.readline()); await writer.drain(); writer.close()")
    k.ok("server = await asyncio.start_server(serve, '127.0.0.1', 0)")
    k.ok("import socket, threading\nport, answers = server.sockets[0].getsockname()[1], []")
    k.ok(
        "def ask():\n"
        "    with socket.create_connection(('127.0.0.1', port)) as s: s.sendall(b'hello\\n'); answers.append(s.recv(10))\n"
        "asking = threading.Thread(target=ask); asking.start()"
    )
    k.ok("while asking.is_alive(): await asyncio.sleep(0.01)")
    assert k.ok("answers").value == "[b'hello\\n']"
    k.ok("server.close(); await server.wait_closed()")


# Each prints "go" and goes on for ever.
CELLS = {
    "await": "print('go'); await asyncio.sleep(600)",
    "a task": "async def f():\n    print('go'); await asyncio.sleep(600)\nawait asyncio.create_task(f())",
    "a busy loop that has awaited": "await asyncio.sleep(0); print('go')\nwhile True: pass",
    "a busy task": "async def f():\n    print('go')\n    while True: pass\nawait asyncio.create_task(f())",
    "a plain busy loop": "print('go')\nwhile True: pass",
    "asyncio.run": "async def f():\n    print('go'); await asyncio.sleep(600)\nasyncio.run(f())",
    "%arun": "async def f():\n    print('go'); await asyncio.sleep(600)\n%arun f()",
}


@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS)
def test_one_interrupt_ends_a_cell(k: Kernel, code: str) -> None:
    k.ok("ticks = 0\nasync def tick():\n    global ticks\n    while True: ticks += 1; await asyncio.sleep(0.01)")
    k.ok("ticking = asyncio.create_task(tick())")
    for _ in range(2):
        cell = k.begin(code)
        k.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        k.expect_alive()
    k.ok("before = ticks\nwhile ticks < before + 3: await asyncio.sleep(0.01)\nticking.cancel()")


def test_the_cells_clean_up_runs(k: Kernel) -> None:
    cell = k.begin(
        "try: print('go'); await asyncio.sleep(600)\nfinally: await asyncio.sleep(0.01); print('cleaned up')"
    )
    k.interrupted(cell, "go")
    assert (cell.ename, cell.stdout) == ("KeyboardInterrupt", "go\ncleaned up\n")
    k.expect_alive()


def test_an_interrupt_wakes_a_run_though_a_loop_of_the_cells_has_been_closed(k: Kernel) -> None:
    # Windows' loops take the wakeup fd when they are made, and leave none when they are closed.
    k.ok(
        "import proactor\nloop = proactor.ProactorEventLoop(); loop.run_until_complete(asyncio.sleep(0)); loop.close()"
    )
    cell = k.begin(CELLS["%arun"])
    k.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    k.expect_alive()


def test_an_interrupt_ends_a_background_task_that_never_yields(k: Kernel) -> None:
    started = k.ok("async def stick():\n    print('stuck')\n    while True: pass\nstuck = asyncio.create_task(stick())")
    k.wait_for(started, "stuck")
    k.interrupt()
    k.expect_alive()
    assert k.ok("stuck.done()").value == "True"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "running"),
    [
        ("restart", "await"),
        *(("shutdown", running) for running in ("nothing", "await", "a plain busy loop", "a busy task")),
    ],
)
@pytest.mark.parametrize("setup", SETUPS)
def test_the_end_of_the_kernel_cleans_up(tmp_path: Path, setup: str, running: str, ends: str) -> None:
    left = tmp_path / "left"
    with windows_kernel(tmp_path, setup) as k:
        k.ok(
            "async def task():\n"
            "    try: await asyncio.sleep(600)\n"
            f"    finally: await asyncio.sleep(0.01); open({str(left)!r}, 'w').close()\n"
            "cleans_up = asyncio.create_task(task()); await asyncio.sleep(0)"
        )
        if running in CELLS:
            cell = k.begin(CELLS[running])
            k.wait_for(cell, "go")
        # A kernel manager sends SIGTERM after half of this, and kills: neither is to help.
        k.manager.shutdown_wait_time = 100
        if ends == "shutdown":
            k.manager.shutdown_kernel()
        else:
            k.manager.restart_kernel()
            k.client.wait_for_ready(timeout=100)
        assert left.exists()


# All modules once, so that what they import of others' is there. Then again, as on Windows.
LOAD = """
import asyncio, importlib, os, pathlib, pkgutil, select, signal, sys
from IPython.core.interactiveshell import InteractiveShell
import ipyrunner

shell = InteractiveShell.instance()
asyncio.new_event_loop().close()  # by this system's policy
names = [m.name for m in pkgutil.walk_packages(ipyrunner.__path__, "ipyrunner.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "ipyrunner"]:
    del sys.modules[name]

if sys.platform != "win32":
    sys.platform, os.name = "win32", "nt"
    pathlib.Path.__new__.__globals__["WindowsPath"] = pathlib.PosixPath
    for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty", "asyncio.unix_events"):
        sys.modules[name] = None
    vars(asyncio).pop("unix_events")

for name in names:
    importlib.import_module(name)
import ipyrunner.kernel.kernelspec
assert ipyrunner.kernel.kernelspec._INTERRUPT_MODE == "message"

def run(code):
    result = shell.run_cell(code)
    result.raise_error()
    return result.result

shell.extension_manager.load_extension("ipyrunner")
assert run("import asyncio; await asyncio.sleep(0.01, 1)") == 1
assert run("asyncio.run(asyncio.sleep(0.01, 2))") == 2
assert run("get_ipython().run_line_magic('arun', 'asyncio.sleep(0.01, 3)')") == 3
run("get_ipython().run_line_magic('arunner', 'restart')")
assert run("await asyncio.sleep(0.01, 4)") == 4
shell.extension_manager.unload_extension("ipyrunner")
print("loaded", len(names))
"""


def test_all_modules_load_as_on_windows(tmp_path: Path) -> None:
    path = modules_like_windows(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("loaded ")[1]) > 90
