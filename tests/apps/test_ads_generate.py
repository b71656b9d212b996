"""Rendered events against the contract's own reading of them, in plain Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.apps.ads.counts import Counts, count_events, differences, total, window_start_us
from penstock.apps.ads.faults import FAULTS, Disturbance
from penstock.apps.ads.generate import EVENT_TYPES, SOUND, Renderer
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.recount import judge
from penstock.errors import DeclarationError
from tests.examples import examples

BASE_NS = 1_790_000_000 * 10**9
MAPPING = create_ad_campaign_mappings()
FIELDS = [
    *("user_id", "page_id", "ad_id", "ad_type", "event_type", "event_time_ns", "window_id", "ip_address"),
    *("campaign_id", "produce_time"),
]


def renderer(disturbance: Disturbance | None = None, seed: int = 1) -> Renderer:
    return Renderer(
        MAPPING, np.random.default_rng(seed), base_ns=BASE_NS, window_ns=10 * 10**9, disturbance=disturbance
    )


def times(count: int, step_ns: int = 7_000_001) -> np.ndarray:
    return BASE_NS + np.arange(count, dtype=np.int64) * step_ns


def test_mapping_is_a_function_of_its_arguments() -> None:
    assert len(MAPPING) == 1_000
    assert create_ad_campaign_mappings() == MAPPING
    assert create_ad_campaign_mappings(seed=5) != MAPPING
    assert np.bincount(list(MAPPING.values())).tolist() == [0] + [100] * 10
    assert len(create_ad_campaign_mappings(3, 7)) == 21
    with pytest.raises(DeclarationError, match="PS-BENCH-003"):
        create_ad_campaign_mappings(0)


def test_records_are_compact_json_with_the_values_of_the_block() -> None:
    block = renderer().render(times(3_000))
    block.stamp(0, 3_000, 1_790_000_123_456)
    for place, value in enumerate(block.values(0, 3_000).to_pylist()):
        record = json.loads(value)
        assert list(record) == FIELDS
        assert value == json.dumps(record, separators=(",", ":")).encode()
        assert record["event_time_ns"] == block.due_ns[place] == block.event_ns[place]
        assert record["campaign_id"] == MAPPING[record["ad_id"]] == block.campaigns[place]
        assert record["event_type"] == EVENT_TYPES[block.kinds[place]]
        assert record["window_id"] == (block.due_ns[place] - BASE_NS) // (10 * 10**9)
        assert record["produce_time"] == 1_790_000_123_456
        assert isinstance(judge(value, BASE_NS // 1_000, MAPPING), tuple)


def test_a_stamp_reaches_only_its_slice() -> None:
    block = renderer().render(times(10))
    block.stamp(3, 6, 1_111_111_111_111)
    stamps = [json.loads(value)["produce_time"] for value in block.values(0, 10).to_pylist()]
    assert stamps[3:6] == [1_111_111_111_111] * 3
    assert stamps[:3] + stamps[6:] == [int(block.event_ns[i]) // 1_000_000 for i in (0, 1, 2, 6, 7, 8, 9)]
    assert block.values(4, 5).to_pylist() == block.values(0, 10).to_pylist()[4:5]


def test_same_seed_same_bytes() -> None:
    first, again, other = (renderer(seed=seed).render(times(50)).values(0, 50) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_breaks_the_rule_that_it_names(fault) -> None:
    block = renderer().render(times(20))
    for value in block.values(0, 20).to_pylist():
        assert judge(fault.apply(value), BASE_NS // 1_000, MAPPING) == fault.rule


def test_disturbances_are_drawn_and_accounted_for() -> None:
    disturbance = Disturbance(broken=0.2, duplicate=0.1, late=0.1, late_by_s=30)
    block = renderer(disturbance, seed=3).render(times(20_000, 1_000))
    block.stamp(0, block.rows, 1_790_000_000_500)
    values = block.values(0, block.rows).to_pylist()
    assert block.rows == pytest.approx(22_000, abs=300)
    assert (block.faults != SOUND).mean() == pytest.approx(0.2, abs=0.02)
    assert (block.event_ns < block.due_ns).mean() == pytest.approx(0.1, abs=0.01)
    assert np.all(np.diff(block.due_ns) >= 0)
    for value, fault in zip(values, block.faults, strict=True):
        verdict = judge(value, BASE_NS // 1_000, MAPPING)
        assert (verdict == FAULTS[fault].rule) if fault != SOUND else isinstance(verdict, tuple)


def test_disorder_moves_event_times_back_by_less_than_asked() -> None:
    block = renderer(Disturbance(disorder_s=2)).render(times(5_000))
    back = block.due_ns - block.event_ns
    assert back.min() >= 0
    assert 1.9e9 < back.max() < 2e9
    assert back.mean() == pytest.approx(1e9, rel=0.05)


@pytest.mark.parametrize("wrong", [{"broken": -0.1}, {"late": 1.5}, {"duplicate": 2}, {"late_by_s": -1}])
def test_wrong_shares_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DeclarationError, match="PS-BENCH-003"):
        Disturbance(**wrong)


EVENTS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 2 * 10**18), st.integers(0, 2), st.integers(1, 2**45)), max_size=40
)


@given(EVENTS, st.sampled_from([1, 250_000, 1_000_000, 7_000_000, 604_800_000_000]))
@settings(max_examples=examples(200), deadline=None)
def test_counting_columns_is_counting_one_by_one(events: list[tuple[int, int, int, int]], window_us: int) -> None:
    columns = [np.array(column, dtype=np.int64) for column in zip(*events, strict=True)] or [np.empty(0, np.int64)] * 4
    expected: dict[tuple[int, int], Counts] = {}
    for campaign, event_ns, kind, produced in events:
        cell = (campaign, window_start_us(event_ns // 1_000, window_us))
        one = Counts(1, int(kind == 0), int(kind == 1), int(kind == 2), produced)
        expected[cell] = expected.get(cell, Counts()) + one
    got = count_events(*columns, window_us)
    assert differences(expected, got) == []
    assert total(got).count == len(events)
