"""Widgets awaited from cells, their messages sent as front ends send them: to the shell, and to a subshell."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernels import DEADLINE, Cell, Kernel, kernel

SHELLS = ["shell", "subshell"]


PAGE = Path(__file__).parent.parent / "docs" / "howto" / "widgets.md"


# Stock behaviour, read from the kernel itself: since 7.4 comm messages do not wait for the cell's lock.
CONCURRENT = "import inspect; 'concurrent' in inspect.signature(get_ipython().kernel.dispatch_shell).parameters"


SETUP = """
import ipyrunner, ipywidgets, threading, time
slider, ok, cancel = ipywidgets.IntSlider(), ipywidgets.Button(), ipywidgets.Button()
print(slider.comm.comm_id, ok.comm.comm_id, cancel.comm.comm_id)
def watchers():
    return sum(len(c) for names in slider._trait_notifiers.values() for c in names.values()), len(ok._click_handlers.callbacks)
none = watchers()
seen = []
"""


def idle(kernel: Kernel, request: Cell) -> None:
    """Wait until a comm message, which has no reply, has been handled."""
    kernel.wait_until(lambda: request.idle)


def create_subshell(kernel: Kernel) -> str | None:
    """Return the id of a new subshell; None if this ipykernel has none."""
    client = kernel.client
    client.control_channel.send(client.session.msg("kernel_info_request"))
    if "kernel subshells" not in client.get_control_msg(timeout=DEADLINE)["content"].get("supported_features", ()):
        return None
    client.control_channel.send(client.session.msg("create_subshell_request"))
    return str(client.get_control_msg(timeout=DEADLINE)["content"]["subshell_id"])


class FrontEnd:
    """Moves the slider, presses buttons, by messages to one kernel's shell or subshell."""

    def __init__(self, kernel: Kernel, subshell: str | None, setup: str = SETUP) -> None:
        self.kernel = kernel
        self.subshell = subshell
        self._slider, self.ok, self.cancel = kernel.ok(setup).stdout.split()
        if subshell is not None:
            # ipykernel 7.4 sends a comm's messages to whichever shell has sent last on it: from the second message on
            # that is the subshell, because ipywidgets answers the first one by an echo.
            for comm_id, state in ((self._slider, {"value": 1}), (self.ok, {"icon": ""}), (self.cancel, {"icon": ""})):
                idle(kernel, self._update(comm_id, state))

    def move(self, value: int) -> Cell:
        return self._update(self._slider, {"value": value})

    def press(self, button: str) -> Cell:
        return self._send(button, {"method": "custom", "content": {"event": "click"}})

    def _update(self, comm_id: str, state: dict[str, Any]) -> Cell:
        return self._send(comm_id, {"method": "update", "state": state, "buffer_paths": []})

    def close(self) -> Cell:
        return self._track("comm_close", {"comm_id": self._slider, "data": {}})

    def _send(self, comm_id: str, data: dict[str, Any]) -> Cell:
        return self._track("comm_msg", {"comm_id": comm_id, "data": data})

    def _track(self, msg_type: str, content: dict[str, Any]) -> Cell:
        request = self.kernel.client.session.msg(msg_type, content)
        if self.subshell is not None:
            request["header"]["subshell_id"] = self.subshell
        return self.kernel.track(request)


@pytest.fixture(scope="module")
def _module_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, str | None, bool]]:
    with kernel(tmp_path_factory.mktemp("ipython")) as started:
        yield started, create_subshell(started), started.ok(CONCURRENT).value == "True"


def front_end(module_kernel: tuple[Kernel, str | None, bool], shell: str, *, while_a_cell_awaits: bool) -> FrontEnd:
    kernel, subshell, concurrent = module_kernel
    if shell == "subshell" and subshell is None:
        pytest.skip("ipykernel before 7.0 has no subshells")
    if shell == "shell" and while_a_cell_awaits and not concurrent:
        pytest.skip("this ipykernel queues comm messages behind a running cell, with or without the extension")
    return FrontEnd(kernel, subshell if shell == "subshell" else None)


@pytest.fixture(params=SHELLS)
def awaited(_module_kernel: Any, request: pytest.FixtureRequest) -> FrontEnd:
    """Its messages are handled while a cell awaits."""
    return front_end(_module_kernel, request.param, while_a_cell_awaits=True)


@pytest.fixture(params=SHELLS)
def front(_module_kernel: Any, request: pytest.FixtureRequest) -> FrontEnd:
    return front_end(_module_kernel, request.param, while_a_cell_awaits=False)


@pytest.fixture
def on_subshell(_module_kernel: Any) -> FrontEnd:
    return front_end(_module_kernel, "subshell", while_a_cell_awaits=True)


def test_a_cell_awaits_the_next_value(awaited: FrontEnd) -> None:
    kernel = awaited.kernel
    cell = kernel.begin("print('go'); await ipyrunner.event(slider, 'value') + 1")
    kernel.wait_for(cell, "go")
    awaited.move(41)
    assert kernel.finish(cell).value == "42"
    assert kernel.ok("watchers() == none").value == "True"


def test_a_cell_awaits_a_click(awaited: FrontEnd) -> None:
    kernel = awaited.kernel
    # One callback before ours and one after: ipywidgets skips one if a callback is removed while it calls them.
    kernel.ok("ok.on_click(lambda b: seen.append('before'))")
    cell = kernel.begin(
        "f = ipyrunner.event(ok); ok.on_click(lambda b: seen.append('after'))\nprint('go'); await f is ok"
    )
    kernel.wait_for(cell, "go")
    awaited.press(awaited.ok)
    assert kernel.finish(cell).value == "True"
    assert kernel.ok("seen, len(ok._click_handlers.callbacks)").value == "(['before', 'after'], 2)"


def test_either_of_two_buttons(awaited: FrontEnd) -> None:
    kernel = awaited.kernel
    code = """
        clicks = {ipyrunner.event(ok), ipyrunner.event(cancel)}
        print('go')
        done, others = await asyncio.wait(clicks, return_when=asyncio.FIRST_COMPLETED)
        for other in others: other.cancel()
        await done.pop() is cancel
    """
    cell = kernel.begin(textwrap.dedent(code))
    kernel.wait_for(cell, "go")
    awaited.press(awaited.cancel)
    assert kernel.finish(cell).value == "True"
    assert kernel.ok("await asyncio.sleep(0); watchers() == none").value == "True"


def test_no_change_is_lost_and_break_ends_the_watching(awaited: FrontEnd) -> None:
    kernel = awaited.kernel
    code = """
        click = ipyrunner.event(ok)
        print('go')
        async for value in ipyrunner.changes(slider, 'value'):
            seen.append(value)
            if value == 2: await click
            if value == 31: break
        assert watchers() == none
        seen == [*range(2, 32)]
    """
    cell = kernel.begin(textwrap.dedent(code))
    kernel.wait_for(cell, "go")
    for value in range(2, 32):
        awaited.move(value)
    awaited.press(awaited.ok)
    assert kernel.finish(cell).value == "True", cell.traceback


@pytest.mark.parametrize(
    "code",
    [
        "await ipyrunner.event(slider)",
        "async for value in ipyrunner.changes(slider): print(value)",
        "async with ipyrunner.changes(slider) as values:\n    async for value in values: print(value)",
    ],
)
def test_an_interrupt_ends_the_watching(front: FrontEnd, code: str) -> None:
    kernel = front.kernel
    cell = kernel.begin(f"print('go')\n{code}")
    kernel.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    kernel.expect_alive()
    assert kernel.ok("watchers() == none").value == "True"
    idle(kernel, front.move(5))
    assert kernel.ok("slider.value").value == "5"


def test_a_background_task_awaits_between_cells(front: FrontEnd) -> None:
    # The way on ipykernel before 7.4, too.
    kernel = front.kernel
    cell = kernel.ok(
        "async def wait():\n    print('moved to', await ipyrunner.event(slider))\nt = asyncio.create_task(wait()); await asyncio.sleep(0)"
    )
    front.move(9)
    kernel.wait_for(cell, "moved to 9\n")


def test_the_front_end_closes_the_widget(awaited: FrontEnd) -> None:
    kernel = awaited.kernel
    code = """
        changes = ipyrunner.changes(slider)
        slider.value = 50
        print('go')
        try: await ipyrunner.event(slider)
        except RuntimeError as exc: print(exc)
        [value async for value in changes]
    """
    cell = kernel.begin(textwrap.dedent(code))
    kernel.wait_for(cell, "go")
    awaited.close()
    assert kernel.finish(cell).value == "[50]"
    assert "the front end has closed this IntSlider, so its 'value' will not come" in cell.stdout


# -- changes on a subshell's thread, and in their order


def test_a_plain_cell_watches_and_the_next_cell_reads(on_subshell: FrontEnd) -> None:
    kernel = on_subshell.kernel
    code = """
        values = ipyrunner.changes(slider)
        slider.observe(lambda change: seen.append(threading.current_thread() is threading.main_thread()), 'value')
        print('go')
        while len(seen) < 5: time.sleep(0.001)
        seen
    """
    cell = kernel.begin(textwrap.dedent(code))
    kernel.wait_for(cell, "go")
    for value in range(2, 7):
        on_subshell.move(value)
    assert kernel.finish(cell).value == "[False, False, False, False, False]"
    assert kernel.ok("[await anext(values) for _ in seen]").value == "[2, 3, 4, 5, 6]"


def test_a_cell_is_woken_from_a_subshells_thread(on_subshell: FrontEnd) -> None:
    kernel = on_subshell.kernel
    # Another loop than the notebook's, in a plain cell: its messages are handled on the subshell's thread.
    cell = kernel.begin(
        "async def main():\n    print('go')\n    return await ipyrunner.event(slider)\nasyncio.run(main())"
    )
    kernel.wait_for(cell, "go")
    on_subshell.move(7)
    assert kernel.finish(cell).value == "7"


def test_a_slow_callback_is_not_overtaken(on_subshell: FrontEnd) -> None:
    kernel = on_subshell.kernel
    kernel.ok("%config NotebookRunner.interrupt_grace = 0.05")
    code = """
        def moved(change):
            time.sleep(0.2 if change.new == 2 else 0)  # longer than the grace
            seen.append(change.new)
        slider.observe(moved, 'value')
        print('go')
        async for value in ipyrunner.changes(slider):
            if value == 6: break
        seen
    """
    cell = kernel.begin(textwrap.dedent(code))
    kernel.wait_for(cell, "go")
    for value in range(2, 7):
        on_subshell.move(value)
    assert kernel.finish(cell).value == "[2, 3, 4, 5, 6]"
    kernel.ok("%config NotebookRunner.interrupt_grace = 1.0")


# -- the documentation


def test_the_pages_snippets_run_as_printed(stock: Kernel) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```\n", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 5
    stock.ok(snippets[0])
    front = FrontEnd(stock, None, "print(slider.comm.comm_id, button.comm.comm_id, stop.comm.comm_id)")
    if stock.ok(CONCURRENT).value == "True":
        for snippet in snippets[1:4]:
            cell = stock.begin(snippet.rstrip("\n"))
            for value in itertools.cycle(range(2, 10)):
                if cell.reply is not None:
                    break
                front.move(value)
                front.press(front.ok)
                stock.look(0.05)
            assert stock.finish(cell).ename is None, cell.traceback
    cell = stock.ok(snippets[4].rstrip("\n"))
    stock.ok("await asyncio.sleep(0)")  # the task has begun
    front.move(17)
    stock.wait_for(cell, "moved to 17")
