"""Looking at the stack of another thread, which goes on."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading

import pytest

from ipyrunner.aio.introspection.stacks import callers, frames_of, local_of
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
