"""``Tasks``: which tasks there are, though an interrupt comes in the middle of its books."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import time
import weakref
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.loop_class import new_loop
from ipyrunner.aio.introspection.running_loop import register_task, unregister_task
from ipyrunner.aio.tasks import young_tasks
from ipyrunner.aio.tasks.registry import Tasks
from ipyrunner.aio.tasks.young_tasks import FEW
from loops import looked_at, put_off, until

# What nest_asyncio does, too.
PYTHONS_TASKS = """
import asyncio
asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask
from ipyrunner.aio.tasks.safe_names import function_of, label_of, name_of
raw = asyncio.Task.__new__(asyncio.Task)
raw._log_destroy_pending = False
class Mine(asyncio.Task): pass
mine = Mine.__new__(Mine)
mine._log_destroy_pending = False
print(name_of(raw), label_of(raw), name_of(mine), function_of(mine), sep=", ")
"""


def test_a_task_of_pythons_class_that_nobody_has_initialised_has_a_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PYTHONS_TASKS], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("Task, Task, Mine, a Mine\n", "")


def raise_at(step: int) -> Any:
    """Return a trace function that raises KeyboardInterrupt at one of the instructions of ``create_task``."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_name != "create_task" or not frame.f_code.co_filename.endswith("registry.py"):
            return None
        frame.f_trace_opcodes = True
        if event in ("opcode", "line"):  # 3.12.1 has no events for opcodes that are asked for so late
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    return trace


def test_an_interrupt_between_any_two_instructions_tears_nothing(loop: asyncio.AbstractEventLoop) -> None:
    # In a cell without await Python's own handler raises anywhere.
    torn: list[BaseException] = []
    tasks = Tasks(loop, torn=torn.append)

    async def nothing() -> None:
        await asyncio.sleep(0)

    started = interrupted = 0
    for step in range(1, 200):
        coro = nothing()
        before = sys.gettrace()
        sys.settrace(raise_at(step))
        try:
            loop.create_task(coro)
            started += 1
        except KeyboardInterrupt:
            interrupted += 1
            if not any(entry.task.get_coro() is coro for entry in tasks.started()):
                coro.close()
        finally:
            sys.settrace(before)
        assert all(entry.at is None or entry.at > 0 for entry in tasks.started())
        if started:
            break
    assert interrupted > 5
    assert started == 1
    loop.run_until_complete(until(lambda: len(tasks.started()) <= 1))  # what waits here
    assert tasks.started() == []
    assert torn == []
    assert len(tasks.ended()) >= started
    tasks.close()


def turn(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    end = loop.time() + seconds
    while loop.time() < end:  # an interrupted run may have left a stop()
        loop.call_at(end, loop.stop)
        loop.run_forever()


TORN = {
    "as it is noted": Tasks._keep,
    "as it is stored": Tasks._watch,
    "as it is looked at": Tasks._look_at,
    "as it is let go": Tasks._let_go,
}


@pytest.mark.parametrize("where", TORN)
def test_an_interrupt_in_the_middle_of_the_books_loses_no_task(
    loop: asyncio.AbstractEventLoop, books: Tasks, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cell without await runs the loop itself: KeyboardInterrupt may be raised between any two instructions.
    monkeypatch.setattr(young_tasks, "_PAUSE", 0.002)  # the test waits for some hundred looks
    monkeypatch.setattr(young_tasks, "_LONGEST_PAUSE", 0.005)
    code, reports = TORN[where].__code__, list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, report: reports.append(report))
    torn = 0

    waiting: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
    went_on: list[int] = []
    failed: list[asyncio.Task[None]] = []

    async def lonely(n: int) -> None:
        for _ in range(3):
            await put_off(loop, waiting)
        went_on.append(n)

    async def fails() -> None:
        await asyncio.sleep(0.001)
        raise ValueError

    def interrupt(line: int) -> None:
        """Raise KeyboardInterrupt at the *line*-th line of the function, and go on."""
        nonlocal torn
        lines = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines, torn
            if frame.f_code is not code:
                return None
            if event == "line":
                lines += 1
                if lines == line:
                    torn += 1
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        async def main() -> None:
            loop.create_task(lonely(line), name=f"lonely {line}")
            failed.append(loop.create_task(fails()))
            await looked_at(books)
            while waiting:
                waiting.pop().set_result(None)
            await asyncio.sleep(0.005)

        gc.disable()  # in its callbacks nothing can be raised
        sys.settrace(trace)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                loop.run_until_complete(main())
        finally:
            sys.settrace(None)
            gc.enable()
        for _ in range(3):
            deadline = loop.time() + 30
            while books._young.new or books._young._batches:
                assert loop.time() < deadline
                turn(loop, 0.005)
            turn(loop, 0.005)
            gc.collect()
            while waiting:
                waiting.pop().set_result(None)
        turn(loop, 0.005)

    for line in range(1, 20):
        interrupt(line)
    assert torn > 5
    assert sorted(went_on) == list(range(1, 20))
    names = [ended.name for ended in books.ended() if ended.name.startswith("lonely")]
    assert sorted(names) == sorted(set(names))
    turn(loop, 1.5)
    told = [report["task"] for report in reports if "task" in report and "never retrieved" in report["message"]]
    assert len(told) == len(failed)
    assert set(told) == set(failed)


def test_a_task_factory_need_not_know_names(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    # Python 3.14 passes on what create_task was given, and nothing else.
    def factory(loop: Any, coro: Any, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, context=context)

    loop.set_task_factory(factory)
    assert loop.run_until_complete(loop.create_task(asyncio.sleep(0, "made"))) == "made"


def test_the_main_task_is_one_while_something_runs_in_it(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:

    def started() -> list[Any]:
        return [entry.task for entry in books.started()]

    main = asyncio.Task(asyncio.sleep(60), loop=loop)
    unregister_task(main)
    other = loop.create_task(asyncio.sleep(60))
    for _ in range(2):
        books.main_begins(main)
        register_task(main)
        later = loop.create_task(asyncio.sleep(0))
        assert started() == [other, main, later]
        assert [entry.number for entry in books.started()] == sorted({entry.number for entry in books.started()})
        loop.run_until_complete(later)
        unregister_task(main)
        books.main_ends()
        assert started() == [other]
    books.main_begins(main)
    books.main_ends(given_up=True)
    assert started() == [other, main]
    main.cancel()
    other.cancel()
    loop.run_until_complete(asyncio.wait([main, other]))
    assert other.get_name() in (names := [entry.name for entry in books.ended()])
    assert main.get_name() not in names


def test_tasks_that_the_loop_has_not_made_are_found_at_once(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    another = new_loop()
    made = loop.create_task(asyncio.sleep(60))
    found = asyncio.Task(asyncio.sleep(60), loop=loop)
    elsewhere = asyncio.Task(asyncio.sleep(60), loop=another)
    first = books.started()
    assert [entry.task for entry in first] == [made, found]
    assert books.started() == first
    for task in made, found, elsewhere:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            task.get_loop().run_until_complete(task)
    another.close()


def test_a_task_keeps_its_number_when_those_before_it_are_watched(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    async def main() -> None:
        tasks = [loop.create_task(asyncio.sleep(60)) for _ in range(300)]
        await asyncio.sleep(0)
        before = books.started()
        assert [entry.task for entry in before if entry.task in tasks] == tasks
        books._young._hand_some_on(10)
        assert books.started() == before
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    loop.run_until_complete(main())


def test_what_has_ended_is_listed_once(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    async def nothing() -> None:
        pass

    async def main() -> list[list[int]]:
        held = loop.create_task(nothing())
        others = [loop.create_task(asyncio.sleep(60)) for _ in range(300)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = [[ended.number for ended in books.ended()] for _ in range(3)]
        await looked_at(books)
        found.append([ended.number for ended in books.ended()])
        for other in others:
            other.cancel()
        await asyncio.wait(others)
        assert held.done()
        return found

    for numbers in loop.run_until_complete(main()):
        assert len(numbers) == len(set(numbers)) <= 2


@pytest.mark.parametrize("factory", [False, True])
def test_in_debug_mode_a_task_says_where_it_was_created(runner: NotebookRunner, factory: bool) -> None:
    loop = runner.get_loop()

    async def main() -> list[str]:
        loop.set_debug(True)
        if factory:
            loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
        try:
            task: Any = loop.create_task(asyncio.sleep(0))
        finally:
            loop.set_debug(False)
            loop.set_task_factory(None)
        await task
        return [frame.filename for frame in task._source_traceback]

    files = runner.run(main())
    assert not [file for file in files if file.endswith("tasks/registry.py")]
    assert factory or files[-1] == __file__


@pytest.mark.parametrize("how", ["closed", "left"])
def test_a_closed_loop_makes_no_task(how: str) -> None:
    runner = NotebookRunner()
    loop: Any = runner.get_loop()
    original = loop.create_task
    loop.create_task = lambda *args, **options: original(*args, **options)
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(report))
    if how == "closed":
        loop.close()
    else:
        runner.restart()
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coro)
    coro.close()
    gc.collect()
    assert reports == []
    runner.close()
    asyncio.set_event_loop(None)


def test_asyncios_class_of_tasks_may_be_replaced(asyncio_runner: NotebookRunner, monkeypatch: Any) -> None:
    original = asyncio.tasks.Task

    class Duck:
        _source_traceback = None  # asyncio itself asks for it

        def __init__(self, task: Any) -> None:
            self.task = task

        def __await__(self) -> Any:
            return self.task.__await__()

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return getattr(self.task, name)

    async def main() -> list[int]:
        monkeypatch.setattr(asyncio.tasks, "Task", lambda coro, **options: Duck(original(coro, **options)))
        duck = asyncio.get_running_loop().create_task(asyncio.sleep(0, 1))
        monkeypatch.undo()
        assert await duck == 1
        await looked_at(asyncio_runner.current.tasks)
        other = asyncio.create_task(asyncio.sleep(60))
        found = [entry.task for entry in asyncio_runner.current.tasks.started()]
        other.cancel()
        return [other in found]

    assert asyncio_runner.run(main()) == [True]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio has it")
def test_create_task_takes_the_options_that_asyncios_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    # As from Python 3.13.3 on.
    def create_task(self: Any, coro: Any, **options: Any) -> Any:
        given.append(options.pop("eager_start"))
        return asyncio.tasks.Task(coro, loop=self, **options)

    given: list[bool] = []
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_task", create_task)
    runner = NotebookRunner()

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        return await loop.create_task(asyncio.sleep(0, "made"), eager_start=False)

    try:
        assert runner.run(main()) == "made"
        assert given == [False]
    finally:
        runner.close()
        asyncio.set_event_loop(None)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="policies are deprecated")
def test_a_policy_of_the_users_makes_the_loop() -> None:
    class Policy(type(asyncio.get_event_loop_policy())):  # type: ignore[misc]
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            loop = asyncio.SelectorEventLoop()
            loop.slow_callback_duration = 5
            return loop

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        runner = NotebookRunner()
        loop: Any = runner.get_loop()
        assert loop.slow_callback_duration == 5
        runner.close()
    finally:
        asyncio.set_event_loop_policy(before)


def test_a_task_gets_the_name_and_the_context_that_are_given(runner: NotebookRunner) -> None:
    loop = runner.get_loop()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    async def look() -> str:
        await asyncio.sleep(0)
        return variable.get()

    async def main() -> None:
        for factory in (None, lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options)):
            loop.set_task_factory(factory)
            task = loop.create_task(look(), name="named", context=context)
            assert task.get_name() == "named"
            assert await task == "given"
            assert await loop.create_task(look()) == "none"
            coro = look()
            with pytest.raises(TypeError, match="odd"):
                loop.create_task(coro, odd=1)  # type: ignore[call-arg]
            coro.close()

    try:
        runner.run(main())
    finally:
        loop.set_task_factory(None)


def test_on_uvloop_tasks_are_made_as_uvloop_makes_them() -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    own = {name: getattr(loop, name) for name in ("create_task", "set_task_factory", "set_debug", "close")}
    books = Tasks(loop, torn=lambda exc: pytest.fail(repr(exc)))
    made: list[Any] = []

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(options)
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        assert await loop.create_task(asyncio.sleep(0, "plain")) == "plain"
        named = loop.create_task(asyncio.sleep(0), name="named")
        assert named.get_name() == "named"
        assert [entry.task for entry in books.started() if entry.task is named] == [named]
        assert await loop.create_task(asyncio.sleep(0, "plain")) == "plain"
        loop.set_task_factory(factory)
        assert await loop.create_task(asyncio.sleep(0, "made")) == "made"
        assert len(made) == 1
        loop.set_task_factory(None)
        loop.set_debug(True)
        assert loop.create_task(asyncio.sleep(0))._source_traceback
        loop.set_debug(False)
        assert not loop.create_task(asyncio.sleep(0))._source_traceback
        assert len(made) == 1
        coro = asyncio.sleep(0)
        with pytest.raises(TypeError, match="odd"):
            loop.create_task(coro, odd=1)
        coro.close()

    loop.run_until_complete(main())
    books.close()
    assert {name: getattr(loop, name) for name in own} == own
    books = Tasks(loop, torn=lambda exc: pytest.fail(repr(exc)))
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(report))
    loop.close()
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coro)
    coro.close()
    gc.collect()
    assert reports == []
    books.close()


def test_a_task_is_as_old_as_it_is_also_after_a_look_at_the_others(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    async def main() -> None:
        before = loop.create_task(asyncio.sleep(60))
        books.started()
        start = time.monotonic()
        after = loop.create_task(asyncio.sleep(60))
        ages = {entry.task: entry.at for entry in books.started()}
        assert (ages[before] or 0) <= start <= (ages[after] or 0)
        before.cancel()
        after.cancel()

    loop.run_until_complete(main())


def test_a_task_that_a_signal_handler_starts_while_others_are_sorted_does_not_hide_later_ones(
    loop: asyncio.AbstractEventLoop, books: Tasks
) -> None:
    emptied, started = books._young.emptied, list[Any]()

    def emptied_and_interrupted() -> None:
        emptied()
        if not started:
            started.append(loop.create_task(asyncio.sleep(60)))

    async def main() -> None:
        books._young.emptied = emptied_and_interrupted
        started.clear()
        before = loop.create_task(asyncio.sleep(60))
        await looked_at(books)
        later = loop.create_task(asyncio.sleep(60))
        await looked_at(books)
        for task in (before, *started, later):
            assert weakref.ref(task) in books._live
            task.cancel()

    started.append(None)
    loop.run_until_complete(main())


def test_timers_that_a_test_has_replaced_are_not_ours(loop: asyncio.AbstractEventLoop, books: Tasks) -> None:
    async def main() -> None:
        with patch.object(loop, "call_later", side_effect=RuntimeError) as call_later:
            task = loop.create_task(asyncio.Event().wait())
            call_later.assert_not_called()
        await looked_at(books)
        task.cancel()

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["is lost", "cannot be set"])
def test_a_look_whose_alarm_is_gone_is_asked_for_again(
    loop: asyncio.AbstractEventLoop, books: Tasks, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError

    async def main() -> None:
        with monkeypatch.context() as patch:
            if how == "cannot be set":
                patch.setattr(books._young._alarm, "set", refuse)
            tasks = [loop.create_task(asyncio.Event().wait())]
        if (fd := books._young._alarm._fd) is not None:
            loop.remove_reader(fd)
        loop._scheduled.clear()  # type: ignore[attr-defined]
        monkeypatch.setattr(young_tasks, "_LOST", -3600.0)
        books.started()
        tasks.append(loop.create_task(asyncio.Event().wait()))
        await looked_at(books)
        for task in tasks:
            task.cancel()

    loop.run_until_complete(main())


def test_there_is_one_alarm_for_all_new_tasks(
    loop: asyncio.AbstractEventLoop, books: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_alarm, seconds = books._young._alarm.set, list[float]()
    monkeypatch.setattr(books._young._alarm, "set", lambda s, **kw: seconds.append(s) or set_alarm(s, **kw))

    async def main() -> None:
        tasks = [loop.create_task(asyncio.sleep(0)) for _ in range(5 * FEW)]
        assert len(seconds) == 1
        await asyncio.gather(*tasks)

    loop.run_until_complete(main())
