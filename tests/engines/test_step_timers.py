"""A step's timers are read for the keys that change or are due, and only for these; none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import penstock as ps
from penstock.steps import Change, Step, Timer

START = datetime(2026, 1, 1)


class Event(ps.Contract):
    k: int
    at: datetime
    timer_s: int | None = None


class Rang(ps.Contract):
    k: int
    at: datetime


@dataclass
class Key:
    k: int


def alarm(state: Key | None, changes: Sequence[Change], timers: Sequence[Timer]) -> Step[Key]:
    """A row may set a timer so many seconds after the start; each that fires is a row."""
    if changes:
        seconds = [s for change in changes if isinstance(s := change.row["timer_s"], int)]
        k = changes[0].row["k"]
        assert isinstance(k, int)
        return Step(Key(k), timers=[Timer(START + timedelta(seconds=s)) for s in seconds])
    assert state is not None
    return Step(state, [{"k": state.k, "at": timer.at} for timer in timers])


def test_a_key_that_changes_keeps_its_timers_and_others_fire_beside_it() -> None:
    pipeline = ps.Pipeline("p")
    pipeline.stream("e", Event, event_time="at", watermark="0 seconds", state="unbounded")
    pipeline.step("rang", input="e", key="k", time="at", state=Key, output=Rang, function=alarm)
    pipeline.view("all_rang", "SELECT k, at FROM rang", state="unbounded")
    with pipeline.open() as session:

        def epoch(*rows: tuple[int, int, int | None]) -> list[tuple[int, int]]:
            """Rows of key, second and timer; the keys and seconds of the timers that fired."""
            session.insert(
                "e", [{"k": k, "at": START + timedelta(seconds=at), "timer_s": timer} for k, at, timer in rows]
            )
            fired = session.changes("all_rang", session.commit()).to_pylist()
            return [(row["k"], (row["at"] - START).seconds) for row in fired]

        assert epoch((1, 1, 50), (2, 1, 60), (3, 1, 20)) == []
        # Key 1 comes again and sets no timer: the one that it has stays.
        assert epoch((1, 2, None)) == []
        # Key 3 is due while another key changes.
        assert epoch((4, 30, None)) == [(3, 20)]
        assert epoch((5, 55, None)) == [(1, 50)]
        assert epoch((2, 70, None)) == [(2, 60)]
