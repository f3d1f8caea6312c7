"""A subclass of a stream's class, though IPython 9 replaces ``write`` on the stream for the length of each plain cell."""

from __future__ import annotations

from typing import Any

from ipyrunner.aio.replacements import Subclassing


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
