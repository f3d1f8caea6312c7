"""What makes asyncio's work dearer in a kernel, each cause alone, in a script: ``python benchmarks/explain.py``."""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shapes import SHAPES

from ipyrunner.aio.introspection.private_api import short_call_soon

Loop = asyncio.AbstractEventLoop


@contextmanager
def nothing(loop: Loop) -> Iterator[None]:
    yield


@contextmanager
def heap(loop: Loop) -> Iterator[None]:
    objects = [[{}] for _ in range(100_000)]  # about what a kernel has after a few imports
    gc.collect()
    yield
    objects.clear()


@contextmanager
def timer(loop: Loop) -> Iterator[None]:
    handle = loop.call_later(600, print)
    yield
    handle.cancel()


@contextmanager
def short(loop: Loop) -> Iterator[None]:
    cls = type(loop)
    cls.call_soon = short_call_soon(cls.__base__)
    yield


@contextmanager
def thread(loop: Loop) -> Iterator[None]:
    end = threading.Event()

    def wake() -> None:
        while not end.wait(0.02):
            pass

    started = threading.Thread(target=wake)
    started.start()
    yield
    end.set()
    started.join()


@contextmanager
def attributes(loop: Loop) -> Iterator[None]:
    for n in range(5):
        setattr(loop, f"attribute_{n}", None)
    yield


async def directly(work: Coroutine[Any, Any, None]) -> None:
    await work


async def six_deep(work: Awaitable[None], depth: int = 6) -> None:
    await (six_deep(work, depth - 1) if depth else work)


CAUSES: dict[str, tuple[Callable[[Loop], Any], Callable[[Any], Coroutine[Any, Any, None]], str]] = {
    "six awaits around the cell's code": (nothing, six_deep, "yields"),
    "a heap of 200,000 objects": (heap, directly, "gathers_of_coroutines"),
    "a heap of 200,000 objects, yields": (heap, directly, "yields"),
    "a timer in the loop": (timer, directly, "yields"),
    "a timer in the loop, echoes": (timer, directly, "echoes"),
    "a call_soon that calls no other function": (short, directly, "gathers_of_coroutines"),
    "a thread that wakes every 20 ms": (thread, directly, "gathers_of_tasks"),
    "five more attributes of the loop": (attributes, directly, "yields"),
}


def seconds(cause: Callable[[Loop], Any], around: Callable[[Any], Coroutine[Any, Any, None]], shape: str) -> float:
    # A class each: attributes that one loop has had cost the next ones of its class.
    loop = type("Loop", (asyncio.SelectorEventLoop,), {})()
    try:
        with cause(loop):
            start = time.process_time()
            loop.run_until_complete(around(SHAPES[shape]()))
            return time.process_time() - start
    finally:
        loop.close()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"Python {sys.version.split()[0]}, median of {rounds} rounds, processor time with the cause ÷ without it")
    for name, (cause, around, shape) in CAUSES.items():
        ratios = []
        for _ in range(rounds):
            pair = seconds(cause, around, shape), seconds(nothing, directly, shape)
            ratios.append(pair[0] / pair[1])
        print(f"{name:<50}{shape:<24}{statistics.median(ratios):.3f}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
