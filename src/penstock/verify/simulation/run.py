"""One schedule from an empty disk to the comparison with the oracle.

The job is the real one: the runner, the engine on its files, the sinks. Only the delivery's thread is waited for, the
clock is the schedule's, and a crash is an exception after which the disk is put back to what it was at that moment. So
a schedule has one course of events, and runs in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import cast
from unittest import mock

import duckdb

from penstock.connectors.base import Sink, SinkContext, Source
from penstock.connectors.registry import open_sink, open_source
from penstock.engines.base import EpochInput, EpochResult, SourceInput
from penstock.errors import Error, RunError
from penstock.runtime.delivery import Delivery
from penstock.runtime.feed import Feed
from penstock.runtime.runner import Runner, RunOptions, Until
from penstock.settings import Target
from penstock.storage import failpoints, unsynced
from penstock.url import Url
from penstock.verify.fold import Difference, compare_view
from penstock.verify.job import EndingSource, journal_file, write_report
from penstock.verify.ledgers import compare_ledgers
from penstock.verify.simulation.inputs import (
    BASE_US,
    Case,
    deliver_records,
    generated_records,
    write_inputs,
    write_references,
)
from penstock.verify.simulation.outputs import Follower, change_records, sink_url
from penstock.verify.simulation.parts import (
    Clock,
    Driver,
    FaultySink,
    FaultySource,
    Fired,
    OrderedDelivery,
    Ticks,
    short_writes,
)
from penstock.verify.simulation.schedule import Fault, PlannedStart, Schedule
from penstock.verify.simulation.world import Crashed, World
from penstock.verify.spec import JobReport, OracleSpec
from penstock.verify.views import source_specs

MOST_ATTEMPTS = 3


@dataclass
class Course:
    """What a schedule came to. steps: what happened, in order, a line each; the same for the same schedule.

    failure: why the job failed by itself, empty if it did not. hits: fail points passed.
    """

    schedule: Schedule
    case: str
    steps: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    rows: int = 0
    changes: int = 0
    difference: Difference | None = None
    failure: str = ""
    compared: dict[str, int] = field(default_factory=dict)
    accepted: int = 0

    @property
    def failed(self) -> bool:
        return self.difference is not None or bool(self.failure)


class OracleServer:
    """The oracle's process. Use it in a `with` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock.verify.simulation.oracle_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, spec: Path) -> None:
        """Have the answer of a spec written. Raises RunError PS-RUN-001 when the oracle fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{spec}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"text": f"it ended with exit code {self._process.wait()}"}
        if answer:
            raise RunError("PS-RUN-001", "the oracle failed", expected="an answer", got=str(answer["text"]))

    def __enter__(self) -> OracleServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class _SimulatedRunner(Runner):
    """The runner with the schedule's clock, and sinks that are `held` epochs behind."""

    clock: Clock
    held = 0
    idle = False

    def delay_sinks(self) -> None:
        ordered = {name: OrderedDelivery(delivery, self.held) for name, delivery in self.deliveries.items()}
        self.deliveries = cast(dict[str, Delivery], ordered)

    def _read(
        self, upto: Mapping[str, Mapping[int, int]] | None
    ) -> tuple[dict[str, SourceInput], dict[str, tuple[int, ...]], bool]:
        """Silence is told by the schedule, not by a clock."""
        sources, _, moved = super()._read(upto)
        return sources, {feed.declared.name: self._silent(feed) for feed in self.feeds}, moved

    def _silent(self, feed: Feed) -> tuple[int, ...]:
        if not self.idle:
            return ()
        return tuple(p for p, offset in sorted(feed.next_offsets.items()) if feed.source.latest(p) <= offset)

    def _commit(self, given: EpochInput) -> EpochResult:
        return super()._commit(replace(given, at_us=self.clock.now_us()))


def run_schedule(pipeline: str, case: Case, schedule: Schedule, oracle: OracleServer, folder: Path) -> Course:
    """Run a schedule below `folder` (made, and removed at the end), and compare."""
    folder.mkdir(parents=True)
    try:
        return _Simulation(pipeline, case, schedule, folder).run(oracle)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Simulation:
    def __init__(self, pipeline: str, case: Case, schedule: Schedule, folder: Path) -> None:
        self._pipeline = pipeline
        self._case = case
        self._schedule = schedule
        self._folder = folder
        self._draw = random.Random(f"world/{schedule.seed}")
        self._clock = Clock(BASE_US)
        self._course = Course(schedule, case.name)
        self._report = folder / "report.json"

    def run(self, oracle: OracleServer) -> Course:
        schedule, course = self._schedule, self._course
        records = self._case.records
        if records is None:
            records = generated_records(self._case, schedule.seed, schedule.event_step_us)
            self._clock.jump(max(map(len, records.values()), default=0) * schedule.event_step_us)
        delivered = deliver_records(self._case.graph, records, self._draw, schedule.partitions, schedule.duplicates)
        inputs = self._folder / "input"
        self._urls = write_inputs(self._case.graph, delivered, inputs, self._clock, self._draw)
        course.rows = sum(map(len, records.values()))
        self._world = World(self._folder / "world", self._draw)
        self._follower = Follower(self._world.sinks, self._case.names)
        with _recording(self._world.unsynced):
            for number, start in enumerate(schedule.starts, 1):
                write_references(self._case, delivered, inputs, start.references, self._draw)
                if not self._start(number, start, last=number == len(schedule.starts)):
                    return course
        self._compare(oracle)
        return course

    # -- the job -------------------------------------------------------------------------------------------------------

    def _start(self, number: int, start: PlannedStart, *, last: bool) -> bool:
        """Start the job until it reaches its end; whether it never failed by itself."""
        self._clock.jump(start.clock_jump_us)
        faults = start.faults
        for _ in range(MOST_ATTEMPTS + len(faults)):
            fired = Fired()
            driver = Driver(self._world, faults, fired, self._follower.take)
            problem = self._attempt(start, driver, fired, faults, last=last)
            self._course.hits.update(driver.hits)
            self._course.faults += [str(fault) for fault in fired.faults]
            told = "; ".join(map(str, fired.faults))
            if problem is None:
                self._step(number, f"reached its end{f' ({told})' if told else ''}")
                return True
            crash = self._world.crash
            undone = self._world.restore()
            self._follower.forget_lost()
            if crash is None and not fired.faults:
                self._course.failure = problem
                self._step(number, f"failed by itself: {problem.splitlines()[0]}")
                return False
            lost = f"; {'; '.join(undone)}" if undone else ""
            self._step(number, f"{told}{lost}" if crash is not None else f"{told}: stopped")
            # What has happened once does not happen again: the last attempt has no faults left.
            faults = tuple(f for f in faults if f not in fired.faults)
        self._course.failure = "the job does not come to its end"
        return False

    def _step(self, number: int, what: str) -> None:
        self._course.steps.append(f"start {number}: {what}")

    def _attempt(
        self, start: PlannedStart, driver: Driver, fired: Fired, faults: Sequence[Fault], *, last: bool
    ) -> str | None:
        """One attempt; None when it came to its end, else what stopped it."""
        given = [f for f in start.faults if f in faults]
        options = RunOptions(until=Until.DRAINED, flush=start.flush, max_rows=start.max_rows, threads=1)
        case = self._case
        bindings = {f"source:{name}": url for name, url in self._urls.items()}
        bindings |= {f"sink:{name}": self._sink_url(name) for name in case.names}
        target = Target("simulation", "duckdb", self._world.state, bindings)
        try:
            with failpoints.driven(driver), short_writes(given, fired), _without_collecting():
                runner = _SimulatedRunner(
                    case.graph,
                    target,
                    options,
                    plan=case.plan,
                    sources=self._sources(start, given, fired),
                    sinks={name: self._sink(name, given, fired) for name in case.names},
                )
                runner.clock, runner.held, runner.idle = self._clock, start.held, start.idle
                with runner:
                    runner.delay_sinks()
                    runner.run()
                    self._course.epochs += runner.progress.epoch + 1 if last else 0
                    if last:
                        write_report(runner, self._report)
        except Crashed:
            return "crashed"
        except Error as problem:
            return problem.render()
        except (OSError, duckdb.Error) as problem:
            return f"{type(problem).__name__}: {problem}"
        except RuntimeError as problem:
            if "interrupted" in str(problem).lower():  # what DuckDB makes of Ctrl-C
                raise KeyboardInterrupt from problem
            raise
        return None if self._world.crash is None else "crashed"

    def _sink_url(self, name: str) -> Url:
        return sink_url(self._schedule.sinks[name], self._world.sinks, name)

    def _sources(self, start: PlannedStart, faults: Sequence[Fault], fired: Fired) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for source in self._case.graph.sources:
            if source.kind == "reference":
                continue
            if source.clock is not None:
                found[source.name] = Ticks(source.clock // timedelta(microseconds=1), self._clock)
                continue
            opened = open_source(self._urls[source.name], source.name)
            opened.finish()
            skew = self._schedule.skew
            ends = {
                p: _share(opened.start(p), opened.latest(p), start.upto ** (1 + p * skew)) for p in opened.partitions()
            }
            opened = EndingSource(opened, ends) if start.upto < 1.0 else opened
            found[source.name] = FaultySource(opened, source.name, start.reads_of, faults, fired)
        return found

    def _sink(self, name: str, faults: Sequence[Fault], fired: Fired) -> Callable[[SinkContext], Sink]:
        def make(context: SinkContext) -> Sink:
            return FaultySink(open_sink(self._sink_url(name), context), name, faults, fired)

        return make

    # -- the comparison ------------------------------------------------------------------------------------------------

    def _compare(self, oracle: OracleServer) -> None:
        case, answer = self._case, self._folder / "answer.duckdb"
        spec = OracleSpec(
            self._pipeline,
            case.graph.values,
            source_specs(case.plan, self._urls),
            case.views,
            str(journal_file(self._report)),
            str(answer),
        )
        path = self._folder / "oracle.json"
        spec.write(path)
        oracle.ask(path)
        self._follower.take()
        report = JobReport.read(self._report)
        with duckdb.connect(str(answer), read_only=True) as connection:
            ledgers = compare_ledgers(connection, report, case.views)
        self._course.difference = ledgers.difference
        self._course.accepted = sum(counts.get("accepted", 0) for counts in ledgers.counts.values())
        for view in case.views:
            if view.skipped or self._course.difference is not None:
                continue
            kind = self._schedule.sinks[view.name]
            key = view.key
            found = compare_view(
                answer, view.name, key, change_records(kind, self._world.sinks, view.name, self._follower)
            )
            self._course.compared[view.name] = found.rows
            self._course.changes += found.changes
            self._course.difference = found.difference


def _share(start: int, end: int, share: float) -> int:
    return start + round((end - start) * share)


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """The runner sweeps all objects once per start; that of a hundred starts in one process takes most of the time."""
    with mock.patch("penstock.runtime.runner.gc"):
        yield


@contextlib.contextmanager
def _recording(folder: Path) -> Iterator[None]:
    """Within the block what is not synced is recorded in `folder`."""
    before: Mapping[str, str] = dict(os.environ)
    os.environ[unsynced.VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[unsynced.VARIABLE]
        os.environ.update({k: v for k, v in before.items() if k == unsynced.VARIABLE})
