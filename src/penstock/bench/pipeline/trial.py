"""One run of a load against a pipeline: topics, producers, the job, the correctness gate, the figures.

Everything lies in one folder: `input/` (topics of the sources), `sinks/` (topics of the sinks), `load/` (the producers'
logs) and `job/` (state, times, journal). The job starts first and is seen to be ready; the producers follow their
schedule whatever it does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

import duckdb
import numpy as np

from penstock.bench.folders import emptied
from penstock.bench.latency import LatencyHistogram
from penstock.bench.leash import Leash
from penstock.bench.pipeline.job import BenchJob, bench_graph
from penstock.bench.pipeline.load import READY, LoadSpec, Sent, log_file, preload, produce, read_log, send_lag
from penstock.bench.pipeline.measure import EpochRead, Timeline, due_by_offset, histogram, timeline
from penstock.connectors.log import LogSource, LogTopic
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import RunError
from penstock.graph import Graph
from penstock.load import load_pipeline
from penstock.plan.plan import Plan
from penstock.url import Url
from penstock.verify.fold import Difference, compare_view
from penstock.verify.job import journal_file
from penstock.verify.ledgers import compare_ledgers
from penstock.verify.oracle import read_journal
from penstock.verify.processes import run_module
from penstock.verify.spec import JobReport, OracleSpec
from penstock.verify.views import source_specs, view_specs

READY_WITHIN_S = 120.0
DRAIN_WITHIN_S = 600.0
START_IN_S = 0.5
MARK = "penstock-bench"


@dataclass(frozen=True)
class Setup:
    """What is measured. rate: records per second of all streams together; updates: of all tables together.

    warmup_s: the load runs that much longer, and records due in that time are not measured.
    """

    load: LoadSpec
    rate: float
    updates: float
    warmup_s: float
    partitions: int
    max_rows: int
    folder: Path


@dataclass(frozen=True)
class Checked:
    """The comparison with the batch. compared: rows per view; skipped: views left out, with the reason."""

    compared: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    late: int = 0
    difference: Difference | None = None


@dataclass(frozen=True)
class Trial:
    """A trial that came to its end. sent, read: records of all sources; start_ns: when measuring began.

    whole: the records of the streams, those of the warm-up too; measured: those due while it was measured.
    """

    rate: float
    start_ns: int
    end_ns: int
    whole: Timeline
    measured: Timeline
    latency: LatencyHistogram
    lag: LatencyHistogram
    sent: int
    read: int
    counts: Mapping[str, Mapping[str, int]]
    epochs: int
    memory_mb: float
    checked: Checked | None = None


Tell = Callable[[str], None]


def clear_folder(folder: Path) -> None:
    """An empty folder for trials; one of an earlier benchmark is emptied, any other is left alone.

    Raises:
        FileExistsError: the folder has something in it that is not a benchmark's.
    """
    emptied(folder, MARK, "benchmark")


class Bench:
    """A pipeline in a folder of its own, run once."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._folder = setup.folder
        graph = load_pipeline(setup.load.pipeline).graph(setup.load.values)
        self.graph: Graph = bench_graph(graph)
        self._plan: Plan = compile_for_duckdb(self.graph, in_memory=False)
        self._urls = {s.name: self._source_url(s.name) for s in self.graph.sources}
        self.load = replace(
            setup.load, topics={n: u.path for n, u in self._urls.items() if u.scheme == "log"}, rates=self._rates()
        )
        self.load = replace(self.load, folder=str(self._folder / "load"))
        self.job = BenchJob(
            setup.load.pipeline,
            setup.load.values,
            {f"source:{name}": str(url) for name, url in self._urls.items()}
            | {f"sink:{s.name}": f"log:{self._sink(s.name)}" for s in self.graph.sinks},
            str(self._folder / "job"),
            setup.max_rows,
        )

    def run(self, tell: Tell = lambda stage: None) -> Trial:
        """The load and the job, without the comparison.

        Raises:
            RunError: PS-BENCH-004, the job or a producer failed.
        """
        tell("starting")
        self._prepare()
        job = _Job(self.job)
        producers: list[SpawnProcess] = []
        begin = self._folder / "begin"
        try:
            context = get_context("spawn")
            for index in range(self.load.producers):
                # An interruption goes to all processes of the terminal: the parent's word counts for the producers.
                producers.append(context.Process(target=produce, args=(self.load, index, begin), daemon=True))
                producers[-1].start()
            job.wait_for(self._ready, producers)
            base_ns = time.time_ns() + round(START_IN_S * 1e9)
            _write(begin, str(base_ns))
            tell("load")
            self._join(producers, job)
            tell("draining")
            job.stop()
        finally:
            for process in producers:
                if process.is_alive():
                    process.kill()
                process.join()
            job.kill()
        return self._trial(base_ns)

    def check(self, trial: Trial, tell: Tell = lambda stage: None) -> Trial:
        """Compare every sink with the batch over all records; the correctness gate."""
        tell("comparing with the batch")
        views = view_specs(self._plan)
        answer, path = self._folder / "answer.duckdb", self._folder / "oracle.json"
        answer.unlink(missing_ok=True)
        report = self.job.place("report.json")
        spec = OracleSpec(
            self.load.pipeline,
            self.load.values,
            source_specs(self._plan, self._urls),
            views,
            str(journal_file(report)),
            str(answer),
        )
        spec.write(path)
        run_module("penstock.verify.oracle", path)
        with duckdb.connect(str(answer), read_only=True) as connection:
            ledgers = compare_ledgers(connection, JobReport.read(report), views)
        compared: dict[str, int] = {}
        difference = ledgers.difference
        by_name = {view.name: view for view in views}
        for sink in self.graph.sinks:
            view = by_name[sink.view]
            if view.skipped or difference is not None:
                continue
            found = compare_view(answer, view.name, view.key, self._changes(sink.name))
            compared[sink.view], difference = found.rows, found.difference
        skipped = {s.view: by_name[s.view].skipped for s in self.graph.sinks if by_name[s.view].skipped}
        checked = Checked(compared, skipped, sum(ledgers.late.values()), difference)
        return replace(trial, checked=checked)

    # -- places --------------------------------------------------------------------------------------------------------

    def _source_url(self, name: str) -> Url:
        declared = self.graph.source(name)
        if declared is not None and declared.clock is not None:
            return Url("clock", f"{round(declared.clock.total_seconds() * 1e6)}us")
        return Url("log", str(self._folder / "input" / name))

    def _sink(self, name: str) -> Path:
        return self._folder / "sinks" / name

    def _rates(self) -> dict[str, float]:
        streams = [s.name for s in self.graph.sources if s.kind == "stream" and s.clock is None]
        tables = [s.name for s in self.graph.sources if s.kind == "table"]
        if not streams:
            tables, streams = [], tables
        rates = {name: self.setup.rate / len(streams) for name in streams}
        return rates | {name: self.setup.updates / len(tables) for name in tables if self.setup.updates > 0}

    def _prepare(self) -> None:
        for folder in ("input", "sinks", "load", "job"):
            (self._folder / folder).mkdir(parents=True)
        references = {s.name: self._urls[s.name].path for s in self.graph.sources if s.kind == "reference"}
        for name, url in self._urls.items():
            if url.scheme == "log":
                LogTopic.create(url.path, 1 if name in references else self.setup.partitions)
        preload(self.load, references)

    def _ready(self) -> bool:
        load = self._folder / "load"
        return self.job.place("ready").exists() and all(
            (load / f"{READY}.{index}").exists() for index in range(self.load.producers)
        )

    def _join(self, producers: Sequence[SpawnProcess], job: _Job) -> None:
        while any(process.is_alive() for process in producers):
            job.check()
            time.sleep(0.05)
        failed = [p.exitcode for p in producers if p.exitcode != 0]
        if failed:
            raise RunError("PS-BENCH-004", "a producer failed", expected="exit code 0", got=f"exit code {failed[0]}")

    # -- figures -------------------------------------------------------------------------------------------------------

    def _trial(self, base_ns: int) -> Trial:
        setup = self.setup
        start_ns = base_ns + round(setup.warmup_s * 1e9)
        report = JobReport.read(self.job.place("report.json"))
        journal = read_journal(journal_file(self.job.place("report.json")))
        with np.load(self.job.place("times.npz")) as times:
            done = dict(zip(times["epochs"].tolist(), times["done_ns"].tolist(), strict=True))
        lag = LatencyHistogram()
        parts: list[Timeline] = []
        sent = read = 0
        for source in self.graph.sources:
            if source.kind == "reference" or source.clock is not None:
                continue
            logs = self._logs(source.name)
            sent += sum(int(each.counts.sum()) for each in logs)
            preloaded = self._preloaded(logs, source.name)
            read += sum(e - s for entry in journal for s, e in entry.ranges.get(source.name, {}).values()) - preloaded
            for each in logs:
                lag.merge(send_lag(each))
            if source.name in self.load.rates and (source.kind == "stream" or len(self.load.rates) == 1):
                epochs = [EpochRead(entry.ranges.get(source.name, {}), done[entry.epoch]) for entry in journal]
                parts.append(timeline(due_by_offset(logs), epochs))
        whole = Timeline(np.concatenate([p.due_ns for p in parts]), np.concatenate([p.done_ns for p in parts]))
        measured = whole.since(start_ns)
        return Trial(
            setup.rate,
            start_ns,
            base_ns + round(self.load.duration_s * 1e9),
            whole,
            measured,
            histogram(measured),
            lag,
            sent,
            read,
            {name: counts for name, counts in report.counts.items() if _flows(self.graph, name)},
            len(journal),
            float(self.job.place("memory").read_text()),
        )

    def _logs(self, source: str) -> list[Sent]:
        paths = [log_file(self._folder / "load", index, source) for index in range(self.load.producers)]
        return [read_log(path) for path in paths if path.exists()]

    def _preloaded(self, logs: Sequence[Sent], source: str) -> int:
        """Records that were there before the load."""
        if source not in self.load.rates:
            return sum(
                LogSource(LogTopic.open(self._urls[source].path)).latest(p) for p in range(self.setup.partitions)
            )
        first = [int(each.offsets[each.partitions == 0].min()) for each in logs if (each.partitions == 0).any()]
        return min(first, default=0)

    def _changes(self, sink: str) -> Path:
        """The change records of a sink's topic, a line each, in order."""
        path = self._folder / "sinks" / f"{sink}.jsonl"
        source = LogSource(LogTopic.open(str(self._sink(sink))))
        try:
            with open(path, "wb") as file:
                offset = source.earliest(0)
                while (batch := source.read(0, offset, 1 << 18, 64 << 20)) is not None:
                    file.writelines(value + b"\n" for value in batch.values.to_pylist())
                    offset = batch.next_offset
        finally:
            source.close()
        return path


def _flows(graph: Graph, source: str) -> bool:
    declared = graph.source(source)
    return declared is not None and declared.kind != "reference" and declared.clock is None


class _Job:
    """The job's process, in a group of its own; what it says goes to a file."""

    def __init__(self, job: BenchJob) -> None:
        spec = job.place("spec.json")
        job.write(spec)
        self._log = job.place("job.log")
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock.bench.pipeline.job", str(spec)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._leash = Leash(self._process.pid)

    def check(self) -> None:
        """Raise RunError PS-BENCH-004 if the job has ended by itself."""
        if self._process.poll() is not None:
            raise self._failed("a job that runs until it is told to stop")

    def wait_for(self, ready: Callable[[], bool], producers: Sequence[SpawnProcess]) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            self.check()
            ended = [p.exitcode for p in producers if p.exitcode is not None]
            if ended:
                raise RunError("PS-BENCH-004", "a producer failed", expected="a load", got=f"exit code {ended[0]}")
            if time.monotonic() > deadline:
                raise self._failed(f"job and producers that are ready within {READY_WITHIN_S:g} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask the job to drain and stop. Raises RunError PS-BENCH-004 if it fails."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DRAIN_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise self._failed(f"a job that drains within {DRAIN_WITHIN_S:g} s") from None
        if code != 0:
            raise self._failed("exit code 0")

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._leash.let_go()

    def _failed(self, expected: str) -> RunError:
        lines = self._log.read_text(errors="replace").strip().splitlines()[-5:]
        told = [_sentence(line) for line in lines]
        code = self._process.poll()
        state = "still running" if code is None else f"exit code {code}"
        return RunError(
            "PS-BENCH-004", "the job failed", expected=expected, got="\n".join([state, *told]), hint=str(self._log)
        )


def _sentence(line: str) -> str:
    """An error of the job as people read it."""
    try:
        error = json.loads(line)
        return f"{error['code']}: {error['message']} (got {error['got']})"
    except (ValueError, KeyError, TypeError):
        return line


def _write(path: Path, text: str) -> None:
    """The file appears with its whole content."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
