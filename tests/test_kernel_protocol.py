"""What front ends ask of any kernel, asked of the kernel of its own."""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path

import ipykernel
import jupyter_kernel_test
import pytest
from jupyter_client.manager import KernelManager
from jupyter_kernel_test.msgspec_v5 import validate_message

import ipyrunner
from kernels import DEADLINE, Kernel, sockets


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
        cls.km = KernelManager(kernel_name=cls.kernel_name, **sockets(cls.ipython_dir))
        cls.km.start_kernel(env={**os.environ, "IPYTHONDIR": cls.ipython_dir})
        cls.kc = cls.km.client()
        cls.kc.start_channels()
        cls.kc.wait_for_ready(timeout=DEADLINE)
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

    @classmethod
    def setUpClass(cls) -> None:
        # As there, but nothing warns, neither the kernel nor its debugger: that may be published before the welcome.
        cls.km = KernelManager(kernel_name=cls.kernel_name, **sockets(os.environ["IPYTHONDIR"]))
        cls.km.start_kernel(
            extra_arguments=["--log-level=50"], env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        )
        cls.kc = cls.km.client()


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
