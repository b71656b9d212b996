"""What a trial of a pipeline says: whether it counts, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from penstock.bench.pipeline.load import LoadSpec
from penstock.bench.pipeline.measure import BACKLOG_STEP_NS, backlog, is_growing
from penstock.bench.pipeline.search import Try
from penstock.bench.pipeline.trial import Setup, Trial
from penstock.bench.report import Judgement, Latency, Line, Machine, Report, Series, Table, Value, now
from penstock.bench.series import percentile_lines, rate_line, steps_between

LAG_SHARE = 0.1
LEAST_LAG_MS = 5.0
SECOND_US = 1_000_000
EVENT = (
    "From the time at which a record was due to the moment when the epoch that read it was committed and every sink "
    "had delivered it durably. Exact to the record, on one clock."
)
LAG = "From the time at which a record was due to the append that sent it."


def void_reasons(trial: Trial) -> list[str]:
    """Why the latencies do not count: the producers' own lag is no longer small against what is measured."""
    lag_ms = trial.lag.percentile(99) / 1e3
    limit_ms = max(LEAST_LAG_MS, trial.latency.percentile(90) / 1e3 * LAG_SHARE)
    if not trial.latency.count:
        return ["no record was due while latencies were measured"]
    if lag_ms > limit_ms:
        return [f"the producers lagged: P99 {lag_ms:.1f} ms behind their schedule, more than {limit_ms:.1f} ms"]
    return []


def judge(trial: Trial) -> Judgement:
    """Right, wrong or void."""
    reasons = []
    if trial.sent != trial.read:
        reasons.append(f"{trial.sent:,} records were sent, {trial.read:,} were read")
    checked = trial.checked
    if checked is not None and checked.difference is not None:
        found = checked.difference
        reasons.append(
            f"{found.view}, {dict(found.key)}: the batch has {found.batch}, the sink {found.job} {found.what}"
        )
    if reasons:
        return Judgement("wrong", "The sinks and the batch disagree.", tuple(reasons))
    compared = checked.compared if checked is not None else {}
    views = ", ".join(f"{rows:,} rows of {view}" for view, rows in compared.items()) or "no view"
    told = f"{trial.read:,} records read; {views} equal"
    void = void_reasons(trial)
    if void:
        return Judgement("void", f"{told}, but the latencies do not count.", tuple(void))
    notes = tuple(f"{view} is not compared: {why}" for view, why in (checked.skipped if checked else {}).items())
    return Judgement("right", f"{told} to the batch.", notes)


def attempt(trial: Trial, p99_ms: float) -> Try:
    """Whether the pipeline sustained the rate of a trial."""
    found = trial.latency.percentile(99) / 1e3
    reasons = list(void_reasons(trial))
    void = bool(reasons)
    if trial.sent != trial.read:
        reasons.append(f"{trial.sent:,} records were sent, {trial.read:,} were read")
    if found > p99_ms:
        reasons.append(f"P99 {found:,.1f} ms is above {p99_ms:g} ms")
    if is_growing(backlog(trial.whole, trial.start_ns, trial.end_ns), trial.rate):
        reasons.append("the lag grows")
    return Try(trial.rate, found, tuple(reasons), void)


def report(
    setup: Setup, trial: Trial, machine: Machine, extra: Mapping[str, Value], tries: Sequence[Try] = ()
) -> Report:
    """Everything that a trial has to say."""
    counts = {name: sum(c.get(name, 0) for c in trial.counts.values()) for name in ("accepted", "duplicate", "dead")}
    seconds = max((trial.end_ns - trial.start_ns) / 1e9, 1e-9)
    figures = {
        "measured_records_per_s": trial.latency.count / seconds,
        "epochs": float(trial.epochs),
        "memory_mb": trial.memory_mb,
        "send_lag_p99_ms": trial.lag.percentile(99) / 1e3,
    }
    holding = [each.rate for each in tries if each.holds]
    if holding:
        figures["sustained_records_per_s"] = max(holding)
    return Report(
        f"{setup.load.pipeline}: {setup.load.arrivals} arrivals, {trial.rate:,.0f} records/s",
        now(),
        judge(trial),
        machine,
        {**settings(setup.load, setup), **extra},
        {
            "records": trial.read,
            **counts,
            "late": trial.checked.late if trial.checked is not None else 0,
            "lost": max(0, trial.sent - trial.read),
            "doubled": max(0, trial.read - trial.sent),
        },
        figures,
        (
            Latency.of("record", "Record latency", EVENT, trial.latency),
            Latency.of("send_lag", "Lag of the producers", LAG, trial.lag),
        ),
        _series(trial),
        _tables(tries),
        ("Records are generated from the contract of each source.",),
    )


def settings(load: LoadSpec, setup: Setup) -> dict[str, Value]:
    """What was asked for, by name."""
    disturbance = load.disturbance
    return {
        "pipeline": load.pipeline,
        **{f"set_{name}": value for name, value in load.values.items()},
        "rate_per_s": setup.rate,
        "updates_per_s": setup.updates,
        "arrivals": load.arrivals,
        "duration_s": load.duration_s - setup.warmup_s,
        "warmup_s": setup.warmup_s,
        "producers": load.producers,
        "partitions": setup.partitions,
        "epoch_rows": setup.max_rows,
        "seed": load.seed,
        "keys": load.keys,
        "reference_rows": load.reference_rows,
        "broken": disturbance.broken,
        "late": disturbance.late,
        "late_by_s": disturbance.late_by_s,
        "duplicate": disturbance.duplicate,
        "deleted": disturbance.deleted,
        "disorder_s": disturbance.disorder_s,
    }


def _series(trial: Trial) -> tuple[Series, ...]:
    start_us, end_us = trial.start_ns // 1_000, trial.end_ns // 1_000
    steps = steps_between(start_us, end_us - 1, SECOND_US)
    due_us, done_us = trial.whole.due_ns // 1_000, trial.whole.done_ns // 1_000
    measured_us = trial.measured.due_ns // 1_000
    rates = (
        rate_line("due", due_us, start_us, SECOND_US, steps),
        rate_line("delivered", done_us, start_us, SECOND_US, steps),
    )
    percentiles = percentile_lines(trial.measured.latency_us, measured_us, start_us, SECOND_US, steps)
    waiting = backlog(trial.whole, trial.start_ns, trial.end_ns)
    lines = (Line("records", tuple(float(n) for n in np.asarray(waiting))),)
    return (
        Series("throughput", "Records due and delivered", "records/s", 1.0, rates),
        Series("latency", "Record latency by the second in which it was due", "ms", 1.0, percentiles, "log"),
        Series("waiting", "Records due and not yet delivered", "records", BACKLOG_STEP_NS / 1e9, lines),
    )


def _tables(tries: Sequence[Try]) -> tuple[Table, ...]:
    if not tries:
        return ()
    ordered = sorted(tries, key=lambda each: each.rate)
    rows = tuple((round(t.rate), t.p99_ms, "yes" if t.holds else "no", "; ".join(t.reasons)) for t in ordered)
    marked = tuple(n for n, each in enumerate(ordered) if not each.holds)
    return (Table("search", "Rates that were tried", ("records/s", "P99 ms", "holds", "why not"), rows, marked),)
