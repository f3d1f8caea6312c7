"""Who has SIGINT's handler, and what ours does: beside handlers of the user's, deep in a recursion, while it runs already."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from types import FrameType

import pytest

from ipyrunner import NotebookRunner
from ipyrunner.aio.introspection.running_callback import Holder
from ipyrunner.aio.sigint.defer_sigint import Held
from ipyrunner.aio.sigint.interrupt import Interrupt
from ipyrunner.aio.sigint.wakeup_fd import Wakeup
from loops import press, wait_for_rest


def test_handler_and_wakeup_fd_are_handed_back(runner: NotebookRunner) -> None:
    runner.run(asyncio.sleep(0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_what_the_user_sets_meanwhile_stays(loop: asyncio.AbstractEventLoop) -> None:
    ends = socket.socketpair()
    ends[1].setblocking(False)

    def mine(*args: object) -> None:
        pass

    async def main() -> None:
        signal.signal(signal.SIGINT, mine)
        signal.set_wakeup_fd(ends[1].fileno())

    try:
        wakeup = Wakeup(loop)
        with wakeup.on_signals(), Interrupt(loop, grace=1):
            loop.run_until_complete(main())
        assert signal.getsignal(signal.SIGINT) is mine
        assert signal.set_wakeup_fd(-1) == ends[1].fileno()
        wakeup.close()
        wakeup.close()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for end in ends:
            end.close()


def test_a_handler_of_the_users_is_not_replaced(runner: NotebookRunner) -> None:
    def mine(*args: object) -> None:
        log.append("mine")

    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)

    log: list[str] = []
    signal.signal(signal.SIGINT, mine)
    try:
        runner.run(main())
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert log == ["mine"]


def test_a_press_that_a_handler_of_the_users_took_is_not_ours(runner: NotebookRunner) -> None:
    taken: list[int] = []

    async def main() -> str:
        before = signal.signal(signal.SIGINT, lambda signum, frame: taken.append(signum))
        press()
        signal.signal(signal.SIGINT, before)
        await asyncio.sleep(0.1)
        return "not interrupted"

    assert runner.run(main()) == "not interrupted"
    assert taken == [signal.SIGINT]


def test_a_signal_handler_of_the_loop_is_called_in_later_cells(runner: NotebookRunner) -> None:
    loop = runner.get_loop()
    came = asyncio.Event()

    async def install() -> None:
        loop.add_signal_handler(signal.SIGUSR1, came.set)

    async def wait() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 10)

    runner.run(install())
    runner.run(wait())
    loop.remove_signal_handler(signal.SIGUSR1)


# On another thread: the main one's select() is woken by the wakeup fd, and the handler runs in the callback that reads it.
@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another thread"])
@pytest.mark.parametrize("base", [BaseException, Exception, SystemExit, KeyboardInterrupt])
def test_what_a_signal_handler_raises_ends_the_cell_that_waits(
    runner: NotebookRunner, base: type[BaseException], elsewhere: bool
) -> None:
    alarm = type("Alarm", (base,), {})

    def ring(*args: object) -> None:
        raise alarm

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, rest.set)
        await asyncio.sleep(60)

    if base in (SystemExit, KeyboardInterrupt) and not isinstance(runner.get_loop(), asyncio.BaseEventLoop):
        pytest.skip("uvloop ends its run by these itself: whose they are cannot be told")
    rest = threading.Event()
    before = signal.signal(signal.SIGUSR1, ring)

    def send() -> None:
        assert rest.wait(30)
        wait_for_rest(main_thread)
        signal.pthread_kill(threading.get_ident() if elsewhere else main_thread, signal.SIGUSR1)

    main_thread = threading.get_ident()
    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(alarm):
            runner.run(main())
    finally:
        thread.join(30)
        signal.signal(signal.SIGUSR1, before)


def test_deep_in_a_recursion_the_handler_raises_nothing(runner: NotebookRunner) -> None:
    raised: list[BaseException] = []
    levels: list[int] = []

    def dig() -> None:
        try:
            dig()
        except RecursionError:
            # Almost as deep as a frame can be: the handler can be called, and what that calls cannot.
            levels.append(1)
            if len(levels) == 5:
                signal.raise_signal(signal.SIGINT)
            raise

    async def child() -> None:
        try:
            dig()
        except RecursionError as exc:
            raised.append(exc)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runner.run(child())
    assert [type(exc) for exc in raised] == [RecursionError]


@pytest.mark.parametrize("ending", ["goes on", "ends", "ends at once"])
def test_a_press_deep_in_a_recursion_is_not_lost(runner: NotebookRunner, ending: str) -> None:
    deepest, refused = 0, list[int]()

    def down(depth: int) -> None:
        nonlocal deepest
        deepest = depth
        if depth != target:
            down(depth + 1)
            return
        try:
            press()
        except RecursionError:
            refused.append(target)  # so few frames are left that no handler can be called: not in a script either

    async def main() -> None:
        with contextlib.suppress(RecursionError):
            down(0)
        if ending == "goes on":
            await asyncio.sleep(0 if refused or target < 0 else 30)
        elif ending == "ends":
            await asyncio.sleep(0)

    target = -1
    runner.run(main())
    for left in range(2, 40):
        target, before = deepest - left, runner.interrupts
        refused.clear()
        try:
            runner.run(main())
        except KeyboardInterrupt:
            assert runner.interrupts > before
        else:
            assert refused, left
            assert left < 8
        assert runner.run(asyncio.sleep(0, "next")) == "next"


def test_sigint_while_another_is_handled_waits_for_its_end(runner: NotebookRunner) -> None:
    # Where a handler takes longer than the watchdog waits between two looks, handlers would interrupt each other for ever.
    nested, handled = 0, 0

    def profile(frame: FrameType | None, event: str, argument: object) -> None:
        nonlocal nested, handled
        if event != "call" or frame is None or frame.f_code is not Holder.look.__code__:
            return
        depth = 0
        while frame is not None:
            depth += frame.f_code is Interrupt.on_sigint.__code__
            frame = frame.f_back
        nested, handled = max(nested, depth), handled + (depth > 0)
        if depth and handled < 20:
            press()

    async def main() -> None:
        sys.setprofile(profile)
        press()
        await asyncio.sleep(30)

    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
    finally:
        sys.setprofile(None)
    assert handled > 0
    assert nested == 1
    assert runner.interrupts > 1
    assert runner.run(asyncio.sleep(0, "next")) == "next"


def test_held_keeps_a_signal_out_and_lets_it_into_the_cell() -> None:
    log = []
    with Held() as held:
        signal.raise_signal(signal.SIGINT)
        log.append("not torn")
        with pytest.raises(KeyboardInterrupt):
            held.let_through(lambda: log.append("not run"))
    with Held() as held:
        with pytest.raises(KeyboardInterrupt):
            held.let_through(lambda: signal.raise_signal(signal.SIGINT))
        signal.raise_signal(signal.SIGINT)  # came too late: dropped
    assert log == ["not torn"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_held_keeps_the_handler_that_the_cell_leaves() -> None:
    def mine(*args: object) -> None:
        pass

    try:
        with Held() as held:
            held.let_through(lambda: signal.signal(signal.SIGINT, mine))
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
