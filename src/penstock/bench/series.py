"""Values over time, cut into steps of equal length: counts and percentiles per step, as the lines of a chart.

A time belongs to the step that begins at or before it; times outside of the chart are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.bench.report import Line

Integers = NDArray[np.int64]
MICROSECONDS = 1_000_000


def steps_between(start_us: int, end_us: int, step_us: int) -> int:
    """How many steps reach from `start_us` to `end_us`, that one included."""
    return max(0, (end_us - start_us) // step_us + 1)


def rate_line(
    name: str, times_us: Integers, start_us: int, step_us: int, steps: int, weights: Integers | None = None
) -> Line:
    """Events per second in each step; `weights`: how many events each time stands for (one each by default).

    Example:
        >>> rate_line("sent", np.array([0, 1, 600_000]), 0, 500_000, 3).values
        (4.0, 2.0, 0.0)
    """
    places, inside = _places(times_us, start_us, step_us, steps)
    counts = np.bincount(places[inside], None if weights is None else weights[inside], minlength=steps)
    return Line(name, tuple((counts * (MICROSECONDS / step_us)).tolist()))


def percentile_lines(
    values_us: Integers,
    times_us: Integers,
    start_us: int,
    step_us: int,
    steps: int,
    percents: tuple[float, ...] = (50, 90, 99),
) -> tuple[Line, ...]:
    """Percentiles of latencies (microseconds) in each step, in milliseconds; None for a step without any.

    A percentile is a value that occurs: the smallest that `percent` of the step's values do not exceed.
    """
    places, inside = _places(times_us, start_us, step_us, steps)
    order = np.lexsort((values_us[inside], places[inside]))
    values, where = values_us[inside][order], places[inside][order]
    starts = np.searchsorted(where, np.arange(steps + 1))
    lines = []
    for percent in percents:
        found: list[float | None] = []
        for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            rank = max(1, int(np.ceil((end - first) * percent / 100)))
            found.append(float(values[first + rank - 1]) / 1e3 if end > first else None)
        lines.append(Line(f"P{percent:g}", tuple(found)))
    return tuple(lines)


def _places(times_us: Integers, start_us: int, step_us: int, steps: int) -> tuple[Integers, NDArray[np.bool_]]:
    places = (np.asarray(times_us, dtype=np.int64) - start_us) // step_us
    return places, (places >= 0) & (places < steps)
