"""Replace an attribute, an item or the class of one object, and restore it unless somebody has replaced it since.

What others have put there since stays. It may call our replacement, which then passes each call on to the original.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

__all__ = ["ItemReplacement", "Override", "Replacement", "Replacements", "Subclassing"]


class Override:
    """Put ``make(original)`` in the place of the attribute *name* of *owner*, until :meth:`restore`.

    Code that has wrapped it goes on calling it after that: then it must call the original, as ``Replacement`` does.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        self._owner, self._name = owner, name
        self._before = self._read()
        self._is_inherited = _is_inherited(owner, name, self._before)
        self._ours: Any = make(self._before)
        self._write(self._ours)

    def restore(self) -> None:
        """Restore what was there, if ours is there now. Idempotent."""
        ours, self._ours = self._ours, None
        if ours is None or self._read() is not ours:
            return
        if self._is_inherited:
            self._delete()
        else:
            self._write(self._before)

    # Not vars(owner): on Python 3.11 and 3.12, reading it makes every later method call on a loop slower.

    def _read(self) -> Any:
        return getattr(self._owner, self._name, None)

    def _write(self, value: Any) -> None:
        setattr(self._owner, self._name, value)

    def _delete(self) -> None:
        delattr(self._owner, self._name)


class Replacement(Override):
    """As :class:`Override`, for a method: after :meth:`restore` the replacement calls the original."""

    def __init__(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._switch_off: Callable[[], None]

        def switch(original: Callable[..., Any]) -> Callable[..., Any]:
            called = make(original)

            # ipykernel looks at the signature (functools.wraps keeps it) to see which arguments it may pass.
            @functools.wraps(original)
            def method(*args: Any, **kwargs: Any) -> Any:
                return called(*args, **kwargs)

            with suppress(Exception):  # the original may be anything
                # Asked for in each cell: to find it out again each time takes longer than all that we do there.
                method.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]

            def switch_off() -> None:
                nonlocal called
                called = original

            self._switch_off = switch_off
            return method

        super().__init__(owner, name, switch)

    def restore(self) -> None:
        """Restore what was there, if ours is there now; from now on ours calls the original. Idempotent."""
        self._switch_off()
        super().restore()


class ItemReplacement(Replacement):
    """As :class:`Replacement`, of the item *name* of the mapping *owner*."""

    def __init__(
        self, owner: MutableMapping[str, Any], name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        super().__init__(owner, name, make)
        self._is_inherited = False

    def _read(self) -> Any:
        return self._owner.get(self._name)

    def _write(self, value: Any) -> None:
        self._owner[self._name] = value


def _is_inherited(owner: Any, name: str, value: Any) -> bool:
    """Return whether *value* is a method of the class of *owner*, and not an attribute of *owner* itself."""
    of_class: Any = getattr(type(owner), name, None)
    if not hasattr(of_class, "__get__"):
        return False
    method = of_class.__get__(owner, type(owner))
    # Not by == alone: what the user has put there may be anything.
    return type(method) is type(value) and bool(method == value)


class Subclassing:
    """Give one object a subclass of its class, ``make(own)``, until :meth:`restore`.

    For methods that others, too, replace on the object and later restore. They may put our subclass's method back after
    :meth:`restore`: so these methods call ``own.method(self)``, not ``super()``, and have no effect of their own then.
    Or they cover it by a method that they put back before: :meth:`uncover` removes that.
    """

    def __init__(self, owner: Any, make: Callable[[Any], type]) -> None:
        self._owner = owner
        self._own = type(owner)
        self._ours = owner.__class__ = make(self._own)

    def uncover(self, name: str) -> None:
        """Delete the object's own attribute *name* if it is a bound method of the object, put there to restore it."""
        if getattr(vars(self._owner).get(name), "__self__", None) is self._owner:
            delattr(self._owner, name)

    def restore(self) -> None:
        """Restore the class, unless somebody has given the object another one since."""
        if type(self._owner) is self._ours:
            self._owner.__class__ = self._own


class Replacements:
    """Several replacements and subclassings, which are restored together."""

    def __init__(self) -> None:
        self._all: list[Replacement | Subclassing] = []

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._all)

    def replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Add a :class:`Replacement`."""
        self._all.append(Replacement(owner, name, make))

    def subclass(self, owner: Any, make: Callable[[Any], type]) -> None:
        """Add a :class:`Subclassing`."""
        self._all.append(Subclassing(owner, make))

    def uncover(self, name: str) -> None:
        """Bring the method *name* of all subclasses back, see ``Subclassing.uncover``."""
        for each in self._all:
            if isinstance(each, Subclassing):
                each.uncover(name)

    def restore(self) -> None:
        """Restore what was there, the last first. Idempotent."""
        while self._all:
            self._all.pop().restore()
