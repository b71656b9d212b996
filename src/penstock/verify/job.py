"""The job side of a verification: one start of the real job, a file sink on every view.

`python -m penstock.verify.job SPEC.json`. It differs from `penstock run --once` in three things only: every view has a
sink, a source may end before its end (so that one input comes in several runs), and no partition goes idle, which a
clock would decide.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from penstock.connectors.base import Batch, Source
from penstock.connectors.registry import open_source
from penstock.graph import Graph, SinkDecl
from penstock.load import load_pipeline
from penstock.runtime.runner import Runner, RunOptions, Until
from penstock.settings import Target
from penstock.url import Url
from penstock.verify.spec import JobReport, JobSpec, obey

NEVER = timedelta(days=36_500)


def with_sink_per_view(graph: Graph) -> Graph:
    """The same pipeline with one sink on each view and step, of its name, and no partition ever idle."""
    sources = tuple(replace(s, idle_after=NEVER) for s in graph.sources)
    places = [(v.name, v.where) for v in graph.views] + [(s.name, s.where) for s in graph.steps]
    return replace(graph, sources=sources, sinks=tuple(SinkDecl(name, name, where) for name, where in places))


def sink_file(folder: Path, view: str) -> Path:
    """Where the changes of a view are written."""
    return folder / f"{view}.jsonl"


class EndingSource:
    """A source that ends at given offsets, for now."""

    def __init__(self, source: Source, upto: Mapping[int, int]) -> None:
        self._source = source
        self._upto = upto

    def partitions(self) -> list[int]:
        return self._source.partitions()

    def start(self, partition: int) -> int:
        return self._source.start(partition)

    def earliest(self, partition: int) -> int:
        return self._source.earliest(partition)

    def latest(self, partition: int) -> int:
        end = self._source.latest(partition)
        return min(end, self._upto[partition]) if partition in self._upto else end

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        limit = self._upto.get(partition)
        ends = [end for end in (limit, to) if end is not None]
        return self._source.read(partition, offset, max_rows, max_bytes, min(ends, default=None))

    def wait(self, timeout_s: float) -> None:
        self._source.wait(timeout_s)

    def finish(self) -> None:
        self._source.finish()

    def close(self) -> None:
        self._source.close()


def run_job(spec: JobSpec) -> None:
    """Start, drain, stop; write the report if one is wanted."""
    graph = with_sink_per_view(load_pipeline(spec.pipeline).graph(spec.values))
    sinks = Path(spec.sinks)
    bindings = {f"source:{name}": Url.parse(url) for name, url in spec.sources.items()}
    bindings |= {f"sink:{s.name}": Url("file", str(sink_file(sinks, s.name))) for s in graph.sinks}
    target = Target("verify", "duckdb", Path(spec.state), bindings)
    sources: dict[str, Source] = {}
    for name, ends in spec.upto.items():
        opened = open_source(Url.parse(spec.sources[name]), name)
        sources[name] = EndingSource(opened, {int(p): end for p, end in ends.items()})
    options = RunOptions(until=Until.DRAINED, flush=spec.flush, max_rows=spec.max_rows, threads=1)
    with Runner(graph, target, options, sources=sources) as runner:
        runner.run()
        if spec.report:
            write_report(runner, Path(spec.report))


def journal_file(report: Path) -> Path:
    """Where the journal lies that belongs to a report."""
    return report.with_suffix(".journal")


def write_report(runner: Runner, path: Path) -> None:
    """What the oracle is compared with: epochs, dead and late rows, counts; the journal goes to a file beside it."""
    query = runner.state.query
    entries = query("SELECT entry FROM _ps.journal ORDER BY epoch").column("entry").to_pylist()
    journal_file(path).write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    dead = query('SELECT source, partition, "offset", rule FROM _ps.dead ORDER BY ALL').to_pylist()
    late = query('SELECT DISTINCT view, source, partition, "offset" FROM _ps.late ORDER BY ALL').to_pylist()
    JobReport(
        len(entries),
        tuple((d["source"], d["partition"], d["offset"], d["rule"]) for d in dead),
        tuple((r["view"], r["source"], r["partition"], r["offset"]) for r in late),
        {name: dict(vars(s.counts)) for name, s in runner.progress.sources.items()},
    ).write(path)


if __name__ == "__main__":
    sys.exit(obey(sys.argv[1:], lambda path: run_job(JobSpec.read(path))))
