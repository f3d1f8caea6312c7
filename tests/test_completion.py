"""Tab in the line of a magic, and ``--help``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kernels import DEADLINE, Kernel, kernel


@pytest.fixture(scope="module")
def _kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("ipython")) as started:
        # Names that jedi finds in the options, read as Python.
        started.ok("import asyncio\ntimer = cancel_me = debugger = 1\nasync def fetch(): pass")
        started.ok("for name in ('crawl', 'two words', 'In[x'): asyncio.create_task(asyncio.sleep(3600), name=name)")
        yield started


@pytest.fixture(params=["jedi", "no jedi", "plain"])
def k(_kernel: Kernel, request: pytest.FixtureRequest) -> Kernel:
    _kernel.ok(f"%config IPCompleter.use_jedi = {request.param == 'jedi'}")
    _kernel.ok(f"%config IPythonKernel.use_experimental_completions = {request.param != 'plain'}")
    return _kernel


def complete(k: Kernel, code: str) -> dict[str, Any]:
    k.client.complete(code)
    while True:
        reply = k.client.get_shell_msg(timeout=DEADLINE)
        if reply["msg_type"] == "complete_reply":
            content: dict[str, Any] = reply["content"]
            assert content["status"] == "ok"
            return content


def completed(k: Kernel, code: str) -> list[str]:
    """Return what the line becomes by each of the matches."""
    content = complete(k, code)
    return [(code[: content["cursor_start"]] + match).rpartition("\n")[2] for match in content["matches"]]


def test_options_of_arun(k: Kernel) -> None:
    options = ["--timeout", "--name", "--debug", "--context", "--fresh", "--background", "--concurrent", "--scope"]
    options += ["--progress", "--profile", "--trace", "--output", "--help"]
    assert completed(k, "%%arun --") == [f"%%arun {option}" for option in options]
    assert completed(k, "%%arun --ti") == ["%%arun --timeout"]
    assert completed(k, "%%arun --debug --timeout 3 --na") == ["%%arun --debug --timeout 3 --name"]
    assert completed(k, "%%arun --debug --de") != ["%%arun --debug --debug"]
    assert completed(k, "%%arun --context ") == ["%%arun --context copy"]


def test_an_expression_of_arun_is_python(k: Kernel) -> None:
    assert any("sleep" in line for line in completed(k, "%arun asyncio.sle"))
    assert completed(k, "%arun --") == ["%arun --help"]
    assert "asyncio.sleep" in completed(k, "%%arun --debug\nasyncio.slee")


def test_actions_and_tasks(k: Kernel) -> None:
    assert completed(k, "%atasks ") == [
        f"%atasks {action}" for action in ("tree", "show", "cancel", "wait", "background")
    ]
    assert completed(k, "%atasks ca") == ["%atasks cancel"]
    assert completed(k, "%atasks t") == ["%atasks tree"]
    assert "%atasks tree crawl" not in completed(k, "%atasks tree cr")
    assert completed(k, "x = 1\natasks ca") == ["atasks cancel"]
    assert completed(k, "%atasks --t") == ["%atasks --timeout"]
    tasks = completed(k, "%atasks cancel ")
    assert tasks[0] == "%atasks cancel crawl"
    assert tasks[-1] == "%atasks cancel all"
    assert sum(line.rpartition(" ")[2].isdigit() for line in tasks) == 3
    assert not any("words" in line for line in tasks)  # it would need quotes
    assert completed(k, "%atasks cancel crawl In[") == ["%atasks cancel crawl In[x"]
    assert completed(k, "%arunner ") == [f"%arunner {action}" for action in ("status", "restart", "close", "leave")]


def test_whatever_the_tasks_are_called(fresh: Kernel) -> None:
    fresh.ok(
        "import asyncio\nclass Task(asyncio.Task):\n    def get_name(self): raise SystemExit\n"
        "async def x(): return asyncio.get_running_loop()\nloop = %arun x()\n"
        "a = Task(asyncio.sleep(3600), loop=loop)\nb = loop.create_task(asyncio.sleep(3600), name='n' * 10_000_000)"
    )
    assert "%atasks show all" in completed(fresh, "%atasks show ")
    assert all(len(line) < 100 for line in completed(fresh, "%atasks show "))


def test_unload_restores_completion(fresh: Kernel) -> None:
    loaded = (
        "ip = get_ipython(); [name in vars(owner) for owner, name in ((ip.Completer, 'completions'), (ip, 'complete'))]"
    )
    assert fresh.ok(loaded).value == "[True, True]"
    fresh.ok("%unload_ext ipyrunner")
    assert fresh.ok(loaded).value == "[False, False]"
    assert "%%arun --timeout" not in completed(fresh, "%%arun --ti")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("magic", ["%arun", "%%arun", "%atasks", "%arunner"])
def test_help(shared: Kernel, magic: str, option: str) -> None:
    cell = shared.ok(f"{magic} {option}" + ("\nran = True" if magic == "%%arun" else ""))
    title = "%arun" if magic == "%%arun" else magic
    assert cell.stdout.strip().startswith(title)
    assert "--help" in cell.stdout
    assert cell.value is None
    assert shared.ok("'ran' in globals()").value == "False"


def test_a_wrong_line_names_the_help(shared: Kernel) -> None:
    for line in ("%%arun --tiemout 3\n1", "%atasks stop 3", "%arunner stop", "%%arun --name 'x\n1"):
        magic = line.split()[0]
        cell = shared.run(line)
        assert cell.ename == "UsageError"
        assert f"{magic.replace('%%', '%')} --help" in cell.stderr + cell.traceback


def test_a_comment_behind_the_options(shared: Kernel) -> None:
    shared.ok("import asyncio")
    line = "%%arun --name 'a # b' --timeout 9 # it's a comment --nonsense {undefined}"
    assert shared.ok(f"{line}\nasyncio.current_task().get_name()").value == "'a # b'"
    shared.ok("%atasks -a # all")
    shared.ok("%arunner # status")


def test_dir_shows_the_public_names() -> None:
    import ipyrunner

    assert set(ipyrunner.__all__) <= set(dir(ipyrunner))
    assert "NotebookRunner" in dir(ipyrunner)
