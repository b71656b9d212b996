"""Many schedules of one pipeline: which seed fails, and what all of them passed through."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from penstock.errors import VerificationError
from penstock.load import load_pipeline
from penstock.pipeline import Pipeline
from penstock.storage import failpoints
from penstock.verify.fixtures import Fixture, read_fixtures
from penstock.verify.simulation.inputs import Case, fixture_cases, generate_or_say_why
from penstock.verify.simulation.run import Course, OracleServer, run_schedule
from penstock.verify.simulation.schedule import SINK_KINDS, Scene, Schedule, SinkKind, calm, draw_schedule


@dataclass(frozen=True)
class SimulatedSpec:
    """A pipeline to simulate, as another process can be told of it."""

    name: str
    values: Mapping[str, str]
    fixtures: tuple[Path, ...] = ()

    def load(self) -> Simulated:
        """Import the pipeline and read its fixtures. Raises as `load_pipeline` and `read_fixtures` do."""
        fixtures = [fixture for file in self.fixtures for fixture in read_fixtures(file)]
        return Simulated(self, load_pipeline(self.name), tuple(fixtures))


@dataclass(frozen=True)
class Simulated:
    """The same, loaded."""

    spec: SimulatedSpec
    pipeline: Pipeline
    fixtures: tuple[Fixture, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def values(self) -> Mapping[str, str]:
        return self.spec.values


@dataclass
class Findings:
    """What the schedules came to. skipped: views that are not compared, with the reason; ungenerated: why no records
    were generated, empty if they were; hits: how often the schedules passed each known fail point."""

    seed: int
    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    rows: int = 0
    changes: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    cases: tuple[str, ...] = ()
    ungenerated: str = ""
    seconds: float = 0.0
    failed: Course | None = None

    @property
    def unreached(self) -> tuple[str, ...]:
        """The fail points that were never passed."""
        return tuple(point for point, times in self.hits.items() if not times)

    def take(self, course: Course) -> None:
        """Count a schedule."""
        self.runs += 1
        self.faults.update(_kind(fault) for fault in course.faults)
        self.hits.update(course.hits)
        self.epochs += course.epochs
        self.rows += course.rows
        self.changes += course.changes
        self.compared.update(course.compared)
        if course.failed:
            self.failed = course


def _kind(fault: str) -> str:
    return fault.partition(",")[0].partition(" (")[0]


Watch = Callable[[Course], None]


def simulate(
    subject: Simulated, *, seed: int, runs: int, jobs: int = 1, watch: Watch = lambda course: None
) -> Findings:
    """Run the schedules `seed`, `seed + 1`, ... in `jobs` processes (1: in this one); stops at the first that fails.

    First each input runs without faults, the last for all kinds of sinks: that shows which fail points there are.

    Raises:
        VerificationError: PS-VERIFY-002 when there is nothing to compare.
        RunError: the oracle failed.
    """
    began = time.perf_counter()
    found = Findings(seed)
    with Rig(subject) as rig:
        found.cases, found.skipped = rig.case_names, rig.skipped
        found.ungenerated = rig.ungenerated
        courses = rig.rehearse()
        for course in courses:
            if course.failed:
                found.take(course)
        seeds = range(seed, seed + (runs if found.failed is None else 0))
        for course in _courses(rig, subject, seeds, jobs):
            found.take(course)
            watch(course)
            if course.failed:
                break
    found.hits.update(dict.fromkeys(failpoints.registered(), 0))
    found.seconds = time.perf_counter() - began
    return found


def _courses(rig: Rig, subject: Simulated, seeds: Sequence[int], jobs: int) -> Iterator[Course]:
    """The courses in the order of the seeds."""
    if jobs == 1 or len(seeds) < 2 * jobs:
        yield from (rig.run(seed) for seed in seeds)
        return
    pool = ProcessPoolExecutor(
        jobs, get_context("spawn"), initializer=_begin_worker, initargs=(subject.spec, rig.scene)
    )
    try:
        waiting = deque(pool.submit(_run_in_worker, seed) for seed in seeds)
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: Rig | None = None


def _begin_worker(spec: SimulatedSpec, scene: Scene) -> None:
    """A worker's own rig; an interruption is the parent's business."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = Rig(spec.load(), scene).__enter__()
    atexit.register(_worker.__exit__, None, None, None)


def _run_in_worker(seed: int) -> Course:
    assert _worker is not None
    return _worker.run(seed)


class Rig:
    """Cases, oracle and a place on the disk: all that a schedule needs. Use it in a `with` block."""

    def __init__(self, subject: Simulated, scene: Scene | None = None) -> None:
        self._subject = subject
        self.skipped: dict[str, str] = {}
        self.ungenerated = ""
        self._cases = self._make_cases()
        self.case_names = tuple(dict.fromkeys(case.name for case in self._cases))
        self._scene = scene
        self._stack = ExitStack()

    def __enter__(self) -> Rig:
        home = tempfile.TemporaryDirectory(prefix="penstock-simulate-", dir=_memory_disk())
        self._home = Path(self._stack.enter_context(home))
        self._oracle = self._stack.enter_context(OracleServer())
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def scene(self) -> Scene:
        """What schedules are drawn for; `rehearse` finds it out."""
        assert self._scene is not None
        return self._scene

    def run(self, seed: int) -> Course:
        """The schedule of a seed."""
        return self.perform(draw_schedule(seed, self.scene))

    def perform(self, schedule: Schedule) -> Course:
        """A schedule, drawn or made by hand."""
        return self._perform(schedule, f"schedule-{schedule.seed}")

    def rehearse(self) -> list[Course]:
        """Every case without faults, up to the first that fails."""
        points: dict[SinkKind, Counter[str]] = {kind: Counter() for kind in SINK_KINDS}
        views = self._cases[0].names
        sources = [s.name for s in self._cases[0].graph.sources if s.kind != "reference" and s.clock is None]
        courses: list[Course] = []
        rows = 1
        for number, kind in self._rehearsals():
            sinks = dict.fromkeys(views, kind)
            course = self._perform(
                calm(number, Scene(1, views, sources, {}, rows), number, sinks), f"calm-{number}-{kind}"
            )
            courses.append(course)
            rows = max(rows, course.rows)
            points[kind] |= course.hits
            if course.failed:
                break
        self._scene = Scene(len(self._cases), views, sources, points, rows)
        return courses

    def _rehearsals(self) -> Iterator[tuple[int, SinkKind]]:
        """The last case, which has the most records, with all kinds of sinks; the others with one."""
        last = len(self._cases) - 1
        for number in range(len(self.case_names) - 1):
            yield number, SINK_KINDS[number % len(SINK_KINDS)]
        for kind in SINK_KINDS:
            yield last, kind

    def _perform(self, schedule: Schedule, name: str) -> Course:
        case = self._cases[schedule.case]
        return run_schedule(self._subject.name, case, schedule, self._oracle, self._home / name)

    def _make_cases(self) -> list[Case]:
        subject = self._subject
        cases = fixture_cases(subject.pipeline, subject.fixtures, subject.values)
        generated, self.ungenerated = generate_or_say_why(subject.pipeline, subject.values)
        # As often as all fixtures together: every schedule of it has other records.
        cases += generated * max(1, len(cases))
        if not cases:
            raise _nothing("neither fixtures nor generated records", self.ungenerated)
        self.skipped = {view.name: view.skipped for case in cases for view in case.views if view.skipped}
        if all(view.skipped for case in cases for view in case.views):
            raise _nothing("no view can be compared with a batch", "; ".join(self.skipped.values()) or "no views")
        return cases


MEMORY_DISK = Path("/dev/shm")
LEAST_FREE_BYTES = 1 << 30


def _memory_disk() -> Path | None:
    """A disk in memory, on which syncing takes no time: what a schedule writes need not outlive it. What a crash takes
    of it is decided by what was synced, wherever it lies. None for the usual place."""
    if "TMPDIR" in os.environ or not os.access(MEMORY_DISK, os.W_OK):
        return None
    return MEMORY_DISK if shutil.disk_usage(MEMORY_DISK).free >= LEAST_FREE_BYTES else None


def _nothing(message: str, got: str) -> VerificationError:
    return VerificationError(
        "PS-VERIFY-002",
        f"there is nothing to test: {message}",
        expected="records, and at least one view that a batch can answer",
        got=got,
        hint="write a fixture: tests/NAME.toml beside the pipeline",
    )


def told(schedule: Schedule, course: Course) -> list[str]:
    """A schedule and its course for people."""
    lines = [
        f"input: {course.case}, {schedule.partitions} partition(s), event times {schedule.event_step_us / 1e6:g} s "
        f"apart, {schedule.duplicates:.0%} sent twice where the contract bears it"
        + (f", partitions behind each other ({schedule.skew:g})" if schedule.skew else ""),
        "sinks: " + ", ".join(f"{view} to {kind}" for view, kind in schedule.sinks.items()),
    ]
    lines += [f"start {number}: {start}" for number, start in enumerate(schedule.starts, 1)]
    return [*lines, "what happened:", *(f"  {step}" for step in course.steps)]
