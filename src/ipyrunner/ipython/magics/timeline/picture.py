"""The rows as an SVG: static, without scripts, small, and readable in a light and in a dark theme.

It draws its own background, a light one: it cannot know the front end's, and no colour of text has much contrast with
both white and black. Front ends show it as an image, without hover texts: so what matters is written in the picture.
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

# In pixels. A cell in JupyterLab is as wide as this in a window of 1,200; in a narrower one it is scrolled.
_WIDTH, _RIGHT = 960, 20
_MARGIN = 8
# Where the names of tasks end: as far to the left as the longest one allows.
_LEFT = 60, 240
_ROW, _LINE = 30, 18
# The height of letters: of the summary, of names, and in the rows.
_LARGE, _NORMAL, _SMALL = 13, 12, 11
# In a row, from its top: the line's middle, and the foot of the words above it.
_MIDDLE, _ABOVE = 19, 11
# The width of the shortest segments that have words: of those that hold the loop, and of others. How many letters of a
# text are of any use.
_SHORTEST_BLOCK, _SHORTEST = 10, 30
_READABLE = 8
# How many rows are shown; lines that are fewer pixels apart than this are drawn as one.
_ROWS, _GAP = 40, 2.0
_FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
_TEXT, _BACKGROUND = "#24292f", "#f8f9fa"
_COLOURS = {"wait": "#8c8c8c", "ready": "#c47f11", "run": "#3b86c8", "block": "#d6453d", "cancel": "#a259c4"}
_HEIGHTS = {"wait": 2, "ready": 5, "run": 10, "block": 10}
# The width in pixels in which the kind of an error can be read.
_ENOUGH = 120
# The width of a letter as a share of its height, about; fonts differ.
_LETTER = 0.58
_ENDINGS = ("failed", "cancelled", "vanished")


def picture(timeline: Timeline) -> str:
    """Return the picture as a complete SVG document."""
    return "".join(_Picture(timeline).parts())


class _Picture:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._rows, self._hidden = _most_interesting(timeline)
        self._drawn = [*self._rows, *([timeline.other] if timeline.other.segments else [])]
        longest = max((_width(row.name, _NORMAL) for row in self._drawn), default=0)
        self._left = min(max(longest + _MARGIN + 12, _LEFT[0]), _LEFT[1])
        self._plot = _WIDTH - self._left - _RIGHT
        self._scale = self._plot / timeline.length

    def parts(self) -> Iterator[str]:
        letters = int((_WIDTH - 2 * _MARGIN) / (_LETTER * _LARGE))
        lines = textwrap.wrap(summary(self._timeline), letters, break_on_hyphens=False)
        top = 12 + _LINE * len(lines)
        bottom = top + 20 + _ROW * len(self._drawn)
        height = bottom + 12 + _LINE * (2 if self._hidden else 1)
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="{_FONT}" font-size="{_SMALL}" fill="{_TEXT}">'
            f'<rect width="{_WIDTH}" height="{height}" rx="4" fill="{_BACKGROUND}"/>'
        )
        for n, line in enumerate(lines):
            yield _text(_MARGIN, 19 + _LINE * n, line, size=_LARGE)
        yield from self._axis(top + 12, bottom)
        for n, row in enumerate(self._drawn):
            yield f'<g transform="translate({self._left:.1f} {top + 20 + _ROW * n})">'
            yield from self._row(row)
            yield "</g>"
        y = bottom + 19
        if self._hidden:
            busy = sum(row.busy for row in self._hidden)
            yield _text(_MARGIN, y, f"and {len(self._hidden):,} more tasks, which ran {duration(busy)} in all")
            y += _LINE
        yield from self._legend(y)
        yield "</svg>"

    def _axis(self, y: int, bottom: int) -> Iterator[str]:
        step = _round_step(self._timeline.length)
        for n in range(int(self._timeline.length // step) + 1):
            x = self._left + n * step * self._scale
            yield f'<path d="M{x:.1f} {y + 4}V{bottom}" stroke="{_TEXT}" stroke-opacity=".2"/>'
            if x <= _WIDTH - _RIGHT:
                yield _text(x, y, duration(n * step) if n else "0", anchor="middle")

    def _row(self, row: Row) -> Iterator[str]:
        yield _text(-8, _MIDDLE + 4, _fit(row.name, self._left - _MARGIN - 8, _NORMAL), anchor="end", size=_NORMAL)
        drawn: dict[str, list[tuple[float, float]]] = {"wait": [], "ready": [], "run": [], "block": []}
        for segment in row.segments:
            kind = "block" if segment.blocks else segment.kind
            drawn[kind].append((segment.begin * self._scale, segment.end * self._scale))
        for kind, spans in drawn.items():
            if path := _path(spans):
                yield f'<path d="{path}" stroke="{_COLOURS[kind]}" stroke-width="{_HEIGHTS[kind]}"/>'
        for x in _apart(mark.at * self._scale for mark in row.marks):
            yield _cross(x, _MIDDLE)
        yield from self._words(row)

    def _words(self, row: Row) -> Iterator[str]:
        """Write into the row what the longest segments are, if there is room, and how the task has ended.

        Words may go on beyond the end of their segment, up to the next ones. Those of what holds the loop come first.
        """
        last = self._plot
        end = max((s.end for s in row.segments), default=0) * self._scale
        if ending := self._ending(row):
            room, width = self._plot - end - 8, _width(ending, _SMALL)
            if room >= min(width, _ENOUGH) or room > end:
                yield _text(end + 8, _MIDDLE + 4, _fit(ending, room))
            else:  # above the line's end, where the words of segments would be
                last = end - width - 8
                yield _text(end, _ABOVE, _fit(ending, end), anchor="end")
        taken: list[tuple[float, float]] = []
        blocks = [s for s in row.segments if s.blocks]
        waits = [s for s in row.segments if s.kind == "wait" and s.place is not None]
        for segments in (_in_time(blocks, self._scale, _SHORTEST_BLOCK), _in_time(waits, self._scale, _SHORTEST)):
            begins = [segment.begin * self._scale for segment in segments]
            for segment, x, following in zip(segments, begins, [*begins, last][1:], strict=True):
                begin = max([x, *(end for start, end in taken if start <= x)])
                room = min([following, last, *(start for start, _ in taken if start > x)]) - begin - 8
                if begin > x:  # it would not be above what it belongs to
                    room = min(room, segment.end * self._scale - begin)
                if text := _fit_or(self._words_of(segment), room):
                    yield _text(begin + 1, _ABOVE, text)
                    taken.append((begin, begin + _width(text, _SMALL) + 8))

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
        x = float(_MARGIN)
        blocked = f"held the loop for {duration(BLOCK)} or more"
        entries = [("run", "running"), ("block", blocked), ("ready", "ready, but not run"), ("wait", "waiting")]
        if not self._timeline.sees_callbacks:
            entries[2:] = [("wait", "waiting, or ready")]
        for kind, text in entries:
            yield (
                f'<path d="M{x:.1f} {y - 4}h18" stroke="{_COLOURS[kind]}" stroke-width="{_HEIGHTS[kind]}"/>'
                f"{_text(x + 23, y, text)}"
            )
            x += 44 + _width(text, _SMALL)
        if any(row.marks for row in self._rows):
            yield _cross(x + 4, y - 4)
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
    return "".join(f"M{begin:.1f} {_MIDDLE}h{max(end - begin, 1):.1f}" for begin, end in merged)


def _apart(places: Iterable[float]) -> list[float]:
    """Return the places without those that are too near the one before."""
    found: list[float] = []
    for x in places:
        if not found or x - found[-1] > _GAP * 2:
            found.append(x)
    return found


def _in_time(segments: list[Segment], scale: float, shortest: float) -> list[Segment]:
    """Return the segments that are so long that they have words, in the order of time."""
    return sorted((s for s in segments if (s.end - s.begin) * scale > shortest), key=lambda s: s.begin)


def _width(text: str, size: float) -> float:
    """Return about how wide the text is."""
    return len(text) * size * _LETTER


def _fit(text: str, width: float, size: float = _SMALL) -> str:
    return short(text, max(int(width / (size * _LETTER) + 0.01), 1))


def _fit_or(texts: tuple[str, str], width: float) -> str:
    """Return the first text, shortened if it stays readable; otherwise the second, if it fits; otherwise nothing."""
    text, brief = texts
    letters = int(width / (_SMALL * _LETTER))
    if len(text) <= letters or letters >= len(brief) + _READABLE:
        return short(text, letters)
    return brief if len(brief) <= letters else ""


def _cross(x: float, y: float) -> str:
    return f'<path d="M{x - 4:.1f} {y - 4:g}l8 8m0-8l-8 8" stroke="{_COLOURS["cancel"]}" stroke-width="2.5"/>'


def _text(x: float, y: float, text: str, *, size: float = _SMALL, anchor: str = "") -> str:
    options = f' text-anchor="{anchor}"' if anchor else ""
    options += f' font-size="{size:g}"' if size != _SMALL else ""
    return f'<text x="{x:.4g}" y="{y:g}"{options}>{html.escape(short(text, 400))}</text>'
