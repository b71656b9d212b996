"""How fast a pipeline drains a backlog: rows per second from the source to the durable commit, and what epochs cost.

Measured around the same loop that `penstock run` uses, with durable commits and delivery. Draining several times in one
process, each time with a fresh state, tells the first (cold code, cold caches) from the later ones.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from penstock.bench.leash import follow_parent
from penstock.engines.base import EpochResult
from penstock.load import load_pipeline
from penstock.runtime.heap import share_heaps
from penstock.runtime.profiling import Profile, Profiler
from penstock.runtime.runner import Observer, Runner, RunOptions, Until
from penstock.settings import load_settings, resolve

DEFAULT_EPOCH_ROWS = 250_000


@dataclass(frozen=True)
class Drain:
    """One drain: the pipeline as on the command line, `--bind`, `--set`, the state folder and the largest epoch.

    profiled: also measure where the loop's time goes.
    """

    pipeline: str
    binds: tuple[str, ...]
    values: Mapping[str, str]
    state: Path
    max_rows: int = DEFAULT_EPOCH_ROWS
    profiled: bool = False


@dataclass(frozen=True)
class EpochCost:
    """One epoch. seconds: in the engine; wall_s: since the epoch before, so with reading, mark and delivery's share."""

    rows: int
    wall_s: float
    seconds: float
    commit_s: float
    touched_s: Mapping[str, float]


@dataclass(frozen=True)
class Drained:
    """What a drain took. open_s: planning and opening; loop_s: from there to the last durable delivery."""

    rows: int
    open_s: float
    loop_s: float
    memory_mb: float
    epochs: tuple[EpochCost, ...]
    profile: Profile | None = None

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.loop_s if self.loop_s else 0.0


@dataclass
class _Watch:
    """Collects the cost of every epoch."""

    epochs: list[EpochCost] = field(default_factory=list)
    last: float = 0.0

    def started(self, runner: Runner) -> None:
        self.last = time.perf_counter()

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        now = time.perf_counter()
        self.epochs.append(
            EpochCost(result.rows_in, now - self.last, result.seconds, result.commit_seconds, dict(result.touched))
        )
        self.last = now

    def alert(self, runner: Runner, message: str) -> None:
        """Alerts are the run's business."""

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        """The end is seen by the caller."""


def drain(job: Drain) -> Drained:
    """Drain in this process.

    Raises:
        Error: whatever the run raises.
    """
    began = time.perf_counter()
    graph = load_pipeline(job.pipeline).graph(job.values)
    target = resolve(graph, load_settings(Path()), state=job.state, binds=job.binds)
    watch, profiler = _Watch(), Profiler()
    observers: tuple[Observer, ...] = (watch, profiler) if job.profiled else (watch,)
    options = RunOptions(until=Until.DRAINED, max_rows=job.max_rows)
    with Runner(graph, target, options, observers=observers) as runner:
        opened = time.perf_counter()
        runner.run()
        rows = runner.snapshot.rows
    ended = time.perf_counter()
    # Linux counts in kilobytes, macOS in bytes.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6)
    return Drained(rows, opened - began, ended - opened, memory, tuple(watch.epochs), profiler.profile)


def drain_in_turn(jobs: Sequence[Drain]) -> list[Drained]:
    """Drain one after the other in one fresh process: the first is cold, the others are warm."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin) as pool:
        return list(pool.map(drain, jobs))


def _begin() -> None:
    follow_parent()
    share_heaps()


def import_seconds(statement: str, times: int = 5) -> float:
    """The best of several fresh interpreters for an import statement."""
    program = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    runs = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(times)
    )
    return min(float(run.stdout) for run in runs)
