"""Notes on mistakes with event loops: they say what is the case, and are there only where it is."""

from __future__ import annotations

import textwrap

import pytest

from ipyrunner.aio.introspection.exceptions import add_note
from kernels import Cell, Kernel


def notes(cell: Cell) -> str:
    # IPython 7 shows no notes: there they are printed.
    text = cell.traceback + cell.stderr
    return text[text.index("ipyrunner:") :] if "ipyrunner:" in text else ""


LIBRARIES = """
def chained():  # as dask, nats-py and others: their own words
    try: return asyncio.get_running_loop()
    except RuntimeError: raise ValueError('Use it in a coroutine') from None
def looks():  # as aiokafka
    loop = asyncio.get_event_loop()
    if not loop.is_running(): raise RuntimeError('The object should be created within an async function or provide loop directly.')
def in_thread():
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor() as executor: return executor.submit(asyncio.get_running_loop).result()
def unrelated():
    loop = asyncio.get_event_loop()
    raise RuntimeError('mine')
"""


@pytest.mark.parametrize(
    ("call", "expected"), [("chained()", True), ("looks()", True), ("in_thread()", False), ("unrelated()", False)]
)
def test_a_missing_loop_is_noticed_by_the_state(shared: Kernel, call: str, expected: bool) -> None:
    shared.ok(LIBRARIES)
    cell = shared.run(call)
    assert cell.ename in ("ValueError", "RuntimeError")
    assert ("in a cell without await no event loop is running" in notes(cell)) is expected
    # Not where there is one, whatever the words.
    cell = shared.run("await asyncio.sleep(0); raise RuntimeError('no running event loop')")
    assert notes(cell) == ""


def test_a_client_of_before_a_restart(shared: Kernel) -> None:
    shared.ok("loop = asyncio.get_event_loop()\nasync def use(): loop.call_soon(print)")
    shared.ok("%arunner restart")
    cell = shared.run("await use()")
    assert cell.ename == "RuntimeError"
    assert "an earlier event loop of the notebook, which `%arunner restart`" in notes(cell)
    assert "_check_closed" in cell.traceback
    assert "private_api" not in cell.traceback
    shared.ok("loop = asyncio.new_event_loop(); loop.close()")
    cell = shared.run("await use()")
    assert "a closed event loop" in notes(cell)
    assert notes(shared.run("raise RuntimeError('Event loop is closed')")) == ""


CLIENT = """
class Client:  # as aiohttp's session: its timeouts look for the task of its loop
    def __init__(self): self._loop = asyncio.get_running_loop()
    async def get(self):
        self.enter()
        return 'got'
    def enter(self):
        if asyncio.current_task(self._loop) is None: raise RuntimeError('Timeout context manager should be used inside a task')
async def make(): return Client()
async def use(): return await client.get()
"""


def test_a_client_of_another_loop(shared: Kernel) -> None:
    shared.ok(CLIENT)
    shared.ok("client = await make()")
    cell = shared.run("asyncio.run(use())")
    assert cell.ename == "RuntimeError"
    assert "that was made in another event loop" in notes(cell)
    assert shared.ok("%arun use()").value == "'got'"
    shared.ok("client = asyncio.run(make())")
    assert "that was made in another event loop" in notes(shared.run("await use()"))
    # Not where the loop is the same, and there is really no task.
    shared.ok("client = await make()")
    cell = shared.run("""
future = asyncio.get_running_loop().create_future()
def call():
    try: client.enter()
    except RuntimeError as exc: future.set_exception(exc)
asyncio.get_running_loop().call_soon(call)
await future
""")
    assert cell.ename == "RuntimeError"
    assert notes(cell) == ""
    assert notes(shared.run("raise RuntimeError('Timeout context manager should be used inside a task')")) == ""
    # Nor where it is about something else.
    shared.ok("""
class Plugin:
    def __init__(self): self._loop = asyncio.new_event_loop()
    def work(self): raise RuntimeError('a plugin cannot be run inside a task of the pool')
plugin = Plugin()
""")
    assert notes(shared.run("await asyncio.sleep(0); plugin.work()")) == ""
    shared.ok("plugin._loop.close()")


def test_a_loop_inside_a_loop_of_ones_own(shared: Kernel) -> None:
    shared.ok("async def outer(): asyncio.run(inner)\ninner = asyncio.sleep(0)")
    cell = shared.run("asyncio.run(outer())")
    assert cell.ename == "RuntimeError"
    assert notes(cell).startswith("ipyrunner: this code already runs in an event loop.")
    shared.ok("inner.close()")


REFUSED = {
    "await asyncio.sleep(0); asyncio.run(coro)": "Write `await main()` instead of `asyncio.run(main())`, or move",
    "await asyncio.sleep(0); asyncio.Runner().run(coro)": "Write `await main()` instead of `runner.run(main())`, or",
    "await asyncio.sleep(0); anyio.run(main)": "Write `await main()` instead of `anyio.run(main)`, or move the call",
    "await asyncio.sleep(0); asyncio.get_running_loop().run_until_complete(coro)": (
        "Write `await main()` instead of `loop.run_until_complete(main())`, or move the call"
    ),
    "await asyncio.sleep(0); other.run_until_complete(coro)": "instead of `loop.run_until_complete(main())`, or move",
    "await asyncio.sleep(0); other.run_forever()": "Move `loop.run_forever()` to a cell without await, where it works.",
    # Python 3.13 and later forget then that a loop runs.
    "await asyncio.sleep(0); asyncio.get_running_loop().run_forever()": "loop.run_forever()` ",
    "asyncio.run(inside())": "ipyrunner: this code already runs in an event loop. Write `await main()` instead of `loop.",
    "asyncio.run(for_ever())": "runs in an event loop, and `loop.run_forever()` cannot run another one inside it",
}


@pytest.mark.parametrize(("code", "words"), REFUSED.items(), ids=REFUSED)
def test_the_note_names_the_call_that_was_refused(shared: Kernel, code: str, words: str) -> None:
    pytest.importorskip("anyio")
    shared.ok(
        "import anyio\nasync def main(): pass\ncoro, other = main(), asyncio.new_event_loop()\n"
        "async def inside(): other.run_until_complete(coro)\nasync def for_ever(): other.run_forever()"
    )
    cell = shared.run(code)
    assert cell.ename == "RuntimeError"
    assert words in notes(cell)
    assert ("asyncio.run" in notes(cell)) is ("instead of `asyncio.run" in words)
    shared.ok("coro.close(); other.close()")


def test_the_result_of_what_has_not_ended(shared: Kernel) -> None:
    shared.ok("t = asyncio.create_task(asyncio.sleep(60))")
    for code in ("t.result()", "t.exception()", "await asyncio.sleep(0); t.result()"):
        cell = shared.run(code)
        assert cell.ename == "InvalidStateError"
        assert "this task or future has not ended, so it has no result yet. Write `await task`" in notes(cell)
    assert notes(shared.run("raise asyncio.InvalidStateError('mine')")) == ""
    shared.ok("t.cancel()")


def test_a_coroutine_that_is_used_as_its_value(shared: Kernel) -> None:
    shared.ok("import warnings; warnings.simplefilter('ignore')\nasync def main(): return 'value'")
    for code in ("main().upper()", "main()[0]", "len(main())", "list(main())", "'a' + main()", "main() + 'a'"):
        for before in ("", "await asyncio.sleep(0); "):
            cell = shared.run(before + code)
            assert cell.ename in ("AttributeError", "TypeError")
            assert notes(cell).startswith("ipyrunner: the call of an async function only makes a coroutine."), code
    others = "raise AttributeError(\"'coroutine' object has no attribute 'upper'\")", "raise AttributeError"
    others += ("raise TypeError(\"'coroutine' object is not mine\")",)
    for code in ("await asyncio.to_thread(main())", "raise TypeError('no coroutine')", "main.upper()", *others):
        assert notes(shared.run(code)) == ""


@pytest.mark.parametrize("refusal", ["SystemExit", "KeyboardInterrupt"])
def test_what_the_frames_of_an_error_hold_may_raise_anything(shared: Kernel, refusal: str) -> None:
    shared.ok(
        f"class Odd(asyncio.SelectorEventLoop):\n    def __hash__(self): raise {refusal}\nodd = Odd(); odd.close()"
    )
    cell = shared.run("odd.call_soon(print)")
    assert (cell.ename, cell.traceback.splitlines()[-1]) == ("RuntimeError", "RuntimeError: Event loop is closed")


LEFT = """
import greenlet
left = asyncio.new_event_loop()
def run():
    left.call_soon(main.switch)
    left.run_forever()
main = greenlet.getcurrent()
fiber = greenlet.greenlet(run)
fiber.switch()
def where(): return asyncio.create_task(there())
async def there(): return id(asyncio.get_running_loop()) == loop_id
"""


def end(k: Kernel) -> None:
    k.ok("left.call_soon_threadsafe(left.stop); fiber.switch()\nleft.close()")
    assert k.ok("asyncio._get_running_loop()").value is None
    k.expect_alive()


def test_a_plain_cell_while_a_loop_in_a_greenlet_is_left_running(shared: Kernel) -> None:
    # As sync Playwright has one, from its start() to its stop().
    pytest.importorskip("greenlet")
    shared.ok(LEFT + "t0 = where()")  # in the cell that has begun it, and in later ones
    assert shared.ok("%arun there()").value == "True"
    assert shared.ok("asyncio._get_running_loop() is left").value == "True"
    shared.ok("t1 = where()")
    assert shared.ok("await t0, await t1").value == "(True, True)"
    cell = shared.run("coro = there(); asyncio.run(coro)")
    assert cell.ename == "RuntimeError"
    assert "has started another event loop here" in notes(cell)
    shared.ok("coro.close()")
    # What that loop runs itself is its own.
    code = "async def own():\n    t = asyncio.create_task(there())\n    await t\n    seen.append(t.get_loop() is left)\n    main.switch()\nseen = []"
    shared.ok(textwrap.dedent(code))
    shared.ok("left.call_soon_threadsafe(lambda: tasks.append(left.create_task(own()))); tasks = []; fiber.switch()")
    assert shared.ok("seen").value == "[True]"
    end(shared)


def test_a_loop_in_a_greenlet_that_may_run_inside_itself_is_left_alone(fresh: Kernel) -> None:
    pytest.importorskip("greenlet")
    fresh.ok("import asyncio\n%config NotebookRunner.nested = True")
    fresh.ok(LEFT)
    cell = fresh.run("coro = there(); asyncio.run(coro)")
    assert cell.ename == "RuntimeError"
    assert "has started another event loop here" in notes(cell)
    fresh.ok("coro.close()")
    end(fresh)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("main()", True),
        ("main(); 1", True),
        ("await asyncio.sleep(0); main()", True),
        ("await main()", False),
        ("main().close()", False),
        ("coro = main()", False),
        ("plain()", False),
        ("asyncio.tasks.sleep(0)", True),
        ("await asyncio.tasks.sleep(0)", False),
        ("client.get()", True),
        ("client.own()", True),
        ("await client.get()", False),
        ("client.plain()", False),
        ("holder.main()", False),  # looking it up may run code
        ("odd.get()", False),
        ("holder.client.get()", False),
        ("%%arun\nmain()", False),
        ("main(); 1 / 0", False),  # whether it was reached nobody says
        ("get_ipython().run_cell('await main()');", False),
    ],
)
def test_a_coroutine_that_a_cell_does_not_await(shared: Kernel, code: str, named: bool) -> None:
    shared.ok(
        "import warnings; warnings.simplefilter('ignore')\nasync def main(): pass\ndef plain(): return None\n"
        "class Holder: main = property(lambda self: plain)\nholder = Holder(); vars(holder)['main'] = main\n"
        "class Client:\n    async def get(self): pass\n    def plain(self): pass\n"
        "client = holder.client = Client(); client.own = main\n"
        "class Odd(Client):\n    def __getattribute__(self, name): return plain\nodd = Odd()"
    )
    cell = shared.run(code)
    called = code.split("; ")[-1].partition("(")[0] if code.startswith(("client", "asyncio")) else "main"
    note = f"`{called}(...)` only makes a coroutine and does not run it: write `await {called}(...)`"
    assert (note in cell.stderr) is named
    assert ("only makes a coroutine" in cell.stderr) is named


# What comes in between while the traceback is shown: once.
BETWEEN = {
    "IPython cannot format it": "formatter.structured_traceback = once(formatter.structured_traceback, before=fail)",
    "an interrupt while it is formatted": (
        "formatter.structured_traceback = once(formatter.structured_traceback, before=interrupt)"
    ),
    "an interrupt when it is shown": "shell._showtraceback = once(shell._showtraceback, after=interrupt)",
    "an interrupt when the note is printed": (
        "formatter.structured_traceback = lambda *args, **kwargs: ['without notes']\n"
        "sys.stderr.write = once(sys.stderr.write, after=interrupt)"
    ),
}
ONCE = """
import asyncio, signal, sys
shell = get_ipython()
formatter = shell.InteractiveTB
def fail(): raise ValueError('in the formatter')
def interrupt(): signal.raise_signal(signal.SIGINT)
def once(function, before=None, after=None):
    pending = [True]
    def called(*args, **kwargs):
        first = pending and pending.pop()
        if first and before: before()
        value = function(*args, **kwargs)
        if first and after: after()
        return value
    return called
def look(): return asyncio.get_running_loop()
"""


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_a_note_is_shown_once_whatever_comes_in_between(fresh: Kernel, between: str) -> None:
    fresh.ok(ONCE + between)
    cell = fresh.run("look()")
    assert cell.ename == "RuntimeError"
    assert (cell.traceback + cell.stderr + cell.stdout).count("ipyrunner: in a cell without await") == 1
    assert len([m for m in cell.messages if m["msg_type"] == "error"]) == 1
    assert "in the formatter" not in cell.traceback + cell.stderr
    fresh.expect_alive()


def test_an_exception_keeps_a_note_once() -> None:
    exc = ValueError()
    for note in ("one", "two", "one"):
        add_note(exc, note)
    assert exc.__notes__ == ["one", "two"]
