"""Replaced methods; and a subclass of a stream's class, though IPython 9 replaces ``write`` on the stream for the length of each plain cell."""

from __future__ import annotations

import inspect
from typing import Any

from ipyrunner.aio.replacements import Replacement, Subclassing


class Stream:
    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)


def loud(own: Any) -> type:
    class Loud(own):
        def write(self, text: str) -> None:
            own.write(self, text.upper())

    return Loud


def test_a_method_that_was_put_back_is_uncovered() -> None:
    stream = Stream()
    before = stream.write  # IPython, at the beginning of the cell that loads the extension
    subclassing = Subclassing(stream, loud)
    stream.write = before  # type: ignore[method-assign]  # and at its end
    subclassing.uncover("write")
    stream.write("a")
    assert stream.written == ["A"]


def test_a_replacement_in_use_is_left_alone() -> None:
    stream = Stream()
    subclassing = Subclassing(stream, loud)
    heard: list[str] = []
    stream.write = heard.append  # type: ignore[method-assign]
    subclassing.uncover("write")
    stream.write("a")
    assert (stream.written, heard) == ([], ["a"])


def test_a_method_of_the_subclass_works_after_the_restore() -> None:
    stream = Stream()
    subclassing = Subclassing(stream, loud)
    stream.write = stream.write  # type: ignore[method-assign]  # the end of the cell that unloads it
    subclassing.restore()
    stream.write("a")
    assert type(stream) is Stream
    assert stream.written == ["A"]


class Signed:
    """A callable whose signature nobody can find out, or which counts who asks."""

    asked = 0

    def __init__(self, signature: object) -> None:
        self._signature = signature

    def __call__(self, text: str) -> str:
        return text

    @property
    def __signature__(self) -> object:
        Signed.asked += 1
        if isinstance(self._signature, BaseException):
            raise self._signature
        return self._signature


def test_the_signature_of_a_replacement_is_found_out_once() -> None:
    # ipykernel asks for it in each cell, and finding it out takes longer than all that ipyrunner does there.
    class Owner:
        method = Signed(inspect.signature(lambda text, cell_id=None: None))

    owner: Any = Owner()
    Replacement(owner, "method", lambda original: original)
    asked = Signed.asked
    assert list(inspect.signature(owner.method).parameters) == ["text", "cell_id"]
    assert Signed.asked == asked
    assert owner.method("a") == "a"


def test_a_method_without_a_signature_is_replaced_all_the_same() -> None:
    class Owner:
        method = Signed(ValueError("none"))

    owner: Any = Owner()
    replacement = Replacement(owner, "method", lambda original: lambda text: original(text).upper())
    assert owner.method("a") == "A"
    replacement.restore()
    assert owner.method("a") == "a"
