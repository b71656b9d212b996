"""Latency from due times and deliveries, the growth of a lag, the search, and what makes a run void or wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bench.latency import LatencyHistogram
from penstock.bench.pipeline.load import LoadSpec, Sent
from penstock.bench.pipeline.measure import (
    BACKLOG_STEP_NS,
    EpochRead,
    Timeline,
    backlog,
    due_by_offset,
    histogram,
    is_growing,
    timeline,
)
from penstock.bench.pipeline.outcome import attempt, judge, report
from penstock.bench.pipeline.search import Try, best, search
from penstock.bench.pipeline.trial import Checked, Setup, Trial, clear_folder
from penstock.bench.report import this_machine
from penstock.verify.fold import Difference

MS = 1_000_000


def sent(*sends: tuple[int, int, list[int]], at_ns: int = 0) -> Sent:
    """Sends of (partition, first offset, due times)."""
    columns = np.array([(p, o, len(due), at_ns) for p, o, due in sends], np.int64).reshape(-1, 4)
    due = np.array([n for _, _, times in sends for n in times], np.int64)
    return Sent(columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3], due, np.zeros(len(due), np.int16))


def test_latency_is_from_the_due_time_at_an_offset_to_its_epochs_delivery_whoever_sent_it() -> None:
    first = sent((0, 0, [10 * MS, 11 * MS]), (1, 2, [12 * MS]))
    second = sent((1, 0, [20 * MS, 21 * MS]), (0, 2, [22 * MS]))
    due = due_by_offset([first, second])
    assert {p: times.tolist() for p, times in due.items()} == {
        0: [10 * MS, 11 * MS, 22 * MS],
        1: [20 * MS, 21 * MS, 12 * MS],
    }
    epochs = [EpochRead({0: (0, 1), 1: (0, 0)}, 15 * MS), EpochRead({0: (1, 3), 1: (0, 3)}, 30 * MS)]
    found = timeline(due, epochs)
    assert sorted(found.latency_us.tolist()) == [5_000, 8_000, 9_000, 10_000, 18_000, 19_000]
    assert sorted(found.since(20 * MS).latency_us.tolist()) == [8_000, 9_000, 10_000]


def test_offsets_that_no_producer_sent_are_not_measured() -> None:
    due = due_by_offset([sent((0, 3, [5 * MS]))])
    assert timeline(due, [EpochRead({0: (0, 4)}, 6 * MS)]).latency_us.tolist() == [1_000]


SENDS = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 50), min_size=1, max_size=4)), max_size=12)


def slowly(due: dict[tuple[int, int], int], epochs: list[EpochRead]) -> list[tuple[int, int]]:
    """The slow reference: each record's due time and delivery, looked up one by one."""
    found = []
    for epoch in epochs:
        for partition, (start, end) in epoch.ranges.items():
            for offset in range(start, end):
                if (partition, offset) in due:
                    found.append((due[partition, offset], epoch.done_ns))
    return sorted(found)


@given(SENDS, st.lists(st.integers(1, 5), max_size=8), st.integers(0, 2), st.integers(0, 40))
def test_latencies_and_backlog_are_those_of_every_record_looked_up_by_itself(
    sends: list[tuple[int, list[int]]], cuts: list[int], unsent: int, since: int
) -> None:
    ends, due, told = dict.fromkeys(range(3), unsent), {}, []
    for partition, times in sends:
        told.append((partition, ends[partition], times))
        due |= {(partition, ends[partition] + n): time for n, time in enumerate(times)}
        ends[partition] += len(times)
    # Two producers, whose sends interleave; epochs of a few offsets each.
    producers = [sent(*told[::2]), sent(*told[1::2])]
    position, epochs = dict.fromkeys(range(3), 0), []
    for number, cut in enumerate(cuts):
        ranges = {p: (position[p], min(ends[p], position[p] + cut)) for p in range(3)}
        position = {p: end for p, (_, end) in ranges.items()}
        epochs.append(EpochRead(ranges, 60 + 10 * number))
    expected = slowly(due, epochs)
    found = timeline(due_by_offset(producers), epochs)
    assert sorted(zip(found.due_ns.tolist(), found.done_ns.tolist(), strict=True)) == expected
    later = found.since(since)
    assert sorted(later.due_ns.tolist()) == [d for d, _ in expected if d >= since]
    seconds = Timeline(found.due_ns * BACKLOG_STEP_NS, found.done_ns * BACKLOG_STEP_NS)
    waiting = backlog(seconds, 0, 150 * BACKLOG_STEP_NS)
    assert waiting.tolist() == [sum(d <= n for d, _ in expected) - sum(e <= n for _, e in expected) for n in range(151)]
    assert histogram(later).count == sum(d >= since for d, _ in expected)


def steady(rate: int, seconds: float, delay_s: float, slower: float = 1.0) -> Timeline:
    """`rate` records a second, delivered `delay_s` after they are due, by a job that takes `slower` times as long."""
    due = (np.arange(int(rate * seconds)) * (1e9 / rate)).astype(np.int64)
    return Timeline(due, (due * slower).astype(np.int64) + round(delay_s * 1e9))


def test_a_lag_grows_only_where_deliveries_fall_behind() -> None:
    end = 10 * 1_000 * MS
    assert not is_growing(backlog(steady(1_000, 10, 0.2), 0, end), 1_000)
    assert backlog(steady(1_000, 10, 0.2), 0, end)[8:-4].mean() == pytest.approx(200, rel=0.05)
    assert is_growing(backlog(steady(1_000, 10, 0.2, slower=1.2), 0, end), 1_000)
    assert not is_growing(backlog(steady(1_000, 10, 0.01, slower=1.001), 0, end), 1_000), "too little to count"
    assert not is_growing(np.array([5.0]), 1_000)


@pytest.mark.parametrize("limit", [130.0, 900.0, 1_000.0, 77_000.0])
def test_the_search_comes_close_to_the_limit_from_below(limit: float) -> None:
    tries = search(1_000, lambda rate: Try(rate, 1.0, () if rate <= limit else ("too slow",)))
    chosen = best(tries)
    assert chosen is not None
    assert limit / 1.11 <= chosen.rate <= limit
    assert len(tries) < 15


def test_a_search_in_which_nothing_holds_ends() -> None:
    tries = search(100, lambda rate: Try(rate, 1.0, ("never",)))
    assert best(tries) is None
    assert len(tries) < 10


def lag_of(ms: float) -> LatencyHistogram:
    lag = LatencyHistogram()
    lag.add(np.full(100, round(ms * 1e3), np.int64))
    return lag


def trial(**changes: object) -> Trial:
    records = steady(1_000, 10, 0.02)
    found = Trial(
        1_000.0,
        0,
        10_000 * MS,
        records,
        records,
        histogram(records),
        lag_of(1),
        10_000,
        10_000,
        {"c": {"accepted": 10_000}},
        9,
        1.0,
    )
    return replace(found, checked=Checked({"v": 3}, {"w": "a step"}), **changes)  # type: ignore[arg-type]


def test_a_run_is_right_wrong_or_void() -> None:
    assert judge(trial()).status == "right"
    assert "w is not compared: a step" in judge(trial()).reasons
    assert judge(trial(read=9_999)).status == "wrong"
    void = judge(trial(lag=lag_of(50)))
    assert void.status == "void"
    assert "lagged" in void.reasons[0]
    difference = Difference("v", None, {"k": 1}, {"n": 2}, {"n": 3})
    wrong = judge(replace(trial(), checked=Checked({"v": 3}, {}, 0, difference)))
    assert (wrong.status, "'n': 3" in wrong.reasons[0]) == ("wrong", True)


def test_a_rate_holds_if_p99_does_the_lag_does_not_grow_and_all_was_read() -> None:
    assert attempt(trial(), 30).holds
    assert "above" in attempt(trial(), 10).reasons[0]
    late = steady(1_000, 10, 0.02, slower=1.3)
    growing = attempt(trial(whole=late, measured=late, latency=histogram(late)), 1e9)
    assert growing.reasons == ("the lag grows",)
    assert attempt(trial(lag=lag_of(50)), 30).void
    assert not attempt(trial(read=1), 30).holds


def test_what_waits_from_the_warm_up_is_part_of_the_lag() -> None:
    records = steady(1_000, 13, 2.0)
    start_ns = 3_000 * MS
    slow_but_steady = trial(
        whole=records,
        measured=records.since(start_ns),
        start_ns=start_ns,
        end_ns=13_000 * MS,
        latency=histogram(records),
    )
    assert attempt(slow_but_steady, 1e9).holds
    waiting = next(s for s in report(made_setup(), slow_but_steady, this_machine(), {}).series if s.name == "waiting")
    assert waiting.lines[0].values[0] == pytest.approx(2_000, rel=0.01)


def made_setup() -> Setup:
    return Setup(LoadSpec("p.py", {}, {}, {}, "", 13.0), 1_000.0, 0.0, 3.0, 2, 1_000, Path("unused"))


def test_the_report_accounts_for_every_record() -> None:
    setup = made_setup()
    tries = [Try(1_000, 20.0, ()), Try(2_000, 90.0, ("the lag grows",))]
    found = report(setup, trial(), this_machine(), {"search_p99_ms": 50.0}, tries)
    assert found.counts == {
        "records": 10_000, "accepted": 10_000, "duplicate": 0, "dead": 0, "late": 0, "lost": 0, "doubled": 0
    }  # fmt: skip
    assert found.settings["duration_s"] == 10.0
    assert found.settings["search_p99_ms"] == 50.0
    assert found.figures["measured_records_per_s"] == pytest.approx(1_000)
    assert found.figures["sustained_records_per_s"] == 1_000
    latency = found.latency("record")
    assert latency is not None
    assert latency.p50_ms == pytest.approx(20, rel=0.02)
    assert found.tables[0].marked == (1,)
    throughput = next(s for s in found.series if s.name == "throughput")
    assert [round(v or 0) for v in throughput.lines[0].values] == [1_000] * 10


def test_only_a_folder_of_a_benchmark_is_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    clear_folder(folder)
    (folder / "old").touch()
    clear_folder(folder)
    assert not (folder / "old").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "precious").touch()
    with pytest.raises(FileExistsError):
        clear_folder(other)
    assert (other / "precious").exists()
