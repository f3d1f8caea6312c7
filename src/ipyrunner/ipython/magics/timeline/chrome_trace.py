"""The rows as the Chrome trace-event format, which https://ui.perfetto.dev and chrome://tracing open.

A row is a thread of one process. The segments of a task do not overlap; calls of callbacks are nested in each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from ....aio.tasks.safe_names import short
from .rows import Row, Segment, Timeline
from .summary import summary

__all__ = ["events", "write"]

_PROCESS = 1


def write(timeline: Timeline, file: TextIO) -> None:
    """Write the JSON object."""
    file.write('{"traceEvents": [\n')
    for n, event in enumerate(events(timeline)):
        file.write(f"{',' * bool(n)}{json.dumps(event)}\n")
    rest = json.dumps({"displayTimeUnit": "ms", "otherData": {"summary": summary(timeline)}})
    file.write(f"], {rest[1:]}\n")


def events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Yield the events: the names of the threads, then complete and instant events. Times in microseconds."""
    yield _metadata("process_name", 0, f"ipyrunner: {timeline.title}")
    rows = [*timeline.rows, timeline.other]
    for number, row in enumerate(rows, 1):
        yield _metadata("thread_name", number, row.name)
        yield {"ph": "M", "name": "thread_sort_index", "pid": _PROCESS, "tid": number, "args": {"sort_index": number}}
    for number, row in enumerate(rows, 1):
        # Outer segments before the inner ones.
        for segment in sorted(row.segments, key=lambda each: (each.begin, -each.end)):
            yield {
                "ph": "X",
                "name": _name(timeline, segment),
                "cat": segment.kind,
                "pid": _PROCESS,
                "tid": number,
                "ts": segment.begin / 1000,
                "dur": (segment.end - segment.begin) / 1000,
                "args": {key: value for key, value in _arguments(timeline, segment).items() if value},
            }
        for mark in row.marks:
            by = timeline.words.actor(mark.by)
            yield _instant(number, mark.at, "cancelled", **({"by": by} if by else {}))
        if row.lane is not None and row.lane.ended is not None:
            at = row.lane.ended - timeline.began
            if 0 <= at <= timeline.length:
                yield _instant(number, at, short(row.lane.error, 300), **_origin(timeline, row))


def _name(timeline: Timeline, segment: Segment) -> str:
    if segment.kind == "run":
        return timeline.words.actor(segment.name) or "run"
    return segment.kind if segment.kind == "ready" else timeline.words.source(segment.place) or "wait"


def _arguments(timeline: Timeline, segment: Segment) -> dict[str, str]:
    words = timeline.words
    return {
        "waits at": words.where(segment.place),
        "waits for": words.actor(segment.waits_for),
        "woken by": words.actor(segment.woken_by),
        "blocked the loop in": "" if segment.blocked_at is None else words.busy(segment.blocked_at),
    }


def _origin(timeline: Timeline, row: Row) -> dict[str, str]:
    by = "" if row.lane is None else timeline.words.actor(row.lane.created_by)
    return {"started by": by} if by else {}


def _metadata(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": thread, "args": {"name": name}}


def _instant(thread: int, at: int, name: str, **args: str) -> dict[str, Any]:
    return {
        "ph": "i",
        "s": "t",
        "name": name,
        "cat": "end",
        "pid": _PROCESS,
        "tid": thread,
        "ts": at / 1000,
        "args": args,
    }
