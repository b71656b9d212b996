"""The speed of the ads job over a backlog: cold, warm, in epochs of one row, from start to end; every count checked.

Every drain commits durably and delivers to the results topic, and speed without the right counts is an error. Cold is a
fresh process from its start to its end; warm is the best of the later drains in one process, each with a fresh state.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from penstock.apps.ads.fleet import Fleet
from penstock.apps.ads.job import JobProcess, Workplace, job_bindings, job_command, job_values
from penstock.apps.ads.ledger import Ledger
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.producer import Production
from penstock.apps.ads.recount import Recount, recount
from penstock.apps.ads.results import read_results
from penstock.apps.ads.verdict import compare
from penstock.bench.backlog import Drain, Drained, EpochCost, drain_in_turn, import_seconds
from penstock.bench.report import this_machine
from penstock.errors import DeclarationError, RunError
from penstock.runtime.profiling import Profile

WARM_UP_ROWS = 20
Figures = dict[str, float | int | str]


@dataclass(frozen=True)
class Backlog:
    """What to measure. events: about how many lie there. repeat: drains in one process. singles: epochs of one row.

    emit: `changes` or `final`. epoch_rows: the largest epoch. profiled: the last drain, by parts of the loop.
    """

    events: int
    watermark_s: float
    partitions: int
    emit: str = "changes"
    repeat: int = 3
    epoch_rows: int = 250_000
    singles: int = 200
    profiled: bool = False


@dataclass(frozen=True)
class Found:
    """What was measured. seconds: of the last drain, by block; profile: of the same drain, by parts of the loop."""

    figures: Figures
    seconds: dict[str, float]
    profile: Profile | None


def bench_backlog(
    place: Workplace, production: Production, backlog: Backlog, say: Callable[[str], None] = lambda message: None
) -> Found:
    """All figures, and where the time of the last drain went. `say` hears what is being done.

    Raises:
        DeclarationError: PS-BENCH-003, the load has late events, for which a backlog has no time.
        RunError: PS-BENCH-001, a count is wrong; PS-BENCH-004, a part failed.
    """
    if production.disturbance.late or production.disturbance.disorder_s:
        raise DeclarationError("PS-BENCH-003", "a backlog has no late events", expected="0", got="--late or --disorder")
    seconds = backlog.events / production.producers / production.load.rate
    production = replace(production, topic=place.events, ledger=place.ledger, duration_s=seconds, fsync="none")
    mapping = create_ad_campaign_mappings(production.campaigns, production.ads_per_campaign)
    place.prepare(mapping, backlog.partitions)
    say(f"writing about {backlog.events:,} events")
    with Fleet(production, "backlog") as fleet:
        ledgers = fleet.run()
    bench = _Bench(place, production, ledgers, backlog.watermark_s, backlog.emit, backlog.epoch_rows)
    say("draining in a fresh process")
    figures: Figures = _machine() | {"emit": backlog.emit, "events": sum(ledger.durable for ledger in ledgers)}
    figures |= bench.cold()
    say(f"draining {backlog.repeat} times in one process")
    drained = bench.repeated(backlog.repeat, profiled=backlog.profiled)
    figures |= _of_drains(drained)
    say("single-row epochs, start and import")
    figures |= bench.singles(backlog.singles) | bench.start()
    return Found(figures, _by_block(drained[-1].epochs), drained[-1].profile)


class _Bench:
    """The measurements over one backlog."""

    def __init__(
        self,
        place: Workplace,
        production: Production,
        ledgers: Sequence[Ledger],
        watermark_s: float,
        emit: str,
        epoch_rows: int,
    ) -> None:
        self._place = place
        self._production = production
        self._ledgers = list(ledgers)
        self._watermark_s = watermark_s
        self._pipeline = "ads" if emit == "changes" else "penstock.apps.ads.pipeline:pipeline_final"
        self._epoch_rows = epoch_rows
        self._counted: Recount | None = None

    def cold(self) -> Figures:
        """A fresh process, from its start to its end."""
        place = self._fresh("cold", self._place.folder)
        rows = sum(ledger.durable for ledger in self._ledgers)
        options = ("--once", "--quiet", "--max-epoch-rows", str(self._epoch_rows))
        seconds = self._run(place, options)
        self._check(place)
        return {"cold_s": seconds, "cold_events_per_s": rows / seconds}

    def repeated(self, times: int, *, profiled: bool) -> list[Drained]:
        """Several drains in one process, the first of them cold, the last of them profiled."""
        places = [self._fresh(f"warm-{number}", self._place.folder) for number in range(times)]
        drains = [self._drain(place, self._epoch_rows) for place in places]
        drained = drain_in_turn([*drains[:-1], replace(drains[-1], profiled=profiled)])
        for place in places:
            self._check(place)
        return drained

    def singles(self, count: int) -> Figures:
        """Epochs of one row each, durable."""
        place = self._small("singles", count + WARM_UP_ROWS)
        epochs = [e for e in drain_in_turn([self._drain(place, 1)])[0].epochs if e.rows == 1][WARM_UP_ROWS:]
        walls_ms = np.array([epoch.wall_s for epoch in epochs]) * 1e3
        return {
            "single_row_epoch_p50_ms": float(np.percentile(walls_ms, 50)),
            "single_row_epoch_p99_ms": float(np.percentile(walls_ms, 99)),
        }

    def start(self) -> Figures:
        """From the start of a process to its end, over a handful of events; and imports."""
        times = [self._run(self._small(f"start-{number}", 10), ("--once", "--quiet")) for number in range(3)]
        return {
            "start_to_end_s": min(times),
            "import_penstock_s": import_seconds("import penstock"),
            "import_pipeline_s": import_seconds("from penstock import Pipeline"),
        }

    def _fresh(self, name: str, inputs: Path | None = None) -> Workplace:
        place = Workplace(self._place.folder / name, inputs)
        own = Workplace(place.folder)
        own.prepare(create_ad_campaign_mappings(self._production.campaigns, self._production.ads_per_campaign), 1)
        return place

    def _small(self, name: str, events: int) -> Workplace:
        place = self._fresh(name)
        small = replace(
            self._production, topic=place.events, ledger=place.ledger, producers=1, total=events, duration_s=60.0
        )
        with Fleet(small, "backlog") as fleet:
            fleet.run()
        return place

    def _run(self, place: Workplace, options: Sequence[str]) -> float:
        command = job_command(
            place,
            window_s=self._production.window_s,
            watermark_s=self._watermark_s,
            pipeline=self._pipeline,
            options=options,
        )
        began = time.perf_counter()
        job = JobProcess(command, place.job_log)
        try:
            job.wait()
            return time.perf_counter() - began
        finally:
            job.kill()

    def _drain(self, place: Workplace, max_rows: int) -> Drain:
        values = job_values(self._production.window_s, self._watermark_s)
        return Drain(self._pipeline, tuple(job_bindings(place)), values, place.state, max_rows)

    def _check(self, place: Workplace) -> None:
        """Compare with the recount of the topic and the ledgers; speed without the right counts is worth nothing."""
        if self._counted is None:
            mapping = create_ad_campaign_mappings(self._production.campaigns, self._production.ads_per_campaign)
            self._counted = recount(
                self._place.events, mapping, window_s=self._production.window_s, watermark_s=self._watermark_s
            )
        verdict = compare(self._ledgers, self._counted, read_results(place.results, self._production.window_s))
        if not verdict.right:
            raise RunError(
                "PS-BENCH-001",
                "the counts disagree",
                expected="every event counted exactly once",
                got=f"{verdict.lost:,} lost, {verdict.doubled:,} doubled; {list(verdict.mistakes)[:1]}",
                hint=f"topics, state and ledgers are kept in {place.folder}",
            )


def _machine() -> Figures:
    machine = asdict(this_machine())
    packages: dict[str, str] = machine.pop("packages")
    return {**machine, **packages}


def _of_drains(drained: Sequence[Drained]) -> Figures:
    best = max(drained[1:] or drained, key=lambda each: each.rows_per_s)
    full = [epoch for epoch in best.epochs if epoch.rows]
    return {
        "first_in_process_events_per_s": drained[0].rows_per_s,
        "warm_events_per_s": best.rows_per_s,
        "open_s": best.open_s,
        "epochs": len(full),
        "epoch_p50_ms": float(np.percentile([epoch.wall_s for epoch in full], 50)) * 1e3,
        "commit_p50_ms": float(np.percentile([epoch.commit_s for epoch in full], 50)) * 1e3,
        "memory_mb": drained[-1].memory_mb,
    }


def _by_block(epochs: Sequence[EpochCost]) -> dict[str, float]:
    """Where the time of a drain went, in seconds: by block, then commit, engine else, and outside of the engine."""
    parts: defaultdict[str, float] = defaultdict(float)
    for epoch in epochs:
        for block, seconds in epoch.touched_s.items():
            parts[f"block {block}"] += seconds
        parts["commit"] += epoch.commit_s
        parts["engine, else"] += max(0.0, epoch.seconds - epoch.commit_s - sum(epoch.touched_s.values()))
        parts["read, mark, deliver"] += max(0.0, epoch.wall_s - epoch.seconds)
    return dict(parts)
