"""Charts as HTML that needs no script: an SVG that stretches with the page, and labels beside it as text.

The drawing is 1000 by 300 units whatever the page's width is; axis labels are HTML, so that they keep their size and
can be read and selected. Every chart carries its values as a table; the page's script reads that table and
nothing else. Lines differ by dash as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from penstock.bench.report import Latency, Series

WIDTH, HEIGHT = 1000.0, 300.0
BARS_PER_DECADE = 20
FIRST_PLACE = BARS_PER_DECADE
GAP = 1.0
# Above the highest bar, for the names of the percentiles.
HEADROOM = 1.25
DASHED_STEPS = 150
MAX_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """A scale from values to the share (0 to 1) of the way along an axis."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies; values outside are put on the edge."""
        if self.log:
            value, low, high = (math.log10(max(each, 1e-9)) for each in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))


def linear_axis(high: float) -> Axis:
    """From 0 to a round number at or above `high`, with at most six steps between.

    Example:
        >>> linear_axis(43_210).ticks
        (0.0, 10000.0, 20000.0, 30000.0, 40000.0, 50000.0)
    """
    high = high if high > 0 else 1.0
    step = 10.0 ** math.floor(math.log10(high))
    step *= next(factor for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if high / (step * factor) <= MAX_TICKS - 1)
    count = math.ceil(high / step - 1e-9)
    return Axis(0.0, step * count, tuple(round(step * number, 10) for number in range(count + 1)))


def log_axis(low: float, high: float) -> Axis:
    """Around `low` and `high` (both above 0); ticks at 1, 2 and 5 of each decade, or only at 1 where those are many.

    Example:
        >>> log_axis(3, 40).ticks
        (2.0, 5.0, 10.0, 20.0, 50.0)
    """
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    fine = [_power(factor, power) for power in range(first, last + 1) for factor in (1, 2, 5)]
    start = max(tick for tick in fine if tick <= low * (1 + 1e-9))
    end = min(tick for tick in fine if tick >= high * (1 - 1e-9) and tick > start)
    inside = tuple(tick for tick in fine if start <= tick <= end)
    if len(inside) > MAX_TICKS:
        inside = tuple(tick for tick in inside if math.log10(tick).is_integer())
    return Axis(start, end, inside, log=True)


def time_chart(series: Series) -> str:
    """A chart over time: one line per `Line`, steps in seconds since the start."""
    values = [value for line in series.lines for value in line.values if value is not None]
    steps = max((len(line.values) for line in series.lines), default=0)
    if not values or not steps:
        return f'<p class="none">{escape(series.title)}: nothing was measured.</p>'
    positive = [value for value in values if value > 0]
    log = series.scale == "log" and bool(positive)
    y = log_axis(min(positive), max(positive)) if log else linear_axis(max(values))
    x = time_axis(steps * series.step_s)
    # Dashes are unreadable where a line jumps at every step.
    dense = " dense" if steps > DASHED_STEPS else ""
    drawing = "".join(
        f'<path class="line line-{index}{dense}" d="{_path(line.values, y)}"/>'
        for index, line in enumerate(series.lines)
    )
    legend = "".join(f"<li>{_key(index, dense)}{escape(line.name)}</li>" for index, line in enumerate(series.lines))
    head = ("second", *(f"{line.name}, {series.unit}" for line in series.lines))
    rows = (
        (
            _short(step * series.step_s),
            *(number(line.values[step] if step < len(line.values) else None) for line in series.lines),
        )
        for step in range(steps)
    )
    return _figure(
        series.title,
        series.note,
        f'<ul class="legend">{legend}</ul>',
        _plot(drawing, y, x, series.unit, "seconds since the start"),
        _values(head, rows),
    )


def histogram_chart(latency: Latency) -> str:
    """How often each latency occurred: a logarithmic axis of milliseconds, with the percentiles marked."""
    bars = _bars(latency.bins)
    if not bars:
        return ""
    edges = [(_edge(place), _edge(place + 1), count / latency.count) for place, count in sorted(bars.items())]
    x = log_axis(edges[0][0], edges[-1][1])
    y = linear_axis(max(share for _, _, share in edges) * 100 * HEADROOM)
    shapes = "".join(
        f"M{x.share(low) * WIDTH:.1f} {HEIGHT:.0f}V{(1 - y.share(share * 100)) * HEIGHT:.1f}"
        f"H{x.share(high) * WIDTH - GAP:.1f}V{HEIGHT:.0f}Z"
        for low, high, share in edges
    )
    marks = [(name, value) for name, value in _marks(latency) if value >= edges[0][0]]
    drawing = f'<path class="bars" d="{shapes}"/>' + "".join(
        f'<path class="mark" d="M{x.share(value) * WIDTH:.1f} 0V{HEIGHT:.0f}"/>' for _, value in marks
    )
    labels = "".join(
        f'<span class="mark-label{" left" if x.share(value) > 0.6 else ""}" '
        f'style="left:{x.share(value) * 100:.2f}%;top:{row * 1.35:.2f}em">{name} {number(value)} ms</span>'
        for row, (name, value) in enumerate(marks)
    )
    rows = (
        (
            f"{number(low)} to {number(high)}" if place > FIRST_PLACE else f"under {number(high)}",
            f"{count:,}",
            f"{share:.3%}",
        )
        for (place, count), (low, high, share) in zip(sorted(bars.items()), edges, strict=True)
    )
    middles = " ".join(f"{(x.share(low) + x.share(high)) / 2:.4f}" for low, high, _ in edges)
    return _figure(
        latency.title,
        "",
        "",
        _plot(drawing, y, x, "% of all", "milliseconds, logarithmic", labels, middles),
        _values(("milliseconds", "count", "share"), rows),
    )


def number(value: float | None) -> str:
    """A value for people: three digits that matter, thousands separated; a dash for nothing.

    Example:
        >>> number(12.345), number(43_210.4), number(0.0123), number(None)
        ('12.3', '43,210', '0.0123', '-')
    """
    if value is None:
        return "-"
    size = abs(float(f"{value:.3g}"))
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def time_axis(seconds: float) -> Axis:
    """From 0 to exactly `seconds`, with round ticks."""
    ticks = linear_axis(seconds).ticks
    return Axis(0.0, seconds, tuple(tick for tick in ticks if tick <= seconds * (1 + 1e-9)))


def _key(index: int, dense: str) -> str:
    """A piece of the line, for the legend."""
    line = f'<path class="line line-{index}{dense}" d="M1 4H27"/>'
    return f'<svg class="key" viewBox="0 0 28 8" aria-hidden="true">{line}</svg>'


def _power(factor: int, power: int) -> float:
    return float(factor * 10**power if power >= 0 else factor / 10**-power)


def _short(value: float) -> str:
    """A tick's label: 0, 0.5, 20, 40k, 2M."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit and (value >= 10_000 or value % 1_000 == 0):
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _path(values: Sequence[float | None], y: Axis) -> str:
    """The line through the middles of the steps; it breaks where there is nothing, and a lone value is a dot."""
    points = [
        None if value is None else ((step + 0.5) / len(values) * WIDTH, (1 - y.share(value)) * HEIGHT)
        for step, value in enumerate(values)
    ]
    commands = []
    for before, point in pairwise([None, *points]):
        if point is None:
            continue
        commands.append(f"{'L' if before else 'M'}{point[0]:.1f} {point[1]:.1f}" + ("" if before else "h.1"))
    return "".join(commands)


def _bars(bins: Iterable[tuple[int, int, int]]) -> dict[int, int]:
    """Counts by twentieth of a decade of microseconds; everything below 10 microseconds goes into the first."""
    bars: dict[int, int] = {}
    for low, high, count in bins:
        place = max(FIRST_PLACE, math.floor(math.log10(max((low + high) / 2, 1)) * BARS_PER_DECADE + 1e-9))
        bars[place] = bars.get(place, 0) + count
    return bars


def _edge(place: int) -> float:
    """Where a bar begins, in milliseconds."""
    return 10 ** (place / BARS_PER_DECADE) / 1e3


def _marks(latency: Latency) -> list[tuple[str, float]]:
    named = (("P50", latency.p50_ms), ("P90", latency.p90_ms), ("P99", latency.p99_ms), ("P99.9", latency.p999_ms))
    return [(name, value) for name, value in named if value > 0]


def _plot(drawing: str, y: Axis, x: Axis, y_unit: str, x_unit: str, labels: str = "", places: str = "") -> str:
    grid = "".join(f'<path class="grid" d="M0 {(1 - y.share(tick)) * HEIGHT:.1f}H{WIDTH:.0f}"/>' for tick in y.ticks)
    across = "".join(f'<span style="top:{(1 - y.share(tick)) * 100:.2f}%">{_short(tick)}</span>' for tick in y.ticks)
    along = "".join(f'<span style="left:{x.share(tick) * 100:.2f}%">{_short(tick)}</span>' for tick in x.ticks)
    return (
        f'<div class="unit">{escape(y_unit)}</div><div class="plot"><div class="y" aria-hidden="true">{across}</div>'
        f'<div class="area" data-places="{places}"><svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" '
        f'preserveAspectRatio="none" aria-hidden="true">{grid}{drawing}</svg>{labels}</div>'
        f'<div class="x" aria-hidden="true">{along}</div></div><div class="unit along">{escape(x_unit)}</div>'
    )


def _figure(title: str, note: str, legend: str, plot: str, values: str) -> str:
    said = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<figure class="chart"><figcaption><h3>{escape(title)}</h3>{said}{legend}</figcaption>{plot}'
        f'<output class="readout"></output>'
        f"<details><summary>Values as a table</summary>{values}</details></figure>"
    )


def _values(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Values"><table class="values"><thead><tr>'
        f"{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )
