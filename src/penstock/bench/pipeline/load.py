"""Producers of generated records: an open-loop load whose schedule does not depend on how fast it can be sent.

When a record is due follows from the arrival process alone. Records are rendered ahead by a thread of their own, and
sent when they are due; a producer that falls behind sends late, and its log says by how much, but the schedule never
moves. The log of sends says for every offset when its record was due.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bench.arrivals import NS_PER_SECOND, Load, arrival_process
from penstock.bench.latency import LatencyHistogram
from penstock.bench.leash import follow_parent
from penstock.bench.pipeline.dataset import Dataset, DatasetOptions
from penstock.bench.pipeline.disturbance import Disturbance
from penstock.bench.pipeline.generator import LATE, SOUND, RecordGenerator
from penstock.connectors.log import LogTopic, LogWriter
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import Error
from penstock.load import load_pipeline

BLOCK = 4_096
BLOCKS_AHEAD = 4
LINGER_NS = 1_000_000
READY = "ready"

Nanos = NDArray[np.int64]


@dataclass(frozen=True)
class LoadSpec:
    """The whole load, the same for all its producers.

    topics: of every stream and table, its folder. rates: records per second of each, over all producers. folder: where
    the producers' logs go. due times begin at `base_ns` (since 1970) and end `duration_s` later.
    """

    pipeline: str
    values: Mapping[str, str]
    topics: Mapping[str, str]
    rates: Mapping[str, float]
    folder: str
    duration_s: float
    producers: int = 1
    arrivals: str = "poisson"
    seed: int = 20_000
    keys: int = 1_000
    reference_rows: int = 100
    disturbance: Disturbance = field(default_factory=Disturbance)
    given: Mapping[str, pa.Table] = field(default_factory=dict)

    def dataset(self, index: int, *, quiet: bool = False) -> Dataset:
        """Generators for producer `index`."""
        plan = compile_for_duckdb(load_pipeline(self.pipeline).graph(self.values), in_memory=True)
        disturbance = Disturbance() if quiet else self.disturbance
        options = DatasetOptions(
            self.seed, disturbance, self.keys, self.reference_rows, index, self.producers, self.given
        )
        return Dataset(plan, options)


@dataclass(frozen=True)
class Sent:
    """What one producer sent to one topic, in order. Each send: partition, first offset, records, and when it was
    made; `due_ns` holds one time per record."""

    partitions: Nanos
    offsets: Nanos
    counts: Nanos
    at_ns: Nanos
    due_ns: Nanos
    faults: NDArray[np.int16]


def log_file(folder: Path, index: int, source: str) -> Path:
    return folder / f"{source}.{index}.npz"


def read_log(path: Path) -> Sent:
    """The log that a producer wrote."""
    with np.load(path) as found:
        return Sent(**{name: found[name] for name in Sent.__dataclass_fields__})


def send_lag(sent: Sent) -> LatencyHistogram:
    """How long after it was due each record was sent, in microseconds."""
    lag = LatencyHistogram()
    lag.add((np.repeat(sent.at_ns, sent.counts) - sent.due_ns) // 1_000)
    return lag


@dataclass(frozen=True)
class _Block:
    lane: _Lane
    due_ns: Nanos
    values: pa.BinaryArray
    faults: NDArray[np.int16]


class _Lane:
    """One source of one producer: its schedule, its writer and its log."""

    def __init__(self, spec: LoadSpec, name: str, generator: RecordGenerator, index: int) -> None:
        self.name = name
        self.generator = generator
        topic = LogTopic.open(spec.topics[name])
        self._partitions = topic.partitions
        self.writer = LogWriter(topic)
        self._next = index
        self._sends: list[tuple[int, int, int, int]] = []
        self._due: list[Nanos] = []
        self._faults: list[NDArray[np.int16]] = []

    def send(self, block: _Block, start: int, stop: int) -> None:
        """Append a slice to the next partition."""
        partition = self._next % self._partitions
        self._next += 1
        now_ns = time.time_ns()
        offset = self.writer.append(partition, block.values.slice(start, stop - start))
        self._sends.append((partition, offset, stop - start, now_ns))
        self._due.append(block.due_ns[start:stop])
        self._faults.append(block.faults[start:stop])

    def finish(self, path: Path) -> None:
        """Make all durable and write the log."""
        self.writer.flush()
        self.writer.close()
        sends = np.array(self._sends, np.int64).reshape(-1, 4)
        empty: Nanos = np.empty(0, np.int64)
        np.savez(
            path,
            partitions=sends[:, 0],
            offsets=sends[:, 1],
            counts=sends[:, 2],
            at_ns=sends[:, 3],
            due_ns=np.concatenate([empty, *self._due]),
            faults=np.concatenate([np.empty(0, np.int16), *self._faults]),
        )


def produce(spec: LoadSpec, index: int, begin: Path) -> None:
    """One producer: prepares, says that it is ready, waits until `begin` holds the time to start from, and sends.

    Ends the process with a message on stderr when it fails.
    """
    follow_parent()
    try:
        _produce(spec, index, begin)
    except Error as problem:
        sys.stderr.write(problem.render() + "\n")
        sys.exit(1)


def _produce(spec: LoadSpec, index: int, begin: Path) -> None:
    folder = Path(spec.folder)
    dataset = spec.dataset(index)
    lanes = [_Lane(spec, name, dataset.generators[name], index) for name in spec.rates]
    (folder / f"{READY}.{index}").touch()
    while not begin.exists():
        time.sleep(0.005)
    base_ns = int(begin.read_text())
    # The renderer gives way to the sender quickly.
    sys.setswitchinterval(0.0005)
    blocks: queue.Queue[_Block | BaseException | None] = queue.Queue(BLOCKS_AHEAD)
    threading.Thread(target=_render, args=(spec, index, lanes, base_ns, blocks), daemon=True).start()
    while (block := blocks.get()) is not None:
        if isinstance(block, BaseException):
            raise block
        _pace(block)
    for lane in lanes:
        lane.finish(log_file(folder, index, lane.name))
    dataset.close()


def _pace(block: _Block) -> None:
    """Send a block's records when they are due, at most one send per millisecond."""
    position, next_send = 0, 0
    while position < len(block.due_ns):
        now = time.time_ns()
        due = max(int(block.due_ns[position]), next_send)
        if due > now:
            time.sleep((due - now) / 1e9)
            continue
        stop = int(np.searchsorted(block.due_ns, now, side="right"))
        block.lane.send(block, position, stop)
        position, next_send = stop, now + LINGER_NS


def _render(
    spec: LoadSpec,
    index: int,
    lanes: list[_Lane],
    base_ns: int,
    blocks: queue.Queue[_Block | BaseException | None],
) -> None:
    try:
        for lane, due_ns in _schedule(spec, index, lanes, base_ns):
            records = lane.generator.records(due_ns // 1_000)
            blocks.put(_Block(lane, due_ns, records.values, records.faults))
        blocks.put(None)
    except BaseException as problem:  # noqa: BLE001 - raised in the sender's thread
        blocks.put(problem)


def _schedule(spec: LoadSpec, index: int, lanes: list[_Lane], base_ns: int) -> Iterator[tuple[_Lane, Nanos]]:
    """Blocks of due times. With several lanes a block is a short time long, so that they take turns."""
    end_ns = round(spec.duration_s * 1e9)
    processes = [
        arrival_process(spec.arrivals)(
            Load(spec.rates[lane.name] / spec.producers),
            np.random.default_rng([spec.seed, index, *lane.name.encode()]),
        )
        for lane in lanes
    ]
    slice_ns = NS_PER_SECOND if len(lanes) == 1 else NS_PER_SECOND // 100
    for second_ns in range(0, end_ns, NS_PER_SECOND):
        times = [next(process) + second_ns for process in processes]
        times = [each[each < end_ns] + base_ns for each in times]
        for start_ns in range(second_ns + base_ns, second_ns + base_ns + NS_PER_SECOND, slice_ns):
            for lane, each in zip(lanes, times, strict=True):
                first, last = np.searchsorted(each, [start_ns, start_ns + slice_ns])
                for block in range(int(first), int(last), BLOCK):
                    yield lane, each[block : min(block + BLOCK, int(last))]


def preload(spec: LoadSpec, references: Mapping[str, str]) -> None:
    """Before anything runs: every reference complete, and about as many rows in each table as it has keys.

    Not where versions decide: those of the load would be older.
    """
    dataset = spec.dataset(0, quiet=True)
    try:
        for name, folder in references.items():
            with LogWriter(LogTopic.open(folder), fsync="none") as writer:
                writer.append(0, dataset.generators[name].render(dataset.references[name]))
                writer.end_version(0)
                writer.flush()
        now_us = np.full(spec.keys, time.time_ns() // 1_000, np.int64)
        for name, generator in dataset.generators.items():
            if generator.source.kind == "table" and not generator.source.version:
                with LogWriter(LogTopic.open(spec.topics[name]), fsync="none") as writer:
                    writer.append(0, generator.records(now_us).values)
                    writer.flush()
    finally:
        dataset.close()


def faults_of(sent: list[Sent]) -> tuple[int, int, int]:
    """How many records are sound, late and broken (or repeated, or deletes) as they were sent."""
    faults = np.concatenate([np.empty(0, np.int16), *(each.faults for each in sent)])
    sound, late = int((faults == SOUND).sum()), int((faults == LATE).sum())
    return sound, late, len(faults) - sound - late
