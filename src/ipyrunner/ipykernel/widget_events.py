"""Await changes and events of a widget, or of any object with traits: the next one, or all of them.

Callbacks come on any thread (ipykernel's subshells have their own) and while the notebook's loop is at rest: all of
them go to the loop by ``call_soon_threadsafe``. ipywidgets is not needed: an object has traits if it has ``observe``,
and events if it has ``on_NAME(callback, remove=False)``.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..aio.tasks.safe_names import repr_of

__all__ = ["Changes", "comm_closed", "event"]

# All watches, for comm_closed(); changed and read on any thread.
_watches: weakref.WeakSet[_Watch] = weakref.WeakSet()
_lock = threading.Lock()
# Members of HasTraits and Widget that are named like events.
_NO_EVENTS = ("on_trait_change", "on_widget_constructed")


def event(source: Any, name: str | None = None) -> asyncio.Future[Any]:
    """Return a future for what happens next to *source*, see ``ipyrunner.event``."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "ipyrunner.event() needs a running event loop, and none runs here: write `await ipyrunner.event(...)`, or "
            "begin the cell with %%arun"
        ) from None
    future: asyncio.Future[Any] = loop.create_future()

    def succeed(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    def fail(reason: str) -> None:
        if not future.done():
            future.set_exception(RuntimeError(f"{reason}, so its {watch.name!r} will not come: make a new one"))
            future.exception()  # retrieved: if nobody awaits the future any more, this is no error

    watch = _Watch(
        source,
        name,
        happened=lambda value: _call_in(loop, succeed, value),
        closed=lambda reason: _call_in(loop, fail, reason),
    )
    # Not in the callback itself: ipywidgets goes through its list of callbacks, and would skip the next one.
    future.add_done_callback(lambda _: watch.stop())
    return future


class Changes:
    """Iterate over what happens to *source* from now on, see ``ipyrunner.changes``."""

    def __init__(self, source: Any, name: str | None = None, *, latest: bool = False) -> None:
        self._inbox = inbox = _Inbox(latest)
        # The callbacks hold the inbox and not this object: after `break` the object is freed, and watching ends.
        self._watch = _Watch(source, name, happened=inbox.put, closed=inbox.close)

    def __repr__(self) -> str:
        watch = self._watch
        return f"<changes of {watch.name!r} of a {watch.owner}, {len(self._inbox.values)} not read yet>"

    def __aiter__(self) -> Changes:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        # Not a coroutine of this object: IPython keeps the traceback of an interrupt, and so its frame and this object.
        return self._inbox.get()

    async def __aenter__(self) -> Changes:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._end()

    async def aclose(self) -> None:
        """Stop watching, and end an iteration that waits; values that were not read are dropped. Idempotent."""
        self._end()

    def _end(self) -> None:
        self._watch.stop()
        self._inbox.values.clear()
        self._inbox.close()

    def __del__(self) -> None:
        watch = getattr(self, "_watch", None)  # missing if there was nothing to watch
        if watch is not None:
            watch.stop()


class _Inbox:
    """Values, put on any thread and read by one task."""

    def __init__(self, latest: bool) -> None:
        self.values: deque[Any] = deque(maxlen=1 if latest else None)
        self._closed = False
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, value: Any) -> None:
        self.values.append(value)
        self._wake()

    def close(self, reason: str = "") -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            _call_in(waiter[0], waiter[1].set)

    async def get(self) -> Any:
        if self._waiter is not None:
            raise RuntimeError(
                "another task is already iterating over these changes: call ipyrunner.changes() once for each task"
            )
        wake = asyncio.Event()
        self._waiter = asyncio.get_running_loop(), wake
        try:
            # A value that is put from now on wakes this task; one that was put before is seen here.
            while not self.values:
                if self._closed:
                    raise StopAsyncIteration
                await wake.wait()
                wake.clear()
            return self.values.popleft()
        finally:
            self._waiter = None


class _Watch:
    """Call *happened* with each value and *closed* when there will be no more, on any thread, until :meth:`stop`."""

    def __init__(
        self, source: Any, name: str | None, *, happened: Callable[[Any], None], closed: Callable[[str], None]
    ) -> None:
        self._source = source
        self.owner = type(source).__name__
        self.name = _name(source, name)
        self._happened = happened
        self._closed = closed
        self._active = True
        # ipywidgets: Widget.close() sets ``comm`` to None.
        self._has_comm = _has_trait(source, "comm")
        if self._has_comm and source.comm is None:
            raise RuntimeError(f"this {self.owner} is closed, so nothing can happen to it: make a new one")
        self._is_trait = _has_trait(source, self.name)
        if self._is_trait:
            source.observe(self._on_change, self.name)
        else:
            getattr(source, f"on_{self.name}")(self._on_event)
        if self._has_comm:
            source.observe(self._on_comm, "comm")
        with _lock:
            _watches.add(self)

    def stop(self) -> None:
        """Unregister everything. Idempotent."""
        if not self._active:
            return
        self._active = False
        source, self._source = self._source, None
        with suppress(ValueError):  # somebody has unregistered all observers
            if self._is_trait:
                source.unobserve(self._on_change, self.name)
            else:
                getattr(source, f"on_{self.name}")(self._on_event, remove=True)
        if self._has_comm:
            with suppress(ValueError):
                source.unobserve(self._on_comm, "comm")

    def _on_change(self, change: Any) -> None:
        if self._active:
            self._happened(change["new"])

    def _on_event(self, *args: Any, **kwargs: Any) -> None:
        if self._active:
            self._happened(args[0] if len(args) == 1 else args or kwargs)

    def _on_comm(self, change: Any) -> None:
        if self._active and change["new"] is None:
            self._closed(f"this {self.owner} was closed")

    def on_comm_closed(self, comm_id: object) -> None:
        source = self._source
        if self._has_comm and source is not None and getattr(source.comm, "comm_id", None) == comm_id:
            self._closed(f"the front end has closed this {self.owner}")


def comm_closed(comm_id: object) -> None:
    """Tell all watches of the widget with this comm that the front end has closed it. On any thread."""
    with _lock:
        watches = list(_watches)
    for watch in watches:
        watch.on_comm_closed(comm_id)


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    with suppress(RuntimeError):  # closed by `%arunner restart`, which has ended the tasks that waited
        loop.call_soon_threadsafe(function, *args)


def _has_trait(source: Any, name: str) -> bool:
    return _has_traits(source) and bool(source.has_trait(name))


def _has_traits(source: Any) -> bool:
    return all(hasattr(source, method) for method in ("observe", "unobserve", "has_trait", "trait_names"))


def _name(source: Any, name: str | None) -> str:
    """Return the name of what is to be watched; TypeError and ValueError say what there is to watch."""
    if isinstance(source, type):
        raise TypeError(f"{source.__name__} is a class: pass an instance, the widget that is displayed")
    traits = source.trait_names() if _has_traits(source) else []
    members = [member for member in dir(type(source)) if member.startswith("on_") and member not in _NO_EVENTS]
    events = [member[3:] for member in members if callable(getattr(type(source), member, None))]
    if not traits and not events:
        raise TypeError(
            f"{repr_of(source)} has no traits to watch: pass a widget, or another object with traits "
            "(traitlets.HasTraits)"
        )
    if name is None:
        name = "click" if "click" in events else "value"
    elif not isinstance(name, str):
        raise TypeError(f"the name of a trait or event has to be a string, not {repr_of(name)}")
    if name not in traits and name not in events:
        known = ", ".join(sorted(trait for trait in traits if not trait.startswith("_"))) or "none"
        also = f"; its events: {', '.join(sorted(events))}" if events else ""
        raise ValueError(f"{type(source).__name__} has no trait or event {name!r}. Its traits: {known}{also}")
    return name
