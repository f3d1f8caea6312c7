"""A task factory of the user's may make anything, and a task may say anything of itself: every cell gets a reply."""

from __future__ import annotations

import sys

import pytest

from kernels import BEFORE, Kernel

PRELUDE = """
import asyncio
loop = asyncio.get_event_loop()

class Bare(asyncio.Future):
    "No task: no name, no coroutine, and cancelled at once."
    def __init__(self, coro, loop):
        super().__init__(loop=loop)
        self.inner = asyncio.Task(coro, loop=loop)
        self.inner.add_done_callback(self.copy)
    def copy(self, inner):
        if self.done(): return
        if inner.cancelled(): self.cancel()
        elif inner.exception() is not None: self.set_exception(inner.exception())
        else: self.set_result(inner.result())

class Stepping(asyncio.Future):
    "Runs the coroutine by itself; asyncio has never heard of it."
    def __init__(self, coro, loop):
        super().__init__(loop=loop)
        self.coro = coro
        loop.call_soon(self.step)
    def step(self, _=None):
        if self.done(): return self.coro.close()
        try: waits = self.coro.send(None)
        except StopIteration as stop: self.set_result(stop.value)
        except Exception as exc: self.set_exception(exc)
        else:
            if waits is None: self.get_loop().call_soon(self.step)
            else:
                waits._asyncio_future_blocking = False
                waits.add_done_callback(self.step)

class Slots:
    __slots__ = ("inner",)
    def __init__(self, inner): self.inner = inner
    def __await__(self): return self.inner.__await__()

made = []
def bare(loop, coro, **options): made.append(1); return Bare(coro, loop)
def stepping(loop, coro, **options): made.append(1); return Stepping(coro, loop)
def slots(loop, coro, **options): made.append(1); return Slots(asyncio.Task(coro, loop=loop))
def nothing(loop, coro, **options): made.append(1); coro.close()
def number(loop, coro, **options): made.append(1); coro.close(); return 5
def refuses(loop, coro, **options): made.append(1); coro.close(); raise ValueError("no tasks here")

# Python 3.13.0 calls set_name of whatever the factory has made.
def outcome(factory):
    apart = asyncio.new_event_loop()
    apart.set_task_factory(factory)
    coro = work()
    try: apart.create_task(coro)
    except Exception as exc: return type(exc).__name__
    finally:
        made.clear()
        apart.set_task_factory(None)
        for task in asyncio.all_tasks(apart): task.cancel()
        apart.run_until_complete(asyncio.sleep(0))
        apart.close()
        # Not before: what steps it would fail, and the garbage collector tell of it, in the midst of a compilation perhaps,
        # which makes that a SystemError on Python 3.11.7 (gh-106905).
        coro.close()

async def work(seconds=0.01):
    await asyncio.sleep(seconds)
    return "worked"
"""
SETTING_NAMES = "for cls in (Bare, Stepping, Slots): cls.set_name = lambda self, name: None"
FACTORIES = ["bare", "stepping", "slots", "nothing", "number", "refuses"]


@pytest.mark.parametrize("names", ["", SETTING_NAMES], ids=["no set_name", "set_name"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_cells_do_not_depend_on_the_factory(shared: Kernel, factory: str, names: str) -> None:
    shared.ok(PRELUDE + names)
    as_in_a_script = shared.ok(f"print(outcome({factory}), end='')").stdout
    shared.ok(f"loop.set_task_factory({factory})")
    awaits = factory in ("bare", "stepping", "slots") and as_in_a_script == "None"
    assert shared.ok("await work()").value == "'worked'"
    assert shared.ok("%arun work()").value == "'worked'"
    assert shared.ok("%%arun\nawait work()").value == "'worked'"
    assert shared.ok("%%arun --name cell --timeout 60\nawait work()").value == "'worked'"
    cell = shared.ok("%%arun --background -o b\nawait work(); print('in the background')")
    shared.wait_for(cell, "in the background")
    shared.ok("await b; repr(b)")
    assert shared.ok("made").value == "[]"  # none of these is a task that the user starts
    for code in (
        "t = asyncio.create_task(work())",
        "await asyncio.sleep(0); t = asyncio.create_task(work(), name='n')",
        "%%arun --scope\nt = asyncio.create_task(work())",
        "%%arun --progress\nt = asyncio.create_task(work())",
    ):
        cell = shared.run(code)
        expected = "ExceptionGroup" if "--scope" in code and as_in_a_script != "None" else as_in_a_script
        assert (code, str(cell.ename)) == (code, expected)
    shared.ok("made and None")
    if awaits:
        assert shared.ok("await asyncio.create_task(work())").value == "'worked'"
        assert shared.ok("%%arun --scope\nt = asyncio.create_task(work())\nawait t").value == "'worked'"
    shared.ok(
        "try: held = [asyncio.create_task(work(60)) for _ in range(3)]\nexcept (ValueError, AttributeError): pass"
    )
    for code in ("%atasks", "%atasks -a", "%arunner", "import ipyrunner; ipyrunner.tasks(ended=True)"):
        shared.ok(code)
    assert shared.ok("%arunner").value is not None
    numbers = shared.ok("print(*(info.number for info in ipyrunner.tasks()))").stdout.split()
    assert len(numbers) >= 3 * awaits
    for number in numbers:
        shared.ok(f"%atasks show {number}")
    shared.ok("%atasks cancel all")
    shared.ok("%atasks wait all")
    shared.ok("%arunner")
    shared.expect_alive()
    for action in ("restart", "close"):
        shared.ok(f"loop = asyncio.get_event_loop(); loop.set_task_factory({factory})")
        shared.ok("try: held = asyncio.create_task(work(60))\nexcept (ValueError, AttributeError): pass")
        shared.ok(f"%arunner {action}")
    shared.ok(BEFORE)
    shared.expect_alive()


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("start", ["", "%%arun\n", "%%arun --scope\n", "%arun "])
def test_an_interrupt_does_not_depend_on_the_factory(shared: Kernel, factory: str, start: str) -> None:
    shared.ok(PRELUDE)
    shared.ok(f"loop.set_task_factory({factory})")
    shared.ok("async def wait():\n    print('go')\n    await asyncio.sleep(60)")
    cell = shared.begin(f"{start}{'' if start == '%arun ' else 'await '}wait()")
    shared.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    shared.expect_alive()


@pytest.mark.parametrize("factory", ["bare", "stepping"])
def test_an_interrupt_of_a_cell_that_awaits_what_the_factory_has_made(shared: Kernel, factory: str) -> None:
    shared.ok(PRELUDE + SETTING_NAMES)
    shared.ok(f"loop.set_task_factory({factory})")
    cell = shared.begin("t = asyncio.create_task(work(60)); print('go')\nawait t")
    shared.interrupted(cell, "go")
    assert cell.ename == "KeyboardInterrupt"
    shared.expect_alive()


def test_what_the_factory_makes_and_nobody_holds_is_kept(shared: Kernel) -> None:
    shared.ok(PRELUDE + SETTING_NAMES)
    shared.ok("loop.set_task_factory(stepping)")
    shared.ok(
        "import gc, weakref; woken = weakref.WeakSet()\n"
        "async def lonely():\n    future = loop.create_future(); woken.add(future)\n    await future\n    print('went on')"
    )
    cell = shared.ok("asyncio.create_task(lonely()); await asyncio.sleep(0.01); gc.collect(); None")
    shared.ok("gc.collect(); [future.set_result(None) for future in woken]; await asyncio.sleep(0)")
    shared.wait_for(cell, "went on")


# What a task may say of itself.
SAYS = [
    "raise ValueError('refused')",
    "raise SystemExit",
    "raise KeyboardInterrupt",
    "return None",
    "return 5",
    "return Odd()",
]
ODD = """
class Odd:
    def __repr__(self): raise ValueError("refused")
    __str__ = __bool__ = __hash__ = __eq__ = __repr__
    def __getattr__(self, name): raise ValueError("refused")

def says(*args, **kwargs): SAYS

class Says(asyncio.Task):
    get_coro = get_name = __repr__ = get_stack = done = cancelled = exception = cancelling = get_context = says

async def fails():
    await asyncio.sleep(0.01)
    raise ZeroDivisionError

def factory(loop, coro, **options): return Says(coro, loop=loop, **options)
loop.set_task_factory(factory)
"""


@pytest.mark.parametrize("says", SAYS)
def test_a_task_may_say_anything_of_itself(shared: Kernel, says: str) -> None:
    shared.ok(PRELUDE)
    shared.ok(ODD.replace("SAYS", says))
    started = shared.ok("held = [asyncio.create_task(work(60), name='named') for _ in range(3)]")
    assert shared.ok("await asyncio.create_task(work())").value == "'worked'"
    failed = shared.ok("gone = asyncio.create_task(fails()); await asyncio.sleep(0.05)")
    shared.wait_until(lambda: "ZeroDivisionError" in started.stderr + failed.stderr)
    assert "failed, and nobody awaits it" in failed.stderr
    for code in ("%atasks", "%atasks -a", "%arunner", "import ipyrunner; ipyrunner.tasks(ended=True)"):
        for start in ("", "await asyncio.sleep(0)\n"):
            assert shared.ok(start + code).value is not None
    shared.ok("print(ipyrunner.tasks()[0], ipyrunner.tasks()._repr_mimebundle_())")
    numbers = shared.ok("print(*(info.number for info in ipyrunner.tasks()))").stdout.split()
    assert len(numbers) == 3
    for number in numbers:
        shown = shared.ok(f"%atasks show {number}").stdout
        assert "in work: await asyncio.sleep(seconds)" in shown
    shared.run("%%arun --scope\nt = asyncio.create_task(work()); await asyncio.sleep(0.02)")
    cell = shared.begin("print('go'); await held.pop()")
    shared.interrupted(cell, "go")
    shared.expect_alive()
    shared.ok("%atasks cancel all")
    shared.ok("await asyncio.sleep(0.01)")
    assert shared.ok("len(ipyrunner.tasks())").value == "0"
    shared.ok("held = asyncio.create_task(work(60))")
    shared.ok("%arunner restart")
    # Since 3.14 all_tasks asks each task, and one that raises hides all of them: they are left behind.
    if sys.version_info < (3, 14):
        assert shared.ok("asyncio.Task.cancelled(held)").value == "True"
    shared.ok(BEFORE)
    shared.expect_alive()


NAMES = {"long": "'x' * 10_000_000", "odd": r"'red \x1b[31m\nline\r\x07 \x00\ud800\u202e <b>'"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_shortened_and_escaped_wherever_it_is_shown(shared: Kernel, name: str) -> None:
    shared.ok(PRELUDE)
    shared.ok(f"name = {name}\nasync def stubborn():\n    while True:\n        try: await asyncio.sleep(60)\n        "
              "except asyncio.CancelledError: print('no')\n"
              "async def fails(): raise ZeroDivisionError\nfails.__qualname__ = stubborn.__qualname__ = name")  # fmt: skip
    shared.ok("%config NotebookRunner.shutdown_timeout = 0.2")
    shown = "red \\x1b[31m\\nline\\r\\x07 \\x00\\ud800\\u202e <b>" if "red" in name else "x" * 59 + "…"

    def check(text: str, expected: str = shown) -> None:
        assert expected in text
        assert len(text) < 10_000
        assert not any(c in text for c in "\x1b\r\x07\x00\u202e\ud800")

    cell = shared.ok("t = asyncio.create_task(stubborn(), name=name); f = asyncio.create_task(fails(), name=name)")
    shared.wait_until(lambda: "ZeroDivisionError" in cell.stderr)
    check(cell.stderr.partition("ZeroDivisionError")[0], f"the task {shown} ({shown}) failed")
    check(shared.ok("%arunner").value or "")
    check(shared.ok("%atasks -a").value or "")
    check(shared.ok("import ipyrunner; print(ipyrunner.tasks()[0])").stdout)
    check(shared.ok("print(ipyrunner.tasks()._html())").stdout, shown.replace("<b>", "&lt;b&gt;"))
    check(shared.ok("number = ipyrunner.tasks()[0].number\n%atasks show $number").stdout)
    waiting = shared.run("%atasks wait all --timeout 0.01")
    assert waiting.reply is not None
    check(waiting.reply["evalue"])
    shared.ok("g = asyncio.ensure_future(asyncio.wait([t])); await asyncio.sleep(0)")
    check(
        shared.ok("number = next(i.number for i in ipyrunner.tasks() if i.task is g)\n%atasks show $number").stdout,
        "waits for",
    )
    shared.ok("g.cancel(); await asyncio.sleep(0)")
    check(shared.ok("number = ipyrunner.tasks(ended=True)[0].number\n%atasks wait $number").stdout)
    cell = shared.begin("asyncio.current_task().set_name(name); print('go')\nawait stubborn()")
    shared.wait_for(cell, "go")
    shared.interrupt()
    shared.interrupted(cell, "no")
    check(cell.stdout, f"the task of {shown} ignored its cancellation")
    check(shared.ok("%arunner restart").stdout, f"the task {shown} was cancelled, but did not end")


def test_a_name_is_found_as_it_is(shared: Kernel) -> None:
    shared.ok(PRELUDE)
    shared.ok("t = asyncio.create_task(work(60), name='two\\nlines')")
    shared.ok(
        "import ipyrunner; [task] = [i.task for i in ipyrunner.tasks() if i.name == 'two\\nlines']; assert task is t"
    )
