"""JupyterLab and Notebook 7 in a real browser: what a user presses, types and sees."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# In the group `test` they are to be there, and it is a failure if they are not.
if (group := os.environ.get("TEST_GROUP", "test")) != "test":
    for needed in ("jupyterlab", "notebook", "playwright"):
        pytest.importorskip(needed, reason=f"{needed} is missing, as in the dependency group {group}: use group `test`")

from playwright.sync_api import Browser, Locator, expect

from browser import (
    BROWSERS,
    CELLS,
    INSTALL,
    Cell,
    Notebook,
    Server,
    browsing,
    expect_busy,
    expect_idle,
    find_browser,
    press_interrupt,
    press_restart,
    serving,
    write_settings,
)
from kernels import BEFORE, DEADLINE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_browser() is None,
        reason=f"NO BROWSER, so nothing of JupyterLab is tested: looked for {', '.join(BROWSERS)}; `{INSTALL}` brings one",
    ),
]
expect.set_options(DEADLINE * 1000)

SETUPS = [("jupyterlab", "python3"), ("jupyterlab", "ipyrunner"), ("notebook", "python3")]
# Where the comm messages of widgets go: a setting of both applications.
SUBSHELLS = {"over subshells": "perCommTarget", "not over subshells": "disabled"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    assert path is not None
    with browsing(path) as started:
        yield started


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Return the server of an application, started when it is first asked for."""
    with ExitStack() as stack:
        servers: dict[str, Server] = {}

        def serve(application: str) -> Server:
            if application not in servers:
                root = tmp_path_factory.mktemp(application)
                servers[application] = stack.enter_context(serving(root, application))
            return servers[application]

        yield serve


def begin(browser: Browser, server: Server, kernel: str, comms: str = "over subshells") -> Notebook:
    """Open a new notebook, and run its first cells."""
    kernels_settings = {"commsOverSubshells": SUBSHELLS[comms]}
    write_settings(server.root, {"@jupyterlab/apputils-extension:kernels-settings": kernels_settings})
    page = browser.new_page()
    page.set_default_timeout(DEADLINE * 1000)
    notebook = Notebook(page, server, f"{kernel} {comms}.ipynb", kernel)
    prepare(notebook)
    return notebook


def prepare(notebook: Notebook) -> None:
    """Load the extension where the kernel does not, and run the cells that come before."""
    if notebook.kernel == "python3":
        notebook.run("%load_ext ipyrunner").expect_end()
    notebook.run(BEFORE).expect_end()


@pytest.fixture(scope="module", params=SETUPS, ids=" ".join)
def notebook(request: pytest.FixtureRequest, browser: Browser, serve: Callable[[str], Server]) -> Iterator[Notebook]:
    """A notebook that the tests share: with the extension loaded into the stock kernel, and on our kernel."""
    application, kernel = request.param
    started = begin(browser, serve(application), kernel)
    yield started
    started.page.close()


def expect_alive(notebook: Notebook) -> None:
    """After an interrupt: the next cell runs, on the same loop, with the variables."""
    expect_idle(notebook.page)
    alive = "await asyncio.sleep(0.01); print(kept, id(asyncio.get_running_loop()) == loop_id)"
    notebook.run(alive).expect("kept True").expect_end()


def test_the_interrupt_button_ends_an_await_and_the_cell_cleans_up(notebook: Notebook) -> None:
    cell = notebook.run("""
try:
    print("it", "begins")
    await asyncio.sleep(600)
finally:
    await asyncio.sleep(0.01)
    print("cleaned", "up")
""")
    cell.expect("it begins").expect_running()
    press_interrupt(notebook.page)
    cell.expect("cleaned up", "KeyboardInterrupt").expect_end()
    expect_alive(notebook)


def test_the_interrupt_button_ends_a_loop_that_never_yields(notebook: Notebook) -> None:
    cell = notebook.run('await asyncio.sleep(0); print("it", "begins")\nwhile True: pass')
    cell.expect("it begins").expect_running()
    press_interrupt(notebook.page)  # once
    cell.expect("KeyboardInterrupt").expect_end()
    expect_alive(notebook)


def test_tab_and_shift_tab_while_a_cell_awaits(notebook: Notebook) -> None:
    page = notebook.page
    cell = notebook.run('the_new_variable = 5; print("it", "begins"); await asyncio.sleep(600)')
    cell.expect("it begins").expect_running()
    typed = page.locator(CELLS).last.locator(".cm-content")
    typed.click()
    page.keyboard.type("the_new_var")
    # JupyterLab waits for a second, and the first completion loads jedi.
    deadline = time.monotonic() + DEADLINE
    while typed.inner_text().strip() != "the_new_variable":
        assert time.monotonic() < deadline
        page.keyboard.press("Tab")
        page.wait_for_timeout(2000)
    page.keyboard.press("Shift+Tab")
    expect(page.locator(".jp-Tooltip")).to_contain_text("int")
    page.keyboard.press("Escape")
    cell.expect_running()
    expect_busy(page)
    press_interrupt(page)
    cell.expect("KeyboardInterrupt").expect_end()
    expect_alive(notebook)


def test_a_background_cell_prints_into_its_own_output(notebook: Notebook) -> None:
    background = notebook.run("""
%%arun --background --name ticker -o job
over, n = asyncio.Event(), 0
while not over.is_set():
    print("tick", n := n + 1)
    await asyncio.sleep(0.05)
print("last", "tick")
""")
    background.expect("tick 1").expect_end()
    other = notebook.run('print("the", "other"); await asyncio.sleep(600)')
    other.expect("the other").expect_running()
    seen = background.outputs.inner_text().count("tick")
    background.expect(f"tick {seen + 3}")
    other.expect_running()
    press_interrupt(notebook.page)  # ends the cell alone
    other.expect("KeyboardInterrupt").expect_end()
    seen = background.outputs.inner_text().count("tick")
    background.expect(f"tick {seen + 3}")
    expect_alive(notebook)
    notebook.run("over.set(); await job").expect_end()
    background.expect("last tick")
    expect(other.outputs).not_to_contain_text("tick 2")


def test_a_failing_task_tells_in_the_cell_that_started_it(notebook: Notebook) -> None:
    cell = notebook.run("""
async def fail():
    await failing.wait()
    raise ValueError("in the", "background")

failing = asyncio.Event()
task = asyncio.create_task(fail())
""")
    cell.expect_end()
    other = (
        notebook.run('failing.set(); await asyncio.wait([task]); print("the other")').expect("the other").expect_end()
    )
    cell.expect("ValueError", "----> 3", "('in the', 'background')")
    expect(other.outputs).not_to_contain_text("ValueError")


def run_beside(notebook: Notebook, name: str) -> Cell:
    """Run a cell beside the others, and wait until it waits."""
    cell = notebook.run(f"""
%%arun --concurrent
try:
    print("{name}", "waits")
    await asyncio.sleep(600, "{name}")
finally:
    await asyncio.sleep(0.01)
    print("{name}", "cleaned up")
""")
    return cell.expect(f"{name} waits").expect_running()


def named(tasks: Cell, awaited: str) -> str:
    """Return the name, in the table of tasks, of the cell that awaits this."""
    name = tasks.outputs.get_by_role("row").filter(has_text=awaited).get_by_role("cell").nth(1).inner_text()
    assert re.fullmatch(r"In\[\d+\]", name)
    return name


def test_cells_run_beside_one_that_awaits_which_goes_on_in_the_background(notebook: Notebook) -> None:
    first = notebook.run("""
later = asyncio.Event()
print("the first", "waits")
await later.wait()
print("the first", "goes on")
"its value"
""")
    first.expect("the first waits").expect_running()
    queued = notebook.run('print("in", "turn")')
    beside = notebook.run('%%arun --concurrent\nprint("be" + "side")\nawait asyncio.sleep(0.01)\n6 * 7')
    beside.expect_end().expect_outputs("beside", "42")
    cancelled = run_beside(notebook, "third")
    tasks = notebook.run("%atasks").expect_end()
    first_name, cancelled_name = named(tasks, "later.wait()"), named(tasks, 'sleep(600, "third")')

    notebook.run(f"%atasks cancel {cancelled_name}").expect_end().expect("cancelling 1 task")
    cancelled.expect("third waits", "third cleaned up", "CancelledError").expect_end()
    expect(cancelled.prompt).to_have_text(f"{cancelled_name[2:]}:")
    queued.expect_running()
    first.expect_running().expect_outputs("the first waits")

    sent = notebook.run(f"%atasks background {first_name}").expect("goes on in the background").expect_end()
    expect(first.prompt).to_have_text(f"{first_name[2:]}:")
    queued.expect_end().expect_outputs("in turn")
    first.expect_outputs("the first waits")
    expect_idle(notebook.page)
    notebook.run("later.set()").expect_end().expect_outputs()
    first.expect_outputs("the first waits the first goes on", "'its value'")
    prompts = [cell.prompt.inner_text() for cell in (first, queued, beside, cancelled, tasks, sent)]
    assert len(set(prompts)) == len(prompts)
    expect_alive(notebook)


def test_the_kernel_is_busy_with_cells_beside_others_and_the_interrupt_button_ends_them(notebook: Notebook) -> None:
    cells = [run_beside(notebook, "one")]
    expect_busy(notebook.page)
    for code in ("1 + 1", "await asyncio.sleep(0.01, 2)", "%%arun --concurrent\nawait asyncio.sleep(0.01, 2)"):
        notebook.run(code).expect_end().expect_outputs("2")
        expect_busy(notebook.page)
    cells.append(run_beside(notebook, "two"))
    press_interrupt(notebook.page)  # once
    for name, cell in zip(("one", "two"), cells, strict=True):
        cell.expect(f"{name} waits", f"{name} cleaned up", "KeyboardInterrupt").expect_end()
    expect_alive(notebook)


WIDGETS = """
import ipywidgets, threading

from ipyrunner import event

slider, button = ipywidgets.IntSlider(), ipywidgets.Button(description="Go on")
display(slider, button)
"""


def drag_slider(notebook: Notebook, cell: Cell) -> None:
    """Drag the slider to the right, by a quarter of its length."""
    box = cell.outputs.locator(".noUi-handle").bounding_box()
    track = cell.outputs.locator(".noUi-target").bounding_box()
    assert box is not None
    assert track is not None
    x, y, mouse = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, notebook.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + track["width"] / 4, y, steps=5)
    mouse.up()


def use_widgets(notebook: Notebook) -> None:
    """Move a slider and click a button while a cell waits for them."""
    shown = notebook.run(WIDGETS).expect_end()
    polling = notebook.run(
        'print("it polls")\nwhile slider.value < 20: await asyncio.sleep(0.01)\nprint("polled", slider.value)'
    )
    polling.expect("it polls")
    drag_slider(notebook, shown)  # in steps: the first change is not all that has to arrive
    polling.expect("polled").expect_end()
    value = shown.outputs.locator(".widget-readout").inner_text()
    notebook.run(f'while slider.value != {value}: await asyncio.sleep(0.01)\nprint("the", "last")').expect("the last")

    waiting = notebook.run('print("it waits"); print("value", await event(slider, "value"))')
    waiting.expect("it waits").expect_running()
    drag_slider(notebook, shown)
    waiting.expect(re.compile(r"value \d+")).expect_end()

    clicking = notebook.run("""
async def work():
    await asyncio.sleep(0.01)
    clicked.set_result("on the notebook's loop")

clicked = asyncio.get_running_loop().create_future()
button.on_click(lambda button: asyncio.create_task(work()))
print("it waits")
print("clicked,", await clicked)
""")
    clicking.expect("it waits").expect_running()
    shown.outputs.get_by_role("button", name="Go on").click()
    clicking.expect("clicked, on the notebook's loop").expect_end()


def test_the_progress_of_a_cell_is_a_bar(notebook: Notebook) -> None:
    cell = notebook.run("""
%%arun --progress
go = asyncio.Event()
some = [asyncio.create_task(work) for work in (asyncio.sleep(0), go.wait(), go.wait(), go.wait())]
await asyncio.wait(some)
print("it", "ended")
""")
    cell.expect("3 running, 1 done")
    bar = cell.outputs.locator(".widget-hprogress .progress")
    box = bar.bounding_box()
    assert box is not None
    assert box["width"] >= 200
    quarter = "bar => Math.abs(bar.querySelector('.progress-bar').clientWidth - bar.clientWidth / 4) < 3"
    notebook.page.wait_for_function(quarter, arg=bar.element_handle())
    press_interrupt(notebook.page)
    cell.expect("KeyboardInterrupt").expect_end()
    expect(bar).not_to_be_visible()
    expect_alive(notebook)


COUNT_SUBSHELLS = 'print("subshells:", sum(thread.name.startswith("subshell") for thread in threading.enumerate()))'


def test_widgets_while_a_cell_waits(notebook: Notebook) -> None:
    use_widgets(notebook)
    notebook.run(COUNT_SUBSHELLS).expect("subshells: 1")


def test_widgets_without_subshells(browser: Browser, serve: Callable[[str], Server]) -> None:
    notebook = begin(browser, serve("jupyterlab"), "python3", "not over subshells")
    use_widgets(notebook)
    notebook.run(COUNT_SUBSHELLS).expect("subshells: 0")
    notebook.page.close()


def live_row(live: Cell, name: str) -> Locator:
    """Return the row of a task, or of a cell, in a live view."""
    return live.outputs.locator("tr").filter(
        has=live.outputs.page.locator("td:first-child", has_text=re.compile(f"^{name}$"))
    )


def expect_fit_when_narrow(live: Cell) -> None:
    """Make the page narrow: the red sign stays on one line, and the heads of name and buttons in sight. Undo it."""
    page = live.outputs.page
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({**size, "width": 700})
    expect(live.outputs.locator("th", has_text="actions")).to_be_in_viewport(ratio=1)
    expect(live.outputs.locator("th", has_text="task")).to_be_in_viewport(ratio=1)
    assert (live.outputs.locator(".ipyrunner-blocked").bounding_box() or {})["height"] < 30
    page.set_viewport_size(size)


def expect_sign_of_silence(live: Cell, pid: int) -> None:
    """Stop the kernel's process, so that not even its threads answer; the view says so, until the process goes on.

    Meanwhile the computer sleeps for an hour, which is not the kernel's silence.
    """
    sign = live.outputs.locator(".ipyrunner-blocked")
    os.kill(pid, signal.SIGSTOP)
    try:
        live.outputs.page.evaluate("const now = Date.now; Date.now = () => now() + 3_600_000")
        expect(sign).to_have_text(re.compile(r"no answer from the kernel for \d+ s"))
        assert int(re.findall(r"\d+", sign.inner_text())[0]) < 3600
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(sign).to_have_count(0)


def test_the_live_view_while_a_cell_awaits(notebook: Notebook, tmp_path: Path) -> None:
    end = tmp_path / "end"
    notebook.page.set_viewport_size({"width": 1280, "height": 6000})  # what is scrolled away is not seen
    began = notebook.run(f"""
import os
print("process", os.getpid())
async def fetch():
    await asyncio.sleep(600)
def crunch():
    while not os.path.exists({str(end)!r}): pass
async def busy():
    crunch()
""").expect_end()
    pid = int(began.outputs.inner_text().split()[-1])
    live = notebook.run("%atasks --live")
    live.expect(re.compile(r"no tasks|\d tasks?")).expect_end()
    cell = notebook.run("""
one, two = asyncio.create_task(fetch(), name="one"), asyncio.create_task(fetch(), name="<i>two</i>")
done, _ = await asyncio.wait([one, two], return_when="FIRST_COMPLETED")
print("ended:", [task.get_name() for task in done])
await two
""")
    expect(live_row(live, "one").locator(".ipyrunner-name")).to_have_css("padding-left", "16px")  # below the cell
    expect(live_row(live, "one").locator(".ipyrunner-state")).to_have_text("waiting")
    expect(live_row(live, "one").locator(".ipyrunner-where")).to_contain_text("in fetch: await asyncio.sleep(600)")
    cell.expect_running()
    # By the keyboard: a button keeps the focus while the view is drawn again.
    button = live.outputs.get_by_role("button", name="cancel: one")
    button.focus()
    age = live_row(live, "one").locator(".ipyrunner-age")
    before = age.inner_text()
    expect(age).not_to_have_text(before)
    expect(button).to_be_focused()
    notebook.page.keyboard.press("Enter")
    cell.expect("ended: ['one']")
    expect(live_row(live, "one")).to_have_count(0)
    expect(live.outputs.locator(".ipyrunner-answer")).to_have_text("cancelling one")
    live.outputs.get_by_role("button", name=re.compile(r"^to the background: In")).click()
    cell.expect_end()
    live.outputs.get_by_role("button", name="cancel: <i>two</i>").click()
    expect(live_row(live, "<i>two</i>")).to_have_count(0)
    waiting = notebook.run("await asyncio.sleep(600)")
    live.outputs.get_by_role("button", name=re.compile(r"^cancel: In\[")).click()
    waiting.expect("CancelledError").expect_end()
    notebook.run('keeper = asyncio.create_task(fetch(), name="keeper")').expect_end()
    expect(live_row(live, "keeper")).to_have_count(1)  # else the view may have no rows when the loop is blocked
    notebook.run('keeper.set_name("renamed")').expect_end()
    expect(live.outputs.get_by_role("button", name="cancel: renamed")).to_be_visible()
    blocking = notebook.run("await asyncio.create_task(busy())")
    try:
        expect(live.outputs.locator(".ipyrunner-blocked")).to_have_text(
            re.compile(r"blocked for \d+ s in crunch\(\), In\[\d+\]:6")
        )
        expect(live.outputs.locator(".ipyrunner-lag")).to_be_hidden()  # that of the last answer is small
        expect_fit_when_narrow(live)
    finally:
        end.touch()
    blocking.expect_end()
    expect(live.outputs.locator(".ipyrunner-blocked")).to_have_count(0)
    expect(live.outputs.locator(".ipyrunner-lag")).to_be_visible()
    notebook.run("keeper.cancel();").expect_end()
    expect_sign_of_silence(live, pid)
    expect(live.outputs.locator(".ipyrunner-lag")).to_contain_text(re.compile(r"at most \d+\.\d s$"))
    notebook.page.set_viewport_size({"width": 1280, "height": 720})
    expect_alive(notebook)


def test_the_live_view_costs_nothing_while_it_is_not_seen(notebook: Notebook) -> None:
    live = notebook.run("%atasks --live")
    watching = "await asyncio.sleep(0); print('watching:', [t.name for t in threading.enumerate() if 'live' in t.name])"
    live.expect(re.compile(r"no tasks|\d tasks?")).expect_end()
    notebook.run(f"import threading\n{watching}").expect("watching: ['ipyrunner: live view']").expect_end()
    live.seen.locator(".jp-OutputCollapser, .jp-OutputPrompt").first.click()
    deadline = time.monotonic() + DEADLINE
    while True:
        cell = notebook.run(watching)
        cell.expect("watching:").expect_end()
        if "watching: []" in cell.outputs.inner_text():
            break
        assert time.monotonic() < deadline


def test_the_live_view_costs_nothing_while_the_page_is_hidden(notebook: Notebook) -> None:
    live = notebook.run("%atasks --live")
    live.expect(re.compile(r"no tasks|\d tasks?")).expect_end()
    notebook.run("import threading\nviews = lambda: [t.name for t in threading.enumerate() if 'live view' in t.name]")
    for state in ("hidden", "visible"):  # as another tab in front of it
        notebook.page.evaluate(
            """state => {
                Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            state,
        )
        deadline = time.monotonic() + DEADLINE
        while True:
            cell = notebook.run("await asyncio.sleep(0); print('views:', len(views()))")
            cell.expect("views:").expect_end()
            if f"views: {int(state == 'visible')}" in cell.outputs.inner_text():
                break
            assert time.monotonic() < deadline
    notebook.page.evaluate("delete document.visibilityState")


def test_the_restart_button_lets_tasks_clean_up(notebook: Notebook, tmp_path: Path) -> None:
    path = tmp_path / "left"
    notebook.run(f"""
async def work():
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0.01)
        open({str(path)!r}, "w").write("cleaned up")

task = asyncio.create_task(work())
await asyncio.sleep(0)
""").expect_end()
    press_restart(notebook.page)
    deadline = time.monotonic() + DEADLINE
    while not path.exists() or path.read_text() != "cleaned up":
        assert time.monotonic() < deadline, "the task has not cleaned up"
        notebook.page.wait_for_timeout(20)
    notebook.run('print("kept" in globals())').expect("False").expect_end()
    prepare(notebook)
    expect_alive(notebook)
