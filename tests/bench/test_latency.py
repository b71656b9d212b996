"""The latency histogram against exact percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bench.latency import LatencyHistogram

VALUES = st.lists(st.integers(0, 2**53), min_size=1, max_size=200)


def histogram_of(values: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    histogram.add(np.array(values, dtype=np.int64))
    return histogram


@given(VALUES, st.sampled_from([0.1, 50, 90, 99, 99.9, 100]))
def test_percentiles_are_exact_up_to_the_width_of_a_bucket(values: list[int], percent: float) -> None:
    exact = sorted(values)[max(1, int(np.ceil(len(values) * percent / 100))) - 1]
    found = histogram_of(values).percentile(percent)
    assert exact <= found <= exact + exact // 128


@given(VALUES, VALUES)
def test_merging_is_counting_together(left: list[int], right: list[int]) -> None:
    together, merged = histogram_of(left + right), histogram_of(left)
    merged.merge(histogram_of(right))
    assert merged.to_dict() == together.to_dict()
    assert (merged.count, merged.total, merged.largest) == (together.count, together.total, together.largest)


@given(VALUES)
def test_round_trip(values: list[int]) -> None:
    histogram = histogram_of(values)
    again = LatencyHistogram.from_dict(histogram.to_dict())
    assert again.to_dict() == histogram.to_dict()
    assert again.mean == pytest.approx(np.mean(values))


def test_empty_and_negative() -> None:
    assert LatencyHistogram().percentile(50) == 0
    assert LatencyHistogram().mean == 0
    assert histogram_of([-5]).percentile(50) == 0
