"""nbclient, which runs notebooks that nobody watches: output between cells, event hooks, timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbclient
import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError

import headless
from headless import BETWEEN, KERNELS, SETUP, SLEEPING, STARTS, STOCK, Saved, notebook
from ipyrunner.audience import has_audience


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nbclient.NotebookClient]:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def make(made: nbformat.NotebookNode, **options: Any) -> nbclient.NotebookClient:
        return headless.client(made, tmp_path, resources={"metadata": {"path": str(tmp_path)}}, **options)

    return make


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_an_interrupt_on_timeout_ends_the_cell_alone(client: Any, tmp_path: Path, kernel: str) -> None:
    made = notebook(
        kernel,
        SETUP + "\nkept_loop = asyncio.get_running_loop()",
        "try: await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(0.05); print('clean')",
        "import ipyrunner; print(await asyncio.sleep(0.01, asyncio.get_running_loop() is kept_loop), kept.done(),\n"
        "    ipyrunner.get_runner().interrupts)",
        tags={"sleep(60)\nfinally:\n    await asyncio.sleep(0.05); print": "raises-exception"},
    )
    client(made, timeout_func=lambda cell: 2 if cell.metadata.tags else None, interrupt_on_timeout=True).execute()
    saved = Saved(made)
    assert saved.output("print('clean')") == "clean\n"
    assert saved.output("print('clean')", "error").startswith("KeyboardInterrupt\n")
    assert saved.output("is kept_loop") == "True False 1\n"
    assert sorted((tmp_path / "left").read_text().split()) == ["generator", "task"]


def test_output_between_cells_is_in_the_next_one(client: Any, tmp_path: Path) -> None:
    # Of a task whose cell has ended and of a thread. Nothing runs when they print: the hook waits for that.
    path = tmp_path / "printed"
    made = notebook(
        STOCK,
        SETUP,
        STARTS + "\nimport pathlib, sys, threading\n"
        "async def between():\n"
        "    await events['c'].wait()\n"
        "    for _ in range(1500): sys.stdout.write('x')\n"
        "    for n in range(3): print('line', n)\n"
        "    display({'text/plain': 'shown'}, raw=True)\n"
        "    thread = threading.Thread(target=print, args=['of a thread']); thread.start(); thread.join()\n"
        "    await told(tasks['c'])\n"
        f"    pathlib.Path({str(path)!r}).touch()\n"
        "    while True:\n"
        "        await asyncio.sleep(0.01)\n"
        "others.append(asyncio.create_task(between())); await asyncio.sleep(0)",
        BETWEEN,
        "print('next')",
        "'after'",
    )
    saved = Saved(made)

    async def wait(cell: Any, cell_index: int) -> None:
        if "'next'" in cell.source:
            async with asyncio.timeout(30):
                while not path.exists():
                    await asyncio.sleep(0.01)

    client(made, on_cell_start=wait, coalesce_streams=True).execute()
    printed = saved.output("'next'")
    assert printed.lstrip("x") == "line 0\nline 1\nline 2\nof a thread\nnext\n"
    assert 900 < printed.count("x") < 1000  # a thousand pieces are kept
    assert "those that came first: at most 1000 pieces" in saved.output("'next'", "stderr")
    assert saved.output("'next'", "display_data") == "shown"
    starts = saved.number("# starts")
    assert f"the task task c of In[{starts}] (fail) failed" in saved.output("'next'", "stderr")
    assert len(saved.cell("'after'").outputs) == 1


def test_a_cell_that_people_watch_keeps_its_output(client: Any) -> None:
    # The client's own clients say that they can be asked: as in JupyterLab, output goes to the cell that started it.
    made = notebook(STOCK, SETUP, STARTS, "events['b'].set(); await told(tasks['b'])")
    nb = client(made)

    def ask(**options: Any) -> None:
        nb.kc.allow_stdin = True

    nb.on_notebook_start = ask
    nb.execute()
    assert Saved(made).cell("told(tasks['b'])").outputs == []


def test_an_unloaded_extension_leaves_the_streams_alone(client: Any) -> None:
    made = notebook(
        STOCK,
        SETUP,
        "print('here')",
        "%unload_ext ipyrunner",
        "print('there')",
        "import sys; type(sys.stdout).__name__",
    )
    client(made).execute()
    saved = Saved(made)
    assert saved.output("print('here')") == "here\n"
    assert saved.output("print('there')") == "there\n"
    assert saved.output("__name__", "execute_result") == "'OutStream'"


def test_a_timeout_without_an_interrupt(client: Any, tmp_path: Path) -> None:
    made = notebook(STOCK, *SLEEPING)
    with pytest.raises(CellTimeoutError):
        client(made, timeout_func=lambda cell: 2 if "leave('cell')" in cell.source else None).execute()
    assert sorted((tmp_path / "left").read_text().split()) == ["cell", "generator", "task"]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_what_event_hooks_print_is_in_the_notebook_once(client: Any, kernel: str) -> None:
    # They are called when the code of the cell has ended, as matplotlib's, which shows the figures.
    register = (
        "from IPython.display import display\ndef hook(*result): print('hooked'); display('shown')\n"
        "get_ipython().events.register('post_run_cell', hook)"
    )
    made = notebook(
        kernel, register, "'a plain one'", "import asyncio; await asyncio.sleep(0); 'one that awaits'", "'last'"
    )
    client(made).execute()
    saved = Saved(made)
    for text in ("'a plain one'", "'one that awaits'", "'last'"):
        assert saved.output(text) == "hooked\n"
        assert saved.output(text, "display_data") == "'shown'"


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_what_is_printed_before_the_code_of_a_cell_is_in_the_notebook_once(client: Any, kernel: str) -> None:
    # By an input transformer, which ipykernel calls twice for a cell without await, and by us about a closed loop.
    register = (
        "import asyncio, itertools\nfrom IPython.display import display\ncalls = itertools.count()\n"
        "def transform(lines):\n"
        "    if lines[0].startswith('# tell'): n = next(calls); print('told', n); display(n)\n    return lines\n"
        "get_ipython().input_transformers_cleanup.append(transform)"
    )
    made = notebook(
        kernel,
        register,
        "# tell\n'a plain one'",
        "# tell\nawait asyncio.sleep(0); 'one that awaits'",
        "# tell\n1 / 0",
        "asyncio.get_event_loop().close()",
        "'after'",
        tags={"1 / 0": "raises-exception"},
    )
    client(made).execute()
    saved = Saved(made)
    for text in ("'a plain one'", "'one that awaits'", "1 / 0"):
        told, shown = saved.output(text).split("\n")[:-1], saved.output(text, "display_data")
        assert told
        assert len(set(told)) == len(told)
        assert "".join(told).replace("told ", "") == shown
    assert saved.output("'after'").count("event loop was closed, so a new one") == 1


@pytest.mark.parametrize(
    ("content", "expected"), [({}, True), ({"allow_stdin": True}, True), ({"allow_stdin": False}, False)]
)
def test_a_client_that_does_not_say_whether_it_can_be_asked_is_watched(
    content: dict[str, bool], expected: bool
) -> None:
    shell: Any = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: {"content": content}))
    assert has_audience(shell) is expected
