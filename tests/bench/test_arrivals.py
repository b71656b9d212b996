"""Arrival processes against their formulas; all seeds are fixed, so a statistic either holds for good or never."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from penstock.bench import arrivals
from penstock.bench.arrivals import NS_PER_SECOND, Load, Offsets, arrival_names, arrival_process, two_states
from penstock.errors import DeclarationError

NAMES = ("uniform", "poisson", "poisson_fixed", "mmpp")


def seconds(name: str, load: Load, count: int, seed: int = 1) -> list[Offsets]:
    return list(itertools.islice(arrival_process(name)(load, np.random.default_rng(seed)), count))


def uniform_distance(values: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of sorted values in [0, 1) from the uniform distribution, times sqrt(n)."""
    ranks = np.arange(1, len(values) + 1)
    above = ranks / len(values) - values
    below = values - (ranks - 1) / len(values)
    return float(max(above.max(), below.max()) * np.sqrt(len(values)))


@pytest.mark.parametrize("name", NAMES)
@given(rate=st.floats(0.1, 3_000), seed=st.integers(0, 2**32), ratio=st.floats(1, 50), leave=st.floats(0.05, 20))
@settings(max_examples=examples(60), deadline=None)
def test_offsets_ascend_and_are_half_open(name: str, rate: float, seed: int, ratio: float, leave: float) -> None:
    for offsets in seconds(name, Load(rate, ratio, leave, 1.0), 5, seed):
        assert offsets.dtype == np.int64
        assert np.all(np.diff(offsets) >= 0)
        assert len(offsets) == 0 or (offsets[0] >= 0 and offsets[-1] < NS_PER_SECOND)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_events_and_other_seed_others(name: str) -> None:
    first, again, other = (seconds(name, Load(500), 3, seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    if name != "uniform":
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_uniform_is_i_over_n() -> None:
    assert seconds("uniform", Load(4), 1)[0].tolist() == [0, 250_000_000, 500_000_000, 750_000_000]


@given(rate=st.floats(0.01, 1_000), count=st.integers(1, 60))
@settings(deadline=None)
def test_fractional_rates_add_up(rate: float, count: int) -> None:
    for name in ("uniform", "poisson_fixed"):
        assert sum(map(len, seconds(name, Load(rate), count))) == int(count * rate)


def test_poisson_counts_have_variance_equal_to_mean() -> None:
    counts = np.array([len(offsets) for offsets in seconds("poisson", Load(100), 5_000)])
    # The standard error of the mean is 0.14, that of the index of dispersion 0.02.
    assert abs(counts.mean() - 100) < 0.6
    assert abs(counts.var(ddof=1) / counts.mean() - 1) < 0.08


def test_poisson_counts_fit_the_distribution() -> None:
    counts = np.array([len(offsets) for offsets in seconds("poisson", Load(3), 20_000, seed=3)])
    probability = [np.exp(-3)]
    for k in range(1, 8):
        probability.append(probability[-1] * 3 / k)
    probability.append(1 - sum(probability))
    expected = 20_000 * np.array(probability)
    seen = np.bincount(np.minimum(counts, 8), minlength=9)
    # The 99.9% point of chi-square with 8 degrees of freedom.
    assert ((seen - expected) ** 2 / expected).sum() < 26.1


def test_poisson_gaps_are_exponential_across_seconds() -> None:
    parts = [offsets + k * NS_PER_SECOND for k, offsets in enumerate(seconds("poisson", Load(200), 50, seed=5))]
    gaps = np.sort(np.diff(np.concatenate(parts)) / NS_PER_SECOND)
    # The 99.9% point of the Kolmogorov-Smirnov statistic is 1.95.
    assert uniform_distance(1 - np.exp(-200 * gaps)) < 1.95


def test_poisson_fixed_gives_the_same_count_and_uniform_places() -> None:
    drawn = seconds("poisson_fixed", Load(200), 50, seed=6)
    assert {len(offsets) for offsets in drawn} == {200}
    assert uniform_distance(np.sort(np.concatenate(drawn)) / NS_PER_SECOND) < 1.95


def test_mmpp_rates_are_the_published_ones() -> None:
    states = two_states(Load(20_000))
    assert states.low_rate == pytest.approx(6_666.67, abs=0.01)
    assert states.high_rate == pytest.approx(33_333.33, abs=0.01)
    assert (states.low_share, states.high_share) == (0.5, 0.5)


@given(q12=st.floats(0.1, 10), q21=st.floats(0.1, 10), ratio=st.floats(1, 20))
def test_mmpp_rates_average_to_the_rate(q12: float, q21: float, ratio: float) -> None:
    states = two_states(Load(100, ratio, q12, q21))
    assert states.low_share * states.low_rate + states.high_share * states.high_rate == pytest.approx(100)
    assert states.high_rate == pytest.approx(ratio * states.low_rate)
    assert states.low_share * q12 == pytest.approx(states.high_share * q21)


def test_mmpp_mean_and_variance_of_counts() -> None:
    load = Load(100, 5, 0.5, 0.5)
    states = two_states(load)
    counts = np.array([len(offsets) for offsets in seconds("mmpp", load, 20_000, seed=11)])
    change = load.q12 + load.q21
    spread = (states.high_rate - states.low_rate) ** 2 * states.low_share * states.high_share
    # Var N(1) = mean + 2 * spread * (change - 1 + exp(-change)) / change^2 (Fischer, Meier-Hellstern 1993).
    variance = 100 + 2 * spread * (change - 1 + np.exp(-change)) / change**2
    assert counts.mean() == pytest.approx(100, rel=0.03)
    assert counts.var(ddof=1) == pytest.approx(variance, rel=0.06)


def test_mmpp_state_lives_on_between_seconds() -> None:
    load = Load(1_000, 5, 0.5, 0.5)
    counts = np.array([len(offsets) for offsets in seconds("mmpp", load, 10_000, seed=12)], dtype=float)
    centred = counts - counts.mean()
    lag_one = (centred[1:] * centred[:-1]).mean()
    states = two_states(load)
    spread = (states.high_rate - states.low_rate) ** 2 * states.low_share * states.high_share
    # Cov(N(k), N(k+1)) = spread * ((1 - exp(-change)) / change)^2 with change = 1.
    assert lag_one == pytest.approx(spread * (1 - np.exp(-1)) ** 2, rel=0.08)


def test_mmpp_starts_stationary() -> None:
    load = Load(1_000, 9, 1.0, 3.0)
    first = [len(seconds("mmpp", load, 1, seed)[0]) for seed in range(1_500)]
    # The low state's share is 3/4; were the start always the low one, the mean would be near 560.
    assert np.mean(first) == pytest.approx(1_000, rel=0.06)


def test_mmpp_changes_within_a_second() -> None:
    load = Load(10_000, 20, 20.0, 20.0)
    thousandths = np.bincount(seconds("mmpp", load, 1, seed=2)[0] // 1_000_000, minlength=1_000)
    assert thousandths[:1_000].var() / thousandths.mean() > 3


def test_a_new_process_is_one_function_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_PROCESSES", dict(arrivals._PROCESSES))

    @arrivals.arrivals("all_at_once")
    def all_at_once(load: Load, rng: np.random.Generator) -> Iterator[Offsets]:
        while True:
            yield np.zeros(round(load.rate), dtype=np.int64)

    assert "all_at_once" in arrival_names()
    assert seconds("all_at_once", Load(3), 1)[0].tolist() == [0, 0, 0]


def test_unknown_process_and_wrong_load_are_clear() -> None:
    with pytest.raises(DeclarationError, match="PS-BENCH-002") as unknown:
        arrival_process("sometimes")
    assert "mmpp" in unknown.value.expected
    for load in (
        {"rate": 0},
        {"rate": -1},
        {"rate": float("nan")},
        {"rate": 1, "rate_ratio": 0.5},
        {"rate": 1, "q12": 0},
    ):
        with pytest.raises(DeclarationError, match="PS-BENCH-003"):
            Load(**load)
