"""Which result includes which event: bounds that hold whatever a job reads first, and results that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.apps.ads.generate import EVENT_TYPES
from penstock.apps.ads.inclusion import CellEvents, CellResults, included, inclusion

PRODUCED_MS = 1_790_000_000_000


@dataclass(frozen=True)
class Truth:
    """A cell's events by partition, and how far each result of a job reached into each partition."""

    parts: list[CellEvents]
    reached: list[list[int]]
    results: CellResults


def columns(*rows: tuple[int, int, int]) -> CellEvents:
    """Events given as kind, produce time (ms after a fixed one), intended time (us)."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return CellEvents(table[:, 0], table[:, 1] + PRODUCED_MS, table[:, 2])


def results_of(parts: list[CellEvents], reached: list[list[int]], written_us: list[int]) -> CellResults:
    """What an honest job writes that has read so far each time, counted event by event."""
    by_kind, newest = [], []
    for lengths in reached:
        held = [
            (int(kind), int(produced))
            for part, length in zip(parts, lengths, strict=True)
            for kind, produced in zip(part.kinds[:length], part.produce_ms[:length], strict=True)
        ]
        by_kind.append([sum(1 for kind, _ in held if kind == wanted) for wanted in range(len(EVENT_TYPES))])
        newest.append(max(produced for _, produced in held))
    return CellResults(np.array(written_us), np.array(by_kind), np.array(newest))


@st.composite
def truths(draw: st.DrawFn, most_partitions: int = 3) -> Truth:
    """Any events, and any job that reads each partition in order; its last result holds everything."""
    parts = []
    for _ in range(draw(st.integers(1, most_partitions))):
        gaps = draw(st.lists(st.integers(0, 3), max_size=25))
        # Two producers share a partition: their stamps may be out of order by a little.
        sent = np.maximum(np.cumsum(gaps) - np.array([draw(st.integers(0, 1)) for _ in gaps], dtype=np.int64), 0)
        parts.append(columns(*((draw(st.integers(0, 2)), int(at), int(at) * 1_000) for at in sent)))
    total = [len(part.kinds) for part in parts]
    if not sum(total):
        parts[0] = columns((0, 5, 5_000))
        total[0] = 1
    reached, at = [], [0] * len(parts)
    for _ in range(draw(st.integers(0, 8))):
        at = [draw(st.integers(low, high)) for low, high in zip(at, total, strict=True)]
        if sum(at):
            reached.append(at)
    reached.append(total)
    written = np.cumsum([draw(st.integers(0, 4_000)) for _ in reached]) + 100_000
    return Truth(parts, reached, results_of(parts, reached, written.tolist()))


@given(truths())
def test_the_truth_lies_between_the_bounds(truth: Truth) -> None:
    found = inclusion(truth.parts, truth.results)
    assert not found.impossible.any()
    assert (np.diff(found.least, axis=1) >= 0).all()
    assert (np.diff(found.most, axis=1) >= 0).all()
    for number, lengths in enumerate(truth.reached):
        for part, length in enumerate(lengths):
            assert found.least[part, number] <= length <= found.most[part, number]


@given(truths())
def test_no_latency_is_understated_and_the_mean_is_exact(truth: Truth) -> None:
    times, wrong = included(truth.parts, truth.results)
    assert wrong == 0
    total_us = 0
    for number, (part, found) in enumerate(zip(truth.parts, times, strict=True)):
        assert len(found.latest_us) == len(part.kinds)
        for place in range(len(part.kinds)):
            first = next(i for i, lengths in enumerate(truth.reached) if lengths[number] > place)
            written = int(truth.results.written_us[first])
            total_us += written
            assert found.earliest_us[place] <= written <= found.latest_us[place]
    counts = truth.results.by_kind.sum(axis=1)
    grown = np.diff(counts, prepend=0)
    assert total_us == int((grown * truth.results.written_us).sum())


@given(truths(1))
def test_one_partition_is_exact(truth: Truth) -> None:
    found = inclusion(truth.parts, truth.results)
    assert found.least.tolist() == found.most.tolist() == [[lengths[0] for lengths in truth.reached]]


def test_types_and_the_newest_send_tell_partitions_apart() -> None:
    """By hand: three events in each of two partitions; a result of two views and a click, newest 5."""
    parts = [columns((0, 1, 0), (1, 5, 0), (2, 9, 0)), columns((0, 2, 0), (0, 4, 0), (0, 8, 0))]
    # 1 + 2 would be three views; 2 + 1 is two views and the click of time 5; 0 + 3 reaches beyond 5.
    found = inclusion(parts, CellResults(np.array([7]), np.array([[2, 1, 0]]), np.array([PRODUCED_MS + 5])))
    assert found.least.tolist() == found.most.tolist() == [[2], [1]]
    assert not found.impossible.any()


@pytest.mark.parametrize(
    ("by_kind", "newest"),
    [
        ([3, 1, 0], 5),  # one view too many
        ([1, 2, 0], 5),  # a view counted as a click
        ([2, 1, 0], 4),  # the click was sent later than that
        ([1, 0, 0], 2),  # the second event of the partition without the first one
        ([4, 1, 2], 9),  # more than there is
    ],
)
@pytest.mark.parametrize("split", [True, False])
def test_a_result_that_no_prefixes_explain_is_impossible(by_kind: list[int], newest: int, split: bool) -> None:
    rows = [(0, 1, 0), (0, 2, 0), (1, 5, 0), (2, 9, 0)]
    parts = [columns(rows[0], rows[2]), columns(rows[1], rows[3])] if split else [columns(*rows)]
    if split and by_kind == [1, 0, 0]:
        newest = 3
    wrong = CellResults(np.array([7]), np.array([by_kind]), np.array([PRODUCED_MS + newest]))
    assert inclusion(parts, wrong).impossible.all()


def test_a_count_that_falls_is_impossible_and_left_out() -> None:
    parts = [columns((0, 1, 0), (0, 2, 0), (0, 3, 0))]
    results = CellResults(
        np.array([10, 20, 30]), np.array([[2, 0, 0], [1, 0, 0], [3, 0, 0]]), np.array([2, 1, 3]) + PRODUCED_MS
    )
    times, wrong = included(parts, results)
    assert wrong == 1
    assert times[0].latest_us.tolist() == [10, 10, 30]


def test_an_event_that_no_result_includes_has_no_latency() -> None:
    parts = [columns((0, 1, 0), (0, 2, 0))]
    times, wrong = included(parts, CellResults(np.array([10]), np.array([[1, 0, 0]]), np.array([PRODUCED_MS + 1])))
    assert wrong == 0
    assert times[0].latest_us.tolist() == [10]


@given(st.integers(0, 2**32))
def test_a_job_that_loses_an_event_breaks_nothing(seed: int) -> None:
    """Its results contradict each other: those that are left explain each other, and the others are counted."""
    random, parts = Random(seed), []
    for _ in range(2):
        size = random.randint(1, 13)
        produced = sorted(random.randrange(12) for _ in range(size))
        parts.append(columns(*((random.randrange(3), at, at) for at in produced)))
    lost, kept = random.randrange(2), []
    gone = random.randrange(len(parts[lost].kinds))
    for number, part in enumerate(parts):
        keep = np.arange(len(part.kinds)) != gone if number == lost else np.ones(len(part.kinds), dtype=np.bool_)
        kept.append(keep)
    reached = [[0, 0]]
    while reached[-1] != [len(part.kinds) for part in parts]:
        reached.append([min(len(p.kinds), at + random.randrange(4)) for p, at in zip(parts, reached[-1], strict=True)])
    held = [row for row in reached if sum(int(keep[:at].sum()) for keep, at in zip(kept, row, strict=True))]
    lossy = [CellEvents(p.kinds[k], p.produce_ms[k], p.intended_us[k]) for p, k in zip(parts, kept, strict=True)]
    short = [[int(keep[:at].sum()) for keep, at in zip(kept, row, strict=True)] for row in held]
    times, impossible = included(parts, results_of(lossy, short, list(range(len(held)))))
    assert 0 <= impossible <= len(held)
    for part in times:
        assert (part.earliest_us <= part.latest_us).all()
