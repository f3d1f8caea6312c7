"""Replace an attribute or the class of one object, and restore exactly what was there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["Replacement", "Subclassing"]


class Replacement:
    """Put ``make(original)`` in the place of the method *name* of *owner*, until :meth:`restore`."""

    def __init__(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner = owner
        self._name = name
        self._own = vars(owner).get(name)
        self._active = True
        original = getattr(owner, name)
        replacement = make(original)

        # ipykernel looks at the signature (functools.wraps keeps it) to see which arguments it may pass.
        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return (replacement if self._active else original)(*args, **kwargs)

        self._method = method
        setattr(owner, name, method)

    def restore(self) -> None:
        """Restore the attribute; if somebody has replaced ours since, make ours pass everything on."""
        self._active = False
        if vars(self._owner).get(self._name) is not self._method:
            return
        if self._own is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._own)


class Subclassing:
    """Give one object a subclass of its class, ``make(own)``, until :meth:`restore`.

    For methods that others replace on the object in the meantime. They may put back the methods of the class that was
    there before: the methods of the subclass call ``own.method(self)``, not ``super()``, and change nothing any more
    once they are restored; :meth:`uncover` brings them back before that.
    """

    def __init__(self, owner: Any, make: Callable[[Any], type]) -> None:
        self._owner = owner
        self._own = type(owner)
        owner.__class__ = make(self._own)

    def uncover(self, name: str) -> None:
        """Delete the object's own attribute *name* if that is a method of a class of its, put there to restore it."""
        if getattr(vars(self._owner).get(name), "__self__", None) is self._owner:
            delattr(self._owner, name)

    def restore(self) -> None:
        """Restore the class."""
        self._owner.__class__ = self._own
