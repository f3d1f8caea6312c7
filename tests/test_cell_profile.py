"""``%%arun --profile``."""

from __future__ import annotations

import asyncio
import html
import os
import random
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import IPython
import nbformat
import pytest

import headless
from kernels import DEADLINE, Cell, Kernel
from side_by_side import concurrent_only

if TYPE_CHECKING:
    from terminals import Terminal

pytest.importorskip("pyinstrument")

# compute() takes the processor long enough for dozens of samples, whatever else the machine does.
PRELUDE = """
import asyncio, sys, time
def compute():
    end = time.process_time() + 0.05
    while time.process_time() < end: sum(range(100))
async def child():
    compute()
    await nap()
async def nap(): await asyncio.sleep(0.3)  # many samples, also on a busy machine
"""
# What is below the user's code, and what is around it.
MACHINERY = [
    "ipykernel/",
    "ipykernel_launcher",
    "tornado",
    "ipyrunner",
    "IPython",
    "runpy",
    "_run_once",
    "run_forever",
    "run_cell",
    "MainThread",
]


def bundle(cell: Cell) -> dict[str, str]:
    """The profile that a cell shows."""
    found = [
        m["content"]["data"]
        for m in cell.messages
        if m["msg_type"] == "display_data" and " samples)" in m["content"]["data"].get("text/plain", "")
    ]
    assert len(found) == 1, cell
    data: dict[str, str] = found[0]
    return data


def text(cell: Cell) -> str:
    return bundle(cell)["text/plain"]


def below(tree: str, function: str) -> str:
    """The lines of the tree below the first with this function."""
    lines = tree.splitlines()
    first = next(i for i, line in enumerate(lines) if re.search(rf"\d {re.escape(function)} ", line))
    indent = column(lines[first])
    after = [i for i, line in enumerate(lines) if i > first and column(line) <= indent]
    return "\n".join(lines[first : after[0] if after else None])


def column(line: str) -> int:
    """Where the text of a line of the tree begins."""
    return len(line) - len(line.lstrip(" │├└─"))


def profiled(cell: Cell) -> bool:
    return any(m["msg_type"] == "display_data" for m in cell.messages)


def pages(source: str) -> list[str | None]:
    """The pages inside a page."""
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "iframe":
                found.append(dict(attrs)["srcdoc"])

    Parser().feed(source)
    return found


def no_hook(k: Kernel) -> None:
    assert k.ok("import sys; sys.getprofile() is None").value == "True"


def test_the_functions_of_the_cell_and_of_its_tasks(on_each_loop: Kernel) -> None:
    on_each_loop.ok(PRELUDE)
    cell = on_each_loop.ok(
        "%%arun --profile\ncompute()\nawait asyncio.create_task(child(), name='c')\nawait nap()\n'value'"
    )
    assert cell.value == "'value'"
    tree = text(cell)
    assert "compute" in below(tree, "<module>")
    assert re.search(r"nap .*\n.*sleep .*\n.*\[await\]", below(tree, "<module>"))
    assert "child" not in below(tree, "<module>")
    assert "compute" in below(tree, "child")
    assert re.search(r"nap .*\n.*sleep .*\n.*\[await\]", below(tree, "child"))
    if IPython.version_info >= (8,):
        assert f"<module>  {tree.partition(':')[0]}:1" in tree  # cells have their numbers
    assert [word for word in MACHINERY if word in tree] == []
    no_hook(on_each_loop)


def test_what_still_waits_when_another_task_has_ended(on_each_loop: Kernel) -> None:
    # pyinstrument's own mode gives this time to the loop.
    on_each_loop.ok(PRELUDE)
    cell = on_each_loop.ok(
        "%%arun --profile\nasync def brief(): await asyncio.sleep(0)\nasync def lasting(): await nap(); await nap()\n"
        "await asyncio.gather(brief(), lasting())"
    )
    assert "[await]" in below(text(cell), "lasting")
    seconds = {name: float(s) for s, name in re.findall(r"(\d+\.\d+) (\S+) ", text(cell))}
    assert seconds["lasting"] > float(text(cell).split()[1]) / 2


def test_tasks_that_wait_at_the_same_time_share_it(on_each_loop: Kernel) -> None:
    # Nothing runs meanwhile, and pyinstrument alone would take two or three samples in all that time.
    cell = on_each_loop.ok(
        "%%arun --profile\nasync def one(): await asyncio.sleep(0.5)\nasync def other(): await asyncio.sleep(0.5)\n"
        "await asyncio.gather(one(), other())"
    )
    assert "[await]" in below(text(cell), "one")
    assert "[await]" in below(text(cell), "other")
    assert int(re.findall(r"\((\d+) samples\)", text(cell))[0]) >= 8


def test_it_is_a_page_in_notebooks(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    data = bundle(shared.ok("%%arun --profile\nawait asyncio.create_task(child())"))
    page = re.fullmatch(r"<iframe [^>]*?srcdoc='([^']*)'[^>]*></iframe>", data["text/html"])
    assert page is not None
    source = html.unescape(page[1])
    assert source.startswith("<!DOCTYPE html>")
    assert "child" in source
    assert "ipykernel/" not in source.partition('"frame_tree"')[2]
    assert len(data["text/html"]) < 300_000


@pytest.mark.slow
def test_it_survives_nbconvert(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    sources = ("%load_ext ipyrunner", PRELUDE, "%%arun --profile\nawait asyncio.create_task(child())")
    notebook.cells = [nbformat.v4.new_code_cell(code) for code in sources]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    headless.client(notebook, tmp_path, timeout=int(DEADLINE)).execute()
    nbformat.validate(notebook)
    output = notebook.cells[2]["outputs"][0]
    assert "child" in output["data"]["text/plain"]
    nbconvert = pytest.importorskip("nbconvert")
    exported = nbconvert.HTMLExporter().from_notebook_node(notebook)[0]
    assert pages(exported) == pages(output["data"]["text/html"])
    assert len(pages(exported)) == 1


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("what", ["await nap(); await asyncio.sleep(60)", "while True: compute()"])
def test_an_interrupt_shows_the_profile_so_far(on_each_loop: Kernel, what: str) -> None:
    on_each_loop.ok(PRELUDE)
    cell = on_each_loop.begin(
        "%%arun --profile\ncompute()\nasync def work():\n    print('go')\n    " + what + "\n"
        "try: await asyncio.create_task(work())\nfinally: await asyncio.sleep(0); print('cleaned')"
    )
    on_each_loop.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    printed = "go\ncleaned\n"
    if IPython.version_info >= (8,):
        assert cell.stdout == printed
    else:  # it may fail to find the source, and print that
        assert cell.stdout.startswith(printed)
    assert "compute" in below(text(cell), "<module>")
    on_each_loop.expect_alive()
    no_hook(on_each_loop)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_a_cell_that_does_not_end_is_profiled_until_its_loop_is_closed(fresh: Kernel) -> None:
    k = fresh
    k.ok("%config NotebookRunner.shutdown_timeout = 0.1")
    k.ok(PRELUDE)
    hooks = k.ok("events = get_ipython().events.callbacks['post_execute']; before = len(events); before").value
    cell = k.begin(
        "%%arun --profile\nprint('go')\nwhile True:\n    try: await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError: print('no')"
    )
    k.wait_for(cell, "go")
    k.interrupt()
    k.wait_for(cell, "no")
    k.interrupt()
    k.finish(cell)
    assert "compute" in text(k.ok("%%arun --profile\ncompute()"))  # beside it
    k.ok("%arunner restart")
    no_hook(k)
    assert k.ok("len(events)").value == hooks
    assert "compute" in text(k.ok("%%arun --profile\ncompute()"))


def test_with_the_other_options(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    cell = shared.run(
        "%%arun --profile --timeout 0.2 --scope\nlost = asyncio.create_task(child())\nawait asyncio.sleep(60)"
    )
    assert cell.ename == "TimeoutError"
    assert "compute" in below(text(cell), "child")
    shared.expect_alive()
    shared.ok(PRELUDE)
    cell = shared.ok(
        "%%arun --profile --scope --output out --name mine --context copy --debug --timeout 60\n"
        "t = asyncio.create_task(child())\nasyncio.current_task().get_name()"
    )
    assert cell.value is None
    assert "compute" in below(text(cell), "child")
    assert shared.ok("out, t.done()").value == "('mine', True)"
    cell = shared.run("%%arun --profile\ncompute()\n1 / 0")
    assert cell.ename == "ZeroDivisionError"
    assert "compute" in text(cell)
    no_hook(shared)


def test_not_in_a_loop_of_its_own(shared: Kernel) -> None:
    cell = shared.run("%%arun --profile --fresh\nprint('run')")
    assert (cell.ename, cell.stdout) == ("UsageError", "")
    assert "--fresh" in cell.stderr


def test_a_background_cell_shows_it_when_it_ends(on_each_loop: Kernel) -> None:
    k = on_each_loop
    k.ok(PRELUDE)
    k.ok("go, had = asyncio.Event(), []")
    first = k.ok("%%arun --profile --background\ndef mine(): compute()\nmine()\nawait go.wait()")
    second = k.ok("%%arun --profile --background\ndef other(): compute()\nother()\nhad.append(5)\nawait go.wait()")
    assert k.ok("while not had: await asyncio.sleep(0.001)\nhad").value == "[5]"
    assert not any(" samples)" in str(m["content"]) for cell in (first, second) for m in cell.messages)
    k.ok("go.set()")
    for cell, own, others in (first, "mine", "other"), (second, "other", "mine"):
        k.wait_until(lambda cell=cell: any(" samples)" in str(m["content"]) for m in cell.messages))
        assert "compute" in below(text(cell), own)
        assert others not in text(cell)
    no_hook(k)


@concurrent_only
def test_cells_side_by_side_have_profiles_of_their_own(side_by_side: Kernel) -> None:
    k = side_by_side
    k.ok(PRELUDE)
    k.ok("go = asyncio.Event()")
    first = k.begin(
        "%%arun --profile --concurrent\nasync def mine(): compute(); await go.wait()\nprint('go')\nawait asyncio.create_task(mine())"
    )
    k.wait_for(first, "go")
    second = k.ok(
        "%%arun --profile --concurrent\nasync def other(): compute(); await nap()\nawait asyncio.create_task(other())"
    )
    assert first.reply is None
    third = k.ok("%%arun --concurrent\ndef neither(): compute()\nneither()\ngo.set()")
    k.finish(first)
    assert "compute" in below(text(first), "mine")
    assert "compute" in below(text(second), "other")
    assert "other" not in text(first)
    assert "neither" not in text(first)
    assert "mine" not in text(second)
    assert not profiled(third)
    no_hook(k)


def test_a_cell_beside_a_profiled_main_one_is_not_in_its_profile(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    shared.ok(
        "async def bystander():\n    while True: compute(); await asyncio.sleep(0)\nt = asyncio.create_task(bystander())"
    )
    cell = shared.ok("%%arun --profile\nawait asyncio.create_task(child())")
    assert "bystander" not in text(cell)
    shared.ok("t.cancel()")


def test_nothing_is_left_behind(fresh: Kernel) -> None:
    k = fresh
    k.ok("%%arun\n1")
    assert (
        k.ok("import sys; [m for m in sys.modules if 'pyinstrument' in m or 'profile_' in m or '_profile' in m]").value
        == "[]"
    )
    k.ok(PRELUDE)
    k.ok(
        "%%arun --profile\nimport pyinstrument\nstop = asyncio.Event()\nasync def survivor():\n    await stop.wait()\n"
        "    with pyinstrument.Profiler() as own: compute()\n    return own.output_text()\n"
        "t = asyncio.create_task(survivor())\nawait nap()"
    )
    no_hook(k)
    assert "no context variables set" in str(k.ok("%arunner").value)
    assert k.ok("import gc; [o for o in gc.get_objects() if type(o).__name__ == 'Samples']").value == "[]"
    # pyinstrument can be used by what comes after, and by what goes on.
    assert "compute" in k.ok("stop.set(); print(await t)").stdout
    k.ok("p = pyinstrument.Profiler(); p.start(); compute(); await nap(); p.stop();")
    assert "compute" in k.ok("print(p.output_text())").stdout


def test_a_profiler_that_is_active_stays(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    shared.ok("def users(*args): pass\nsys.setprofile(users)")
    for background in "", " --background":
        cell = shared.run(f"%%arun --profile{background}\nprint('run')")
        assert (cell.ename, cell.stdout) == ("UsageError", "")
        assert "another profiler is active in this thread" in cell.stderr
        assert "users" in cell.stderr
    assert shared.ok("was = sys.getprofile(); sys.setprofile(None); was is users").value == "True"
    shared.ok("import pyinstrument; p = pyinstrument.Profiler(); p.start()")
    assert shared.run("%%arun --profile\nprint('run')").ename == "UsageError"
    assert shared.ok("compute(); 'compute' in p.stop().root_frame().to_json_str()").value == "True"
    no_hook(shared)


def test_a_trace_function_stays(shared: Kernel) -> None:
    # As coverage and pdb set it.
    shared.ok(PRELUDE)
    cell = shared.ok(
        "%%arun --profile\nseen = set()\ndef trace(frame, event, arg): seen.add(frame.f_code.co_name)\n"
        "sys.settrace(trace)\ntry:\n    compute()\n    same = sys.gettrace() is trace\nfinally: sys.settrace(None)\n"
        "same and 'compute' in seen"
    )
    assert cell.value == "True"
    assert "compute" in text(cell)


@pytest.mark.parametrize("left", ["users", "None"])
def test_a_profiler_that_the_cell_sets_stays(shared: Kernel, left: str) -> None:
    shared.ok(PRELUDE)
    shared.ok("def users(*args): pass")
    cell = shared.ok(f"%%arun --profile\ncompute()\nsys.setprofile({left})\n5")
    assert cell.value == "5"
    assert "compute" in text(cell)
    assert "the profile is not complete" in cell.stderr
    assert shared.ok(f"was = sys.getprofile(); sys.setprofile(None); was is {left}").value == "True"
    assert "compute" in text(shared.ok("%%arun --profile\ncompute()"))


def test_without_pyinstrument_it_says_what_to_install(fresh: Kernel) -> None:
    fresh.ok("import sys; sys.modules['pyinstrument'] = None")
    for background in "", " --background":
        cell = fresh.run(f"%%arun --profile{background}\nprint('run')")
        assert (cell.ename, cell.stdout) == ("UsageError", "")
        assert "%pip install pyinstrument" in cell.stderr
    fresh.expect_alive()


def test_what_cannot_be_shown_costs_the_cell_nothing(fresh: Kernel) -> None:
    fresh.ok(PRELUDE)
    fresh.ok("import pyinstrument; sys.modules['pyinstrument.session'] = None")
    cell = fresh.ok("%%arun --profile\nawait child()\n5")
    assert cell.value == "5"
    assert "the profile cannot be shown: " in cell.stderr
    no_hook(fresh)


HOSTILE = """%%arun --profile
names = ["</script><script>", "<!-- <script>", "\\ud800", "a\\0b", "a\\0b\\0c\\x01", "a\\x01b", "x" * 10**6, "", "\\x1b[31m", "'"]
def called(name="f", file="<string>"):
    f = lambda: compute()
    f.__code__ = f.__code__.replace(co_name=name, co_filename=file)
    f()
class Base:
    def method(self): compute()
for name in names:
    called(name)
    called(file=name)
    if "\\0" not in name and name != "\\ud800": type(name, (Base,), {})().method()
sys.path += [None, 5, __import__("pathlib").Path("/")]
def recurse(n): recurse(n - 1) if n else compute()
recurse(500)
'value'
"""


def test_hostile_names(fresh: Kernel) -> None:
    fresh.ok(PRELUDE)
    plain = html.unescape(bundle(fresh.ok("%%arun --profile\ncompute()"))["text/html"])
    cell = fresh.ok(HOSTILE)
    assert cell.value == "'value'"
    assert cell.stderr == ""
    assert "recurse" in text(cell)
    page = html.unescape(bundle(cell)["text/html"])
    for tag in "</script", "<!--":
        assert page.count(tag) == plain.count(tag), tag
    assert len(page) < 1_000_000
    assert max(map(len, text(cell).splitlines())) < 1000


def test_samples_are_bounded_and_fair() -> None:
    from ipyrunner.aio.tasks.task_scope import Brood
    from ipyrunner.ipython.magics.profile.samples import Samples

    async def main() -> Samples:
        shuffle = random.Random(1)
        depths = [shuffle.randrange(1, 300) for _ in range(1000)]
        stacks = [[f"f{shuffle.randrange(50)}\0file\0{depth}\x01l5" for depth in range(n)] for n in depths]
        with Brood(lambda started: lambda: None) as brood:
            samples = Samples(brood, "In[1]", None, lambda name: name)
            for n in range(20_000):
                name = "half" if n % 2 else "quarter" if n % 4 else "rest"
                samples.take([f"{name}\0file\0001", *shuffle.choice(stacks)], 0.001)
            return samples

    samples = asyncio.run(main())
    assert samples.count == 20_000
    assert sum(len(stack) for stack, _ in samples.records) <= 10_000
    assert sum(seconds for _, seconds in samples.records) == pytest.approx(20)
    shares = {name: sum(s for stack, s in samples.records if stack[1].startswith(name)) for name in ("half", "quarter")}
    assert 6 < shares["half"] < 14
    assert 2 < shares["quarter"] < 8


def test_what_a_sample_raises_is_not_raised_in_the_cell() -> None:
    from ipyrunner.aio.tasks.task_scope import Brood
    from ipyrunner.ipython.magics.profile.samples import Samples

    async def main() -> None:
        with Brood(lambda started: lambda: None) as brood:
            samples = Samples(brood, "In[1]", None, lambda name: name)
            samples.take([5], 0.001)  # type: ignore[list-item]
        assert samples.count == 0  # it was not taken

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
def test_it_is_text_in_a_terminal(start: Callable[..., Terminal]) -> None:
    from terminals import expect_alive

    terminal = start(
        setup="def compute(): end = time.process_time() + 0.05; any(time.process_time() > end for _ in iter(int, 1))"
    )
    terminal.run("import time")
    output: Any = terminal.run("%%arun --profile\ncompute()\nawait asyncio.sleep(0.3)\n")
    assert "compute" in output
    assert "[await]" in output
    assert "iframe" not in output
    expect_alive(terminal)


def test_a_cell_that_clears_the_event_hooks_keeps_its_value(fresh: Kernel) -> None:
    fresh.ok(PRELUDE)
    cell = fresh.ok("%%arun --profile\ncompute()\nget_ipython().events.callbacks['post_execute'].clear()\n5")
    assert cell.value == "5"
    assert "compute" in text(cell)


def test_an_interrupt_that_ends_the_profiler_is_not_taken_for_the_cells_doing(shared: Kernel) -> None:
    # As where KeyboardInterrupt is raised in the profiler's own hook: Python takes the hook away then.
    shared.ok(PRELUDE)
    cell = shared.run("%%arun --profile\ncompute()\nsys.setprofile(None)\nraise KeyboardInterrupt")
    assert cell.ename == "KeyboardInterrupt"
    assert "compute" in text(cell)
    assert "not complete" not in cell.stderr
