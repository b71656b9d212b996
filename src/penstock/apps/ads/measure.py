"""Latencies of the ads job, from what lies in the topics and from the producers' schedule.

Two definitions, never mixed:

- event latency: from the time at which an event was meant to be sent to the time at which the first result including
  it was written. Results do not name their events; `inclusion` bounds which result that was. What is reported is the
  upper bound of every event, so that no latency is understated; the lower bounds are kept beside it. The mean is exact
  whatever the job read first: the sums of the times of writing and of the intended times do not depend on the order.
- window latency: from the newest actual send in a window (`max_produce_time`, whole milliseconds, so up to 1 ms is
  added) to the time at which the last result of the campaign and window was written; and from the window's end to then
  (0 where that result was there before).

The write time is the append time of the record in the results topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.apps.ads.counts import Cell
from penstock.apps.ads.inclusion import CellEvents, CellResults, included
from penstock.apps.ads.results import Written
from penstock.apps.ads.timeline import Timeline
from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import Series
from penstock.bench.series import percentile_lines, rate_line, steps_between

Integers = NDArray[np.int64]
SECOND_US = 1_000_000
FINE_US = 100_000
FINE_STEPS = 1_200


@dataclass(frozen=True)
class WindowLatency:
    """One window, over all campaigns: event latency, and window latency since the newest send and since the close."""

    start_us: int
    event: LatencyHistogram
    since_send: LatencyHistogram
    since_close: LatencyHistogram


@dataclass(frozen=True)
class Measured:
    """All latencies of a run, in microseconds.

    event, event_least: the upper and the lower bound of each event. event_mean_us: exact. lag: intended to actual send
    as the topic shows it (milliseconds as microseconds). impossible: cells with results that no prefixes of the
    partitions explain, and how many.
    """

    event: LatencyHistogram
    event_least: LatencyHistogram
    event_mean_us: float
    since_send: LatencyHistogram
    since_close: LatencyHistogram
    windows: tuple[WindowLatency, ...]
    impossible: Mapping[Cell, int]
    series: tuple[Series, ...]


def measure(timelines: Sequence[Timeline], history: Mapping[Cell, Sequence[Written]], window_us: int) -> Measured:
    """The latencies of all cells that have results. timelines: one per partition of the events."""
    cells = _by_cell(timelines)
    impossible: dict[Cell, int] = {}
    found: list[_Found] = []
    for cell in sorted(cells.keys() & history.keys(), key=lambda cell: (cell[1], cell[0])):
        parts = [cells[cell].get(timeline.partition, _NOTHING) for timeline in timelines]
        times, wrong = included(parts, _columns(history[cell]))
        if wrong:
            impossible[cell] = wrong
        found += [_Found(cell[1], each.intended_us, each.earliest_us, each.latest_us) for each in times]
    intended_us = _joined([each.intended_us for each in found])
    latest_us = _joined([each.latest_us for each in found])
    event, least = LatencyHistogram(), LatencyHistogram()
    event.add(latest_us - intended_us)
    least.add(_joined([each.earliest_us for each in found]) - intended_us)
    windows = _windows(found, history, window_us)
    since_send, since_close = LatencyHistogram(), LatencyHistogram()
    for window in windows:
        since_send.merge(window.since_send)
        since_close.merge(window.since_close)
    return Measured(
        event,
        least,
        _exact_mean(cells, history, impossible, event.mean),
        since_send,
        since_close,
        windows,
        impossible,
        _series(timelines, intended_us, latest_us),
    )


@dataclass(frozen=True)
class _Found:
    """The included events of one cell and partition."""

    start_us: int
    intended_us: Integers
    earliest_us: Integers
    latest_us: Integers


_NOTHING = CellEvents(*(np.empty(0, dtype=np.int64) for _ in range(3)))


def _by_cell(timelines: Sequence[Timeline]) -> dict[Cell, dict[int, CellEvents]]:
    """The accepted events of each cell, by partition, in offset order."""
    cells: dict[Cell, dict[int, CellEvents]] = {}
    for timeline in timelines:
        accepted = np.flatnonzero(timeline.late == 0)
        order = accepted[np.lexsort((timeline.campaigns[accepted], timeline.starts_us[accepted]))]
        campaigns, starts = timeline.campaigns[order], timeline.starts_us[order]
        changes = np.flatnonzero((np.diff(campaigns) != 0) | (np.diff(starts) != 0)) + 1
        for rows in np.split(order, changes) if len(order) else []:
            cell = (int(timeline.campaigns[rows[0]]), int(timeline.starts_us[rows[0]]))
            events = CellEvents(timeline.kinds[rows], timeline.produce_ms[rows], timeline.intended_us[rows])
            cells.setdefault(cell, {})[timeline.partition] = events
    return cells


def _columns(written: Sequence[Written]) -> CellResults:
    rows = [(time, each.views, each.clicks, each.purchases, each.max_produce_time_ms) for time, each in written]
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return CellResults(table[:, 0], table[:, 1:4], table[:, 4])


def _exact_mean(
    cells: Mapping[Cell, Mapping[int, CellEvents]],
    history: Mapping[Cell, Sequence[Written]],
    impossible: Mapping[Cell, int],
    bound: float,
) -> float:
    """The mean over cells that are complete and sound; `bound` where another cell has results."""
    total_us, count = 0, 0
    for cell, parts in cells.items():
        size = sum(len(part.intended_us) for part in parts.values())
        if cell in impossible or not history.get(cell) or history[cell][-1][1].count != size:
            return bound
        # Relative to the window, because a sum of many times since 1970 does not fit 64 bits.
        base_us, before = cell[1], 0
        for written_us, counts in history[cell]:
            total_us += (written_us - base_us) * (counts.count - before)
            before = counts.count
        total_us -= sum(int((part.intended_us - base_us).sum()) for part in parts.values())
        count += size
    return total_us / count if count else bound


def _windows(
    found: Sequence[_Found], history: Mapping[Cell, Sequence[Written]], window_us: int
) -> tuple[WindowLatency, ...]:
    windows: dict[int, WindowLatency] = {}

    def window_at(start_us: int) -> WindowLatency:
        if start_us not in windows:
            histograms = (LatencyHistogram(), LatencyHistogram(), LatencyHistogram())
            windows[start_us] = WindowLatency(start_us, *histograms)
        return windows[start_us]

    for each in found:
        window_at(each.start_us).event.add(each.latest_us - each.intended_us)
    for (_, start_us), written in history.items():
        written_us, counts = written[-1]
        window = window_at(start_us)
        window.since_send.add(np.array([written_us - counts.max_produce_time_ms * 1_000]))
        window.since_close.add(np.array([written_us - start_us - window_us]))
    return tuple(windows[start] for start in sorted(windows))


def _series(timelines: Sequence[Timeline], intended_us: Integers, latest_us: Integers) -> tuple[Series, ...]:
    due_us = _joined([timeline.intended_us for timeline in timelines])
    sent_us = _joined([timeline.produce_ms for timeline in timelines]) * 1_000
    if not len(due_us):
        return ()
    start_us, end_us = int(due_us.min()), int(max(due_us.max(), sent_us.max(), latest_us.max(initial=0)))
    seconds = steps_between(start_us, end_us, SECOND_US)
    sent_end_us = int(max(due_us.max(), sent_us.max()))
    fine_us = FINE_US if (sent_end_us - start_us) // FINE_US < FINE_STEPS else SECOND_US
    fine = steps_between(start_us, sent_end_us, fine_us)
    return (
        Series(
            "throughput",
            "Throughput",
            "events/s",
            1.0,
            (
                rate_line("sent", sent_us, start_us, SECOND_US, seconds),
                rate_line("in a result", latest_us, start_us, SECOND_US, seconds),
            ),
        ),
        Series(
            "latency",
            "Event latency",
            "ms",
            1.0,
            percentile_lines(latest_us - intended_us, intended_us, start_us, SECOND_US, seconds),
            "log",
            "By the second in which the events were meant to be sent.",
        ),
        Series(
            "arrivals",
            "Arrivals",
            "events/s",
            fine_us / 1e6,
            (
                rate_line("intended", due_us, start_us, fine_us, fine),
                rate_line("actual", sent_us, start_us, fine_us, fine),
            ),
            note=f"Sound events, in steps of {fine_us / 1e6:g} s.",
        ),
    )


def _joined(arrays: Sequence[Integers]) -> Integers:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
