"""``%%arun --trace`` and ``ipyrunner.trace()``: who ran, waited and was ready, in which order, and who woke whom."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import time
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
import pytest

import headless
from hostile import PRELUDE
from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.stacks import callers
from ipyrunner.aio.introspection.wait_graph import Step
from ipyrunner.aio.tasks.trace import session, start, tracer
from ipyrunner.aio.tasks.trace.busy_places import BusyPlaces
from ipyrunner.aio.tasks.trace.tracer import keys
from ipyrunner.ipython.magics.timeline.chrome_trace import events
from ipyrunner.ipython.magics.timeline.picture import picture as drawing
from ipyrunner.ipython.magics.timeline.rows import Row, Timeline
from ipyrunner.ipython.magics.timeline.summary import summary
from ipyrunner.ipython.magics.timeline.trace import Trace
from kernels import CONCURRENT, Cell, Kernel
from loops import press, spin

SVG = "{http://www.w3.org/2000/svg}"
MONITORED = sys.version_info >= (3, 12)
DEADLINE = 60


# -- in this process


def trace_of(runner: NotebookRunner, cell: str | None = "In[1]", **options: Any) -> Trace:
    return Trace(lambda: runner.current, os.path.basename, cell=cell, **options)


def traced(
    runner: NotebookRunner, main: Callable[[], Coroutine[Any, Any, Any]], cell: str | None = "In[1]"
) -> Timeline:
    trace = trace_of(runner, cell)

    async def run() -> None:
        with trace:
            await main()

    runner.run(run())
    assert_all_is_off()
    return trace._timeline()


def assert_all_is_off() -> None:
    assert start._active is None
    assert not any("Tracer" in repr(function) for function in gc.callbacks)
    if not MONITORED:
        assert sys.getprofile() is None
        return
    monitoring = sys.monitoring
    assert [monitoring.get_tool(i) for i in (3, 4, 5)] == [None] * 3
    for tool in (3, 4, 5):
        monitoring.use_tool_id(tool, "test")
        try:
            assert monitoring.get_events(tool) == 0
            for function in (asyncio.Handle._run, asyncio.BaseEventLoop.call_soon):
                assert monitoring.get_local_events(tool, function.__code__) == 0
            for event in (monitoring.events.PY_START, monitoring.events.PY_RETURN):
                assert monitoring.register_callback(tool, event, None) is None
        finally:
            monitoring.free_tool_id(tool)


def row(timeline: Timeline, name: str) -> Row:
    (found,) = [row for row in timeline.rows if row.lane is not None and name in (row.lane.name, row.name)]
    return found


def kinds(row: Row) -> str:
    """The states, one after the other, as letters: *w*ait, *r*eady, r*u*n."""
    return "".join({"wait": "w", "ready": "r", "run": "u"}[segment.kind] for segment in row.segments)


def is_uvloop(runner: NotebookRunner) -> bool:
    return not isinstance(runner.get_loop(), asyncio.BaseEventLoop)


def test_what_a_task_waits_for_and_who_wakes_it(runner: NotebookRunner) -> None:
    async def waits(event: asyncio.Event) -> None:
        await event.wait()

    async def sets(event: asyncio.Event) -> None:
        await asyncio.sleep(0)
        event.set()

    async def main() -> None:
        event = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(waits(event), name="one")
            group.create_task(sets(event), name="other")

    timeline = traced(runner, main)
    one, other = row(timeline, "one"), row(timeline, "other")
    waiting = [s for s in one.segments if s.place is not None]
    assert [timeline.words.source(s.place) for s in waiting] == ["await event.wait()"]
    assert timeline.words.where(waiting[0].place).startswith("test_trace.py:")
    assert [r.name for r in timeline.rows] == ["In[1]", "one waits", "other sets"]
    assert one.lane is not None
    assert (one.lane.state, one.lane.function.rpartition(".")[2]) == ("done", "waits")
    assert timeline.words.actor(one.lane.created_by) == "In[1]"
    # It ends in a step after the one that has woken it has ended.
    assert one.segments[-1].kind == other.segments[-1].kind == "run"
    assert one.segments[-1].begin >= other.segments[-1].end
    if is_uvloop(runner):
        assert kinds(one).count("u") == 2
        assert "tasks ran" in summary(timeline)
    else:
        assert kinds(one).lstrip("wr") == "uwru"
        assert timeline.words.actor(one.segments[-1].woken_by) == "other sets"
        assert waiting[0].end >= other.segments[-1].begin
        assert "loop busy" in summary(timeline)
    assert "2 tasks (2 done), at most 2 at a time" in summary(timeline)


def test_the_segments_of_a_task_follow_each_other(runner: NotebookRunner) -> None:
    async def work() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    async def main() -> None:
        await asyncio.gather(*[work() for _ in range(10)])

    timeline = traced(runner, main)
    assert len(timeline.rows) == 11
    for each in timeline.rows:
        for before, after in itertools.pairwise(each.segments):
            assert before.end <= after.begin
        assert kinds(each).count("u") >= (2 if timeline.is_own(each) else 11)
    # No two tasks run at a time.
    runs = sorted((s.begin, s.end) for each in timeline.rows for s in each.segments if s.kind == "run")
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(runs))
    assert timeline.busy <= timeline.length


def test_what_is_ready_waits_for_its_turn(asyncio_runner: NotebookRunner) -> None:
    async def holds() -> None:
        spin(0.06)

    async def main() -> None:
        first = asyncio.create_task(holds(), name="holds")
        await asyncio.gather(first, asyncio.create_task(asyncio.sleep(0), name="next"))

    timeline = traced(asyncio_runner, main)
    (held,) = [s for s in row(timeline, "holds").segments if s.kind == "run"]
    ready = next(s for s in row(timeline, "next").segments if s.kind == "ready")
    assert ready.begin <= held.begin < held.end <= ready.end
    assert held.blocks
    assert timeline.blocks() >= 1
    assert "longest block" in summary(timeline)
    assert "longest wait for a turn" in summary(timeline)


def test_where_it_was_that_held_the_loop(runner: NotebookRunner) -> None:
    def parse() -> None:
        end = time.monotonic() + 0.06
        active = start._active
        assert active is not None
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < end or not active.tracer.stack[-1].places:
            assert time.monotonic() < deadline

    async def work() -> None:
        parse()

    async def main() -> None:
        await asyncio.create_task(work(), name="worker")

    timeline = traced(runner, main)
    worker = row(timeline, "worker")
    assert worker.longest > session.BLOCK
    assert any("parse(), test_trace.py:" in e.get("args", {}).get("blocked the loop in", "") for e in events(timeline))
    longest = timeline.longest
    assert longest is not None
    if longest.lane is worker.lane:  # on a machine that is busy with other things it may be another one
        assert "longest block " in summary(timeline)
        assert "parse(), test_trace.py:" in summary(timeline)


def test_one_after_the_other(runner: NotebookRunner) -> None:
    async def main() -> None:
        for _ in range(3):
            await asyncio.create_task(asyncio.sleep(0.001))

    assert "3 tasks (3 done), one after the other" in summary(traced(runner, main))


def test_who_has_cancelled(asyncio_runner: NotebookRunner) -> None:
    async def cancels(task: asyncio.Task[Any]) -> None:
        task.cancel()

    async def awaits(*tasks: asyncio.Task[Any]) -> None:
        await (tasks[0] if len(tasks) == 1 else asyncio.gather(*tasks))

    async def main() -> None:
        forever = asyncio.Event()
        by_cell, by_task, by_child, by_timeout, by_group = (
            asyncio.create_task(forever.wait(), name=name) for name in ("cell", "task", "child", "timeout", "group")
        )
        never = asyncio.create_task(forever.wait(), name="never begun")
        never.cancel()
        gathering = asyncio.gather(by_child)
        gathering.add_done_callback(lambda future: future.cancelled() or future.exception())
        inner = [asyncio.create_task(forever.wait(), name=f"inner {n}") for n in range(3)]
        through = asyncio.create_task(awaits(inner[0]), name="through a task")
        through_gather = asyncio.create_task(awaits(*inner[1:]), name="through a gather")
        await asyncio.sleep(0)
        through.cancel()
        through_gather.cancel()
        by_cell.cancel()
        await asyncio.create_task(cancels(by_task), name="canceller")
        gathering.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await by_timeout

        async def fails() -> None:
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(forever.wait(), name="in group")
                await asyncio.sleep(0)
                group.create_task(fails(), name="fails")
        by_group.cancel()
        await asyncio.wait([by_cell, by_task, by_child, by_timeout, by_group, never, through, through_gather])

    timeline = traced(asyncio_runner, main)
    expected = {
        "cell": "In[1]",
        "task": "canceller cancels",
        "child": "In[1]",
        "inner 0": "In[1]",
        "through a task": "In[1]",
        "through a gather": "In[1]",
        "timeout": "a timeout",
        "in group": "a task group",
        "never begun": "",
    }
    for name, who in expected.items():
        lane = row(timeline, name).lane
        assert lane is not None
        assert (lane.state, timeline.words.actor(lane.cancelled_by)) == ("cancelled", who), name
    assert row(timeline, "fails").lane.error == "failed: ZeroDivisionError"  # type: ignore[union-attr]
    assert len(row(timeline, "cell").marks) == 1


def test_a_cell_has_its_own_tasks_and_theirs_alone(runner: NotebookRunner) -> None:
    async def parent() -> None:
        await asyncio.create_task(asyncio.sleep(0.001), name="grandchild")

    async def before() -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(asyncio.sleep(60), name="before")]

    kept = runner.run(before())

    async def main() -> None:
        await asyncio.create_task(parent(), name="child")
        kept.append(asyncio.create_task(asyncio.sleep(60), name="stays"))

    first = traced(runner, main)
    assert {r.lane.name for r in first.rows[1:] if r.lane} == {"child", "grandchild", "stays"}
    assert row(first, "stays").lane.state == "pending"  # type: ignore[union-attr]
    assert runner.run(_present_keys()) == ()

    async def later() -> None:
        await asyncio.sleep(0.001)

    assert len(traced(runner, later, "In[2]").rows) == 1
    everything = traced(runner, later, None)
    assert {"before", "stays"} <= {r.lane.name for r in everything.rows if r.lane}
    assert "callbacks" in everything.other.name
    for task in kept:
        task.cancel()


async def _present_keys() -> tuple[object, ...]:
    return keys.get()


def test_two_traces_at_once(runner: NotebookRunner) -> None:
    outer, inner = trace_of(runner, None), trace_of(runner, "inner")

    async def block() -> None:
        with inner:
            await asyncio.create_task(asyncio.sleep(0), name="within")

    async def main() -> None:
        with outer:
            await asyncio.create_task(asyncio.sleep(0), name="early")
            await asyncio.gather(block(), asyncio.create_task(asyncio.sleep(0.001), name="beside"))
            assert start._active is not None

    runner.run(main())
    assert_all_is_off()
    assert {r.lane.name for r in inner._timeline().rows if r.lane} >= {"within"}
    assert not {"early", "beside"} & {r.lane.name for r in inner._timeline().rows if r.lane}
    assert {"early", "within", "beside"} <= {r.lane.name for r in outer._timeline().rows if r.lane}


def test_eager_tasks_are_there(asyncio_runner: NotebookRunner) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("since Python 3.12")

    async def waits(event: asyncio.Event) -> None:
        await event.wait()

    async def at_once() -> None:
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        event = asyncio.Event()
        task = asyncio.create_task(waits(event), name="eager")
        await asyncio.create_task(at_once(), name="at once")
        loop.set_task_factory(None)
        event.set()
        await task

    timeline = traced(asyncio_runner, main)
    eager = row(timeline, "eager")
    assert kinds(eager) in ("wru", "wu")
    assert timeline.words.source(eager.segments[0].place) == "await event.wait()"
    assert timeline.endings == {"done": 2}


@pytest.mark.slow
def test_the_last_100000_events_are_kept_and_no_task(asyncio_runner: NotebookRunner) -> None:
    refs: list[weakref.ref[Any]] = []

    async def short(payload: object) -> object:
        return payload

    class Payload:
        pass

    async def main() -> None:
        for _ in range(1_000):
            payload = Payload()
            task = asyncio.create_task(short(payload))
            refs.append(weakref.ref(payload))
            await task
        for _ in range(200_000):
            await asyncio.sleep(0)
        active = start._active
        assert active is not None
        del payload, task
        gc.collect()
        assert len(active.tracer._lanes) < 10
        assert [ref() for ref in refs] == [None] * 1_000

    timeline = traced(asyncio_runner, main)
    assert timeline.kept == session.MOST == 100_000
    assert timeline.dropped > 100_000
    assert f"the first {timeline.dropped:,} events were dropped, and the last 100,000 are shown" in summary(timeline)
    assert "1,000 tasks (1,000 done), one after the other" in summary(timeline)
    assert timeline.busy > 0
    # The lanes of what was dropped are gone.
    assert len(timeline.rows) < 1_000


def test_many_tasks_make_a_small_picture(asyncio_runner: NotebookRunner) -> None:
    async def work() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    async def main() -> None:
        await asyncio.gather(*[work() for _ in range(200)])

    trace = trace_of(asyncio_runner)

    async def run() -> None:
        with trace:
            await main()

    asyncio_runner.run(run())
    svg = trace._repr_mimebundle_()["image/svg+xml"]
    assert len(svg) < 300_000
    drawn = ET.fromstring(svg)
    assert len(drawn.findall(f"{SVG}g")) == 41  # and the callbacks
    assert "and 161 more tasks" in "".join(drawn.itertext())


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_picture_can_be_read_in_any_theme(asyncio_runner: NotebookRunner) -> None:
    async def fetch() -> None:
        for _ in range(2):
            await asyncio.sleep(0.02)
            spin(0.06)
        await asyncio.sleep(0.02)

    async def main() -> None:
        await asyncio.gather(*[asyncio.create_task(fetch(), name=f"page {n}") for n in range(2)])

    drawn = ET.fromstring(drawing(traced(asyncio_runner, main)))
    (background,) = drawn.findall(f"{SVG}rect")  # the page's may be of any colour
    assert (background.get("width"), background.get("height")) == (drawn.get("width"), drawn.get("height"))
    dark, light = sorted(luminance(each.get("fill") or "") for each in (drawn, background))
    assert (light + 0.05) / (dark + 0.05) > 7
    assert min(float(text.get("font-size") or drawn.get("font-size") or 0) for text in drawn.iter(f"{SVG}text")) >= 11
    rows = drawn.findall(f"{SVG}g")
    # The names are short, so the plot begins near the left margin.
    assert float((rows[0].get("transform") or "").partition("(")[2].partition(" ")[0]) < 120
    labels = [(text.text or "", float(text.get("x") or 0)) for row in rows for text in row if text.get("y") == "11"]
    blocks = [label for label, _ in labels if " ms " in label]
    assert len(blocks) == 4
    # On a busy machine the thread that looks may find another place, with a longer name.
    short = [label for label in blocks if "spin()" in label]
    assert short
    # ... or one takes so long that there is less room for the others.
    longest = max(float(label.split(" ms ")[0]) for label in blocks)
    assert longest > 90 or not any("…" in label for label in short), blocks
    for row in rows:
        ends = [0.0]
        above = [text for text in row if text.get("y") == "11" and text.get("text-anchor") is None]
        for text in sorted(above, key=lambda text: float(text.get("x") or 0)):
            assert float(text.get("x") or 0) >= ends[-1]
            ends.append(float(text.get("x") or 0) + len(text.text or "") * 6)


HOSTILE = ['</text><script>alert("1")</script>', "&amp; ]]>", "a\nb\x00\x1b[31m\u202e\ud800", "x" * 1_000_000, ""]


def test_names_of_every_kind_are_shown_escaped(runner: NotebookRunner, tmp_path: Path) -> None:
    class Odd(asyncio.Task):  # type: ignore[type-arg]
        def get_name(self) -> str:
            raise ZeroDivisionError

        def get_coro(self) -> Any:
            raise ZeroDivisionError

    async def fails(name: str) -> None:
        await asyncio.sleep(0)
        raise ValueError(name)

    class Meta(type):
        @property
        def __name__(cls) -> str:
            raise ZeroDivisionError

        @property
        def __module__(cls) -> str:
            raise ZeroDivisionError

    class Callback(metaclass=Meta):
        def __call__(self) -> None:
            called.append(self)

        def __getattr__(self, name: str) -> Any:
            raise ZeroDivisionError

    called: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(Callback())
        tasks = [asyncio.create_task(fails(name), name=name) for name in HOSTILE]
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: Odd(coro, loop=loop, **options))
        tasks.append(asyncio.create_task(fails("odd")))
        loop.set_task_factory(None)
        await asyncio.wait(tasks)
        assert all(task.exception() for task in tasks)
        assert len(called) == 1

    trace = trace_of(runner, HOSTILE[0], file=tmp_path / "trace.json")

    async def run() -> None:
        with trace:
            await main()

    runner.run(run())
    bundle = trace._repr_mimebundle_()
    assert len(bundle["image/svg+xml"]) < 30_000
    drawn = ET.fromstring(bundle["image/svg+xml"])
    assert not list(drawn.iter(f"{SVG}script"))
    assert "6 tasks (6 failed)" in bundle["text/plain"]
    assert "\n" not in bundle["text/plain"]
    check(json.loads((tmp_path / "trace.json").read_text(encoding="utf-8")))


def test_no_tool_is_free(asyncio_runner: NotebookRunner) -> None:
    async def begin() -> None:
        trace_of(asyncio_runner).start()

    if MONITORED:
        for tool in (3, 4, 5):
            sys.monitoring.use_tool_id(tool, f"mine {tool}")
        try:
            with pytest.raises(RuntimeError, match="mine 3, mine 4, mine 5"):
                asyncio_runner.run(begin())
            assert [sys.monitoring.get_tool(i) for i in (3, 4, 5)] == ["mine 3", "mine 4", "mine 5"]
        finally:
            for tool in (3, 4, 5):
                sys.monitoring.free_tool_id(tool)
    else:
        mine = lambda *args: None  # noqa: E731
        sys.setprofile(mine)
        try:
            with pytest.raises(RuntimeError, match="profile function"):
                asyncio_runner.run(begin())
            assert sys.getprofile() is mine
        finally:
            sys.setprofile(None)
    assert start._active is None
    assert asyncio_runner.run(_present_keys()) == ()


def test_an_exception_out_of_the_loop_ends_what_runs(asyncio_runner: NotebookRunner) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    async def main() -> None:
        task = asyncio.create_task(exits(), name="exits")
        await asyncio.wait([task])
        assert isinstance(task.exception(), SystemExit)
        await asyncio.create_task(asyncio.sleep(0), name="next")

    timeline = traced(asyncio_runner, main)
    lane = row(timeline, "exits").lane
    assert lane is not None
    assert lane.state == "failed"
    assert row(timeline, "next").lane.state == "done"  # type: ignore[union-attr]
    assert all(not run.depth and not run.inside for run in timeline._session.runs())


def test_a_cell_that_is_run_again_is_seen(runner: NotebookRunner) -> None:
    source = "async def job():\n    await asyncio.sleep(0)\n"
    jobs = []
    for n in range(3):
        names: dict[str, Any] = {"asyncio": asyncio}
        exec(compile(source, f"cell {n}", "exec"), names)
        jobs.append(names["job"])
    assert jobs[0].__code__ == jobs[1].__code__
    assert jobs[0].__code__ is not jobs[1].__code__

    async def main() -> None:
        for n, job in enumerate(jobs):
            await asyncio.create_task(job(), name=f"task {n}")

    timeline = traced(runner, main)
    assert "3 tasks (3 done), one after the other" in summary(timeline)
    places = [(job.__code__, 0) for job in jobs]
    assert [timeline.words.where(place).partition(":")[0] for place in places] == ["cell 0", "cell 1", "cell 2"]


def test_a_second_trace_counts_no_task_that_had_ended(runner: NotebookRunner) -> None:
    async def job() -> None:
        pass

    async def starts() -> None:
        second.start()

    async def main() -> None:
        # The last one runs before anybody has looked at how the others have ended.
        tasks = [asyncio.create_task(job()) for _ in range(3)]
        await asyncio.wait([*tasks, asyncio.create_task(starts())])
        await asyncio.sleep(0)

    first, second = trace_of(runner, None), trace_of(runner, None)
    with first:
        runner.run(main())
        second.stop()
    assert_all_is_off()
    assert "; 5 tasks (5 done), " in first.summary
    assert "; 2 tasks (2 done), " in second.summary


def test_names_of_a_class_of_their_own(runner: NotebookRunner) -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return self

        def __getitem__(self, key: Any) -> str:
            raise ZeroDivisionError

    async def job() -> None:
        pass

    async def main() -> None:
        coro = job()
        coro.__qualname__ = Name("function")
        await asyncio.create_task(coro, name=Name("mine"))

    timeline = traced(runner, main)
    lane = row(timeline, "mine").lane
    assert lane is not None
    assert (lane.name, lane.function, lane.state) == ("mine", "function", "done")
    assert type(lane.name) is type(lane.function) is str


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_while_it_begins_leaves_nothing(
    runner: NotebookRunner, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    begun = start._Active.begin

    def interrupted(*args: Any) -> session.Session:
        press()
        return begun(*args)

    trace = trace_of(runner, None)
    if again:
        trace.start()
        trace.stop()
    before = trace.summary
    with monkeypatch.context() as patch:
        patch.setattr(start._Active, "begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trace.start()
    assert not trace.is_running
    assert_all_is_off()
    assert trace.summary == before
    trace.start()
    trace.stop()
    assert_all_is_off()


def test_it_ends_with_its_loop_and_when_nobody_refers_to_it(runner: NotebookRunner) -> None:
    trace = trace_of(runner, None)
    trace.start()
    with pytest.raises(RuntimeError, match="already running"):
        trace.start()
    runner.run(asyncio.sleep(0))
    assert "so far" in trace.summary
    trace.stop()
    assert_all_is_off()
    assert "so far" not in trace.summary
    trace.stop()
    trace.start()
    runner.run(asyncio.sleep(0))
    del trace
    gc.collect()
    runner.run(asyncio.sleep(0))
    assert_all_is_off()


@pytest.mark.skipif(MONITORED, reason="since Python 3.12 without a profile function")
@pytest.mark.parametrize("loss", ["an interrupt", "a profiler", "a profiler that goes on"])
def test_a_profile_function_that_is_taken_away(runner: NotebookRunner, loss: str) -> None:
    async def main() -> None:
        await asyncio.create_task(asyncio.sleep(0), name="before")
        lost = asyncio.create_task(asyncio.sleep(0), name="lost")
        held.append(lost)
        sys.setprofile(None if loss == "an interrupt" else other)
        await lost
        if loss == "a profiler":
            sys.setprofile(None)
        if loss != "a profiler that goes on":
            assert sys.getprofile() is None
        again = asyncio.create_task(asyncio.sleep(0), name="again")
        assert (sys.getprofile() is other) is (loss == "a profiler that goes on")
        await again
        assert trace.is_running is (loss != "a profiler that goes on")
        with pytest.raises(RuntimeError, match="already running"):
            trace.start()
        if not trace.is_running:
            with pytest.raises(RuntimeError, match="taken away"):
                trace_of(runner).start()
            assert keys.get() == ()

    def other(*args: object) -> None:
        pass

    held: list[asyncio.Task[None]] = []
    trace, complete = trace_of(runner, None), trace_of(runner, None)
    trace.start()
    try:
        runner.run(main())
        assert "; incomplete: its profile function was taken away" in trace.summary
        if loss != "a profiler that goes on":
            complete.start()
            runner.run(asyncio.sleep(0))
            assert "incomplete" not in complete.stop().summary
    finally:
        trace.stop()
        if loss == "a profiler that goes on":
            assert sys.getprofile() is other
            sys.setprofile(None)
    assert_all_is_off()
    assert not trace.is_running
    timeline = trace._timeline()
    assert "; incomplete: its profile function was taken away" in summary(timeline)
    ended = {each.lane.name: each.lane.state for each in timeline.rows if each.lane is not None}
    assert ended["before"] == "done"
    assert "pending" not in ended.values()
    if loss != "a profiler that goes on":  # nobody may look any more before the loop has forgotten some
        assert timeline.endings == {"done": 5}
    assert ended.get("again") == (None if loss == "a profiler that goes on" else "done")


@pytest.mark.skipif(not MONITORED, reason="since Python 3.12")
def test_a_tool_id_that_is_taken_away(runner: NotebookRunner) -> None:
    trace = trace_of(runner, None)
    trace.start()
    runner.run(asyncio.sleep(0))
    assert trace.is_running
    assert "incomplete" not in trace.summary
    sys.monitoring.free_tool_id(5)
    assert not trace.is_running
    assert "; incomplete: the tool id of sys.monitoring was taken away from it" in trace.summary
    with pytest.raises(RuntimeError, match="taken away"):
        trace_of(runner, None).start()
    trace.stop()
    assert "; incomplete: the tool id of sys.monitoring was taken away from it" in trace.summary
    assert start._active is None
    with trace:
        runner.run(asyncio.sleep(0))
    assert "incomplete" not in trace.summary


@pytest.mark.parametrize("then", ["the next callback", "the end", "another trace"])
def test_what_an_exception_has_ended_does_not_go_on(
    asyncio_runner: NotebookRunner, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    later, clock = 0, time.perf_counter_ns
    for module in (tracer, session.time):
        monkeypatch.setattr(module, "perf_counter_ns", lambda: clock() + later)

    def interrupted() -> None:
        raise KeyboardInterrupt

    trace, other = trace_of(asyncio_runner, None), trace_of(asyncio_runner, None)
    trace.start()
    asyncio_runner.get_loop().call_soon(interrupted)
    with pytest.raises(KeyboardInterrupt):
        asyncio_runner.get_loop().run_forever()
    later += 1000 * 10**9
    if then == "the next callback":
        asyncio_runner.run(asyncio.sleep(0))
    if then == "another trace":
        other.start()
        other.stop()
    trace.stop()
    assert_all_is_off()
    for made in (trace._session, other._session):
        assert made is None or 0 <= made.busy < 500 * 10**9
        assert made is None or made.longest is None or made.longest.length < 500 * 10**9


def test_an_idle_loop_is_not_in_the_callback_that_was_interrupted(asyncio_runner: NotebookRunner) -> None:
    def gone() -> FrameType:
        return sys._getframe()

    def _run_once() -> bool:
        return busy._is_in(present, list(callers(sys._getframe())))

    async def main() -> None:
        present.frame = sys._getframe()
        assert busy._is_in(present, list(callers(sys._getframe())))
        assert _run_once()  # of a loop that it runs inside itself
        present.frame = gone()
        assert not busy._is_in(present, list(callers(sys._getframe())))
        present.frame = sys._getframe()
        assert busy._is_in(present, [])  # on another greenlet's stack

    present = tracer.Open()
    busy = BusyPlaces(tracer.Tracer(asyncio_runner.get_loop(), main.__code__))
    busy.stop()
    asyncio_runner.run(main())
    present.frame = gone()
    assert not busy._is_in(present, [])


def test_a_trace_in_a_cycle_ends_with_it(runner: NotebookRunner) -> None:
    class Holder:
        def __init__(self) -> None:
            self.trace = trace_of(runner, None)
            self.trace.start()
            self.me = self

    Holder()
    gc.collect()
    runner.run(asyncio.sleep(0))
    assert_all_is_off()


def test_the_loop_runs_on_while_runs_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def added(each: Any) -> Any:  # as another thread would
        made.add(run)
        return each

    made = session.Session()
    run = (None, "name", 0, None, None, None, None, None, made.began, made.began + 1, None, False, 0)
    made.add(run)
    made.add(run)
    monkeypatch.setattr(session.Run, "_make", added)
    assert made.runs() == [run, run]


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_file_that_cannot_be(runner: NotebookRunner, tmp_path: Path, name: str) -> None:
    names: dict[str, Any] = {"asyncio": asyncio}
    exec("async def job():\n    await asyncio.sleep(0.001)\n", names)
    names["job"].__code__ = names["job"].__code__.replace(co_filename=name)

    async def main() -> None:
        await asyncio.create_task(names["job"](), name="odd")

    trace = trace_of(runner)

    async def run() -> None:
        with trace:
            await main()

    runner.run(run())
    trace.save(tmp_path / "trace.json")
    check(json.loads((tmp_path / "trace.json").read_text(encoding="utf-8")))
    assert "image/svg+xml" in trace._repr_mimebundle_()
    assert Step(name, 1, "job").source == ""


def test_a_callback_that_runs_a_loop_inside_itself_is_no_block() -> None:
    made = session.Session()
    run = (None, "name", 0, None, None, None, None, None, made.began, made.began + 2 * session.BLOCK, None)
    made.add((*run, True, 0))
    assert made.longest is None
    made.add((*run, False, 1))
    assert made.longest is not None
    assert made.busy == 2 * session.BLOCK  # of the outermost


def test_a_trace_without_a_beginning(asyncio_runner: NotebookRunner, tmp_path: Path) -> None:
    trace = trace_of(asyncio_runner, None)
    assert repr(trace) == "a trace that has not begun"
    assert trace._repr_mimebundle_() == {"text/plain": repr(trace)}
    for call in (trace.stop, lambda: trace.save(tmp_path / "x")):
        with pytest.raises(RuntimeError, match="call start"):
            call()


# -- the file

# https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU ("Trace Event Format"): the phases that
# are used here, and the fields that each must have.
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "X": {"name": str, "cat": str, "ts": (int, float), "dur": (int, float), "pid": int, "tid": int, "args": dict},
    "i": {"name": str, "cat": str, "ts": (int, float), "s": str, "pid": int, "tid": int, "args": dict},
    "M": {"name": str, "pid": int, "tid": int, "args": dict},
}
METADATA = {"process_name": {"name": str}, "thread_name": {"name": str}, "thread_sort_index": {"sort_index": int}}


def check(trace: Any) -> dict[int, str]:
    """Check the trace against the format, and that the spans of each thread are nested; return the threads' names."""
    assert set(trace) <= {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    threads: dict[int, str] = {}
    open_spans: dict[int, list[float]] = {}
    for event in trace["traceEvents"]:
        fields = FIELDS[event["ph"]]
        assert set(event) == {"ph", *fields}
        for name, kind in fields.items():
            assert isinstance(event[name], kind), (name, event)
        if event["ph"] == "M":
            (key, kind), *rest = METADATA[event["name"]].items()
            assert not rest
            assert isinstance(event["args"][key], kind)
            if event["name"] == "thread_name":
                threads[event["tid"]] = event["args"]["name"]
            continue
        assert event["tid"] in threads
        assert event["ts"] >= 0
        assert all(isinstance(value, str) and value for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
            continue
        assert event["dur"] > 0
        ends = open_spans.setdefault(event["tid"], [])
        begin, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
        while ends and ends[-1] <= begin:
            ends.pop()
        assert not ends or end <= ends[-1], event
        ends.append(end)
    return threads


def test_the_check_of_the_file_finds_what_is_wrong() -> None:
    span = {"ph": "X", "name": "a", "cat": "run", "ts": 0, "dur": 2, "pid": 1, "tid": 1, "args": {}}
    named = {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "t"}}
    good = {"traceEvents": [named, span, {**span, "ts": 1, "dur": 1}], "displayTimeUnit": "ms"}
    check(good)
    for wrong in ({**span, "ts": 1, "dur": 2}, {**span, "tid": 2}, {**span, "dur": "1"}, {**span, "more": 1}):
        with pytest.raises(AssertionError):
            check({**good, "traceEvents": [named, span, wrong]})


# -- in kernels


def picture(cell: Cell) -> tuple[ET.Element, str]:
    """The picture that the cell shows, and its text."""
    (data,) = [
        m["content"]["data"]
        for m in cell.messages
        if m["msg_type"] in ("display_data", "execute_result") and "image/svg+xml" in m["content"]["data"]
    ]
    assert sorted(data) == ["image/svg+xml", "text/plain"]
    svg = data["image/svg+xml"]
    assert not any(word in svg for word in ("<script", "href", "onload", "\x00"))
    return ET.fromstring(svg), data["text/plain"]


def words(drawn: ET.Element) -> list[str]:
    return [text.text or "" for text in drawn.iter(f"{SVG}text")]


def expect_off(kernel: Kernel) -> None:
    code = "import sys; print({sys.monitoring.get_tool(i) for i in (3, 4)}, sys.monitoring.get_tool(5) in (None, 'ipyrunner'))"
    if not MONITORED:
        code = "import sys; print({sys.getprofile()}, True)"
    assert kernel.ok(code).stdout == "{None} True\n"
    kernel.expect_alive()


CELL = """\
%%arun --trace
async def worker(go):
    await go.wait()
go = asyncio.Event()
one = asyncio.create_task(worker(go), name="one")
await asyncio.sleep(0)
go.set()
await one
"the value"
"""


def test_the_picture_is_below_the_cell(on_each_loop: Kernel) -> None:
    cell = on_each_loop.ok(CELL)
    drawn, text = picture(cell)
    assert cell.value == "'the value'"
    assert text.startswith("In[")
    assert "1 task (1 done)" in text
    shown = words(drawn)
    assert "one worker" in shown
    assert text.partition(":")[0] in shown
    assert {"running", "0"} <= set(shown)
    expect_off(on_each_loop)


def test_nothing_is_loaded_before_somebody_asks(fresh: Kernel) -> None:
    loaded = "import sys; print([m for m in sys.modules if m.startswith(('ipyrunner.aio.tasks.trace', 'ipyrunner.ipython.magics.timeline'))])"
    fresh.ok("await asyncio.sleep(0)")
    assert fresh.ok(loaded).stdout == "[]\n"


ENDINGS = {
    "fails": ("await asyncio.sleep(0); 1 / 0", "ZeroDivisionError", ""),
    "times out": ("await asyncio.Event().wait()", "TimeoutError", "--timeout 0.01"),
    "in scope": ("asyncio.create_task(fails(), name='failing'); await asyncio.sleep(60)", "ExceptionGroup", "--scope"),
    "exits": ("await asyncio.sleep(0); raise SystemExit", "SystemExit", ""),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_picture_appears_however_the_cell_ends(shared: Kernel, ending: str) -> None:
    code, error, options = ENDINGS[ending]
    shared.ok("async def fails(): raise ValueError('a <b>')")
    cell = shared.run(f"%%arun --trace {options}\n{code}")
    assert error in (cell.ename or cell.stderr + cell.traceback)
    drawn, text = picture(cell)
    assert text.startswith("In[")
    if ending == "in scope":
        assert any(word.startswith("failed: ValueE") for word in words(drawn))
    expect_off(shared)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupt_ends_the_cell_and_is_in_its_picture(on_each_loop: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "interrupted.json"
    cell = on_each_loop.begin(
        f"%%arun --trace {file}\nt = asyncio.create_task(asyncio.sleep(60), name='background')\n"
        "asyncio.get_running_loop().call_later(0.001, print, 'waiting')\nawait asyncio.Event().wait()"
    )
    on_each_loop.interrupted(cell, "waiting")
    assert cell.ename == "KeyboardInterrupt"
    _, text = picture(cell)
    assert "1 task (1 pending)" in text
    trace = json.loads(file.read_text())
    threads = check(trace)
    if "loop busy" in text:
        cancelled = [e for e in trace["traceEvents"] if e["name"] == "cancelled" and e["ph"] == "i"]
        # Python 3.11 sees nothing of a signal handler that is called while the profile function runs: one in sixty.
        if cancelled or sys.version_info >= (3, 12):
            assert [e["args"] for e in cancelled] == [{"by": "the interrupt"}]
            assert threads[cancelled[0]["tid"]] == text.partition(":")[0]
    expect_off(on_each_loop)
    on_each_loop.ok("t.cancel()")


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_a_cell_that_blocks_is_interrupted_under_trace(on_each_loop: Kernel) -> None:
    cell = on_each_loop.begin("%%arun --trace\nawait asyncio.sleep(0)\nprint('busy')\nwhile True: pass")
    on_each_loop.interrupted(cell, "busy")
    assert cell.ename == "KeyboardInterrupt"
    _, text = picture(cell)
    assert "longest block" in text
    expect_off(on_each_loop)


def test_the_file_can_be_opened_by_perfetto(on_each_loop: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "a b.json"
    cell = on_each_loop.ok(f'%%arun --trace "{file}" --name traced -o result\n' + CELL.partition("\n")[2])
    assert f"the trace was written to {file}" in cell.stdout
    assert on_each_loop.ok("result").value == "'the value'"
    trace = json.loads(file.read_text())
    threads = check(trace)
    assert list(threads.values())[:2] == ["traced", "one worker"]
    _, text = picture(cell)
    assert trace["otherData"]["summary"].partition(":")[0] == text.partition(":")[0] == "traced"
    of_one = [e for e in trace["traceEvents"] if e["ph"] == "X" and threads[e["tid"]] == "one worker"]
    assert {"run", "wait"} <= {e["cat"] for e in of_one}
    assert any(e["args"].get("waits at", "").endswith("await go.wait()") for e in of_one)


def test_runs_inside_runs_are_nested(fresh: Kernel, tmp_path: Path) -> None:
    fresh.ok("%config NotebookRunner.nested = True")
    fresh.ok("%arunner restart")
    cell = fresh.ok(
        f"%%arun --trace {tmp_path / 'nested.json'}\n"
        "async def inner(name): await asyncio.create_task(asyncio.sleep(0.001), name=name)\n"
        "async def outer():\n    asyncio.run(inner('within'))\n"
        "await asyncio.create_task(outer(), name='outer')\n"
        "done = asyncio.Event()\n"
        "def callback():\n    asyncio.run(inner('again')); done.set()\n"
        "asyncio.get_running_loop().call_soon(callback)\n"
        "await done.wait()"
    )
    picture(cell)
    check(trace := json.loads((tmp_path / "nested.json").read_text()))
    names = {e["args"]["name"]: e["tid"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert "within sleep" in names

    def spans(name: str) -> list[tuple[float, float]]:
        found = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == "run" and e["tid"] == names[name]]
        return [(e["ts"], e["ts"] + e["dur"]) for e in found]

    def is_nested(outer: str, inner: str) -> bool:
        return any(a <= b < c <= d for a, d in spans(outer) for b, c in spans(inner) if (a, d) != (b, c))

    assert is_nested("outer", "within sleep")
    assert is_nested("other work", "other work")
    fresh.ok("await asyncio.sleep(0)")


def test_the_steps_of_a_cell_have_its_name_and_not_that_of_a_function_of_ours(shared: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    cell = shared.ok(f"%%arun --trace {path}\nimport ipyrunner\nwith ipyrunner.trace() as t: await asyncio.sleep(0.01)")
    assert cell.reply is not None
    path_of_all = tmp_path / "all.json"
    shared.ok(f"t.save({str(path_of_all)!r})")
    for file, name in ((path, f"In[{cell.reply['execution_count']}]"), (path_of_all, "cells")):
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
        row = next(e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == name)
        assert {e["name"] for e in events if e["tid"] == row and e.get("cat") == "run"} == {name}


def test_a_trace_over_several_cells(on_each_loop: Kernel) -> None:
    on_each_loop.ok("import ipyrunner\nt = ipyrunner.trace()\nt.start()")
    on_each_loop.ok("job = asyncio.create_task(asyncio.sleep(60), name='job')\nawait asyncio.sleep(0)")
    on_each_loop.ok("plain = asyncio.create_task(asyncio.sleep(0), name='from a plain cell')")
    on_each_loop.ok("await plain; await asyncio.create_task(asyncio.sleep(0.001), name='second')")
    _, text = picture(on_each_loop.ok("t"))
    assert "so far" in text
    assert "UsageError" not in on_each_loop.ok("%%arun --trace\nawait asyncio.sleep(0)").stderr
    drawn, text = picture(on_each_loop.ok("job.cancel()\nt.stop()"))
    assert "so far" not in text
    assert "3 tasks (2 done, 1 pending)" in text
    assert {"cells", "job sleep", "second sleep", "from a plain cell sleep"} <= set(words(drawn))
    expect_off(on_each_loop)


def test_what_runs_notebooks_saves_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    document = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("%load_ext ipyrunner\nimport asyncio"), nbformat.v4.new_code_cell(CELL)]
    )
    headless.client(document, tmp_path, timeout=DEADLINE, kernel_name="python3").execute()
    shown = [output.data for output in document.cells[1].outputs if output.output_type == "display_data"]
    assert [sorted(data) for data in shown] == [["image/svg+xml", "text/plain"]]
    assert "one worker" in words(ET.fromstring(shown[0]["image/svg+xml"]))


def test_with_in_code(shared: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "block.json"
    cell = shared.ok(
        f"import ipyrunner\nwith ipyrunner.trace({str(file)!r}) as t:\n"
        "    await asyncio.create_task(asyncio.sleep(0), name='inside')\nt"
    )
    drawn, _ = picture(cell)
    assert "inside sleep" in words(drawn)
    check(json.loads(file.read_text()))
    failing = shared.run("with ipyrunner.trace() as t:\n    await asyncio.sleep(0); 1 / 0")
    assert failing.ename == "ZeroDivisionError"
    assert "trace: " in (shared.ok("t.summary").value or "")
    expect_off(shared)


def test_a_restart_ends_a_trace(shared: Kernel) -> None:
    shared.ok("import ipyrunner\nt = ipyrunner.trace()\nt.start()")
    shared.ok("await asyncio.create_task(asyncio.sleep(0), name='first')")
    shared.ok("%arunner restart")
    shared.ok("loop_id = id(asyncio.get_event_loop())")
    drawn, text = picture(shared.ok("t.stop()"))
    assert "first sleep" in words(drawn)
    assert "so far" not in text
    expect_off(shared)


def test_a_background_cell_shows_its_picture_below_itself(shared: Kernel) -> None:
    cell = shared.ok("%%arun --trace --background -o job\nawait asyncio.create_task(asyncio.sleep(0), name='its own')")
    shared.ok("await job")
    shared.wait_until(lambda: any("image/svg+xml" in m["content"].get("data", {}) for m in cell.messages))
    drawn, _ = picture(cell)
    assert "its own sleep" in words(drawn)
    expect_off(shared)


@pytest.mark.skipif(not CONCURRENT, reason="needs ipykernel 7 and IPython 9.8")
def test_two_cells_at_once_have_their_own_traces(shared: Kernel) -> None:
    code = (
        "%%arun --trace --concurrent\nmine = asyncio.create_task(asyncio.sleep(0), name='of {0}')\n"
        "print('begun {0}')\nawait {1}.wait()"
    )
    shared.ok("a = asyncio.Event(); b = asyncio.Event()")
    first, second = shared.begin(code.format("a", "a")), shared.begin(code.format("b", "b"))
    shared.wait_for(first, "begun a")
    shared.wait_for(second, "begun b")
    shared.ok("%%arun --concurrent\na.set(); b.set()")
    for cell, own, other in ((first, "of a sleep", "of b sleep"), (second, "of b sleep", "of a sleep")):
        shared.finish(cell)
        drawn, _ = picture(cell)
        assert own in words(drawn)
        assert other not in words(drawn)
    expect_off(shared)


def test_the_options_that_do_not_go_together(shared: Kernel) -> None:
    cell = shared.run("%%arun --fresh --trace\nprint('run')")
    assert "UsageError" in cell.stderr
    assert "--trace" in cell.stderr
    assert cell.stdout == ""


def test_with_profile(shared: Kernel) -> None:
    cell = shared.run("%%arun --trace --profile\nprint('run')\nawait asyncio.sleep(0)")
    if MONITORED:
        assert cell.stdout == "run\n"
        picture(cell)
    else:
        assert "UsageError: %%arun --trace and --profile exclude each other on Python 3.11" in cell.stderr
        assert cell.stdout == ""
        assert not any(m["msg_type"] == "display_data" for m in cell.messages)
    expect_off(shared)


@pytest.mark.parametrize("error", ["ValueError('odd')", "UnicodeEncodeError('utf-8', 'a', 0, 1, 'odd')"])
def test_whatever_is_wrong_with_the_trace_the_value_is_there(shared: Kernel, tmp_path: Path, error: str) -> None:
    shared.ok(
        "from ipyrunner.ipython.magics.timeline.trace import Trace\nsave = Trace.save\n"
        f"def save_not(self, file): raise {error}\nTrace.save = save_not"
    )
    cell = shared.ok(f"%%arun --trace {tmp_path / 'trace.json'}\n5")
    assert cell.value == "5"
    assert "the trace could not be written" in cell.stderr
    shared.ok("Trace.save = save")
    expect_off(shared)


def test_the_file_of_a_trace_that_ended_with_its_loop(shared: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    shared.ok(f"import ipyrunner\nt = ipyrunner.trace({str(file)!r})\nt.start()")
    shared.ok("await asyncio.create_task(asyncio.sleep(0), name='first')")
    shared.ok("%arunner restart")
    shared.ok("loop_id = id(asyncio.get_event_loop())\nt.stop()")
    assert "first sleep" in check(json.loads(file.read_text())).values()
    file.unlink()
    shared.ok("t.stop()")
    assert not file.exists()
    expect_off(shared)


@pytest.mark.parametrize("where", ["", "no-such-folder/trace.json", "fifo"])
def test_a_file_that_cannot_be_written_is_found_first(shared: Kernel, tmp_path: Path, where: str) -> None:
    if where == "fifo":
        if os.name == "nt":
            pytest.skip("no fifo")
        os.mkfifo(tmp_path / where)
    cell = shared.run(f"%%arun --trace '{tmp_path / where}'\nprint('run')")
    assert "UsageError: %%arun --trace cannot write to" in cell.stderr
    assert cell.stdout == ""
    expected = {"": "directory", "fifo": "not a regular file"}.get(where, "No such file or directory")
    assert expected in cell.stderr
    failed = shared.run(f"import ipyrunner\nipyrunner.trace({str(tmp_path / where)!r})")
    assert failed.ename in ("OSError", "IsADirectoryError", "FileNotFoundError", "PermissionError")
    expect_off(shared)


def test_a_file_keeps_what_is_in_it_until_the_cell_ends(shared: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text("precious")
    shared.run(f"%%arun --trace {file} --no-such-option\n1")
    shared.run(f"%%arun --trace {file}\nthis is no Python")
    assert file.read_text() == "precious"
    cell = shared.ok(f"%%arun --trace {file}\nimport os; os.remove({str(file)!r}); os.mkdir({str(file)!r}); 5")
    assert cell.value == "5"
    assert "the trace could not be written" in cell.stderr
    picture(cell)


def test_no_tool_is_free_in_a_cell(shared: Kernel) -> None:
    if MONITORED:
        shared.ok(
            "import sys\nfor i in (3, 4, 5): sys.monitoring.get_tool(i) or sys.monitoring.use_tool_id(i, f'mine {i}')"
        )
        # The cell that has taken them had one of them lent to ipyrunner.
        shared.ok("await asyncio.sleep(0)\nsys.monitoring.get_tool(5) or sys.monitoring.use_tool_id(5, 'mine 5')")
        undo = "for i in (3, 4, 5): sys.monitoring.free_tool_id(i)"
    else:
        shared.ok("import sys\nmine = lambda *args: None\nsys.setprofile(mine)")
        undo = "sys.setprofile(None)"
    cell = shared.run("%%arun --trace\nprint('run')")
    assert "UsageError: %%arun --trace: " in cell.stderr
    assert cell.stdout == ""
    shared.ok(f"await asyncio.sleep(0)\n{undo}")
    picture(shared.ok(CELL))
    expect_off(shared)


def test_exceptions_that_refuse(shared: Kernel) -> None:
    shared.ok(PRELUDE + "\nREFUSAL = ZeroDivisionError")
    for name in ("Str", "Getattr", "Frozen", "Hash"):
        shared.ok(f"def make(): return {name}()")
        cell = shared.run(
            "%%arun --trace\nts = [asyncio.create_task(fails(), name='hostile')]\nawait asyncio.wait(ts)\n"
            "raised = [t.exception() for t in ts]; None"
        )
        drawn, text = picture(cell)
        assert "1 task (1 failed)" in text
        assert any(word.startswith("failed: ") for word in words(drawn))
    expect_off(shared)
