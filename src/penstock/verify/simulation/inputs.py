"""What the simulated job reads: the pipeline's fixtures and records generated from its contracts, as files and topics.

Records come again and in another order only as far as the source's contract promises to bear it: a stream with
`unique`, or a table with a version, takes a record twice; a table without a version keeps the order of each key; a
table without a key keeps its order altogether. Across partitions nothing is ordered.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np

from penstock.bench.pipeline.dataset import Dataset, DatasetOptions
from penstock.bench.pipeline.disturbance import Disturbance
from penstock.connectors.log import LogTopic, LogWriter
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationError
from penstock.formats.rows import rows_to_batch
from penstock.graph import Graph, SourceDecl
from penstock.pipeline import Pipeline
from penstock.plan.plan import Plan
from penstock.url import Url
from penstock.verify.fixtures import Fixture
from penstock.verify.job import with_sink_per_view
from penstock.verify.simulation.parts import Clock
from penstock.verify.simulation.schedule import ReferenceVersion
from penstock.verify.spec import ViewSpec
from penstock.verify.views import view_specs

# 2040: later than the event times of any fixture, so that none of them is in the future.
BASE_US = 2_208_988_800_000_000
RECORDS = 150
TABLE_KEYS = 12
CHUNK = 16

Records = Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Case:
    """One input: a fixture's rows, or generated ones (`records` None: they depend on the schedule)."""

    name: str
    graph: Graph
    plan: Plan
    views: tuple[ViewSpec, ...]
    records: Records | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sink.name for sink in self.graph.sinks)

    def bears_earlier(self, reference: str) -> bool:
        """Whether a batch over the last version of a reference is right though others were in force before: not where
        records were judged by them, or rows were told for good."""
        judging = {key.reference for source in self.graph.sources for key in source.schema.foreign_keys}
        return reference not in judging and all(view.kind == "batch" for view in self.views if not view.skipped)


def fixture_cases(pipeline: Pipeline, fixtures: Sequence[Fixture], values: Mapping[str, str]) -> list[Case]:
    """A case per fixture: the rows of all its epochs, one after the other."""
    cases = []
    for fixture in fixtures:
        base = _case(pipeline, fixture.name, {**values, **fixture.values})
        records = {s.name: _fixture_records(fixture, s) for s in base.graph.sources if s.clock is None}
        cases.append(replace(base, records=records))
    return cases


def generated_case(pipeline: Pipeline, values: Mapping[str, str]) -> Case:
    """A case whose records are generated anew for each schedule.

    Raises:
        DeclarationError: PS-BENCH-005, nothing can be generated that keeps the contracts.
    """
    case = _case(pipeline, "generated records", values)
    generated_records(case, 0, 1_000_000, few=True)
    return case


def _case(pipeline: Pipeline, name: str, values: Mapping[str, str]) -> Case:
    graph = with_sink_per_view(pipeline.graph(values))
    plan = compile_for_duckdb(graph, in_memory=False)
    return Case(name, graph, plan, view_specs(plan), None)


def _fixture_records(fixture: Fixture, source: SourceDecl) -> list[bytes]:
    found: list[bytes] = []
    for epoch in fixture.given:
        if source.name in epoch:
            batch = rows_to_batch([dict(row) for row in epoch[source.name]], source.schema, 0)
            # A reference is given as a whole: the last version is the one that there is.
            found = batch.values.to_pylist() if source.kind == "reference" else found + batch.values.to_pylist()
    return found


def generated_records(case: Case, seed: int, event_step_us: int, *, few: bool = False) -> Records:
    """Records for every source but the clocks: broken, late and disordered ones among them."""
    disturbance = Disturbance(
        broken=0.06,
        late=0.06,
        deleted=0.15,
        late_by_s=event_step_us / 1e6 * 40,
        disorder_s=event_step_us / 1e6 * 4,
    )
    dataset = Dataset(case.plan, DatasetOptions(seed, disturbance, keys=TABLE_KEYS, reference_rows=TABLE_KEYS))
    try:
        found: dict[str, Sequence[bytes]] = {}
        for name, generator in dataset.generators.items():
            source = generator.source
            if source.kind == "reference":
                found[name] = generator.render(dataset.references[name]).to_pylist()
                continue
            count = 3 if few else RECORDS if source.kind == "stream" else RECORDS // 4
            due_us = BASE_US + np.arange(count, dtype=np.int64) * event_step_us
            found[name] = generator.records(due_us).values.to_pylist()
        return found
    finally:
        dataset.close()


# -- onto the disk -----------------------------------------------------------------------------------------------------


def deliver_records(
    graph: Graph, records: Records, draw: random.Random, partitions: int, duplicates: float
) -> dict[str, list[list[bytes]]]:
    """The records of every source as they arrive, per partition."""
    found: dict[str, list[list[bytes]]] = {}
    for source in graph.sources:
        given = list(records.get(source.name, ()))
        if source.kind == "reference":
            found[source.name] = [given]
        elif source.clock is None:
            found[source.name] = _delivered(source, given, draw, partitions, duplicates)
    return found


def write_inputs(
    graph: Graph, delivered: Mapping[str, list[list[bytes]]], folder: Path, clock: Clock, draw: random.Random
) -> dict[str, Url]:
    """Write the records where the job and the oracle read them; the URL of every source."""
    folder.mkdir()
    urls: dict[str, Url] = {}
    for source in graph.sources:
        if source.clock is not None:
            urls[source.name] = Url("clock", f"{source.clock // timedelta(milliseconds=1)}ms")
            continue
        parts = delivered[source.name]
        # A file has no append times: when its records are first read decides what is in the future.
        if source.kind == "reference":
            urls[source.name] = Url("file", str(_reference_file(folder, source.name)))
        elif len(parts) == 1 and draw.random() < 0.5:
            urls[source.name] = _file(folder / f"{source.name}.jsonl", parts[0])
        else:
            urls[source.name] = _topic(folder / source.name, parts, clock, draw)
    return urls


def write_references(
    case: Case, delivered: Mapping[str, list[list[bytes]]], folder: Path, version: ReferenceVersion, draw: random.Random
) -> None:
    """Put this version of every reference where the job reads it."""
    for source in case.graph.sources:
        if source.kind != "reference":
            continue
        records = list(delivered[source.name][0])
        if version != "last":
            draw.shuffle(records)
        if version == "earlier" and len(records) > 1 and case.bears_earlier(source.name):
            records = records[: draw.randint(1, len(records) - 1)]
        _file(_reference_file(folder, source.name), records)


def _reference_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.jsonl"


def _delivered(
    source: SourceDecl, records: list[bytes], draw: random.Random, partitions: int, duplicates: float
) -> list[list[bytes]]:
    """The records as they arrive, per partition."""
    if source.kind == "table" and not source.key:
        return [records]
    bears = bool(source.unique) or source.kind == "table"
    anywhere = bool(source.unique) or bool(source.version)
    parts: list[list[bytes]] = [[] for _ in range(partitions)]
    again: list[tuple[bytes, int]] = []
    for record in records:
        place = draw.randrange(partitions) if anywhere or source.kind == "stream" else _home(source, record, partitions)
        parts[place].append(record)
        if bears and draw.random() < duplicates:
            if anywhere:
                again.append((record, draw.randrange(partitions)))
            else:
                parts[place].append(record)
        if again and draw.random() < 0.3:
            record_again, elsewhere = again.pop(draw.randrange(len(again)))
            parts[elsewhere].append(record_again)
    for record, place in again:
        parts[place].append(record)
    return parts


def _home(source: SourceDecl, record: bytes, partitions: int) -> int:
    """All records of a key go to one partition, as a producer with keys would send them."""
    try:
        row = json.loads(record)
        key = json.dumps([row.get(name) for name in source.key])
    except (ValueError, AttributeError):
        key = ""
    return sum(key.encode()) % partitions


def _file(path: Path, records: Sequence[bytes]) -> Url:
    path.write_bytes(b"".join(record + b"\n" for record in records))
    return Url("file", str(path))


def _topic(path: Path, parts: Sequence[Sequence[bytes]], clock: Clock, draw: random.Random) -> Url:
    topic = LogTopic.create(path, len(parts))
    with _time_of(clock), LogWriter(topic, fsync="none") as writer:
        for start in range(0, max(map(len, parts), default=0), CHUNK):
            for number, part in enumerate(parts):
                if part[start : start + CHUNK]:
                    writer.append(number, list(part[start : start + CHUNK]))
            if draw.random() < 0.1:
                clock.jump(draw.choice((-7_000_000, -1_000_000, 5_000_000)))
    return Url("log", str(path))


@contextmanager
def _time_of(clock: Clock) -> Iterator[None]:
    """Append times by the simulated clock."""
    with mock.patch("penstock.connectors.log_writer.time.time_ns", side_effect=lambda: clock.now_us() * 1_000):
        yield


def generate_or_say_why(pipeline: Pipeline, values: Mapping[str, str]) -> tuple[list[Case], str]:
    """The generated case, or why there is none."""
    try:
        return [generated_case(pipeline, values)], ""
    except DeclarationError as problem:
        if problem.code != "PS-BENCH-005":
            raise
        return [], f"{problem.message} (expected {problem.expected}, got {problem.got})"
