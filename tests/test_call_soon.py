"""The ``call_soon`` of the notebook's loop: it does what asyncio's does, with fewer calls of functions."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from ipyrunner.aio.introspection import loop_class
from ipyrunner.aio.introspection.loop_class import follow_patches, new_loop
from kernels import Kernel

Loop = Any


@pytest.fixture
def ours() -> Iterator[Loop]:
    """A loop whose class no other test has used."""
    loop_class._subclass.cache_clear()
    loop = new_loop()
    yield loop
    loop.close()
    loop_class._subclass.cache_clear()


@pytest.fixture(params=["asyncio's", "ours"])
def each(request: pytest.FixtureRequest, ours: Loop) -> Iterator[Loop]:
    """Yield asyncio's own loop, and ours: both must do the same."""
    loop = ours if request.param == "ours" else asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def calls(loop: Loop, function: Callable[[], object]) -> list[str]:
    """The Python functions that *function* calls."""
    found: list[str] = []

    def profile(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            found.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found[1:]


def test_it_calls_no_other_function(ours: Loop) -> None:
    assert calls(ours, lambda: ours.call_soon(print)) == ["call_soon"]
    assert calls(ours, lambda: asyncio.BaseEventLoop.call_soon(ours, print)) == [
        "call_soon",
        "_check_closed",
        "_call_soon",
        "__init__",
        "get_debug",
    ]


def test_callbacks_run_in_order_in_their_contexts(each: Loop) -> None:
    variable = contextvars.ContextVar("variable", default="outer")
    given, seen = contextvars.copy_context(), list[object]()
    given.run(variable.set, "given")

    def note(*args: object) -> None:
        seen.append((*args, variable.get()))

    handles = [each.call_soon(note, 1), each.call_soon(note, 2, "two", context=given), each.call_soon(note, 3)]
    handles[2].cancel()
    variable.set("later")  # each callback has the Context of when it was scheduled
    each.call_soon(each.stop)
    each.run_forever()
    assert seen == [(1, "outer"), (2, "two", "given")]
    assert all(type(handle) is asyncio.Handle for handle in handles)


def test_a_closed_loop_refuses(each: Loop) -> None:
    each.close()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        each.call_soon(print)


@pytest.mark.parametrize("arguments", [(), (print, 1)], ids=["none", "context"])
def test_wrong_arguments_are_refused(each: Loop, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="call_soon"):
        each.call_soon(*arguments, contexts=None)


def test_debug_mode_checks_what_is_scheduled_and_where(each: Loop) -> None:
    async def coroutine() -> None: ...

    each.set_debug(True)
    with pytest.raises(TypeError, match=r"a callable object was expected by call_soon\(\)"):
        each.call_soon(1)
    coro = coroutine()
    with pytest.raises(TypeError, match=r"coroutines cannot be used with call_soon\(\)"):
        each.call_soon(coro)
    coro.close()
    raised: list[BaseException] = []

    def from_a_thread() -> None:
        try:
            each.call_soon(print)
        except BaseException as error:
            raised.append(error)

    def start() -> None:
        thread = threading.Thread(target=from_a_thread)
        thread.start()
        thread.join()
        each.stop()

    each.call_soon(start)
    each.run_forever()
    assert [type(error) for error in raised] == [RuntimeError]
    assert "Non-thread-safe operation" in str(raised[0])


def test_debug_mode_names_the_users_line(each: Loop) -> None:
    each.set_debug(True)
    handle = each.call_soon(print)
    assert f"created at {__file__}" in repr(handle)
    assert [frame.name for frame in handle._source_traceback][-1] == "test_debug_mode_names_the_users_line"


@pytest.fixture
def patch(ours: Loop, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a replacement of asyncio's call_soon was called with."""
    seen: list[object] = []
    original = asyncio.BaseEventLoop.call_soon

    def patched(self: Any, callback: Any, *args: Any, context: Any = None) -> Any:
        seen.append(callback)
        return original(self, callback, *args, context=context)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon", patched)
    return seen


def test_the_handle_is_as_asyncio_makes_it(ours: Loop) -> None:
    context = contextvars.copy_context()

    def state(loop: Loop) -> dict[str, object]:
        handle = loop.call_soon(print, 1, 2, context=context)
        return {
            name: getattr(handle, name) for name in asyncio.Handle.__slots__ if name not in ("_loop", "__weakref__")
        }

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert state(ours) == state(runner.get_loop())
    handle = ours.call_soon(print)
    assert handle._loop is ours
    assert handle.get_context() if sys.version_info >= (3, 12) else handle._context
    assert repr(handle) == "<Handle print()>"


@pytest.mark.parametrize("what", ["the class", "how it is made"])
def test_a_replacement_of_handle_is_used_from_the_next_cell(
    ours: Loop, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    make = asyncio.Handle.__init__

    def note(self: asyncio.Handle, *args: Any) -> None:
        make(self, *args)
        made.append(self)

    if what == "the class":
        monkeypatch.setattr(asyncio.events, "Handle", type("Handle", (asyncio.Handle,), {"__init__": note}))
    else:
        monkeypatch.setattr(asyncio.Handle, "__init__", note)
    follow_patches(ours)
    assert made == [ours.call_soon(print)]


def test_a_replacement_in_asyncios_class_is_used_from_the_next_cell(ours: Loop, patch: list[object]) -> None:
    follow_patches(ours)
    ours.call_soon(print)
    assert patch == [print]


def test_a_replacement_in_the_loops_class_is_used_at_once(ours: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, seen = type(ours), list[object]()
    original = cls.__base__.call_soon

    def patched(self: Any, callback: Any, *args: Any, context: Any = None) -> Any:
        seen.append(callback)
        return original(self, callback, *args, context=context)

    monkeypatch.setattr(cls.__base__, "call_soon", original)  # restored after the test
    cls.call_soon = patched
    ours.call_soon(print)
    assert seen == [print]


def test_a_patch_of_the_loops_class_that_is_undone_leaves_nothing(ours: Loop) -> None:
    cls: Any = type(ours)
    short = cls.call_soon
    with mock.patch.object(cls, "call_soon", autospec=True, side_effect=short) as patched:
        ours.call_soon(print)
        patched.assert_called_once()
    assert cls.call_soon is short
    assert cls.__base__.call_soon is asyncio.BaseEventLoop.call_soon
    assert "call_soon" not in vars(cls.__base__)
    other = cls.__base__()
    other.close()
    with pytest.raises(RuntimeError, match="closed"):
        other.call_soon(print)
    ours.set_debug(True)
    ours.call_soon(ours.stop)
    ours.run_forever()
    assert calls(ours, lambda: ours.call_soon(print))[:2] == ["call_soon", "call_soon"]


def test_a_wrapper_in_the_loops_class(ours: Loop) -> None:
    cls: Any = type(ours)
    short, seen = cls.call_soon, list[object]()

    def counted(self: Any, callback: Any, *args: Any, context: Any = None) -> Any:
        seen.append(callback)
        return short(self, callback, *args, context=context)

    cls.call_soon = counted
    try:
        for debug in (False, True):
            ours.set_debug(debug)
            ours.call_soon(print)
        assert seen == [print, print]
        ours.close()
        with pytest.raises(RuntimeError, match="closed"):
            ours.call_soon(print)
    finally:
        cls.call_soon = short
    assert "call_soon" not in vars(cls.__base__)


def test_a_replacement_that_is_undone_is_over_in_the_next_cell(ours: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    short = type(ours).call_soon
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.BaseEventLoop, "_call_soon", asyncio.BaseEventLoop._call_soon.__get__(ours))
        follow_patches(ours)
        assert type(ours).call_soon is asyncio.BaseEventLoop.call_soon
    follow_patches(ours)
    assert type(ours).call_soon is short


def test_a_class_with_another_call_soon_keeps_it(patch: list[object]) -> None:
    loop_class._subclass.cache_clear()
    loop = new_loop()
    try:
        loop.call_soon(print)
        assert patch == [print]
    finally:
        loop.close()
        loop_class._subclass.cache_clear()


def test_a_replacement_made_in_a_cell(shared: Kernel) -> None:
    shared.ok(
        "import asyncio\n"
        "seen, original = [], asyncio.BaseEventLoop.call_soon\n"
        "def patched(self, callback, *args, context=None):\n"
        "    seen.append(self)\n"
        "    return original(self, callback, *args, context=context)\n"
        "asyncio.BaseEventLoop.call_soon = patched"
    )
    try:
        assert shared.ok("await asyncio.sleep(0)\n(loop := asyncio.get_running_loop()) in seen").value == "True"
        assert shared.ok("seen.clear(); asyncio.get_event_loop().call_soon(str); loop in seen").value == "True"
    finally:
        shared.ok("asyncio.BaseEventLoop.call_soon = original")
    assert shared.ok("seen.clear(); await asyncio.sleep(0)\nseen").value == "[]"
