"""Arrival processes: when events happen, as offsets inside one second after another.

An arrival process is a generator function `(load, rng) -> Iterator[offsets]`. It yields one int64 array for each
logical second, for ever: nanoseconds within that second, ascending, half-open (`0 <= offset < 10**9`). What the
process remembers from one second to the next (a state, a fraction) lives in its local variables, so cutting a run
into seconds changes nothing. All randomness comes from the `rng` it is given.

A new process is one decorated function here, or an entry point of the group `penstock.arrivals` elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DeclarationError

NS_PER_SECOND = 1_000_000_000
ENTRY_POINTS = "penstock.arrivals"

Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Load:
    """How much arrives.

    rate: events per second on average. rate_ratio: the high rate over the low rate. q12, q21: how often per second
    the low state is left for the high one, and the high for the low (the last three are for `mmpp`).
    """

    rate: float
    rate_ratio: float = 5.0
    q12: float = 0.5
    q21: float = 0.5

    def __post_init__(self) -> None:
        for name, value, least in (("rate", self.rate, 0.0), ("q12", self.q12, 0.0), ("q21", self.q21, 0.0)):
            if not (least < value < 1e12):
                raise _wrong_load(name, "a number above 0", value)
        if not (1.0 <= self.rate_ratio < 1e12):
            raise _wrong_load("rate_ratio", "a number of at least 1", self.rate_ratio)


@dataclass(frozen=True)
class TwoStates:
    """The rates of a two-state process and the share of time that it spends in each state."""

    low_rate: float
    high_rate: float
    low_share: float
    high_share: float


Process = Callable[[Load, np.random.Generator], Iterator[Offsets]]

_PROCESSES: dict[str, Process] = {}


def arrivals(name: str) -> Callable[[Process], Process]:
    """Register an arrival process under `name`.

    Example:
        >>> @arrivals("on_the_second")
        ... def on_the_second(load, rng):
        ...     while True:
        ...         yield np.zeros(round(load.rate), dtype=np.int64)
        >>> next(arrival_process("on_the_second")(Load(3), np.random.default_rng(1))).tolist()
        [0, 0, 0]
    """

    def register(process: Process) -> Process:
        _PROCESSES[name] = process
        return process

    return register


def arrival_names() -> list[str]:
    """The names of all processes, of this package and of installed plug-ins."""
    return sorted({*_PROCESSES, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def arrival_process(name: str) -> Process:
    """The process registered under `name`.

    Raises:
        DeclarationError: PS-BENCH-002, no process has that name.
    """
    if name in _PROCESSES:
        return _PROCESSES[name]
    for point in entry_points(group=ENTRY_POINTS, name=name):
        process: Process = point.load()
        return process
    raise DeclarationError(
        "PS-BENCH-002", f"arrival process {name} is unknown", expected=", ".join(arrival_names()), got=name
    )


@arrivals("uniform")
def uniform(load: Load, rng: np.random.Generator) -> Iterator[Offsets]:
    """Event i of the N of a second at i/N; a fractional rate alternates between its two nearest counts."""
    for count in _counts(load.rate):
        yield (np.arange(count, dtype=np.int64) * NS_PER_SECOND) // max(count, 1)


@arrivals("poisson")
def poisson(load: Load, rng: np.random.Generator) -> Iterator[Offsets]:
    """A Poisson process: the count of each second varies, and the times given the count are uniform."""
    while True:
        yield _uniform_times(rng, rng.poisson(load.rate), 0.0, 1.0)


@arrivals("poisson_fixed")
def poisson_fixed(load: Load, rng: np.random.Generator) -> Iterator[Offsets]:
    """The same number of events each second, spaced by normalised exponentials.

    N + 1 gaps are drawn and the last one is left out, so that no event falls on the end of its second.
    """
    for count in _counts(load.rate):
        gaps = rng.exponential(size=count + 1)
        times = np.cumsum(gaps)[:count] / gaps.sum()
        yield _half_open(times)


@arrivals("mmpp")
def mmpp(load: Load, rng: np.random.Generator) -> Iterator[Offsets]:
    """A Markov-modulated Poisson process of two states in continuous time, started in its stationary distribution.

    Holding times are exponential and run on from one second into the next.
    """
    states = two_states(load)
    rates = (states.low_rate, states.high_rate)
    leaving = (load.q12, load.q21)
    state = int(rng.random() >= states.low_share)
    change_s = rng.exponential(1.0 / leaving[state])
    while True:
        pieces: list[Offsets] = []
        at_s = 0.0
        while change_s < 1.0:
            pieces.append(_uniform_times(rng, rng.poisson(rates[state] * (change_s - at_s)), at_s, change_s))
            at_s = change_s
            state = 1 - state
            change_s += rng.exponential(1.0 / leaving[state])
        pieces.append(_uniform_times(rng, rng.poisson(rates[state] * (1.0 - at_s)), at_s, 1.0))
        change_s -= 1.0
        yield np.concatenate(pieces)


def two_states(load: Load) -> TwoStates:
    """The rates of `mmpp` that give `load.rate` on average, and its stationary distribution."""
    low_share = load.q21 / (load.q12 + load.q21)
    high_share = 1.0 - low_share
    low_rate = load.rate / (low_share + high_share * load.rate_ratio)
    return TwoStates(low_rate, load.rate_ratio * low_rate, low_share, high_share)


def _counts(rate: float) -> Iterator[int]:
    """Whole counts whose running total never differs from `rate` times the seconds by one or more."""
    second = 0
    while True:
        yield int((second + 1) * rate) - int(second * rate)
        second += 1


def _uniform_times(rng: np.random.Generator, count: int, start_s: float, end_s: float) -> Offsets:
    return _half_open(start_s + np.sort(rng.random(count)) * (end_s - start_s))


def _half_open(times_s: NDArray[np.float64]) -> Offsets:
    """Whole nanoseconds; rounding at the very end of the second must not push an event into the next one."""
    offsets: Offsets = np.minimum((times_s * NS_PER_SECOND).astype(np.int64), NS_PER_SECOND - 1)
    return offsets


def _wrong_load(name: str, expected: str, value: float) -> DeclarationError:
    return DeclarationError("PS-BENCH-003", f"{name} of the load is invalid", expected=expected, got=str(value))
