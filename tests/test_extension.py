"""Loading, unloading, reloading, configuring."""

from __future__ import annotations

import sys

import pytest

from kernels import BEFORE, Kernel

SNAPSHOT = """
import signal
def snapshot():
    shell = get_ipython()
    owners = (shell, shell.events, shell.display_pub, shell.kernel, sys.stdout, sys.stderr)
    names = (
        "should_run_async", "run_cell_async", "run_code", "showtraceback", "debugger", "enable_gui", "trigger",
        "publish", "set_parent", "flush", "pre_handler_hook", "post_handler_hook", "_cancel_on_sigint",
    )
    return (
        {(i, name): vars(owner).get(name) for i, owner in enumerate(owners) for name in names},
        list(shell.ast_transformers),
        list(shell.configurables),
        {kind: sorted(magics) for kind, magics in shell.magics_manager.magics.items()},
        dict(shell.kernel.shell_handlers),
        vars(shell.kernel.io_loop.asyncio_loop).get("call_soon"),
        [type(stream) for stream in (sys.stdout, sys.stderr)],
        list(getattr(shell.kernel.debugger, "kernel_modules", ())),
    )
import sys
before = snapshot()
"""


def test_unload_restores_exactly(stock: Kernel) -> None:
    stock.run("%unload_ext nothing")  # IPython makes some of its magics at their first use
    stock.ok(SNAPSHOT + "import asyncio, gc; stock_loop = asyncio.get_event_loop()")
    stock.ok("%load_ext ipyrunner")
    assert stock.ok("snapshot() == before").value == "False"
    stock.ok("import ipyrunner; runner = ipyrunner.get_runner(); loop = runner.get_loop(); await asyncio.sleep(0)")
    stock.ok("t = asyncio.create_task(asyncio.sleep(60))")
    stock.ok("%unload_ext ipyrunner")
    assert stock.ok("[(a, b) for a, b in zip(snapshot(), before) if a != b]").value == "[]"
    assert stock.ok("t.cancelled(), loop.is_closed()").value == "(True, True)"
    assert stock.ok("await asyncio.sleep(0); asyncio.get_running_loop() is stock_loop").value == "True"
    assert stock.ok("asyncio.get_event_loop() is stock_loop").value == "True"
    assert stock.run("asyncio.run(asyncio.sleep(0))").ename == "RuntimeError"
    assert "%load_ext ipyrunner" in stock.run("ipyrunner.get_runner()").traceback


BROKEN = {
    "two steps that fail": "import ipyrunner.extension as e\nbroken = lambda extension: extension.undo(lambda: 1 / 0)\n"
    "parts = e.PARTS; e.PARTS = (*parts[:5], broken, *parts[5:], broken)\n%reload_ext ipyrunner\n"
    "e.PARTS = parts; del broken, e, parts",
    "a configurable that is gone": "get_ipython().configurables[:] = configurables",
    "a magic of the user's": "get_ipython().magics_manager.magics['line']['arun'] = len",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_unload_restores_all_that_it_can(stock: Kernel, broken: str) -> None:
    stock.run("%unload_ext nothing")
    stock.ok(SNAPSHOT + "import asyncio; configurables = list(get_ipython().configurables)")
    stock.ok("%load_ext ipyrunner")
    stock.ok(BROKEN[broken])
    stock.ok("await asyncio.sleep(0)")
    cell = stock.ok("%unload_ext ipyrunner")
    told = cell.stderr.count("ipyrunner: %unload_ext could not undo one of its changes: ZeroDivisionError")
    assert told == (2 if broken == "two steps that fail" else 0)
    stock.ok("kept_magic = get_ipython().magics_manager.magics['line'].pop('arun', None)")
    assert stock.ok("kept_magic is len").value == str(broken == "a magic of the user's")
    assert stock.ok("[(a, b) for a, b in zip(snapshot(), before) if a != b]").value == "[]"
    stock.ok("%load_ext ipyrunner")
    stock.ok(BEFORE)
    stock.expect_alive()
    assert stock.ok("sum(type(each).__name__ == 'NotebookRunner' for each in get_ipython().configurables)").value == "1"


def test_loading_on_another_thread_says_where_to_load(stock: Kernel) -> None:
    stock.ok(
        "import concurrent.futures, ipyrunner\nwith concurrent.futures.ThreadPoolExecutor() as executor:\n"
        "    error = executor.submit(ipyrunner.load_ipython_extension, get_ipython()).exception()"
    )
    assert "can only be loaded in the main thread" in str(stock.ok("str(error)").value)
    stock.ok("%load_ext ipyrunner")
    stock.ok(BEFORE)
    stock.expect_alive()


def test_reload_renews(fresh: Kernel) -> None:
    fresh.ok(
        "import ipyrunner; first = ipyrunner.get_runner(); t = asyncio.create_task(asyncio.sleep(60), name='mine')"
    )
    names = fresh.ok("', '.join(sorted(each.name for each in ipyrunner.tasks()))").value or ""
    said = f"cancelled {names.count(',') + 1} task{'s' * (',' in names)} ({names[1:-1]}); closed the event loop\n"
    assert fresh.ok("%reload_ext ipyrunner").stdout == said
    assert fresh.ok("%reload_ext ipyrunner").stdout == ""
    assert fresh.ok("t.cancelled(), ipyrunner.get_runner() is first").value == "(True, False)"
    assert (
        fresh.ok("await asyncio.sleep(0); id(asyncio.get_running_loop()) == loop_id, kept").value == "(False, 'kept')"
    )
    fresh.ok(BEFORE)
    fresh.expect_alive()


def test_a_second_load_is_harmless(fresh: Kernel) -> None:
    fresh.ok("import ipyrunner; runner = ipyrunner.get_runner()")
    fresh.ok("%load_ext ipyrunner")
    fresh.ok("ipyrunner.load_ipython_extension(get_ipython())")
    assert fresh.ok("ipyrunner.get_runner() is runner").value == "True"
    fresh.expect_alive()


def test_somebody_elses_wrapper_outlives_ours(fresh: Kernel) -> None:
    fresh.ok(
        "shell = get_ipython(); ours = shell.showtraceback\n"
        "def theirs(*args, **kwargs):\n    print('theirs')\n    return ours(*args, **kwargs)\nshell.showtraceback = theirs"
    )
    fresh.ok("%unload_ext ipyrunner")
    cell = fresh.run("1/0")
    assert (cell.ename, cell.stdout) == ("ZeroDivisionError", "theirs\n")


def test_loading_starts_no_loop(stock: Kernel) -> None:
    stock.ok("import ipyrunner")
    # In one statement: the next one of the same cell has a loop already.
    stock.ok("loop = (get_ipython().run_line_magic('load_ext', 'ipyrunner'), ipyrunner.get_runner().present)[1]")
    assert stock.ok("loop is None").value == "True"


@pytest.mark.parametrize("value", ['"uvloop.new_event_loop"', "uvloop.new_event_loop"])
def test_loop_factory_takes_effect_at_restart(fresh: Kernel, value: str) -> None:
    fresh.ok("import uvloop")
    cell = fresh.ok(f"%config NotebookRunner.loop_factory = {value}")
    assert "takes effect when you run `%arunner restart`" in cell.stdout
    assert fresh.ok("id(asyncio.get_event_loop()) == loop_id").value == "True"
    fresh.ok("%arunner restart")
    assert fresh.ok("await asyncio.sleep(0); isinstance(asyncio.get_running_loop(), uvloop.Loop)").value == "True"
    assert fresh.ok("isinstance(asyncio.get_event_loop(), uvloop.Loop)").value == "True"
    assert "uvloop" in (fresh.ok("%arunner").value or "")
    fresh.ok(BEFORE)
    fresh.expect_alive()


WRONG = {
    '"no.such.module"': ". If it is a package: `%pip install no`",
    '"asyncio.no.such"': "No module named 'asyncio.no'",
    "5": "",
}


@pytest.mark.parametrize(("wrong", "advice"), WRONG.items())
def test_a_wrong_loop_factory_changes_nothing(fresh: Kernel, wrong: str, advice: str) -> None:
    cell = fresh.run(f"%config NotebookRunner.loop_factory = {wrong}")
    said = cell.stderr + cell.traceback  # traitlets' choice by version: a warning or TraitError
    assert "loop_factory" in said
    assert advice in said
    assert ("%pip" in said) == ("%pip" in advice)
    assert fresh.ok("import ipyrunner; ipyrunner.get_runner().loop_factory").value is None
    fresh.ok("%arunner restart")
    fresh.ok(BEFORE)
    fresh.expect_alive()


def test_a_loop_factory_that_fails_is_reported_and_can_be_mended(fresh: Kernel) -> None:
    fresh.ok("def broken(): raise OSError('no loop today')")
    fresh.ok("%config NotebookRunner.loop_factory = broken")
    assert fresh.run("%arunner restart").ename == "OSError"
    fresh.expect_alive()  # on the old loop
    fresh.ok("%arunner close")
    cell = fresh.ok("await asyncio.sleep(0); kept")
    assert cell.value == "'kept'"
    assert "loop_factory failed (OSError: no loop today)" in fresh.ok("%arunner close").stdout + cell.stdout
    fresh.ok("%config NotebookRunner.loop_factory = None")
    fresh.ok("%arunner restart")
    fresh.ok(BEFORE)
    fresh.expect_alive()


def test_a_loop_factory_that_makes_no_loop_is_reported(fresh: Kernel) -> None:
    fresh.ok("%config NotebookRunner.loop_factory = lambda: 5")
    cell = fresh.run("%arunner restart")
    assert cell.ename == "TypeError"
    assert "which is not an event loop" in cell.traceback
    fresh.expect_alive()


def test_debug_takes_effect_at_once(fresh: Kernel) -> None:
    fresh.ok("%config NotebookRunner.debug = True")
    assert fresh.ok("await asyncio.sleep(0); asyncio.get_running_loop().get_debug()").value == "True"
    fresh.ok("%config NotebookRunner.debug = False")
    assert fresh.ok("asyncio.get_event_loop().get_debug()").value == "False"


@pytest.mark.parametrize("wrong", ["float('nan')", "-1", "0", "float('inf')"])
def test_wrong_seconds_change_nothing(fresh: Kernel, wrong: str) -> None:
    cell = fresh.run(f"%config NotebookRunner.interrupt_grace = {wrong}")
    assert "interrupt_grace" in cell.stderr + cell.traceback
    assert fresh.ok("import ipyrunner; ipyrunner.get_runner().interrupt_grace").value == "1.0"


def test_config_lists_the_options(fresh: Kernel) -> None:
    text = fresh.ok("%config NotebookRunner").stdout
    for name in ("loop_factory", "debug", "interrupt_grace", "shutdown_timeout"):
        assert f"NotebookRunner.{name}" in text


def test_a_subshell_runs_its_cells_itself(fresh: Kernel) -> None:
    if fresh.ok("getattr(get_ipython().kernel, '_supports_kernel_subshells', False)").value != "True":
        pytest.skip("this ipykernel has no subshells")
    client = fresh.client
    message = client.session.msg("create_subshell_request")
    client.control_channel.send(message)
    subshell = client.control_channel.get_msg(timeout=30)["content"]["subshell_id"]
    running = fresh.begin("print('go'); await asyncio.sleep(60)")
    fresh.wait_for(running, "go")
    request = client.session.msg(
        "execute_request",
        {"code": "import threading; await asyncio.sleep(0)\nprint(id(asyncio.get_running_loop()) == loop_id)"},
    )
    request["header"]["subshell_id"] = subshell
    cell = fresh.track(request)
    fresh.wait_for(cell, "False")
    fresh.interrupted(running, "go")
    assert running.ename == "KeyboardInterrupt"
    fresh.expect_alive()


def test_the_end_of_the_process_finalizes_tasks(fresh: Kernel, tmp_path: object) -> None:
    path = f"{tmp_path}/finalized"
    fresh.ok(
        "async def left():\n    try: await asyncio.sleep(60)\n    finally:\n        await asyncio.sleep(0)\n"
        f"        open({path!r}, 'w').write('done')\nt = asyncio.create_task(left()); await asyncio.sleep(0)"
    )
    fresh.client.shutdown()
    fresh.wait_for_exit()
    with open(path) as file:
        assert file.read() == "done"


BAD_FACTORIES = {
    "closed": "closed = asyncio.new_event_loop(); closed.close()\nfactory = lambda: closed",
    "running": "import tornado.ioloop; kernel_loop = get_ipython().kernel.io_loop.asyncio_loop\nfactory = lambda: kernel_loop",
    "get_event_loop": "factory = 'asyncio.get_event_loop'",
}


@pytest.mark.parametrize("bad", BAD_FACTORIES)
@pytest.mark.parametrize("then", ["close", "restart"])
def test_a_factory_whose_loop_cannot_be_used_costs_no_reply(fresh: Kernel, bad: str, then: str) -> None:
    fresh.ok(BAD_FACTORIES[bad])
    fresh.ok("get_ipython().run_line_magic('config', 'NotebookRunner.loop_factory = factory')")
    cell = fresh.run(f"%arunner {then}")
    if then == "restart":
        assert "it has to make a new one each time" in cell.stdout + cell.stderr + cell.traceback
    assert fresh.ok("1 + 1").value == "2"
    assert fresh.ok("await asyncio.sleep(0, 3)").value == "3"
    fresh.ok("%config NotebookRunner.loop_factory = None")
    fresh.ok("%arunner restart")
    assert fresh.ok("await asyncio.sleep(0, 4)").value == "4"


def test_a_factory_that_returns_the_same_loop_again_is_refused(fresh: Kernel) -> None:
    fresh.ok("only = asyncio.new_event_loop()\nfactory = lambda: only")
    fresh.ok("%config NotebookRunner.loop_factory = factory")
    fresh.ok("%arunner restart")
    cell = fresh.run("%arunner restart")
    assert "a loop that is already the notebook's" in cell.stdout + cell.stderr + cell.traceback
    assert fresh.ok("await asyncio.sleep(0); asyncio.get_running_loop() is only").value == "True"


def test_without_a_file_descriptor_for_the_loop_cells_get_replies(fresh: Kernel) -> None:
    # Other tracebacks look for sources, which takes IPython 7 ten seconds where no file can be opened.
    fresh.ok("%xmode Plain\n%arunner close")
    fresh.ok(
        "import os, resource\nlimit = len(os.listdir('/dev/fd')) + 40\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        # Two are always left (one is listdir's): the kernel's threads need some at any moment, or the end of a cell is not
        # announced. A loop needs three.
        "def fill():\n"
        "    files = []\n"
        "    while len(os.listdir('/dev/fd')) < limit - 1: files.append(open(os.devnull))\n"
        "    return files\n"
        "files = fill(); get_ipython().run_line_magic('arunner', 'close'); files += fill()"
    )
    # The end of a cell may be announced only later: the kernel has to open something for that, too.
    replies = []
    for code in ("await asyncio.sleep(0, 2)", "1 + 1", "for file in files: file.close()"):
        cell = fresh.begin(code)
        fresh.wait_until(lambda cell=cell: cell.reply is not None)  # type: ignore[misc]
        replies.append(cell.reply or {})
    fresh.finish(cell)
    assert (replies[0]["ename"], "cannot be made" in replies[0]["evalue"]) == ("RuntimeError", True)
    assert [reply["status"] for reply in replies[1:]] == ["ok", "ok"]
    assert fresh.ok("await asyncio.sleep(0, 3)").value == "3"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_the_monitoring_tools_are_the_users(fresh: Kernel) -> None:
    fresh.ok(
        "import sys\nmonitoring = sys.monitoring\nfor tool in (3, 4):\n    monitoring.use_tool_id(tool, 'mine')\n"
        "    monitoring.free_tool_id(tool)"
    )
    fresh.ok("task = asyncio.create_task(asyncio.sleep(0))")
    assert fresh.ok("await task; task.done()").value == "True"
    fresh.ok("%unload_ext ipyrunner")
    left = "[monitoring.register_callback(t, e, None) for t in range(6) for e in (monitoring.events.CALL, monitoring.events.C_RETURN)]"
    assert fresh.ok(f"set({left}) == {{None}}").value == "True"
