"""Which loop and which Context a cell sees, and where its output goes."""

from __future__ import annotations

import textwrap

import pytest

from kernels import Kernel

MAIN = """
async def main(value=42):
    await asyncio.sleep(0.001)
    return value
"""

VAR = "import contextvars; var = contextvars.ContextVar('var', default='unset')"


def test_cells_with_await_share_one_loop(shared: Kernel) -> None:
    for _ in range(2):
        assert shared.ok("await asyncio.sleep(0); id(asyncio.get_running_loop()) == loop_id").value == "True"


def test_the_cell_is_the_main_task_and_sees_only_the_users_tasks(shared: Kernel) -> None:
    shared.ok("t = asyncio.create_task(asyncio.sleep(60))")
    cell = shared.ok("await asyncio.sleep(0); asyncio.all_tasks() == {t, asyncio.current_task()}")
    assert cell.value == "True"


@pytest.mark.parametrize(
    "code",
    [
        "asyncio.run(main())",
        "with asyncio.Runner() as runner:\n    x = runner.run(main())\nx",
        "asyncio.new_event_loop().run_until_complete(main())",
        "loop = asyncio.get_event_loop()\nloop.run_until_complete(main())",
        "import anyio; anyio.run(main)",
        "import ipyrunner; ipyrunner.run(main())",
        "asyncio.get_event_loop().run_until_complete(asyncio.gather(main()))[0]",
    ],
)
def test_a_cell_without_await_is_a_script(shared: Kernel, code: str) -> None:
    shared.ok(MAIN)
    assert shared.ok(code).value == "42"
    assert shared.ok("id(asyncio.get_event_loop()) == loop_id").value == "True"


def test_asyncio_is_not_patched(shared: Kernel) -> None:
    code = "import sys; [n for n, f in vars(asyncio).items() if callable(f) and 'ipyrunner' in str(getattr(f, '__module__', ''))]"
    assert shared.ok(code).value == "[]"


def test_get_event_loop_in_a_plain_cell_is_the_notebooks(shared: Kernel) -> None:
    assert shared.ok("id(asyncio.get_event_loop()) == loop_id").value == "True"
    assert shared.ok("asyncio.get_event_loop().is_running()").value == "False"


@pytest.mark.parametrize("name", ["asyncio.get_running_loop()", "asyncio.current_task().get_loop()"])
def test_a_cell_that_names_the_running_loop_gets_it(shared: Kernel, name: str) -> None:
    assert shared.ok(f"id({name}) == loop_id").value == "True"


def test_naming_it_inside_a_function_does_not_count(shared: Kernel) -> None:
    cell = shared.ok("async def where(): return asyncio.get_running_loop()\nid(asyncio.run(where())) == loop_id")
    assert cell.value == "False"


@pytest.mark.parametrize(
    "code",
    [
        "t = asyncio.create_task(ticks())",
        "def start():\n    global t\n    t = asyncio.create_task(ticks(), name='x', context=None)\nstart()",
        "from asyncio import create_task as ct\nt = ct(ticks())",
        "t = asyncio.ensure_future(ticks())",
        "t = asyncio.get_event_loop().create_task(ticks())",
    ],
)
def test_create_task_without_await_runs_on_between_cells(shared: Kernel, code: str) -> None:
    shared.ok("async def ticks():\n    await asyncio.sleep(0.05)\n    print('ticked')\n    return 'done'")
    cell = shared.ok(code)
    shared.wait_for(cell, "ticked")  # nothing else runs: it makes progress by itself, and prints in its own cell
    assert shared.ok("t.result()").value == "'done'"
    assert shared.ok("id(t.get_loop()) == loop_id").value == "True"


def test_a_wrong_create_task_leaves_no_loop_behind(shared: Kernel) -> None:
    shared.ok(MAIN)
    cell = shared.ok("try:\n    asyncio.create_task(5)\nexcept TypeError as e: print(e)\nasyncio.run(main())")
    assert cell.value == "42"
    assert "coroutine" in cell.stdout


def test_create_task_inside_asyncio_run_stays_there(shared: Kernel) -> None:
    shared.ok(MAIN)
    code = "async def outer():\n    t = asyncio.create_task(main())\n    await t\n    return t.get_loop() is asyncio.get_running_loop()"
    shared.ok(code)
    assert shared.ok("asyncio.run(outer())").value == "True"


def test_create_task_in_a_thread_keeps_its_own_error(shared: Kernel) -> None:
    code = """
        import threading
        def work():
            try:
                asyncio.create_task(None)
            except RuntimeError as e:
                print(e)
        thread = threading.Thread(target=work); thread.start(); thread.join()
    """
    assert shared.ok(textwrap.dedent(code)).stdout == "no running event loop\n"


def test_a_loop_that_a_cell_leaves_running_is_there_in_the_next_plain_cell(shared: Kernel) -> None:
    # What Playwright's sync API does.
    shared.ok("left = asyncio.new_event_loop(); asyncio._set_running_loop(left)")
    assert shared.ok("asyncio._get_running_loop() is left").value == "True"
    assert shared.ok("await asyncio.sleep(0); id(asyncio.get_running_loop()) == loop_id").value == "True"
    assert shared.ok("asyncio._get_running_loop() is left").value == "True"
    shared.ok("asyncio._set_running_loop(None); left.close()")
    assert shared.ok("asyncio._get_running_loop()").value is None


def test_background_tasks_print_in_the_cell_that_started_them(shared: Kernel) -> None:
    shared.ok(
        "from IPython.display import display\nimport sys\n"
        "async def report(event):\n    await event.wait()\n    print('printed')\n    sys.stderr.write('err')\n    display('shown')"
    )
    first = shared.ok("event = asyncio.Event(); t = asyncio.create_task(report(event))")
    second = shared.ok("event.set(); await t; print('second')")
    shared.wait_for(first, "printed")
    shared.wait_for_message(first, "display_data")
    assert first.stderr == "err"
    assert second.stdout == "second\n"
    assert all(m["msg_type"] != "display_data" for m in second.messages)


def test_output_of_a_new_cell_does_not_go_to_the_first_one(shared: Kernel) -> None:
    for i in range(3):
        assert shared.ok(f"await asyncio.sleep(0); print({i})").stdout == f"{i}\n"
        assert shared.ok(f"print({i})").stdout == f"{i}\n"


def test_one_context_for_all_cells(shared: Kernel) -> None:
    shared.ok(VAR)
    shared.ok("var.set('sync');")
    assert shared.ok("await asyncio.sleep(0); before = var.get(); var.set('async'); before").value == "'sync'"
    assert shared.ok("var.get()").value == "'async'"
    shared.ok("async def change():\n    var.set('arun')")
    shared.ok("%arun change()")
    assert shared.ok("var.get()").value == "'arun'"
    shared.ok("%%arun\nvar.set('body')")
    assert shared.ok("var.get()").value == "'body'"
    assert shared.ok("await asyncio.create_task(change()); var.get()").value == "'body'"


def test_nested_cells_share_the_context(shared: Kernel) -> None:
    shared.ok(VAR)
    shared.ok("%%capture\n%%arun\nvar.set('captured')")
    assert shared.ok("var.get()").value == "'captured'"
    shared.ok("get_ipython().run_cell('await asyncio.sleep(0); var.set(\"nested\")');")
    assert shared.ok("var.get()").value == "'nested'"


def test_the_kernel_stays_live_while_a_cell_awaits(shared: Kernel) -> None:
    if not supports_concurrent_comms(shared):
        pytest.skip("this ipykernel queues comm messages behind a running cell, with or without the extension")
    shared.ok(
        "from ipykernel.comm import Comm\n"
        "def opened(comm, message):\n"
        "    loop = asyncio.get_running_loop()\n"
        "    future.set_result((id(loop) == loop_id, comm.comm_id))\n"
        "    asyncio.create_task(later())\n"
        "async def later():\n    print('later')\n    done.set()\n"
        "get_ipython().kernel.comm_manager.register_target('target', opened)"
    )
    cell = shared.begin(
        "future = asyncio.get_running_loop().create_future(); done = asyncio.Event()\nprint('go')\n"
        "print(await future)\nawait done.wait()"
    )
    shared.wait_for(cell, "go")
    shared.send_comm("comm_open", {"comm_id": "abc", "target_name": "target", "data": {}})
    assert "(True, 'abc')" in shared.finish(cell).stdout


def supports_concurrent_comms(kernel: Kernel) -> bool:
    # Stock behaviour, read from the kernel itself: since 7.4 comm messages do not wait for the cell's lock.
    code = "import inspect; 'concurrent' in inspect.signature(get_ipython().kernel.dispatch_shell).parameters"
    return kernel.ok(code).value == "True"


def test_comm_callbacks_between_cells_use_the_notebooks_loop(shared: Kernel) -> None:
    shared.ok(
        "from ipykernel.comm import Comm\n"
        "def opened(comm, message):\n"
        "    asyncio.create_task(work(asyncio.get_event_loop()))\n"
        "async def work(loop):\n    seen.append(id(loop) == id(asyncio.get_running_loop()) == loop_id)\n    event.set()\n"
        "seen = []\nevent = asyncio.Event()\n"
        "get_ipython().kernel.comm_manager.register_target('between', opened)"
    )
    shared.send_comm("comm_open", {"comm_id": "x", "target_name": "between", "data": {}})
    assert shared.ok("await asyncio.wait_for(event.wait(), 10); seen").value == "[True]"


@pytest.mark.parametrize("event", ["pre_execute", "pre_run_cell", "post_execute", "post_run_cell"])
@pytest.mark.parametrize("cell", ["1", "await asyncio.sleep(0)"])
def test_event_hooks_use_the_notebooks_loop(shared: Kernel, event: str, cell: str) -> None:
    shared.ok(
        "seen = []\nasync def hooked():\n    seen.append(id(asyncio.get_running_loop()) == loop_id)\n"
        f"def hook(*args):\n    get_ipython().events.unregister({event!r}, hook)\n    asyncio.create_task(hooked())\n"
    )
    shared.ok(f"get_ipython().events.register({event!r}, hook)")
    shared.ok(cell)
    assert shared.ok("await asyncio.sleep(0); await asyncio.sleep(0); seen").value == "[True]"


def test_autoawait_stays_in_charge(fresh: Kernel) -> None:
    fresh.ok("%autoawait sync")
    assert fresh.run("await asyncio.sleep(0)").ename == "SyntaxError"
    fresh.ok("%autoawait off")
    assert fresh.run("await asyncio.sleep(0)").ename == "SyntaxError"
    fresh.ok("%autoawait asyncio")
    assert fresh.ok("await asyncio.sleep(0); id(asyncio.get_running_loop()) == loop_id").value == "True"


def test_an_error_stops_queued_cells_as_it_does_in_the_stock_kernel(shared: Kernel) -> None:
    first = shared.begin("await asyncio.sleep(0.1); 1/0", stop_on_error=True)
    second = shared.begin("print('not run')")
    assert shared.finish(first).ename == "ZeroDivisionError"
    assert shared.finish(second).stdout == ""
    # ipykernel 6 aborts, by a timer, what comes within the next moment too: send again, as front ends do.
    while (third := shared.run("print('run')")).reply == {"status": "aborted"}:
        pass
    assert third.stdout == "run\n"


def test_other_threads_are_told_what_to_do(shared: Kernel) -> None:
    code = """
        import ipyrunner, threading
        def work():
            for call in (ipyrunner.get_runner, runner.get_loop):
                try:
                    call()
                except RuntimeError as e:
                    print(e)
        runner = ipyrunner.get_runner()
        thread = threading.Thread(target=work); thread.start(); thread.join()
    """
    assert shared.ok(textwrap.dedent(code)).stdout.count("run_coroutine_threadsafe") == 2


def test_threads_reach_the_loop_between_cells(shared: Kernel) -> None:
    shared.ok(MAIN + "import threading\nloop = asyncio.get_event_loop()")
    code = (
        "results = []\n"
        "def work():\n    results.append(asyncio.run_coroutine_threadsafe(main(7), loop).result(10))\n    print('got')\n"
        "threading.Thread(target=work).start()"
    )
    shared.wait_for(shared.ok(code), "got")
    assert shared.ok("results").value == "[7]"


def test_a_closed_loop_is_replaced_and_said(fresh: Kernel) -> None:
    fresh.ok("asyncio.get_event_loop().close()")
    cell = fresh.ok("await asyncio.sleep(0.01); kept")
    assert "event loop was closed, so a new one" in cell.stdout
    assert cell.value == "'kept'"


def test_loop_stop_in_a_cell_does_not_end_it(shared: Kernel) -> None:
    assert shared.ok("asyncio.get_running_loop().stop(); await asyncio.sleep(0.01); 'on'").value == "'on'"


def test_system_exit_in_a_task_does_not_end_the_kernel(shared: Kernel) -> None:
    shared.ok("import sys\nasync def leave():\n    sys.exit('bye')")
    cell = shared.run("t = asyncio.create_task(leave()); await asyncio.sleep(0.01); 'alive'")
    assert cell.value == "'alive'"
    assert shared.ok("type(t.exception()).__name__").value == "'SystemExit'"


def test_a_busy_background_task_does_not_starve_the_kernel(shared: Kernel) -> None:
    shared.ok("async def spin():\n    while True: await asyncio.sleep(0)\nt = asyncio.create_task(spin())")
    assert shared.ok("1 + 1").value == "2"
    assert shared.ok("await asyncio.sleep(0.01); 3").value == "3"
    shared.ok("t.cancel();")


@pytest.mark.parametrize(
    ("code", "text"), [("return 5", "'return' outside function"), ("yield 5", "'yield' outside function")]
)
def test_what_does_not_belong_at_the_top_level_is_said(shared: Kernel, code: str, text: str) -> None:
    cell = shared.run(f"await asyncio.sleep(0); print('ran')\n{code}")
    assert cell.ename == "SyntaxError"
    assert text in cell.traceback
    assert cell.stdout == "ran\n"
    assert shared.ok("await asyncio.sleep(0); kept").value == "'kept'"


def test_a_plain_cell_runs_the_notebooks_loop_while_messages_come(fresh: Kernel) -> None:
    fresh.ok("await asyncio.sleep(0)")  # the notebook's loop has led
    cell = fresh.begin(
        "loop = asyncio.get_event_loop(); turns, select = 0, loop._selector.select\n"
        "def counted(timeout):\n    global turns\n    turns += 1\n    return select(timeout)\n"
        "loop._selector.select = counted\nprint('go')\n"
        "try: loop.run_until_complete(asyncio.wait_for(loop.create_future(), 2))\n"
        "except TimeoutError: print('waited')\nfinally: del loop._selector.select\nturns"
    )
    fresh.wait_for(cell, "go")
    others = [fresh.begin("1 + 1") for _ in range(3)]
    fresh.finish(cell)
    assert "waited" in cell.stdout
    assert 0 < int(cell.value or 0) < 100  # it does not spin
    for other in others:
        fresh.finish(other)
        assert other.value == "2"
