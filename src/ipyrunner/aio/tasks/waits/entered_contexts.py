"""Which context managers a suspended coroutine is in: those whose ``with`` or ``async with`` it has begun and not left.

The problem: asyncio does not record who holds a lock, and the frame of a coroutine does not say what it has entered.

The solution: between the beginning and the end of such a block the manager's exit method is on the coroutine's stack,
which the garbage collector visits: to 3.13 the bound method, since 3.14 the function followed by the manager. But it is
there already while the manager is being entered, and a variable or an argument may hold such a method. So there are two
more conditions:

* The exception table of the code says which handlers the present instruction has. A block that was entered, and is not
  being entered or left, has one that begins with ``PUSH_EXC_INFO``, ``WITH_EXCEPT_START`` (3.11 to 3.15). There must
  not be more exit methods than such handlers.
* Exit methods do not count if the code itself names an exit method, if a variable holds them, or if the coroutine
  awaits ``__aenter__`` or ``__aexit__`` of their manager.

If a condition fails, nothing is known to be entered. ``all_entered`` says whether everything is known: as many managers
are found as there are blocks, and the code calls no such method itself. Checked on CPython 3.11, 3.13, 3.14 and 3.15.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from opcode import opmap
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodDescriptorType,
    MethodType,
)
from typing import Any

__all__ = ["MADE", "all_entered", "entered"]

_EXITS = frozenset(("__exit__", "__aexit__"))
_METHODS = frozenset((MethodType, FunctionType, BuiltinMethodType, MethodDescriptorType))
_HALF_WAY = ("__aenter__", "__aexit__")
# Code with these names may enter a manager without a block.
_BY_HAND = frozenset((*_EXITS, "__enter__", "__aenter__", "enter_context", "enter_async_context"))
_BEGINS = bytes((opmap.get("PUSH_EXC_INFO", 0), opmap.get("WITH_EXCEPT_START", 0)))
# The classes that @contextmanager and @asynccontextmanager use: private names since 3.6 and 3.7. Without them it is not
# known what a function decorated so has entered.
MADE = tuple(
    getattr(contextlib, name)
    for name in ("_GeneratorContextManager", "_AsyncGeneratorContextManager")
    if hasattr(contextlib, name)
)
# Generators in generators, handlers in handlers.
_DEEPEST = 100


def entered(suspended: object) -> list[object]:
    """Return the context managers that the coroutine or generator is in, outermost first; none if it runs.

    If one is made by ``@contextmanager`` or ``@asynccontextmanager``, also those that its function is in.
    """
    return _with_those_inside(suspended)[0]


def all_entered(suspended: object) -> list[object] | None:
    """As :func:`entered`, if these are certainly all that it is in; otherwise None."""
    found, is_all = _with_those_inside(suspended)
    return found if is_all else None


def _with_those_inside(suspended: object, depth: int = 0) -> tuple[list[object], bool]:
    own, is_all = ([], False) if depth > _DEEPEST else _own(suspended)
    found: list[object] = []
    for manager in own:
        found.append(manager)
        if type(manager) in MADE:
            inside, known = _with_those_inside(getattr(manager, "gen", None), depth + 1)
            found += inside
            is_all = is_all and known
    return found, is_all


def _own(suspended: Any) -> tuple[list[object], bool]:
    """Return the managers that it is in by blocks of its own, and whether these are all."""
    frame, inner = _at_rest(suspended)
    if frame is None:
        return [], False
    code = frame.f_code
    is_all = _BY_HAND.isdisjoint(code.co_names)
    if not code.co_exceptiontable:
        return [], is_all
    found = list(_exits(gc.get_referents(suspended)))
    if found and type(inner) is CoroutineType and inner.cr_code.co_name in _HALF_WAY:
        ids = set(map(id, gc.get_referents(inner)))
        half_way = next((i for i in reversed(range(len(found))) if id(found[i][1]) in ids), None)
        if half_way is not None:
            del found[half_way]
    if not _EXITS.isdisjoint(code.co_names):
        return [], False
    if found and code.co_varnames:
        values = frame.f_locals
        held = {id(values.get(name)) for name in code.co_varnames}
        found = [(method, manager) for method, manager in found if id(method) not in held]
    blocks = _blocks_around(code, frame.f_lasti) if found or is_all else 0
    if len(found) > blocks:
        return [], False
    return [manager for _, manager in found], is_all and len(found) == blocks


def _at_rest(suspended: Any) -> tuple[FrameType | None, object]:
    """Return the frame of *suspended*, and what it awaits; no frame if it runs, has not begun or has ended."""
    kind = type(suspended)
    if kind is CoroutineType:
        return (suspended.cr_frame, suspended.cr_await) if suspended.cr_suspended else (None, None)
    if kind is AsyncGeneratorType:
        # It counts as running also while it is suspended at an await.
        resting = suspended.ag_await is not None or not suspended.ag_running
        return (suspended.ag_frame, suspended.ag_await) if resting else (None, None)
    if kind is GeneratorType:
        return (suspended.gi_frame, suspended.gi_yieldfrom) if suspended.gi_suspended else (None, None)
    return None, None


def _exits(held: list[Any]) -> Iterator[tuple[object, object]]:
    """Yield the exit methods among what a coroutine holds, in its order, each with its manager."""
    if _METHODS.isdisjoint(map(type, held)):  # nearly always, and fastest
        return
    for i, each in enumerate(held):
        if type(each) is MethodType:
            if type(each.__func__) is FunctionType and each.__func__.__name__ in _EXITS:
                yield each, each.__self__
        elif type(each) is BuiltinMethodType:
            if each.__name__ in _EXITS:
                yield each, each.__self__
        elif type(each) in (FunctionType, MethodDescriptorType) and each.__name__ in _EXITS and i + 1 < len(held):
            manager = held[i + 1]
            if any(vars(cls).get(each.__name__) is each for cls in type(manager).__mro__):
                yield each, manager


def _blocks_around(code: CodeType, offset: int) -> int:
    """Return how many blocks of ``with`` and ``async with`` were entered, and not left, at the instruction."""
    handlers, instructions, found = list(_handlers(code)), code.co_code, 0
    for _ in range(_DEEPEST):
        # The handler for an exception in this handler is the next one outwards.
        target = next((target for start, end, target in handlers if start <= offset < end), None)
        if target is None:
            break
        found += instructions[target : target + 4 : 2] == _BEGINS
        offset = target
    return found


def _handlers(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """Yield beginning, end and target of each entry of the exception table, in bytes. CPython documents its format."""
    table = iter(code.co_exceptiontable)

    def number() -> int:
        byte = next(table)
        value = byte & 63
        while byte & 64:
            byte = next(table)
            value = value << 6 | byte & 63
        return value * 2

    with contextlib.suppress(StopIteration):
        while True:
            start = number()
            length, target, _ = number(), number(), number()
            yield start, start + length, target
