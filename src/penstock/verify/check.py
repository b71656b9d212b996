"""The whole verification: schedules, jobs, kills, oracle, comparison (semantics P1).

Nothing counts as verified that was not compared: views that cannot be are named with the reason, and an input without
rows is an error.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from penstock.connectors.registry import open_source
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import RunError, VerificationError
from penstock.graph import Graph
from penstock.plan.plan import Plan
from penstock.url import Url
from penstock.verify.fold import Compared, Difference, compare_view
from penstock.verify.job import journal_file, sink_file, with_sink_per_view
from penstock.verify.ledgers import compare_ledgers
from penstock.verify.processes import run_module
from penstock.verify.schedule import Extent, Start, random_schedule, whole
from penstock.verify.spec import JobReport, JobSpec, OracleSpec, ViewSpec
from penstock.verify.views import source_specs, view_specs


@dataclass(frozen=True)
class Subject:
    """What is verified: a pipeline as it is named, its parameters, and where its sources are."""

    pipeline: str
    graph: Graph
    sources: Mapping[str, Url]


@dataclass
class Verified:
    """What was done and seen. kills: fail point -> kills there; skipped: view -> why it was not compared."""

    seed: int
    runs: int = 0
    starts: int = 0
    epochs: int = 0
    rows: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    undone: int = 0
    compared: dict[str, int] = field(default_factory=dict)
    changes: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    late: Mapping[str, int] = field(default_factory=dict)
    job_s: float = 0.0
    oracle_s: float = 0.0
    compare_s: float = 0.0
    difference: Difference | None = None


Tell = Callable[[str], None]


def verify(subject: Subject, *, runs: int, kills: int, seed: int, tell: Tell = lambda text: None) -> Verified:
    """Run the pipeline `runs` times in random splits with `kills` kills each, and compare every time.

    The first run is whole: one start, no kills. Stops at the first difference, which is in the result.

    Raises:
        VerificationError: PS-VERIFY-002 when there is nothing to compare.
        RunError: the job or the oracle failed.
    """
    plan = compile_for_duckdb(with_sink_per_view(subject.graph), in_memory=False)
    views = view_specs(plan)
    result = Verified(seed, skipped={v.name: v.skipped for v in views if v.skipped})
    extents = _extents(subject)
    if not [v for v in views if not v.skipped] or not any(e.size for e in extents):
        raise _nothing(subject, views, extents)
    points: list[str] = []
    for number in range(runs):
        generator = random.Random(f"{seed}/{number}")
        with tempfile.TemporaryDirectory(prefix="penstock-verify-") as folder:
            run = _Run(subject, plan, views, Path(folder), result)
            if number == 0:
                tell("run 1: everything in one start")
                points = run.rehearse(whole(extents))
            else:
                starts = random_schedule(generator, extents, result.rows, kills, points)
                tell(
                    f"run {number + 1}: {len(starts)} starts, {kills} kills, epochs of up to "
                    f"{', '.join(str(s.max_rows) for s in starts)} rows"
                )
                run.perform(starts)
            result.difference = run.compare()
        result.runs += 1
        if result.difference is not None:
            break
    return result


def _extents(subject: Subject) -> list[Extent]:
    found = []
    for declared in subject.graph.sources:
        # A clock has no end to cut: the job reads it as time goes by, and the oracle reads what the journal says.
        if declared.kind == "reference" or declared.clock is not None:
            continue
        source = open_source(subject.sources[declared.name], declared.name)
        try:
            finish = getattr(source, "finish", None)
            if finish is not None:
                finish()
            ranges = {p: (source.start(p), source.latest(p)) for p in source.partitions()}
        finally:
            source.close()
        found.append(Extent(declared.name, ranges))
    return found


def _nothing(subject: Subject, views: tuple[ViewSpec, ...], extents: list[Extent]) -> VerificationError:
    if not any(e.size for e in extents):
        got = ", ".join(f"{e.name} at {subject.sources[e.name]}: no rows" for e in extents) or "no streams or tables"
        return VerificationError(
            "PS-VERIFY-002",
            "there is nothing to verify: the sources are empty",
            expected="recorded input",
            got=got,
            hint="--input NAME=URL names recorded input, for example --input clicks=file:clicks.jsonl",
        )
    return VerificationError(
        "PS-VERIFY-002",
        "there is nothing to verify: no view can be compared with a batch",
        expected="at least one view that a batch can answer",
        got="; ".join(f"{v.name}: {v.skipped}" for v in views) or "no views",
    )


class _Run:
    """One run from an empty state to its comparison."""

    def __init__(
        self, subject: Subject, plan: Plan, views: tuple[ViewSpec, ...], folder: Path, result: Verified
    ) -> None:
        self._subject = subject
        self._plan = plan
        self._views = views
        self._folder = folder
        self._result = result
        self._report = folder / "report.json"
        self._sinks = folder / "sinks"
        self._sinks.mkdir()

    def rehearse(self, starts: list[Start]) -> list[str]:
        """Run without kills, and learn which fail points such a job passes."""
        hits = self._folder / "hits"
        for number, start in enumerate(starts):
            self._start(number, start, last=number == len(starts) - 1, log_hits=hits)
        return sorted(set(hits.read_text().split())) if hits.exists() else []

    def perform(self, starts: list[Start]) -> None:
        """Every start is killed as often as its schedule says, and then reaches its end."""
        for number, start in enumerate(starts):
            self._start(number, start, last=number == len(starts) - 1)

    def _start(self, number: int, start: Start, *, last: bool, log_hits: Path | None = None) -> None:
        spec = JobSpec(
            self._subject.pipeline,
            self._subject.graph.values,
            {name: str(url) for name, url in self._subject.sources.items()},
            str(self._sinks),
            str(self._folder / "state"),
            {name: {str(p): end for p, end in ends.items()} for name, ends in start.upto.items()},
            start.max_rows,
            start.flush,
            str(self._report) if last else "",
        )
        path = self._folder / f"job-{number}.json"
        spec.write(path)
        began = time.perf_counter()
        for kill in (*start.kill_at, ""):
            self._attempt(path, kill, log_hits)
        self._result.job_s += time.perf_counter() - began
        self._result.starts += 1

    def _attempt(self, spec: Path, kill: str, log_hits: Path | None) -> None:
        # Recorded in every start, not in the killed ones alone: a later kill takes away what an earlier start left.
        unsynced = self._folder / "unsynced" if log_hits is None else None
        after_s = float(kill[1:]) if kill.startswith("+") else None
        ended = run_module(
            "penstock.verify.job",
            spec,
            kill_at="" if after_s is not None else kill,
            kill_after_s=after_s,
            unsynced_in=unsynced,
            log_hits=log_hits,
        )
        if ended.killed:
            point = "at a random moment" if after_s is not None else kill.partition("@")[0]
            self._result.kills[point] = self._result.kills.get(point, 0) + 1
            self._result.undone += len(ended.undone)
        elif kill:
            self._result.missed += 1

    def compare(self) -> Difference | None:
        """Ask the oracle, then compare ledgers and views; the first difference."""
        report = JobReport.read(self._report)
        answer = self._folder / "answer.duckdb"
        spec = OracleSpec(
            self._subject.pipeline,
            self._subject.graph.values,
            source_specs(self._plan, dict(self._subject.sources)),
            self._views,
            str(journal_file(self._report)),
            str(answer),
        )
        path = self._folder / "oracle.json"
        spec.write(path)
        began = time.perf_counter()
        run_module("penstock.verify.oracle", path)
        compared_at = time.perf_counter()
        self._result.oracle_s += compared_at - began
        difference = self._compare_all(answer, report)
        self._result.compare_s += time.perf_counter() - compared_at
        self._result.epochs += report.epochs
        return difference

    def _compare_all(self, answer: Path, report: JobReport) -> Difference | None:
        with duckdb.connect(str(answer), read_only=True) as connection:
            ledgers = compare_ledgers(connection, report, self._views)
        self._result.counts = ledgers.counts
        self._result.late = ledgers.late
        self._result.rows = sum(c.get("rows", 0) for c in ledgers.counts.values())
        if ledgers.difference is not None:
            return ledgers.difference
        for view in self._views:
            if view.skipped:
                continue
            compared: Compared = compare_view(answer, view.name, view.key, sink_file(self._sinks, view.name))
            self._result.compared[view.name] = compared.rows
            self._result.changes += compared.changes
            if compared.difference is not None:
                return compared.difference
        return None


def difference_error(result: Verified) -> VerificationError:
    """The error that says what differs."""
    found = result.difference
    if found is None:
        raise RunError("PS-RUN-001", "there is no difference to tell of")
    place = f"epoch {found.epoch}, " if found.epoch is not None else ""
    key = ", ".join(f"{name} = {value!r}" for name, value in found.key.items())
    return VerificationError(
        "PS-VERIFY-001",
        f"the changes and the batch disagree: {place}{found.view}, {key}" + (f" ({found.what})" if found.what else ""),
        expected=f"batch: {_row(found.batch)}",
        got=f"job:   {_row(found.job)}",
        hint=f"again with --seed {result.seed}; this is an error of Penstock, or a view whose answer is not determined",
    )


def _row(row: Mapping[str, object] | None) -> str:
    if row is None:
        return "no such row"
    return ", ".join(f"{name} = {value!r}" for name, value in row.items())
