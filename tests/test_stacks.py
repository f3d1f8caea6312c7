"""Looking at the stack of another thread, which goes on."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ipyrunner.aio.introspection.running_callback import Holder, drives_loop, runs_other_loop
from ipyrunner.aio.introspection.stacks import callers, frames_of, local_of
from ipyrunner.aio.introspection.wait_graph import awaits
from kernels import BEFORE, Kernel

# A collection begins at nearly each frame object, and lets the other threads go on.
COLLECTIONS = """
import gc, threading, time
def let_go(phase, info):
    if threading.current_thread() is not threading.main_thread(): time.sleep(0)
gc.callbacks.append(let_go)
gc.set_threshold(1)
"""
# The functions of the main thread return all the time.
LOOKS = """
import sys
from ipyrunner.aio.introspection.stacks import frames_of, local_of
sys.setswitchinterval(1e-5)
ended, main = [], threading.get_ident()
def look():
    for _ in range(250):
        frames = frames_of(main)
        lines = [frame.f_lineno for frame in frames]
        called = [frame for frame in frames if frame.f_code.co_name == 'f']
        if called: local_of(called[0], 'a')
    ended.append(True)
def f(n, a):
    b = [n]
    return f(n - 1, b) if n else [g() for _ in range(10)]
def g():
    return [object() for _ in range(10)]
thread = threading.Thread(target=look)
thread.start()
while not ended: f(20, None)
thread.join()
gc.callbacks.remove(let_go)
print(gc.isenabled())
"""


@pytest.mark.each_python
def test_a_look_while_the_functions_return() -> None:
    # In a process of its own: before, it ended with a segmentation fault on 3.11.
    done = subprocess.run([sys.executable, "-c", COLLECTIONS + LOOKS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.each_python
def test_a_kernel_goes_on_while_threads_look(fresh: Kernel) -> None:
    # After an interrupt one looks what holds the loop, and another one looks for slow callbacks.
    fresh.ok(BEFORE + COLLECTIONS + "%config NotebookRunner.slow_callback = 0.004")
    returns = "def f(n): return f(n - 1) if n else [object() for _ in range(10)]\n"
    waits = "end = time.monotonic() + 1\nwhile time.monotonic() < end: f(20); await asyncio.sleep(0)\n"
    for _ in range(3):
        cell = fresh.begin(
            f"{returns}print('go')\ntry: await asyncio.sleep(60)\nfinally:\n{textwrap.indent(waits, '    ')}"
        )
        fresh.interrupted(cell, "go")
        assert cell.ename == "KeyboardInterrupt"
        fresh.expect_alive()


def test_the_stack_of_a_thread() -> None:
    go, gone = threading.Event(), threading.Event()

    def inner(self: str) -> None:
        gone.set()
        go.wait()

    thread = threading.Thread(target=inner, args=("its own",))
    thread.start()
    gone.wait()
    frames = frames_of(thread.ident)
    (frame,) = [frame for frame in frames if frame.f_code is inner.__code__]
    assert frames[frames.index(frame) + 1].f_code is threading.Thread.run.__code__
    assert frames == list(callers(frames[0]))
    assert local_of(frame, "self") == "its own"
    assert local_of(frame, "another") is None
    go.set()
    thread.join()
    assert frames_of(thread.ident) == frames_of(None) == []


@pytest.mark.parametrize("is_on", [True, False])
def test_the_collector_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, is_on: bool) -> None:
    def fail() -> None:
        raise MemoryError

    was_on = gc.isenabled()
    try:
        (gc.enable if is_on else gc.disable)()
        assert frames_of(threading.get_ident())
        assert gc.isenabled() is is_on
        monkeypatch.setattr(sys, "_current_frames", fail)
        with pytest.raises(MemoryError):
            frames_of(threading.get_ident())
        assert gc.isenabled() is is_on
    finally:
        (gc.enable if was_on else gc.disable)()


# The first thing that is allocated begins a collection, which lets the function return, and others take its place.
VARIABLES = """
import gc, threading
from ipyrunner.aio.introspection.stacks import frames_of, local_of
watches, collects, returned, found, main = *(threading.Event() for _ in range(3)), [], threading.get_ident()
def let_go(phase, info):
    if threading.get_ident() != main: collects.set(); returned.wait(1)
exec("def f(a):\\n    watches.set(); collects.wait(1)\\n    if a is None: " + " = ".join(f"v{n}" for n in range(60)) + " = 1")
def recurse(n, *rest):
    if n: return recurse(n - 1, n, n, n, n, n)
    returned.set()
def look():
    watches.wait(10)
    (frame,) = [frame for frame in frames_of(main) if frame.f_code.co_name == "f"]
    held = [[{} for n in range(200)], [(n,) for n in range(5000)]]  # Python keeps some to use them again
    gc.enable()
    found.append(local_of(frame, "a"))
    gc.disable()
gc.disable()
gc.set_threshold(1)
gc.callbacks.append(let_go)
thread = threading.Thread(target=look)
thread.start()
f("the value"); recurse(50)
thread.join()
print(*found)
"""


@pytest.mark.each_python
def test_a_variable_of_a_function_that_returns() -> None:
    done = subprocess.run([sys.executable, "-c", VARIABLES], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the value\n", "")


# What is called run_forever may be a function of the user's. The one that lets go has to wait until it has returned.
USERS_FUNCTION = """
import asyncio, threading
from ipyrunner.aio.introspection.running_callback import Holder
from ipyrunner.aio.introspection.stacks import frames_of
main = threading.get_ident()
dropped, returned, looked, goes_on = (threading.Event() for _ in range(4))
class Dropped:
    def __del__(self):
        if threading.get_ident() != main: dropped.set(); returned.wait(10)
names = [f"v{n}" for n in range(60)]
lines = ["def run_forever(n):", "a = Dropped()", *(f"{name} = [n]" for name in names)]
lines += ["goes_on.set(); looked.wait(10); looked.clear()", "a = Dropped()", "goes_on.set(); dropped.wait(0.5)"]
exec("\\n    ".join(lines))
def recurse(n):
    if n: return recurse(n - 1)
    returned.set(); looked.wait(10)
def look():
    holder = Holder(asyncio.new_event_loop(), everything=True)
    for _ in range(2): goes_on.wait(10); goes_on.clear(); holder.look(frames_of(main)); looked.set()
thread = threading.Thread(target=look)
thread.start()
run_forever(1); recurse(12)
thread.join()
print(dropped.is_set())
"""


@pytest.mark.each_python
def test_variables_of_the_users_functions_are_left_alone() -> None:
    # Up to 3.12 reading them would drop what they were before, and run its finalizer.
    done = subprocess.run([sys.executable, "-c", USERS_FUNCTION], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "False\n")


@drives_loop
def drive(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()


class Nested:
    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def run_until_complete(self, future: asyncio.Future[Any]) -> None:
        while not future.done():
            self._loop._run_once()


def _of_class(loop: Any, future: asyncio.Future[Any]) -> None:
    Nested(loop).run_until_complete(future)


def run_forever(loop: Any, future: asyncio.Future[Any]) -> None:
    while not future.done():
        loop._run_once()


@pytest.mark.parametrize("runs", [_of_class, run_forever])
def test_a_loop_that_the_users_function_runs_inside_itself_is_at_rest(loop: Any, runs: Callable[..., None]) -> None:
    holder, seen, thread = Holder(loop), list[object](), threading.get_ident()

    def look(future: asyncio.Future[Any]) -> None:
        end = time.monotonic() + 10
        while (held := holder.look(frames_of(thread))) is not None and time.monotonic() < end:
            time.sleep(0.001)
        seen.append(held)
        loop.call_soon_threadsafe(future.set_result, None)

    def callback() -> None:
        future = loop.create_future()
        loop.call_soon(lambda: watcher.start())
        watcher = threading.Thread(target=look, args=(future,))
        runs(loop, future)
        watcher.join()
        loop.stop()

    loop.call_soon(callback)
    drive(loop)
    assert seen == [None]


def test_the_chain_of_a_coroutine_that_ends_on_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its frame was there when it was asked for first, and not a second time.
    ended, found = threading.Event(), list[int]()

    async def short() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        thread.start()
        while not ended.is_set():
            tasks[:] = [asyncio.create_task(short())]
            await tasks[0]

    def look() -> None:
        try:
            for _ in range(20_000):
                found.extend(len(awaits(task)) for task in tasks)
        finally:
            ended.set()

    tasks: list[asyncio.Task[None]] = []
    failed = list[object]()
    monkeypatch.setattr(threading, "excepthook", failed.append)
    thread, interval = threading.Thread(target=look), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert failed == []
    assert found


def test_classes_of_loops_may_have_anything_in_the_place_of_a_method() -> None:
    class Raises:
        def __getattribute__(self, name: str) -> object:
            raise SystemExit

    class Loop(asyncio.BaseEventLoop):
        run_forever: Any = Raises()

    def run_forever() -> list[bool]:
        made = asyncio.new_event_loop()
        try:
            return [runs_other_loop(frame, made) for frame in callers(sys._getframe())]
        finally:
            made.close()

    assert not any(run_forever())
    del Loop


def test_a_loop_whose_methods_somebody_has_wrapped_is_known_by_asyncios_own(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    original, other, found = asyncio.BaseEventLoop.run_forever, asyncio.new_event_loop(), list[bool]()
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_forever", lambda self: original(self))

    def callback() -> None:
        found.extend(runs_other_loop(frame, loop) for frame in callers(sys._getframe()))
        other.stop()

    try:
        other.call_soon(callback)
        other.run_forever()
    finally:
        other.close()
    assert any(found)
