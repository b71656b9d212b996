"""The report of a trial: judgement first, then latencies, what happened over time, and every window.

A trial is wrong when a single event was lost or doubled, on the way in or by the job. It is void when the load itself
was not what it says: events that were never sent, or producers whose own lag is no longer small against what is
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from penstock.apps.ads.counts import CellCounts, differences, total
from penstock.apps.ads.measure import Measured, WindowLatency
from penstock.apps.ads.producer import Production
from penstock.apps.ads.trial import Outcome
from penstock.bench.footprint import MEMORY
from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import Judgement, Latency, Report, Table, Value, now

LAG_SHARE = 0.1
EVENT = (
    "From the time an event was meant to be sent to the time of writing of the first result that includes it. Each"
    " event counts with its upper bound, so that no latency is understated; the mean is exact."
)
EVENT_LEAST = (
    "The same, each event with its lower bound: which events a result includes is known from its counts only up to the"
    " order in which the job read the partitions. The truth lies between the two."
)
SINCE_SEND = (
    "Per campaign and window: from the newest actual send in it (max_produce_time, in whole milliseconds) to the time"
    " of writing of its last result."
)
SINCE_CLOSE = (
    "Per campaign and window: from the end of the window to the time of writing of its last result; 0 where that was"
    " written before."
)
LAG = "From the time an event was meant to be sent to the time just before it was sent: the generator's own delay."
SMALL = "The state is the database with its log, which a checkpoint empties."
COLUMNS = (
    *("window (UTC)", "expected", "counted", "lost", "doubled", "late"),
    *("mean, ms", "P50", "P90", "P99", "P99.9", "max", "since send, max", "since close, max"),
)


def ads_report(outcome: Outcome, settings: Mapping[str, Value], title: str) -> Report:
    """Everything that a trial found, as a report; `settings` as `load_settings` gives them, or what is known."""
    calculation = outcome.calculation
    measured, lag = calculation.measured, outcome.lag
    event = replace(Latency.of("event", "Event latency", EVENT, measured.event), mean_ms=measured.event_mean_us / 1e3)
    return Report(
        title,
        now(),
        judge(outcome),
        outcome.machine,
        settings,
        _counts(outcome),
        _figures(outcome),
        (
            event,
            replace(Latency.of("event_least", "Event latency, at least", EVENT_LEAST, measured.event_least), bins=()),
            Latency.of("window_since_send", "Window latency since the newest send", SINCE_SEND, measured.since_send),
            Latency.of("window_since_close", "Window latency since the close", SINCE_CLOSE, measured.since_close),
            Latency.of("send_lag", "Lag of the producers", LAG, lag),
        ),
        (*measured.series, *outcome.footprint.series()),
        _tables(outcome, measured),
        _notes(outcome),
    )


def judge(outcome: Outcome) -> Judgement:
    """Whether the figures count."""
    verdict = outcome.calculation.verdict
    if not verdict.right:
        headline = f"{verdict.lost:,} events lost, {verdict.doubled:,} doubled of {verdict.accepted:,}."
        return Judgement("wrong", headline, tuple(verdict.reasons()))
    reasons = void_reasons(outcome)
    counted = f"{verdict.accepted:,} events, each counted exactly once"
    if reasons:
        return Judgement("void", f"{counted}, but the latencies do not count.", tuple(reasons))
    return Judgement("right", f"{counted}: none lost, none doubled.")


def void_reasons(outcome: Outcome) -> list[str]:
    """Why the latencies do not count; empty when they do."""
    event = outcome.calculation.measured.event
    reasons = []
    failed = sum(ledger.failed for ledger in outcome.ledgers)
    if failed:
        reasons.append(f"{failed:,} events could not be sent.")
    if not event.count:
        reasons.append("no event was measured.")
    lag_ms, limit_ms = outcome.lag.percentile(99) / 1e3, event.percentile(90) / 1e3 * LAG_SHARE
    if event.count and lag_ms > limit_ms:
        reasons.append(
            f"the producers lagged: P99 {lag_ms:.1f} ms behind their schedule, more than a tenth of the measured P90"
            f" ({limit_ms:.1f} ms). The machine was too busy to measure this load, or the load is too high for it."
        )
    return reasons


def load_settings(production: Production, job: str, watermark_s: float) -> dict[str, Value]:
    """What a trial was asked for."""
    load, disturbance = production.load, production.disturbance
    settings: dict[str, Value] = {
        "job": job,
        "producers": production.producers,
        "events_per_producer_and_s": load.rate,
        "duration_s": production.duration_s,
        "total_per_producer": production.total,
        "arrivals": production.arrivals,
        "window_s": production.window_s,
        "watermark_s": watermark_s,
        "campaigns": production.campaigns,
        "ads_per_campaign": production.ads_per_campaign,
        "seed": production.seed,
        "fsync": production.fsync,
        "linger_ms": production.linger_ms,
        "broken_share": disturbance.broken,
        "duplicate_share": disturbance.duplicate,
        "late_share": disturbance.late,
        "disorder_s": disturbance.disorder_s,
    }
    if production.arrivals == "mmpp":
        settings |= {"rate_ratio": load.rate_ratio, "q12_per_s": load.q12, "q21_per_s": load.q21}
    return settings


def _counts(outcome: Outcome) -> dict[str, int]:
    verdict = outcome.calculation.verdict
    ledgers = outcome.ledgers
    return {
        "scheduled": sum(ledger.scheduled for ledger in ledgers),
        "sent": sum(ledger.durable for ledger in ledgers),
        "not_sent": sum(ledger.failed for ledger in ledgers),
        "repeated_sends": sum(ledger.retries for ledger in ledgers),
        "records": verdict.records,
        "accepted": verdict.accepted,
        "late": verdict.late,
        "dead": sum(verdict.dead.values()),
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "results": outcome.calculation.results.records,
        "epochs": outcome.calculation.results.epoch + 1,
    } | {f"dead_by_{rule}": count for rule, count in sorted(verdict.dead.items())}


def _figures(outcome: Outcome) -> dict[str, float]:
    figures = {"lag_p99_ms": outcome.lag.percentile(99) / 1e3}
    memory = outcome.footprint.lines_mb.get(MEMORY)
    if memory:
        figures |= {"memory_p50_mb": float(np.median(memory)), "memory_max_mb": max(memory)}
    if outcome.load_s:
        records = outcome.calculation.verdict.records
        figures |= {
            "events_per_s": records / outcome.load_s,
            "load_s": outcome.load_s,
            "ready_s": outcome.ready_s,
        }
    return figures


def _tables(outcome: Outcome, measured: Measured) -> tuple[Table, ...]:
    taken = outcome.footprint.table(f"The topic events keeps all: it is counted again at the end. {SMALL}")
    return (_windows(outcome, measured), *((taken,) if taken.rows else ()))


def _windows(outcome: Outcome, measured: Measured) -> Table:
    calculation = outcome.calculation
    expected, got, late = calculation.counted.accepted, calculation.results.cells, calculation.counted.late
    latencies = {window.start_us: window for window in measured.windows}
    starts = sorted({start for cells in (expected, got, late) for _, start in cells})
    wrong = {difference.cell[1] for difference in differences(expected, got)}
    wrong |= {cell[1] for cell in measured.impossible}
    rows = tuple(_window_row(start, expected, got, late, latencies.get(start)) for start in starts)
    marked = tuple(index for index, start in enumerate(starts) if start in wrong)
    note = (
        "All campaigns together; the first columns of latency are the event latency, the last two the window latency."
    )
    return Table("windows", "Windows", COLUMNS, rows, marked, note)


def _window_row(
    start: int, expected: CellCounts, got: CellCounts, late: CellCounts, latency: WindowLatency | None
) -> tuple[Value, ...]:
    wanted, found, came_late = (
        {cell: counts for cell, counts in cells.items() if cell[1] == start} for cells in (expected, got, late)
    )
    gaps = [
        (found[cell].count if cell in found else 0) - (wanted[cell].count if cell in wanted else 0)
        for cell in {*wanted, *found}
    ]
    counts: tuple[Value, ...] = (
        f"{datetime.fromtimestamp(start / 1e6, UTC):%H:%M:%S}",
        total(wanted).count,
        total(found).count,
        -sum(gap for gap in gaps if gap < 0),
        sum(gap for gap in gaps if gap > 0),
        total(came_late).count,
    )
    if latency is None:
        return counts + (None,) * (len(COLUMNS) - len(counts))
    return counts + _milliseconds(latency.event) + (latency.since_send.largest / 1e3, latency.since_close.largest / 1e3)


def _milliseconds(histogram: LatencyHistogram) -> tuple[Value, ...]:
    if not histogram.count:
        return (None,) * 6
    percentiles = tuple(histogram.percentile(percent) / 1e3 for percent in (50, 90, 99, 99.9))
    return (histogram.mean / 1e3, *percentiles, histogram.largest / 1e3)


def _notes(outcome: Outcome) -> tuple[str, ...]:
    measured = outcome.calculation.measured
    upper, lower = measured.event.mean / 1e3, measured.event_least.mean / 1e3
    return (
        "Expected counts are exact: every record of the topic was read again and judged without any part of the job.",
        f"The mean of the event latency is exact ({measured.event_mean_us / 1e3:.3f} ms); its upper and lower bounds"
        f" have the means {upper:.3f} and {lower:.3f} ms.",
        "Times of writing are append times of the results topic. Percentiles are within 1/128 of the exact value.",
    )
