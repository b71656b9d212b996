"""The highest rate that a pipeline sustains: its lag does not grow and its p99 holds.

The rate is doubled until it no longer holds, then the gap is halved until it is small. Every try is a run of its own
with a fresh state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CLOSE_ENOUGH = 1.1
MOST_TRIES = 20
LOWEST = 64


@dataclass(frozen=True)
class Try:
    """A rate that was tried. reasons: why it does not hold, empty if it does. void: the load was not what it said."""

    rate: float
    p99_ms: float
    reasons: tuple[str, ...]
    void: bool = False

    @property
    def holds(self) -> bool:
        return not self.reasons


def search(first_rate: float, attempt: Callable[[float], Try]) -> list[Try]:
    """Try rates from `first_rate` on; the highest that holds is the greatest `rate` among those that hold.

    Example:
        >>> tries = search(100, lambda rate: Try(rate, 1.0, () if rate <= 1_000 else ("too slow",)))
        >>> 900 < max(each.rate for each in tries if each.holds) <= 1_000
        True
    """
    tries = [attempt(first_rate)]
    good, bad = (first_rate, 0.0) if tries[0].holds else (0.0, first_rate)
    while len(tries) < MOST_TRIES:
        if not bad:
            rate = good * 2
        elif not good:
            rate = bad / 2
            if rate < first_rate / LOWEST:
                return tries
        elif bad / good <= CLOSE_ENOUGH:
            return tries
        else:
            rate = (good * bad) ** 0.5
        tries.append(attempt(rate))
        if tries[-1].holds:
            good = rate
        else:
            bad = rate
    return tries


def best(tries: list[Try]) -> Try | None:
    """The highest rate that holds."""
    return max((each for each in tries if each.holds), key=lambda each: each.rate, default=None)
