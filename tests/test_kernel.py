"""The kernel of its own: what front ends ask of any kernel, and what is special to this one.

The kernelspec is the one that the package has installed into this environment.
"""

from __future__ import annotations

import os
import sys
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

import ipykernel
import jupyter_kernel_test
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel
from jupyter_kernel_test.msgspec_v5 import validate_message

import ipyrunner
from kernels import BEFORE, DEADLINE, Kernel, kernel


@pytest.fixture(params=["signal", "message"])
def k(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernel]:
    with kernel(tmp_path, name="ipyrunner", by_message=request.param == "message") as started:
        yield started


@pytest.fixture(scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython"), name="ipyrunner") as started:
        yield started


@pytest.fixture
def own(_own: Kernel) -> Kernel:
    """A kernel for tests that leave it as it was."""
    _own.ok("%reset -f")
    _own.ok(BEFORE)
    return _own


# -- what front ends ask of any kernel


class Plain(jupyter_kernel_test.KernelTests):
    __test__ = False  # see test_what_front_ends_ask
    kernel_name = "ipyrunner"
    ipython_dir = ""
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('oh', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}, {"text": "%arunn", "matches": {"%arunner"}}]
    complete_code_samples = ["1", "def f():\n    return 1\n\n", "%arun f()", "[await x for x in y]"]
    incomplete_code_samples = ["print('''hello", "def f(x):", "async def f():", "await f("]
    invalid_code_samples = ["import = 7n", "def f() pass"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('no')"
    code_execute_result = [{"code": "6*7", "result": "42"}, {"code": "1, 2", "result": "(1, 2)"}]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))", "mime": "text/html"}
    ]
    code_history_pattern = "6[*]7"
    supported_history_operations = ("tail", "search")  # range: see test_history_by_range
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        cls.km, cls.kc = start_new_kernel(
            kernel_name=cls.kernel_name, env={**os.environ, "IPYTHONDIR": cls.ipython_dir}
        )
        # The package gives each message a tenth of a second: too little on a machine that has other things to do.
        get = cls.kc.iopub_channel.get_msg
        cls.kc.iopub_channel.get_msg = lambda timeout: get(timeout=DEADLINE)

    def flush_channels(self) -> None:
        # The package waits until nothing comes for as long; here, for the end of a request that is the last one.
        last = self.kc.kernel_info()
        while True:
            message = self.kc.iopub_channel.get_msg(timeout=DEADLINE)
            validate_message(message)
            if message["parent_header"]["msg_id"] == last and message["content"].get("execution_state") == "idle":
                break
        while self.kc.get_shell_msg(timeout=DEADLINE)["parent_header"]["msg_id"] != last:
            pass


class Awaiting(Plain):
    code_hello_world = "import asyncio\nprint('hello,', await asyncio.sleep(0.01, 'world'))"
    code_stderr = "import asyncio, sys; print(await asyncio.sleep(0.01, 'oh'), file=sys.stderr)"
    code_page_something = "import asyncio; await asyncio.sleep(0.01)\nzip?"
    code_generate_error = "import asyncio\nawait asyncio.wait_for(asyncio.sleep(5), 0.01)"
    code_execute_result = [
        {"code": "import asyncio; await asyncio.sleep(0.01, 6*7)", "result": "42"},
        {"code": "%%arun\nasyncio.sleep(0.01, 'done')", "result": "'done'"},
    ]
    code_display_data = [
        {
            "code": "import asyncio\nfrom IPython.display import HTML, display\n"
            "display(HTML(await asyncio.sleep(0.01, '<b>x</b>')))",
            "mime": "text/html",
        }
    ]
    code_history_pattern = "*await*6[*]7*"
    code_clear_output = (
        "import asyncio\nfrom IPython.display import clear_output\nawait asyncio.sleep(0.01)\nclear_output()"
    )


class Welcome(jupyter_kernel_test.IopubWelcomeTests):
    __test__ = False
    kernel_name = "ipyrunner"
    support_iopub_welcome = True


ASKED = {
    "test_clear_output",
    "test_completion",
    "test_display_data",
    "test_error",
    "test_execute_result",
    "test_execute_stderr",
    "test_execute_stdout",
    "test_history",
    "test_inspect",
    "test_is_complete",
    "test_kernel_info",
    "test_pager",
}


def ask(case: type[unittest.TestCase]) -> set[str]:
    """Run all tests of *case*, none of which may fail or, but for that one, be skipped; return their names."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    names = {test.id().rpartition(".")[2] for test in suite}
    result = unittest.TestResult()
    suite.run(result)
    assert not result.errors + result.failures, "\n".join(text for _, text in result.errors + result.failures)
    assert [why for _, why in result.skipped] == ["History range not supported"] * ("test_history" in names)
    assert result.testsRun == len(names)
    return names


@pytest.mark.parametrize("case", [Plain, Awaiting])
def test_what_front_ends_ask(case: type[Plain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "ipython_dir", str(tmp_path))
    assert ask(case) >= ASKED


def test_history_by_range(own: Kernel) -> None:
    # IPython calls the present session 0 in its answer, where that test insists on the number asked for.
    for code in ("6 * 7", "await asyncio.sleep(0.01, 42)"):
        number = own.ok(code).reply["execution_count"]
        request = {"hist_access_type": "range", "session": 0, "start": number, "stop": number + 1}
        asked = own.track(own.client.session.msg("history_request", {**request, "raw": True, "output": True}))
        assert own.finish(asked).reply["history"] == [[0, number, [code, "42"]]]


@pytest.mark.skipif(ipykernel.version_info < (7, 0), reason="ipykernel before 7 sends no iopub_welcome")
def test_the_welcome_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    assert ask(Welcome) == {"test_recv_iopub_welcome_msg"}


@pytest.mark.parametrize("first", ["", "await asyncio.sleep(0.01)\n"], ids=["plain", "awaiting"])
def test_stdin(own: Kernel, first: str) -> None:
    cell = own.begin(first + "answer = input('what? ')\nprint('answer:', answer)", allow_stdin=True)
    request = own.client.get_stdin_msg(timeout=DEADLINE)
    assert request["content"] == {"prompt": "what? ", "password": False}
    own.client.input("this")
    assert own.finish(cell).stdout == "answer: this\n"
    own.expect_alive()


def test_comms(own: Kernel) -> None:
    own.ok(
        "def opened(comm, message):\n"
        "    @comm.on_msg\n"
        "    def echo(message): comm.send({'echo': message['content']['data'], 'task': later()})\n"
        "def later(): return asyncio.create_task(asyncio.sleep(0)).get_loop() is asyncio.get_running_loop()\n"
        "get_ipython().kernel.comm_manager.register_target('ours', opened)"
    )
    own.send_comm("comm_open", {"comm_id": "c", "target_name": "ours", "data": {}})
    sent = own.send_comm("comm_msg", {"comm_id": "c", "data": 1})
    assert own.wait_for_message(sent, "comm_msg")["content"]["data"] == {"echo": 1, "task": True}
    info = own.track(own.client.session.msg("comm_info_request", {"target_name": "ours"}))
    assert own.finish(info).reply["comms"] == {"c": {"target_name": "ours"}}
    own.send_comm("comm_close", {"comm_id": "c", "data": {}})
    own.expect_alive()


def test_what_it_says_it_is(own: Kernel) -> None:
    asked = own.track(own.client.session.msg("kernel_info_request"))
    info = own.finish(asked).reply
    assert (info["implementation"], info["implementation_version"]) == ("ipyrunner", ipyrunner.__version__)
    # What front ends take for IPython's.
    language = info["language_info"]
    assert (language["name"], language["version"]) == ("python", sys.version.split()[0])
    assert (language["codemirror_mode"]["name"], language["pygments_lexer"]) == ("ipython", "ipython3")
    assert "IPython" in info["banner"]
    assert f"ipyrunner {ipyrunner.__version__}" in info["banner"]
    links = [link["text"] for link in info["help_links"]]
    assert {"Python Reference", "asyncio Reference"} <= set(links)


def test_nbclient_and_the_installed_kernelspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = "import asyncio\nasyncio.run(asyncio.sleep(0.01, 'no extension to load'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="ipyrunner").execute()
    assert notebook.cells[0].outputs[0].data["text/plain"] == "'no extension to load'"


# -- interrupts, by signal and by message

STUCK = {
    "await": "print('go'); await asyncio.sleep(60)",
    "plain": "import time; print('go'); time.sleep(60)",
    "never yields": "await asyncio.sleep(0); print('go')\nwhile True: pass",
    "child process": "import subprocess, sys\nprint('go')\nsubprocess.run(['sleep', '60'])",
}


def test_interrupts_and_shutdown(k: Kernel) -> None:
    for name, code in STUCK.items():
        cell = k.begin(code)
        assert k.interrupted(cell, "go") < 10, name
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
    pressed = own.interrupt()
    assert own.finish(cell).ename == "KeyboardInterrupt"
    assert time.monotonic() - pressed < 10
    own.expect_alive()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.01)


# -- the extension in it

LOOP = "id(asyncio.get_event_loop()) == loop_id"


def test_loading_it_again_changes_nothing(own: Kernel) -> None:
    own.ok("t = asyncio.create_task(asyncio.sleep(60)); await asyncio.sleep(0)")
    assert "already loaded" in own.ok("%load_ext ipyrunner").stdout
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
            assert k.interrupted(cell, "go") < 10
            assert cell.ename == "KeyboardInterrupt"
            assert k.ok("signal.sigpending()").value == "set()"
            k.ok("signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])")
            k.expect_alive()


def test_unloading_it_leaves_a_plain_kernel(k: Kernel) -> None:
    k.ok("%unload_ext ipyrunner")
    expect_plain(k)
    k.ok("%load_ext ipyrunner")
    expect_runner(k)


def expect_runner(k: Kernel) -> None:
    """The extension is there: cells are interrupted as cells, on one loop."""
    k.ok(BEFORE)
    assert k.ok("asyncio.run(asyncio.sleep(0.01, 'ran'))").value == "'ran'"
    cell = k.begin(
        "try: print('go'); await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.01)\n    print('cleaned')"
    )
    assert k.interrupted(cell, "go") < 10
    assert (cell.ename, cell.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")
    k.expect_alive()


def expect_plain(k: Kernel) -> None:
    """The extension is not there: cells run as in ipykernel's own kernel, and are interrupted as there."""
    assert "asyncio.run() cannot be called" in k.run("import asyncio; asyncio.run(asyncio.sleep(0))").traceback
    assert k.run("%arunner").ename == "UsageError" or "`%arunner` not found" in k.run("%arunner").stderr
    assert k.ok("await asyncio.sleep(0.01, 'awaited')").value == "'awaited'"
    cell = k.begin("import time; print('go'); time.sleep(60)")
    assert k.interrupted(cell, "go") < 10
    assert cell.ename == "KeyboardInterrupt"
    assert k.ok("1 + 1").value == "2"


@pytest.mark.parametrize("setting", ["loop_factory=no_such_module.new_event_loop", "interrupt_grace=-1"])
def test_a_setting_that_cannot_be_leaves_a_plain_kernel(tmp_path: Path, setting: str) -> None:
    with kernel(tmp_path, f"--NotebookRunner.{setting}", name="ipyrunner", load=False, by_message=True) as k:
        first = k.ok("1")
        assert "ipyrunner: the extension could not be loaded (TraitError: " in first.stderr
        assert setting.partition("=")[0] in first.stderr
        assert "`%load_ext ipyrunner` tries again" in first.stderr
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
        assert k.interrupted(cell, "go") < 10
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
