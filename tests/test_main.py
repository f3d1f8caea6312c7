"""``Main``: one task awaits one coroutine after the other; scopes are entered in one and left in another."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from ipyrunner.aio.introspection.ready_queue import ReadyQueue
from ipyrunner.aio.introspection.running_callback import drives_loop
from ipyrunner.aio.main import Main, Request
from ipyrunner.aio.sigint.main_task import MainTask
from loops import LOOPS, until


class Cells:
    """A Main, and the loop that runs while a coroutine does, or while something is waited for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.kept: list[Request] = []
        self.context = contextvars.copy_context()
        self.main = Main(loop, self.context, queue=ReadyQueue(loop), kept=self.kept.append)

    @drives_loop
    def run(self, coro: Coroutine[Any, Any, Any], name: str | None = None) -> Any:
        step = self.main.begin(coro, name=name)
        self.loop.run_until_complete(until(step.end.done))
        self.last = step
        return step.outcome()

    @drives_loop
    def wait(self, condition: Callable[[], object]) -> None:
        self.loop.run_until_complete(until(condition))


@pytest.fixture(params=LOOPS)
def cells(request: pytest.FixtureRequest) -> Iterator[Cells]:
    loop = LOOPS[request.param]()
    made = Cells(loop)
    yield made
    made.main.close()
    made.wait(made.main.task.done)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def task() -> asyncio.Task[Any] | None:
    return asyncio.current_task()


async def fails(event: asyncio.Event) -> None:
    await event.wait()
    raise ValueError("of a child")


def test_one_task_and_one_context(cells: Cells) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")
    tokens = []

    async def enter() -> asyncio.Task[Any] | None:
        tokens.append(var.set(1))
        return asyncio.current_task()

    async def leave() -> asyncio.Task[Any] | None:
        var.reset(tokens.pop())
        return asyncio.current_task()

    first = cells.run(enter(), "first")
    assert first is cells.main.task
    assert first.get_name() == "first"
    assert cells.run(leave(), "second") is first
    assert first.get_name() == "second"


def test_what_is_returned_and_raised_is_kept_by_nobody(cells: Cells) -> None:
    class Large: ...

    async def returns() -> Large:
        return Large()

    async def raises() -> None:
        large = Large()
        raise ValueError(large)

    cells.run(returns())
    with pytest.raises(ValueError, match="Large"):
        cells.run(raises())
    del cells.last
    gc.collect()
    assert not [obj for obj in gc.get_objects() if type(obj) is Large]


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyboardInterrupt(), SystemExit(3), StopIteration(), GeneratorExit(), asyncio.CancelledError()],
)
def test_what_ends_a_coroutine_does_not_end_the_task(cells: Cells, error: BaseException) -> None:
    async def raises() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        cells.run(raises())
    assert cells.run(task()) is cells.main.task


def test_between_two_coroutines_nobody_knows_the_task(cells: Cells) -> None:
    async def alone() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks()

    assert cells.main.task not in asyncio.all_tasks(cells.loop)
    assert cells.main.task in cells.run(alone())
    assert cells.main.task not in asyncio.all_tasks(cells.loop)


@pytest.mark.parametrize(
    "wait", [asyncio.gather, lambda t: asyncio.wait([t]), lambda t: t, lambda t: asyncio.wait_for(t, 60)]
)
def test_to_wait_for_it_is_refused(cells: Cells, wait: Any) -> None:
    async def waits(own: bool) -> None:
        me = asyncio.current_task()

        async def other() -> None:
            await wait(me)

        await (other() if own else asyncio.create_task(other()))

    for own in (True, False):
        with pytest.raises(RuntimeError, match=r"Leave it out|cannot await on itself"):
            cells.run(waits(own))
    if isinstance(cells.loop, asyncio.BaseEventLoop):
        with pytest.raises(RuntimeError, match="Leave it out"):
            cells.loop.run_until_complete(cells.main.task)
    assert cells.run(task()) is cells.main.task


def test_cancelled_by_itself(cells: Cells) -> None:
    async def now() -> None:
        cells.main.task.cancel()
        await asyncio.sleep(60)

    async def late() -> str:
        cells.main.task.cancel()
        return "ended"

    with pytest.raises(asyncio.CancelledError):
        cells.run(now())
    assert cells.run(late()) == "ended"
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"
    assert cells.main.task.cancelling() == 0


def test_a_task_group(cells: Cells) -> None:
    stack, event = AsyncExitStack(), asyncio.Event()

    async def enter() -> None:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(fails(event))

    async def fail() -> None:
        event.set()

    cells.run(enter())
    cells.run(asyncio.sleep(0))
    cells.run(fail())
    cells.wait(lambda: cells.kept)
    (request,) = cells.kept
    assert request.kind == "TaskGroup"
    assert repr(request.cause) == "ValueError('of a child')"
    assert cells.main.task.cancelling() == 0
    with pytest.raises(asyncio.CancelledError):
        cells.run(asyncio.sleep(60))
    assert cells.last.requests == [request]
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"  # as after a cancellation that was caught
    with pytest.raises(BaseExceptionGroup) as caught:
        cells.run(stack.aclose())
    assert repr(caught.value.exceptions[0]) == "ValueError('of a child')"
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"
    assert not cells.last.requests


def test_a_task_group_that_the_next_coroutine_leaves(cells: Cells) -> None:
    stack, event = AsyncExitStack(), asyncio.Event()

    async def enter() -> None:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(fails(event))
        event.set()

    cells.run(enter())
    cells.wait(lambda: cells.kept)
    with pytest.raises(BaseExceptionGroup):
        cells.run(stack.aclose())
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


def test_a_timeout(cells: Cells) -> None:
    stack = AsyncExitStack()

    async def enter(seconds: float) -> None:
        await stack.enter_async_context(asyncio.timeout(seconds))

    cells.run(enter(60))
    cells.run(stack.aclose())
    cells.run(enter(0.01))
    cells.wait(lambda: cells.kept)
    assert cells.kept[0].kind == "Timeout"
    cells.run(stack.aclose())  # without an await in it: nothing to cancel, as in a script
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


def enter_failing_anyio_group(cells: Cells) -> AsyncExitStack:
    """Enter a group in one coroutine; its child has failed while none runs."""
    stack, event = AsyncExitStack(), asyncio.Event()

    async def enter() -> None:
        group = await stack.enter_async_context(anyio.create_task_group())
        group.start_soon(fails, event)
        event.set()

    cells.run(enter())
    cells.wait(lambda: cells.kept)
    return stack


def test_an_anyio_task_group_that_is_cancelled_lets_the_loop_rest(cells: Cells) -> None:
    stack = enter_failing_anyio_group(cells)
    assert cells.kept[0].kind == "CancelScope"
    assert repr(cells.kept[0].cause) == "ValueError('of a child')"
    asked, own = [], cells.main.cancel
    cells.main.cancel = lambda *args: asked.append(1) or own(*args)  # type: ignore[method-assign]
    end = time.monotonic() + 1
    cells.wait(lambda: time.monotonic() > end and len(asked) > 1)
    assert len(asked) < 100, "anyio asks in each iteration of the loop"
    with pytest.raises(asyncio.CancelledError):
        cells.run(anyio.sleep(60))
    with pytest.raises(BaseExceptionGroup) as caught:
        cells.run(stack.aclose())
    assert repr(caught.value.exceptions[0]) == "ValueError('of a child')"
    assert cells.run(anyio.sleep(0.001)) is None
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


def test_an_anyio_task_group_that_the_next_coroutine_leaves(cells: Cells) -> None:
    stack = enter_failing_anyio_group(cells)
    with pytest.raises(BaseExceptionGroup) as caught:
        cells.run(stack.aclose())
    assert repr(caught.value.exceptions[0]) == "ValueError('of a child')"
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


def test_an_anyio_scope_that_expires_between_two_coroutines(cells: Cells) -> None:
    scopes: list[anyio.CancelScope] = []

    async def enter() -> None:
        scopes.append(anyio.move_on_after(0.01))
        scopes[0].__enter__()

    async def leave() -> bool:
        try:
            await anyio.sleep(60)
        except BaseException as exc:
            return bool(scopes[0].__exit__(type(exc), exc, exc.__traceback__))
        return False

    cells.run(enter())
    cells.wait(lambda: cells.kept)
    assert cells.run(leave()) is True
    assert scopes[0].cancelled_caught
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


@pytest.mark.parametrize("shield", [False, True])
def test_nested_anyio_scopes(cells: Cells, shield: bool) -> None:
    stack = AsyncExitStack()

    async def enter() -> None:
        stack.enter_context(anyio.move_on_after(0.01))
        await stack.enter_async_context(anyio.create_task_group())

    async def shielded() -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        return "held"

    cells.run(enter())
    cells.wait(lambda: cells.kept)
    asked, own = [], cells.main.cancel
    cells.main.cancel = lambda *args: asked.append(1) or own(*args)  # type: ignore[method-assign]
    end = time.monotonic() + 1
    cells.wait(lambda: time.monotonic() > end and len(asked) > 1)
    assert len(asked) < 100
    if shield:
        assert cells.run(shielded()) == "held"
    cells.run(stack.aclose())
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


def test_a_request_waits_for_a_coroutine_that_awaits(cells: Cells) -> None:
    stack, event = AsyncExitStack(), asyncio.Event()

    async def enter() -> None:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(fails(event))
        event.set()

    async def nothing() -> int:
        return 5

    cells.run(enter())
    cells.wait(lambda: cells.kept)
    assert cells.run(nothing()) == 5
    with pytest.raises(asyncio.CancelledError):
        cells.run(asyncio.sleep(60))
    with pytest.raises(BaseExceptionGroup):
        cells.run(stack.aclose())


def test_what_cancels_behind_its_back_does_not_end_it(cells: Cells) -> None:
    cells.run(asyncio.sleep(0))
    assert cells.main._wakeup is not None
    assert not cells.main._wakeup.cancel()
    asyncio.Task.cancel(cells.main.task)
    cells.loop.run_until_complete(asyncio.sleep(0.01))
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"
    assert not cells.main.task.cancel()  # nothing runs


def test_a_scope_whose_class_raises_cancels_all_the_same(cells: Cells) -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise ValueError

    class Scope(metaclass=Meta):
        def __exit__(self, *exc: object) -> None: ...
        def fire(self) -> None:
            cells.main.task.cancel()

    async def sleep() -> None:
        asyncio.get_running_loop().call_soon(Scope().fire)
        await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        cells.run(sleep())
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"


def test_an_interrupt_before_a_coroutine_begins(cells: Cells) -> None:
    begun = []

    async def cell() -> None:
        begun.append(1)

    def press() -> MainTask:
        interrupt = MainTask(cells.loop, None, 1.0)
        interrupt.task = cells.main.task
        interrupt.cancel()
        return interrupt

    press()  # nothing runs, and nothing is kept of it
    assert cells.run(asyncio.sleep(0.001, "next")) == "next"
    step = cells.main.begin(cell())
    interrupts = [press(), press()]
    cells.wait(step.end.done)
    assert not begun
    assert cells.main.task.cancelling() == 2
    assert [interrupt._cancels for interrupt in interrupts] == [1, 1]
    step = cells.main.begin(asyncio.sleep(60))
    cells.loop.call_later(0.01, press)
    cells.wait(step.end.done)
    assert not step.requests
    assert not cells.kept
    with pytest.raises(asyncio.CancelledError):
        step.outcome()


class Asking:
    """A scope that asks when it is told to."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.asked = cells, 0

    def __exit__(self, *exc: object) -> None: ...

    def ask(self) -> None:
        self.asked += 1
        self.cells.main.task.cancel()


def test_what_was_asked_for_is_forgotten_when_it_is_closed(cells: Cells) -> None:
    scope = Asking(cells)
    scope.ask()
    step = cells.main.begin(asyncio.sleep(0.001, "last"))
    cells.main.close()
    cells.wait(step.end.done)
    assert step.outcome() == "last"
    assert asyncio.iscoroutine(cells.main.task.get_coro())


def test_nothing_is_put_aside_of_what_runs(cells: Cells) -> None:
    scope = Asking(cells)

    async def sleeps() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    scope.ask()
    step = cells.main.begin(sleeps())
    scope.ask()
    cells.loop.call_soon(scope.ask)
    cells.wait(step.end.done)
    with pytest.raises(asyncio.CancelledError):
        step.outcome()
    assert scope.asked == 3
