"""Counts and percentiles per step against the same, one value at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.bench.series import percentile_lines, rate_line, steps_between

TIMES = st.lists(st.tuples(st.integers(-5_000, 12_000), st.integers(0, 1_000)), max_size=60)


@given(TIMES, st.integers(1, 3_000), st.integers(1, 6))
def test_rates_are_counts_per_second(times: list[tuple[int, int]], step_us: int, steps: int) -> None:
    at = np.array([time for time, _ in times], dtype=np.int64)
    weights = np.array([weight for _, weight in times], dtype=np.int64)
    plain, weighted = rate_line("x", at, 100, step_us, steps), rate_line("x", at, 100, step_us, steps, weights)
    for step in range(steps):
        inside = [pair for pair in times if 0 <= pair[0] - 100 - step * step_us < step_us]
        assert plain.values[step] == len(inside) * (1e6 / step_us)
        assert weighted.values[step] == sum(weight for _, weight in inside) * (1e6 / step_us)


@given(TIMES, st.integers(1, 3_000), st.integers(1, 6), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_are_values_that_occur(
    times: list[tuple[int, int]], step_us: int, steps: int, percent: float
) -> None:
    at = np.array([time for time, _ in times], dtype=np.int64)
    values = np.array([value for _, value in times], dtype=np.int64)
    (line,) = percentile_lines(values, at, 0, step_us, steps, (percent,))
    for step in range(steps):
        inside = sorted(value for time, value in times if step * step_us <= time < (step + 1) * step_us)
        if not inside:
            assert line.values[step] is None
            continue
        found = line.values[step]
        assert found is not None
        assert found * 1e3 == next(v for v in inside if sum(w <= v for w in inside) * 100 >= percent * len(inside))
    assert line.name == f"P{percent}"


def test_steps_reach_the_last_moment() -> None:
    assert [steps_between(0, end, 10) for end in (-1, 0, 9, 10, 25)] == [0, 1, 1, 2, 3]
