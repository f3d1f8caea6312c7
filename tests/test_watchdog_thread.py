"""The watchdog's thread: when there is one, what it survives, and that it interrupts nothing but the run it has looked at."""

from __future__ import annotations

import asyncio
import signal
import threading
import weakref

import pytest

from ipyrunner.aio.sigint import interrupt as interrupt_module
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.watchdog_thread import Watchdog, watchdog
from kernels import Kernel
from loops import spin


def test_a_watchdog_that_cannot_start_says_so_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    dog, called = Watchdog(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not dog.start()
        dog.call_later(0, lambda: called.set())
    assert dog.start()
    assert dog.start()
    assert called.wait(30)
    dog.stop()
    dog.stop()


def test_the_watchdog_survives_what_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    told, called = threading.Event(), threading.Event()
    times = iter([0.01, 0.01, None])
    monkeypatch.setattr(threading, "excepthook", lambda args: told.set())
    dog = Watchdog()
    dog.start()
    dog.call_later(0, lambda: 1 / 0)
    dog.call_later(0.01, lambda: next(times) or called.set())
    assert told.wait(30)
    assert called.wait(30)
    dog.stop()


def test_the_watchdog_keeps_nothing_of_what_it_has_called() -> None:
    class Cell:
        def __init__(self) -> None:
            self.called = threading.Event()

        def look(self) -> None:
            self.called.set()

    dog, freed = Watchdog(), threading.Event()
    dog.start()
    cell = Cell()
    weakref.finalize(cell, freed.set)
    called = cell.called
    dog.call_later(0, cell.look)
    del cell
    assert called.wait(30)
    assert freed.wait(30)  # no other request comes
    dog.stop()


def test_a_child_process_starts_a_watchdog_of_its_own() -> None:
    assert watchdog.start()
    called = threading.Event()
    before = watchdog._requests
    watchdog.after_fork()  # what os.fork calls in the child
    try:
        assert watchdog._requests is not before
        assert watchdog.start()
        watchdog.call_later(0, lambda: called.set())
        assert called.wait(30)
    finally:
        before.put(None)


def test_the_watchdog_ends_with_the_unloading(fresh: Kernel) -> None:
    find = "import threading\n[t.name for t in threading.enumerate() if 'watchdog' in t.name]"
    assert fresh.ok(find).value == "['ipyrunner: watchdog']"
    fresh.ok("dogs = [t for t in threading.enumerate() if 'watchdog' in t.name]\n%unload_ext ipyrunner")
    assert fresh.ok("[dog.join(30) for dog in dogs]; [dog.is_alive() for dog in dogs]").value == "[False]"
    fresh.ok("%load_ext ipyrunner")
    fresh.ok("import asyncio; kept = 'kept'; loop_id = id(asyncio.get_event_loop())")
    fresh.interrupted(fresh.begin("print('go'); await asyncio.sleep(60)"), "go")
    fresh.expect_alive()


def test_no_interrupt_is_sent_when_the_run_is_over(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The watchdog has looked, and is about to send: the run's end waits for that, and our handler gets the signal.
    sending, leaving = threading.Event(), threading.Event()
    real = interrupt_module.signal_main_thread

    def slowly() -> None:
        sending.set()
        leaving.wait(0.3)  # the main thread waits for us, and cannot set it, unless nothing holds it
        real()

    monkeypatch.setattr(interrupt_module, "signal_main_thread", slowly)
    watchdog.start()
    with Interrupt(loop, grace=0.01):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        interrupt = signal.getsignal(signal.SIGINT).__self__  # type: ignore[union-attr]
        interrupt._asks = True  # there is something to do on the main thread
        assert sending.wait(30)
    leaving.set()
    spin(0.5)  # a stray one would be raised in here
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigint_that_the_watchdog_has_sent_is_no_press_when_the_interrupt_is_over(
    loop: asyncio.AbstractEventLoop,
) -> None:
    with Interrupt(loop, grace=1) as interrupt:
        pass
    interrupt._sent = True
    interrupt.on_sigint(signal.SIGINT, None)
    assert interrupt.presses == 0
    interrupt.on_sigint(signal.SIGINT, None)
    assert interrupt.presses == 1


def test_a_press_of_an_earlier_request_does_nothing_in_a_later_one(fresh: Kernel) -> None:
    # The press comes when the cell's code has ended, and is looked at again after the grace period: by then another
    # request runs a hook, which would get it.
    fresh.ok(
        "import signal, threading\n%config NotebookRunner.interrupt_grace = 0.3\n"
        "from ipyrunner.aio.sigint.watchdog_thread import watchdog\nimport ipyrunner\n"
        "class Press:\n    count = 0\n"
        "    def press(self, *args):\n"
        "        get_ipython().events.unregister('post_run_cell', self.press)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    def wait(self, *args):\n"
        "        get_ipython().events.unregister('post_run_cell', self.wait)\n"
        "        # As if it had been pressed again, late, in this request: only the old look is due.\n"
        "        looked = threading.Event(); watchdog.call_later(0.5, lambda: looked.set())\n"
        "        owner = ipyrunner.get_runner().outside\n"
        "        owner._pressed = True\n"
        "        try: looked.wait(30); self.count = 1\n"
        "        finally: owner._pressed = False\n"
        "press = Press(); None"
    )
    fresh.ok("get_ipython().events.register('post_run_cell', press.press)")
    fresh.ok("get_ipython().events.register('post_run_cell', press.wait)")
    assert fresh.ok("press.count").value == "1"
    fresh.expect_alive()


def test_a_watchdog_whose_thread_has_ended_starts_another() -> None:
    dog, called = Watchdog(), threading.Event()
    assert dog.start()
    thread = dog._thread
    assert thread is not None
    dog._requests.put(None)  # ends it, as what it calls may
    thread.join(30)
    assert not thread.is_alive()
    assert dog.start()
    dog.call_later(0, lambda: called.set() and None)
    assert called.wait(30)
    dog.stop()


def test_a_thread_that_ends_late_is_not_taken_for_the_present_one() -> None:
    dog, begun, go = Watchdog(), threading.Event(), threading.Event()
    dog.start()
    first = dog._thread
    dog.call_later(0, lambda: begun.set() or (go.wait(30) and None) or None)
    assert begun.wait(30)
    dog.stop()
    dog.start()
    second = dog._thread
    go.set()
    assert first is not None
    first.join(30)
    assert dog._thread is second is not first
    dog.stop()
