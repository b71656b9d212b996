"""T1: the oracle's watermarks, one record after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest

from penstock.verify.records import Journaled
from penstock.verify.watermarks import Watermarks, watermarks

START = datetime(2026, 1, 1)
Epoch = Mapping[int, Sequence[int]]


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def found(epochs: Sequence[Epoch], idle: Sequence[set[int]] = ()) -> Watermarks:
    """Of epochs with the seconds of each partition's rows, and the partitions that were idle in each."""
    ends: dict[int, int] = {}
    rows, journal = [], []
    for number, epoch in enumerate(epochs):
        ranges = {}
        for partition, seconds in epoch.items():
            start = ends.get(partition, 0)
            rows += [(number, partition, start + n, at(second)) for n, second in enumerate(seconds)]
            ends[partition] = start + len(seconds)
            ranges[partition] = (start, ends[partition])
        silent = {"s": frozenset(idle[number])} if idle else {}
        journal.append(Journaled(number, 0, {"s": ranges}, {}, idle=silent))
    rows.sort(key=lambda row: (row[1], row[2]))
    return watermarks("s", timedelta(seconds=5), rows, journal)


def seconds(marks: Mapping[int, datetime | None]) -> list[float | None]:
    return [mark and (mark - START).total_seconds() for mark in marks.values()]


@pytest.mark.parametrize(("second", "expected"), [({}, [15.0]), ({1: []}, [None]), ({1: [12]}, [7.0])])
def test_the_stream_waits_for_all_its_partitions(second: Epoch, expected: list[float | None]) -> None:
    assert seconds(found([{0: [20], **second}]).after) == expected


def test_it_never_goes_back() -> None:
    assert seconds(found([{0: [20]}, {0: [1]}, {0: [30]}]).after) == [15, 15, 25]


def test_an_idle_partition_is_not_waited_for_and_wakes_with_the_streams_watermark() -> None:
    marks = found([{0: [20], 1: [10]}, {0: [40], 1: []}, {0: [], 1: [12, 50]}], [set(), {1}, set()])
    assert seconds(marks.after) == [5, 35, 35]
    assert marks.before[1, 1] == at(35), "its floor: what comes for a closed window is late"
    assert marks.before[1, 2] == at(35)
    assert marks.before[0, 1] == at(15)


def test_where_all_are_idle_nothing_moves() -> None:
    assert seconds(found([{0: [20], 1: [30]}, {0: [], 1: []}], [set(), {0, 1}]).after) == [15, 15]


def test_a_partition_that_comes_later_begins_with_the_streams_watermark() -> None:
    marks = found([{0: [20]}, {0: [], 1: [3]}])
    assert marks.before == {(0, 0): None, (1, 0): at(15)}
    assert seconds(marks.after) == [15, 15]
