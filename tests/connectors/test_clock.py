"""Ticks: the same for every reader, readable again, none twice when the clock is set back (semantics T5)."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors import clock
from penstock.connectors.base import TypedBatch
from penstock.connectors.clock import ClockSource
from penstock.connectors.registry import open_source
from penstock.errors import ConnectorError
from penstock.url import Url

NOW_S = 1_767_225_600  # 2026-01-01T00:00:00Z


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day, in seconds since 1970, to be set."""
    moment = [float(NOW_S)]
    monkeypatch.setattr(clock.time, "time_ns", lambda: round(moment[0] * 1e9))  # type: ignore[attr-defined]
    return moment


def opened(period: str) -> ClockSource:
    source = open_source(Url("clock", period), "ticks")
    assert isinstance(source, ClockSource)
    return source


def ticks(batch: TypedBatch | None) -> list[tuple[int, datetime]]:
    return [] if batch is None else [(row["tick"], row["at"]) for row in batch.table.to_pylist()]


def test_a_reader_starts_now_and_gets_each_tick_when_it_is_due(now: list[float]) -> None:
    source = opened("2s")
    start = source.start(0)
    assert ticks(source.read(0, start, 10, 1_000)) == [(NOW_S // 2, datetime(2026, 1, 1))]
    assert source.read(0, start + 1, 10, 1_000) is None
    now[0] += 1.999
    assert source.read(0, start + 1, 10, 1_000) is None
    now[0] += 0.002
    assert ticks(source.read(0, start + 1, 10, 1_000)) == [(NOW_S // 2 + 1, datetime(2026, 1, 1, 0, 0, 2))]


def test_every_reader_sees_the_same_ticks_and_any_can_be_read_again(now: list[float]) -> None:
    first, later = opened("500ms"), opened("500ms")
    start = first.start(0)
    now[0] += 10
    batch = first.read(0, start, 100, 1_000)
    assert batch is not None
    assert len(ticks(batch)) == 21
    assert ticks(later.read(0, start, 100, 1_000)) == ticks(batch)
    assert batch.next_offset == start + 21 == first.latest(0)
    assert [t for t, _ in ticks(first.read(0, start + 5, 100, 1_000, start + 7))] == [start + 5, start + 6]
    assert batch.offsets.to_pylist() == [t for t, _ in ticks(batch)]


def test_a_clock_that_is_set_back_gives_no_tick_twice(now: list[float]) -> None:
    source = opened("1s")
    offset = source.start(0) + 1
    now[0] -= 3600
    assert source.read(0, offset, 10, 1_000) is None
    now[0] += 3601
    assert [t for t, _ in ticks(source.read(0, offset, 10, 1_000))] == [offset]


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), max_size=8))
def test_small_reads_give_the_same_ticks(cuts: list[tuple[int, int]]) -> None:
    source = opened("1s")
    offset = source.latest(0) - 50
    end, found = offset + 40, []
    for max_rows, ahead in [*cuts, (100, 100)]:
        batch = source.read(0, offset, max_rows, 1_000, min(end, offset + ahead))
        found += [t for t, _ in ticks(batch)]
        offset = batch.next_offset if batch is not None else offset
    assert found == list(range(end - 40, end))


def test_waiting_ends_with_the_next_tick(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(clock.time, "sleep", slept.append)  # type: ignore[attr-defined]
    source = opened("1s")
    now[0] += 0.9
    source.wait(5.0)
    source.wait(0.05)
    assert slept == [pytest.approx(0.1, abs=1e-3), 0.05]
    source.close()


@pytest.mark.parametrize("period", ["", "0s", "-1s", "tomorrow", "1"])
def test_a_period_that_is_none(period: str) -> None:
    with pytest.raises(ConnectorError, match=r"PS-CONN-008[\s\S]*clock:1s"):
        opened(period)
