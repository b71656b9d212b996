"""The job of a benchmark, in a process of its own: the real runner, told when every epoch was delivered.

`python -m penstock.bench.pipeline.job SPEC.json`. It runs until SIGTERM, then drains what is left in a second start
and writes what it read. It differs from `penstock run` in one thing: it notes the time of each commit and delivery.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.connectors.base import Guarantee, Sink, SinkContext
from penstock.connectors.registry import open_sink
from penstock.engines.base import EpochResult
from penstock.errors import Error
from penstock.graph import Graph
from penstock.load import load_pipeline
from penstock.runtime.heap import share_heaps
from penstock.runtime.runner import Runner, RunOptions, Until
from penstock.settings import Target
from penstock.url import Url
from penstock.verify.job import with_sink_per_view, write_report


@dataclass(frozen=True)
class BenchJob:
    """What the job is told. bindings: `source:NAME` and `sink:NAME` to URLs. folder: where its results go."""

    pipeline: str
    values: Mapping[str, str]
    bindings: Mapping[str, str]
    folder: str
    max_rows: int = 250_000

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> BenchJob:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def place(self, name: str) -> Path:
        """A file of the job's."""
        return Path(self.folder) / name


def bench_graph(graph: Graph) -> Graph:
    """The pipeline as it is measured: its own sinks, or one on each view where it declares none."""
    sinks = with_sink_per_view(graph)
    return replace(graph, sources=sinks.sources, sinks=graph.sinks or sinks.sinks)


@dataclass
class _Times:
    """When each epoch was committed, and when the last sink had it durably (ns since 1970)."""

    committed: dict[int, int] = field(default_factory=dict)
    delivered: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def started(self, runner: Runner) -> None:
        """Nothing to note."""

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        self.committed[result.epoch] = time.time_ns()
        self.rows[result.epoch] = result.rows_in

    def alert(self, runner: Runner, message: str) -> None:
        sys.stderr.write(message + "\n")

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        """Nothing to note."""

    def write(self, path: Path) -> None:
        epochs = np.array(sorted(self.committed), np.int64)
        done = [max(self.committed[e], self.delivered.get(e, 0)) for e in epochs.tolist()]
        np.savez(path, epochs=epochs, done_ns=np.array(done, np.int64), rows=np.array([self.rows[e] for e in epochs]))


class _TimedSink:
    """A sink that notes when each epoch is durable."""

    def __init__(self, sink: Sink, delivered: dict[int, int]) -> None:
        self._sink = sink
        self._delivered = delivered
        self.guarantee: Guarantee = sink.guarantee

    def delivered(self) -> int:
        return self._sink.delivered()

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        self._sink.deliver(epoch, changes)
        self._delivered[epoch] = time.time_ns()

    def close(self) -> None:
        self._sink.close()


def run(spec: BenchJob) -> None:
    """Run until SIGTERM, drain, and write times, journal and ledgers."""
    graph = bench_graph(load_pipeline(spec.pipeline).graph(spec.values))
    bindings = {name: Url.parse(url) for name, url in spec.bindings.items()}
    target = Target("bench", "duckdb", spec.place("state"), bindings)
    times = _Times()
    sinks = {s.name: _timed(bindings[f"sink:{s.name}"], times.delivered) for s in graph.sinks}
    live = RunOptions(max_rows=spec.max_rows)
    with Runner(graph, target, live, observers=(times,), sinks=sinks) as runner:
        signal.signal(signal.SIGTERM, lambda *_: runner.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        spec.place("ready").touch()
        runner.run()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6)
    drained = RunOptions(until=Until.DRAINED, max_rows=spec.max_rows)
    with Runner(graph, target, drained, observers=(times,), sinks=sinks) as runner:
        runner.run()
        write_report(runner, spec.place("report.json"))
    times.write(spec.place("times.npz"))
    spec.place("memory").write_text(f"{memory:.1f}")


def _timed(url: Url, delivered: dict[int, int]) -> Callable[[SinkContext], Sink]:
    """Each sink notes its own deliveries; the last one of an epoch counts."""
    return lambda context: _TimedSink(open_sink(url, context), delivered)


def main(arguments: list[str]) -> int:
    """Run the job of the file named; an error is told as JSON on stderr."""
    share_heaps()
    try:
        run(BenchJob.read(Path(arguments[0])))
    except Error as problem:
        sys.stderr.write(json.dumps(problem.to_dict()) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
