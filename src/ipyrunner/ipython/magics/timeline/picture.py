"""The rows as an SVG: static, without scripts, small, and readable on a light and on a dark background.

It draws no background, since it cannot know the front end's: text is in a middle grey, and bars are in middle tones.
Front ends show it as an image, without hover texts: so what matters is written in the picture.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Iterator

from ....aio.tasks.safe_names import short
from .rows import BLOCK, Row, Segment, Timeline
from .summary import summary
from .words import duration

__all__ = ["picture"]

_WIDTH, _LEFT, _RIGHT = 800, 190, 12
_PLOT = _WIDTH - _LEFT - _RIGHT
_ROW, _LINE = 24, 15
# How many letters of a text are of any use.
_READABLE = 8
# How many rows are shown; lines that are fewer pixels apart than this are drawn as one.
_ROWS, _GAP = 40, 2.0
_FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
_TEXT = "#767676"
_COLOURS = {"wait": "#8c8c8c", "ready": "#d9952b", "run": "#3b86c8", "block": "#d6453d", "cancel": "#a259c4"}
_HEIGHTS = {"wait": 2, "ready": 5, "run": 9, "block": 9}
# The width in pixels in which the kind of an error can be read.
_ENOUGH = 100
# The width in pixels of a letter that is 10 pixels high, about.
_LETTER = 5.6
_ENDINGS = ("failed", "cancelled", "vanished")


def picture(timeline: Timeline) -> str:
    """Return the picture as a complete SVG document."""
    return "".join(_Picture(timeline).parts())


class _Picture:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._scale = _PLOT / timeline.length
        self._rows, self._hidden = _most_interesting(timeline)

    def parts(self) -> Iterator[str]:
        lines = textwrap.wrap(summary(self._timeline), 120, break_on_hyphens=False)
        top = 8 + _LINE * len(lines)
        rows = [*self._rows, *([self._timeline.other] if self._timeline.other.segments else [])]
        bottom = top + 20 + _ROW * len(rows)
        height = bottom + 14 + _LINE * (2 if self._hidden else 1)
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="{_FONT}" font-size="10" fill="{_TEXT}">'
        )
        for n, line in enumerate(lines):
            yield _text(4, 14 + _LINE * n, line, size=12)
        yield from self._axis(top + 12, bottom)
        for n, row in enumerate(rows):
            yield f'<g transform="translate({_LEFT} {top + 20 + _ROW * n})">'
            yield from self._row(row)
            yield "</g>"
        y = bottom + 16
        if self._hidden:
            busy = sum(row.busy for row in self._hidden)
            yield _text(4, y, f"and {len(self._hidden):,} more tasks, which ran {duration(busy)} in all")
            y += _LINE
        yield from self._legend(y)
        yield "</svg>"

    def _axis(self, y: int, bottom: int) -> Iterator[str]:
        step = _round_step(self._timeline.length)
        for n in range(int(self._timeline.length // step) + 1):
            x = _LEFT + n * step * self._scale
            yield f'<path d="M{x:.1f} {y + 4}V{bottom}" stroke="{_TEXT}" stroke-opacity=".25"/>'
            if x < _WIDTH - 20:
                yield _text(x, y, duration(n * step) if n else "0", anchor="middle")

    def _row(self, row: Row) -> Iterator[str]:
        yield _text(-8, 18, _fit(row.name, _LEFT - 36), anchor="end", size=11)
        drawn: dict[str, list[tuple[float, float]]] = {"wait": [], "ready": [], "run": [], "block": []}
        for segment in row.segments:
            kind = "block" if segment.blocks else segment.kind
            drawn[kind].append((segment.begin * self._scale, segment.end * self._scale))
        for kind, spans in drawn.items():
            if path := _path(spans):
                yield f'<path d="{path}" stroke="{_COLOURS[kind]}" stroke-width="{_HEIGHTS[kind]}"/>'
        for x in _apart(mark.at * self._scale for mark in row.marks):
            yield f'<path d="M{x - 4:.1f} 10l8 8m0-8l-8 8" stroke="{_COLOURS["cancel"]}" stroke-width="2.5"/>'
        yield from self._words(row)

    def _words(self, row: Row) -> Iterator[str]:
        """Write into the row what the longest segments are, if there is room, and how the task has ended."""
        free, last = 0.0, float(_PLOT)
        end = max((s.end for s in row.segments), default=0) * self._scale
        if ending := self._ending(row):
            room, width = _PLOT - end - 8, len(ending) * _LETTER
            if room >= min(width, _ENOUGH) or room > end:
                yield _text(end + 8, 17.5, _fit(ending, room), size=9)
            else:  # above the line's end, where the words of segments would be
                last = end - width
                yield _text(end, 8, _fit(ending, end), size=9, anchor="end")
        segments = [s for s in row.segments if s.blocks or (s.kind == "wait" and s.place is not None)]
        for segment in _in_time(segments, self._scale):
            x = segment.begin * self._scale
            width = min(segment.end * self._scale, last) - x
            text = _fit_or(self._words_of(segment), width - 4)
            if x >= free and text:
                yield _text(x + 1, 8, text, size=9)
                free = x + width

    def _words_of(self, segment: Segment) -> tuple[str, str]:
        """Return the text for a segment, and a short one for where there is no room."""
        words = self._timeline.words
        if segment.blocks:
            where = words.busy(segment.blocked_at) if segment.blocked_at is not None else segment.name
            length = duration(segment.end - segment.begin)
            return f"{length} {where}", length
        return words.source(segment.place), ""

    def _ending(self, row: Row) -> str:
        """Return how the task has ended, if that is of interest."""
        lane = row.lane
        if lane is None or lane.ended is None or lane.state not in _ENDINGS:
            return ""
        if lane.ended - self._timeline.began > self._timeline.length:
            return ""
        by = self._timeline.words.actor(lane.cancelled_by) if lane.state == "cancelled" else ""
        return f"cancelled by {by}" if by else short(lane.error, 60)

    def _legend(self, y: float) -> Iterator[str]:
        x = 4.0
        blocked = f"held the loop for {duration(BLOCK)} or more"
        entries = [("run", "running"), ("block", blocked), ("ready", "ready, but not run"), ("wait", "waiting")]
        if not self._timeline.sees_callbacks:
            entries[2:] = [("wait", "waiting, or ready")]
        for kind, text in entries:
            yield (
                f'<path d="M{x:.1f} {y - 3.5}h18" stroke="{_COLOURS[kind]}" stroke-width="{_HEIGHTS[kind]}"/>'
                f"{_text(x + 23, y, text)}"
            )
            x += 42 + len(text) * _LETTER * 0.95
        if any(row.marks for row in self._rows):
            yield f'<path d="M{x:.1f} {y - 7.5}l8 8m0-8l-8 8" stroke="{_COLOURS["cancel"]}" stroke-width="2.5"/>'
            yield _text(x + 13, y, "cancelled")


def _most_interesting(timeline: Timeline) -> tuple[list[Row], list[Row]]:
    """Return the rows to show, in their order, and the others."""

    def interest(row: Row) -> tuple[bool, bool, int, int]:
        state = "" if row.lane is None else row.lane.state
        return timeline.is_own(row), state in _ENDINGS, row.longest, row.busy

    if len(timeline.rows) <= _ROWS:
        return timeline.rows, []
    shown = {id(row) for row in sorted(timeline.rows, key=interest, reverse=True)[:_ROWS]}
    return [r for r in timeline.rows if id(r) in shown], [r for r in timeline.rows if id(r) not in shown]


def _round_step(length: int) -> int:
    """Return the distance of two lines of the axis: 1, 2 or 5 and zeros, so that there are four to ten lines."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if length / (step * factor) <= 10:
                return step * factor
        step *= 10


def _path(spans: list[tuple[float, float]]) -> str:
    """Return lines from begin to end of each span; spans that are near each other become one line."""
    merged: list[list[float]] = []
    for begin, end in sorted(spans):
        if merged and begin - merged[-1][1] < _GAP:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return "".join(f"M{begin:.1f} 14h{max(end - begin, 1):.1f}" for begin, end in merged)


def _apart(places: Iterable[float]) -> list[float]:
    """Return the places without those that are too near the one before."""
    found: list[float] = []
    for x in places:
        if not found or x - found[-1] > _GAP * 2:
            found.append(x)
    return found


def _in_time(segments: list[Segment], scale: float) -> list[Segment]:
    """Return the segments in which there is room for words, in the order of time."""
    return sorted((s for s in segments if (s.end - s.begin) * scale > 30), key=lambda s: s.begin)


def _fit(text: str, width: float) -> str:
    return short(text, max(int(width / _LETTER), 1))


def _fit_or(texts: tuple[str, str], width: float) -> str:
    """Return the first text, shortened if it stays readable; otherwise the second, if it fits; otherwise nothing."""
    text, brief = texts
    letters = int(width / _LETTER)
    if len(text) <= letters or letters >= len(brief) + _READABLE:
        return short(text, letters)
    return brief if len(brief) <= letters else ""


def _text(x: float, y: float, text: str, *, size: float = 10, anchor: str = "") -> str:
    options = f' text-anchor="{anchor}"' if anchor else ""
    options += f' font-size="{size:g}"' if size != 10 else ""
    return f'<text x="{x:.4g}" y="{y:g}"{options}>{html.escape(short(text, 400))}</text>'
