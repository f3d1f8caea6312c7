"""Cells side by side, at their edges: what one interrupt is worth, and what else is easily lost."""

from __future__ import annotations

import pytest

from kernels import Cell, Kernel
from side_by_side import interrupt_cell, started

# Its clean-up takes longer than a second interrupt would leave it.
SLOW = (
    "%%arun --concurrent\nimport asyncio\nprint('go')\ntry: await asyncio.sleep(600)\n"
    "finally: await asyncio.sleep(0.5); print('cleaned')"
)


@pytest.fixture
def k(side_by_side: Kernel) -> Kernel:
    return side_by_side


def expect_cleaned(k: Kernel, cell: Cell) -> None:
    """Interrupted once, it ends when its clean-up has; interrupted twice, it would have been given up."""
    k.finish(cell)
    assert (cell.ename, cell.stdout) == ("KeyboardInterrupt", "go\ncleaned\n")


def test_one_interrupt_beside_a_hook_that_does_not_yield(k: Kernel) -> None:
    # Nothing but a second SIGINT, which we send, ends the hook.
    k.ok(
        "import time\nshell = get_ipython()\ndef hook(result=None):\n    if len(calls): return\n    calls.append(1); print('hook')\n"
        "    while True: time.sleep(0.001)"
    )
    beside = started(k, SLOW)
    plain = k.begin("calls = []; shell.events.register('post_run_cell', hook)")
    k.wait_for(plain, "hook")
    k.interrupt()
    k.finish(plain)
    k.ok("shell.events.unregister('post_run_cell', hook)")
    expect_cleaned(k, beside)


def test_one_interrupt_of_a_blocking_run_in_a_plain_cell(k: Kernel) -> None:
    beside = started(k, SLOW)
    plain = started(k, "async def main(): print('go'); await asyncio.sleep(600)\n%arun main()")
    k.interrupt()
    k.finish(plain)
    assert plain.ename == "KeyboardInterrupt"
    expect_cleaned(k, beside)


def test_the_interrupt_after_a_forced_one_is_a_first_one(k: Kernel) -> None:
    k.ok("import time")
    cell = started(
        k,
        "%%arun --concurrent\nawait asyncio.sleep(0)\nprint('go')\ntry:\n    while True: time.sleep(0.001)\n"
        "except KeyboardInterrupt: print('caught')\n"
        "try: await asyncio.sleep(600)\nfinally: await asyncio.sleep(0.5); print('cleaned')",
    )
    k.interrupt()
    k.wait_for(cell, "caught")
    k.ok("await asyncio.sleep(0)")
    k.interrupt()
    k.finish(cell)
    assert cell.ename == "KeyboardInterrupt"
    assert cell.stdout.endswith("cleaned\n")


def test_what_came_before_a_cell_that_awaits_is_one_interrupt(k: Kernel) -> None:
    # In the kernel's own code: what handles SIGINT there keeps it for the cell.
    k.ok(
        "import os, signal\ndef press(lines):\n"
        "    if '600' in ''.join(lines): os.kill(os.getpid(), signal.SIGINT)\n"
        "    return lines\nget_ipython().input_transformers_post.append(press)"
    )
    beside = started(k, SLOW.replace("600", "500"))
    assert k.run("await asyncio.sleep(600)").ename == "KeyboardInterrupt"
    k.ok("get_ipython().input_transformers_post.remove(press)")
    expect_cleaned(k, beside)


def test_an_interrupt_while_the_kernels_loop_runs(k: Kernel) -> None:
    # Between requests ipykernel ignores SIGINT.
    beside = started(k, SLOW)
    k.ok(
        "import os, signal\nhost = get_ipython().kernel.io_loop.asyncio_loop\nloop = asyncio.get_event_loop()\n"
        "def press():\n    if loop.is_running() or signal.getsignal(signal.SIGINT).__name__ != '_on_sigint_at_rest':\n"
        "        return host.call_later(0.01, press)\n    os.kill(os.getpid(), signal.SIGINT)\nhost.call_soon(press);"
    )
    expect_cleaned(k, beside)


def test_one_that_is_interrupted_alone_keeps_a_blocking_run_going(k: Kernel) -> None:
    # What waits its turn is not set aside: nobody would put it back.
    beside = started(
        k, "%%arun --concurrent\ndone = []; print('go')\ntry: await asyncio.sleep(600)\nfinally: done.append(1)"
    )
    plain = started(
        k,
        "async def main():\n    print('go')\n    while not done: await asyncio.sleep(0)\n"
        "    for _ in range(100): await asyncio.sleep(0)\n    return 'main'\n%arun main()",
    )
    assert interrupt_cell(k, beside.msg_id) == {"status": "ok"}
    k.finish(plain)
    k.finish(beside)
    assert (plain.value, beside.ename) == ("'main'", "KeyboardInterrupt")


@pytest.mark.parametrize("arun", ["", "%%arun --concurrent"])
def test_a_reply_while_the_kernel_is_busy(k: Kernel, arun: str) -> None:
    # The loop has been told to stop for the kernel, by what an interrupt sets aside.
    k.ok(
        "host = get_ipython().kernel.io_loop.asyncio_loop\nspinning = True\n"
        "def spin():\n    if spinning: host.call_soon(spin)\nspin()"
    )
    for _ in range(5):
        cell = started(k, f"{arun}\nprint('go')\nawait asyncio.sleep(600)")
        k.interrupt()
        k.finish(cell)
        assert cell.ename == "KeyboardInterrupt"
    k.ok("spinning = False")


def test_the_kernel_is_busy_again_after_each_other_cell(k: Kernel) -> None:
    # Front ends show the last status that came.
    beside = started(k, SLOW)
    for code in ("1 + 1", "await asyncio.sleep(0)", "%%arun --concurrent\nawait asyncio.sleep(0)"):
        before = beside.statuses.count("busy")
        k.ok(code)
        k.wait_until(lambda before=before: beside.statuses.count("busy") > before)
    k.interrupt()
    expect_cleaned(k, beside)


def test_the_kernel_is_busy_with_the_cell_that_awaits(k: Kernel) -> None:
    main = started(k, "go_on = asyncio.Event(); print('go'); await go_on.wait()")
    before = main.statuses.count("busy")
    k.ok("%%arun --concurrent\nawait asyncio.sleep(0)")
    k.wait_until(lambda: main.statuses.count("busy") > before)
    k.ok("%%arun --concurrent\ngo_on.set()")
    k.finish(main)


def test_a_cell_is_aborted_and_keeps_none_waiting(k: Kernel) -> None:
    main = started(
        k,
        "kernel = get_ipython().kernel; kernel._aborting = True; print('go')\n"
        "try: await asyncio.sleep(600)\nfinally: kernel._aborting = False",
    )
    aborted = k.run("%%arun --concurrent\nawait asyncio.sleep(0); print('never')")
    assert aborted.reply is not None
    assert (aborted.reply["status"], aborted.stdout) == ("aborted", "")
    k.interrupt()
    k.finish(main)
    assert k.ok("%%arun --concurrent\nawait asyncio.sleep(0, 'on')").value == "'on'"


def test_one_interrupt_that_comes_before_a_plain_cells_code(k: Kernel) -> None:
    k.ok(
        "import os, signal\ndef hook(info):\n    if 'plain' in info.raw_cell: os.kill(os.getpid(), signal.SIGINT)\n"
        "get_ipython().events.register('pre_run_cell', hook)"
    )
    beside = started(k, SLOW)
    assert k.run("'plain'").ename == "KeyboardInterrupt"
    k.ok("get_ipython().events.unregister('pre_run_cell', hook)")
    expect_cleaned(k, beside)


def test_an_interrupt_of_one_plain_cell_by_message_costs_no_later_one(k: Kernel) -> None:
    plain = started(k, "import time; print('go')\nwhile True: time.sleep(0.001)")
    assert interrupt_cell(k, plain.msg_id)["status"] == "ok"
    k.finish(plain)
    assert plain.ename == "KeyboardInterrupt"
    beside = started(k, SLOW)
    k.interrupt()
    expect_cleaned(k, beside)


def test_the_number_of_a_cell_that_begins_while_one_beside_it_is_about_to(k: Kernel) -> None:
    k.ok(
        "kernel = get_ipython().kernel; should_handle = kernel.should_handle; host = kernel.io_loop.asyncio_loop\n"
        "go_on = asyncio.Event(); begun = asyncio.Event()\n"
        "async def handles(stream, request, idents):\n"
        "    if 'beside' in request['content'].get('code', ''): print('go'); await go_on.wait()\n"
        "    handled = should_handle(stream, request, idents)\n    return await handled if asyncio.iscoroutine(handled) else handled\n"
        "kernel.should_handle = handles"
    )
    first = started(k, "print('go'); await asyncio.sleep(600)")
    second = k.begin("print('go'); host.call_soon(go_on.set); await begun.wait(); 'second'")
    beside = started(k, "%%arun --concurrent\nbegun.set(); await asyncio.sleep(0); 'beside'")
    assert interrupt_cell(k, first.msg_id) == {"status": "ok"}
    for cell in (first, second, beside):
        k.finish(cell)
    k.ok("kernel.should_handle = should_handle")
    said = [
        {m["content"]["execution_count"] for m in cell.messages if "execution_count" in m["content"]}
        | {cell.reply["execution_count"]}
        for cell in (first, second, beside)
        if cell.reply
    ]
    number = min(said[0])
    assert said == [{number}, {number + 1}, {number + 2}]
