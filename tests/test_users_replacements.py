"""What we put in place and take away: what the user has put there since stays, and works when ours is gone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ipyrunner.aio.loops.doorbell import Doorbell
from ipyrunner.aio.replacements import ItemReplacement, Override, Replacement, Subclassing
from ipyrunner.aio.sigint.dropped_exceptions import when_dropped
from ipyrunner.aio.tasks.exception_handler import Failures
from ipyrunner.aio.tasks.registry import Tasks
from ipyrunner.notebook import NotebookRunner
from kernels import Kernel


class Owner:
    def method(self, *args: Any) -> Any:
        return ("original", *args)


def loud(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: ("ours", *original(*args))


def quiet(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: ("theirs", *original(*args))


def test_a_method_is_replaced_and_restored() -> None:
    owner = Owner()
    replacement = Replacement(owner, "method", loud)
    assert owner.method(1) == ("ours", "original", 1)
    replacement.restore()
    replacement.restore()
    assert vars(owner) == {}
    assert owner.method(1) == ("original", 1)


@pytest.mark.parametrize("before", [None, quiet])
def test_what_has_wrapped_ours_stays_and_reaches_the_original(before: Any) -> None:
    owner: Any = Owner()
    expected: tuple[str, ...] = ("original",)
    if before is not None:
        owner.method = before(owner.method)
        expected = ("theirs", *expected)
    replacement = Replacement(owner, "method", loud)
    owner.method = wrapped = quiet(owner.method)
    assert owner.method() == ("theirs", "ours", *expected)
    replacement.restore()
    assert owner.method is wrapped
    assert owner.method() == ("theirs", *expected)


def test_an_attribute_of_the_objects_own_comes_back() -> None:
    owner: Any = Owner()
    owner.method = mine = lambda: "mine"
    override = Override(owner, "method", lambda original: lambda: (original(), "ours"))
    assert owner.method() == ("mine", "ours")
    override.restore()
    assert owner.method is mine


def test_an_item_is_restored_unless_somebody_has_replaced_it() -> None:
    items: dict[str, Any] = {"a": Owner().method, "b": Owner().method}
    before = dict(items)
    replacements = [ItemReplacement(items, name, loud) for name in items]
    assert items["a"]() == ("ours", "original")
    items["b"] = theirs = quiet(items["b"])
    for replacement in replacements:
        replacement.restore()
    assert items == {"a": before["a"], "b": theirs}
    assert items["b"]() == ("theirs", "original")


def test_a_class_that_somebody_has_put_on_top_stays() -> None:
    owner = Owner()
    subclassing = Subclassing(owner, lambda own: type("Ours", (own,), {}))
    owner.__class__ = theirs = type("Theirs", (type(owner),), {})
    subclassing.restore()
    assert type(owner) is theirs


@pytest.fixture
def loop() -> Any:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.mark.parametrize("when", ["while it hangs", "before"])
def test_a_loop_that_is_instrumented_stays_so_when_the_doorbell_is_taken(loop: Any, when: str) -> None:
    rings: list[int] = []
    calls: list[str] = []
    doorbell = Doorbell(loop, lambda: rings.append(1))
    if when == "while it hangs":
        doorbell.hang()
    original = loop.call_soon

    def call_soon(callback: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(callback.__name__)
        return original(callback, *args, **kwargs)

    loop.call_soon = call_soon
    for _ in range(3):
        if when == "before" or rings:
            doorbell.hang()
        loop.call_soon(print)
        doorbell.take()
        assert loop.call_soon is call_soon
        assert "call_at" not in vars(loop)
        before = len(rings)
        loop.call_soon(print)
        assert len(rings) == before
    assert calls == ["print"] * 6
    assert len(rings) >= 3


def test_tasks_and_failures_leave_what_has_wrapped_theirs(loop: Any) -> None:
    books = Tasks(loop, torn=lambda exc: None)
    failures = Failures(loop, lambda failure: None)
    loop.create_task = create = quiet_function(loop.create_task)
    loop.default_exception_handler = handler = quiet_function(loop.default_exception_handler)
    assert loop.run_until_complete(loop.create_task(asyncio.sleep(0, "ran"))) == "ran"
    unwatch = books.watch(lambda task, context: None)
    unwatch()
    assert loop.create_task is create
    books.close()
    failures.close()
    assert loop.create_task is create
    assert loop.default_exception_handler is handler
    assert loop.run_until_complete(loop.create_task(asyncio.sleep(0, "ran"))) == "ran"


def quiet_function(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, **kwargs)


def test_a_loop_factory_may_have_instrumented_create_task() -> None:
    made: list[str] = []

    def factory() -> asyncio.AbstractEventLoop:
        loop: Any = asyncio.new_event_loop()
        original = loop.create_task

        def create_task(coro: Any, **options: Any) -> Any:
            made.append(coro.__qualname__)
            return original(coro, **options)

        loop.create_task = create_task
        return loop  # type: ignore[no-any-return]

    async def child() -> str:
        return "ended"

    async def main() -> str:
        return await asyncio.create_task(child())

    runner = NotebookRunner(loop_factory=factory)
    try:
        assert runner.run(main()) == "ended"
    finally:
        runner.close()
    assert [name.rpartition(".")[2] for name in made] == ["child"]


def test_a_hook_for_unraisable_exceptions_that_has_wrapped_ours_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: heard.append(unraisable.exc_value))
    exc = KeyboardInterrupt()
    called: list[int] = []
    unhook = when_dropped(exc, lambda: called.append(1))
    sys.unraisablehook = theirs = quiet_function(sys.unraisablehook)

    class Raises:
        def __del__(self) -> None:
            raise exc

    Raises()
    assert (called, heard) == ([1], [])
    unhook()
    assert sys.unraisablehook is theirs
    Raises()
    assert (called, heard) == ([1], [exc])


@pytest.mark.parametrize("start", ["", "await asyncio.sleep(0)\n"], ids=["plain cell", "awaiting cell"])
def test_a_user_who_instruments_the_loops_keeps_that(fresh: Kernel, start: str) -> None:
    fresh.ok(
        "host = get_ipython().kernel.io_loop.asyncio_loop; loop = asyncio.get_event_loop()\n"
        "import functools, collections\ncalls = collections.Counter(); mine = {}\n"
        "def instrument(loop, name):\n"
        "    original = getattr(loop, name)\n"
        "    def method(*args, **kwargs):\n        calls[name] += 1\n        return original(*args, **kwargs)\n"
        "    setattr(loop, name, method)\n    mine[name] = loop, method"
    )
    fresh.ok(
        f"{start}for name in ('call_soon', 'call_at', 'stop'): instrument(host, name)\n"
        "for name in ('create_task', 'default_exception_handler'): instrument(loop, name)"
    )
    stay = "assert all(getattr(loop, name) is method for name, (loop, method) in mine.items())"
    fresh.ok(stay)
    fresh.ok("before = calls['call_soon']")
    for _ in range(3):
        fresh.ok("await asyncio.sleep(0.01)")
        fresh.ok(stay)
    # While the notebook's loop runs and the kernel's rests.
    fresh.ok(
        "e = asyncio.Event()\nloop.call_later(0.01, lambda: host.call_soon(lambda: loop.call_soon_threadsafe(e.set)))"
    )
    fresh.ok("await asyncio.wait_for(e.wait(), 20)")
    assert fresh.ok("calls['call_soon'] > before").value == "True"
    fresh.ok(
        "%%arun --scope\ninstrument(loop, 'create_task')\n"
        "async def late():\n    await asyncio.sleep(0.05)\n    ended.append(1)\n"
        "ended = []; asyncio.create_task(late()); None"
    )
    fresh.ok(f"assert ended == [1]\n{stay}")
    fresh.ok("ended.clear()")
    fresh.ok("%%arun --scope\nasyncio.create_task(late()); None")
    fresh.ok(f"assert ended == [1]\n{stay}")
    fresh.ok("loop.call_exception_handler({'message': 'said'}); assert calls['default_exception_handler']")
    fresh.expect_alive()
    fresh.ok("%unload_ext ipyrunner")
    fresh.ok("import asyncio\nawait asyncio.sleep(0.01)")
    fresh.ok(stay)
    fresh.ok("%load_ext ipyrunner")
    fresh.ok("await asyncio.sleep(0.01)")
    fresh.ok("assert all(getattr(host, n) is mine[n][1] for n in ('call_soon', 'call_at'))")


def test_unloading_takes_away_only_what_is_ours(stock: Kernel) -> None:
    stock.ok(
        "import asyncio\nfrom IPython.core.magic import register_line_magic\n"
        "@register_line_magic\ndef atasks(line): return 'mine'"
    )
    stock.ok("%load_ext ipyrunner")
    stock.ok(
        "shell = get_ipython(); handlers = shell.kernel.shell_handlers\n"
        "original, calls = handlers['comm_msg'], []\n"
        "def comm_msg(*args):\n    calls.append(1)\n    return original(*args)\n"
        "handlers['comm_msg'] = comm_msg\n"
        "class Mine:\n    def visit(self, tree): return tree\n"
        "shell.ast_transformers = [*shell.ast_transformers, Mine()]\n"
        "loop = asyncio.new_event_loop()"
    )
    stock.ok("asyncio.set_event_loop(loop)\n%unload_ext ipyrunner\nassert asyncio.get_event_loop() is loop")
    assert stock.ok("handlers['comm_msg'] is comm_msg, len(shell.ast_transformers)").value == "(True, 1)"
    assert stock.ok("'ipyrunner' in handlers['comm_open'].__module__").value == "False"
    assert stock.ok("%atasks").value == "'mine'"
    stock.send_comm("comm_msg", {"comm_id": "none", "data": {}})
    stock.ok("await asyncio.sleep(0)")
    assert stock.ok("len(calls)").value == "1"


def test_debug_mode_that_the_cell_turns_off_stays_off(shared: Kernel) -> None:
    shared.ok("loop = asyncio.get_event_loop(); loop.set_debug(True)")
    shared.ok("%%arun --debug\nloop.set_debug(False)")
    assert shared.ok("loop.get_debug()").value == "False"
    shared.ok("%%arun --debug\nassert loop.get_debug()")
    assert shared.ok("loop.get_debug()").value == "False"


def test_a_trigger_of_events_that_the_user_has_replaced_is_called(stock: Kernel) -> None:
    stock.ok(
        "events, seen = get_ipython().events, []\ndef trigger(event, *args, trigger=events.trigger, **kwargs):\n"
        "    seen.append(event)\n    trigger(event, *args, **kwargs)\nevents.trigger = trigger"
    )
    stock.ok("%load_ext ipyrunner")
    stock.ok("seen.clear()")
    seen = stock.ok("print(*seen)").stdout + stock.ok("print(*seen)").stdout
    for event in ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell"):
        assert event in seen
