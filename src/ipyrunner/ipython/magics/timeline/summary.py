"""A trace in one line. docs/howto/tracing.md explains its terms."""

from __future__ import annotations

from collections.abc import Iterator

from .rows import BLOCK, Timeline
from .words import duration, label

__all__ = ["summary"]


def summary(timeline: Timeline) -> str:
    """Return the facts, on one line."""
    return "; ".join(filter(None, (_loop(timeline), _tasks(timeline), _turns(timeline), *_missing(timeline))))


def _loop(timeline: Timeline) -> str:
    share = timeline.busy / timeline.length
    percent = "100 %" if share > 0.995 else f"{share * 100:.0f} %" if share >= 0.01 else "less than 1 %"
    what = f"loop busy {percent}" if timeline.sees_callbacks else f"tasks ran {percent} of the time"
    text = f"{timeline.title}: {duration(timeline.length)}{'' if timeline.is_over else ' so far'}, {what}"
    longest = timeline.longest
    if longest is None:
        return text
    kind = "longest block" if longest.length >= BLOCK else "longest step"
    if longest.place is not None:
        where = f"in {timeline.words.busy(longest.place)}"
    elif longest.lane is None:
        where = f"in {timeline.words.actor(longest.name)}"
    else:
        where = f"in {timeline.title if timeline.is_own_lane(longest.lane) else label(longest.lane)}"
    return f"{text}, {kind} {duration(longest.length)} {where}"


def _tasks(timeline: Timeline) -> str:
    count = timeline.started
    if not count:
        return "no tasks"
    endings = dict(timeline.endings)
    pending = count - sum(endings.values())
    if pending:
        endings["pending"] = pending
    states = ", ".join(f"{number:,} {state}" for state, number in sorted(endings.items()))
    text = f"{count:,} task{'s' * (count > 1)} ({states})"
    if count == 1:
        return text
    return f"{text}, " + ("one after the other" if timeline.most == 1 else f"at most {timeline.most:,} at a time")


def _turns(timeline: Timeline) -> str:
    return f"longest wait for a turn {duration(timeline.starved)}" if timeline.starved >= 1_000_000 else ""


def _missing(timeline: Timeline) -> Iterator[str]:
    if timeline.incomplete:
        yield f"incomplete: {timeline.incomplete}"
    if timeline.dropped:
        yield f"the first {timeline.dropped:,} events were dropped, and the last {timeline.kept:,} are shown"
