"""Schedules follow from their seed, reach the end of the input, and hold as many kills as were asked for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.verify.schedule import MAX_EPOCHS, Extent, random_schedule, whole

POINTS = ["epoch.before_commit", "mark.before"]
EXTENTS = st.lists(
    st.dictionaries(st.integers(0, 3), st.tuples(st.integers(0, 50), st.integers(50, 5_000)), min_size=1),
    min_size=1,
    max_size=3,
).map(lambda all_ranges: [Extent(f"s{n}", ranges) for n, ranges in enumerate(all_ranges)])


@given(EXTENTS, st.integers(0, 2**32), st.integers(0, 8), st.integers(0, 10_000))
def test_a_schedule(extents: list[Extent], seed: int, kills: int, rows: int) -> None:
    starts = random_schedule(random.Random(seed), extents, rows, kills, POINTS)
    assert starts == random_schedule(random.Random(seed), extents, rows, kills, POINTS)
    assert sum(len(start.kill_at) for start in starts) == kills
    assert starts[-1].flush
    ends = {e.name: {p: end for p, (_, end) in e.ranges.items()} for e in extents}
    assert {name: dict(upto) for name, upto in starts[-1].upto.items()} == ends
    for start in starts:
        assert start.max_rows * MAX_EPOCHS >= rows
        for extent in extents:
            for partition, (first, last) in extent.ranges.items():
                assert first <= start.upto[extent.name][partition] <= last


def test_the_whole_is_one_start_to_the_end() -> None:
    (start,) = whole([Extent("s", {0: (3, 10)})])
    assert start.upto == {"s": {0: 10}}
    assert start.flush
    assert not start.kill_at
