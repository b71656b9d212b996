"""The embedded log as source and reference: `log:FOLDER?start=earliest`.

`start`: earliest (default), latest or a timestamp; `format` is the decoder's business.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from penstock.connectors.base import RawBatch, Url, Version
from penstock.connectors.log_frame import HEADER_BYTES, arrays_of_body
from penstock.connectors.log_reader import Frame, PartitionReader, after
from penstock.connectors.log_run import Records, records_of
from penstock.connectors.log_topic import LogTopic, Position
from penstock.connectors.log_writer import LogWriter
from penstock.connectors.partitioning import partition_for
from penstock.connectors.watch import FolderWatch
from penstock.errors import ConnectorError

__all__ = ["LogSource", "LogTopic", "LogVersions", "LogWriter", "partition_for"]


SETTLERS = 4


class LogSource:
    """Reads a topic. Batches skip the marks of reference versions: a batch may have no rows and still move on."""

    OPTIONS = ("format", "start")

    def __init__(self, topic: LogTopic, *, start: str = "earliest") -> None:
        self._topic = topic
        self._start = start
        self._readers = [PartitionReader(topic, number) for number in range(topic.partitions)]
        self._places: dict[int, tuple[int, Position]] = {}
        self._tails = [PartitionReader(topic, number) for number in range(topic.partitions)]
        folders = [topic.folder(number) for number in range(topic.partitions)]
        self._watch = FolderWatch(folders, ignored=frozenset({"synced", "lock"}))
        self._settlers: ThreadPoolExecutor | None = None
        self._unsettled: list[Future[None]] = []
        self._caught_up: dict[int, bool] = {}
        if start not in ("earliest", "latest"):
            _microseconds(start)

    @classmethod
    def open(cls, url: Url) -> LogSource:
        """The source for `log:FOLDER`. Raises ConnectorError PS-CONN-006 if there is no such topic."""
        return cls(LogTopic.open(url.path), start=url.options.get("start", "earliest"))

    def partitions(self) -> list[int]:
        return list(range(self._topic.partitions))

    def start(self, partition: int) -> int:
        match self._start:
            case "earliest":
                return self.earliest(partition)
            case "latest":
                return self.latest(partition)
            case timestamp:
                return self._readers[partition].seek_time(_microseconds(timestamp))

    def earliest(self, partition: int) -> int:
        return self._readers[partition].earliest()

    def latest(self, partition: int) -> int:
        return self._tails[partition].end().offset

    def read(
        self,
        partition: int,
        offset: int,
        max_rows: int,
        max_bytes: int,
        to: int | None = None,
    ) -> RawBatch | None:
        if to is not None and to <= offset:
            return None
        reader = self._readers[partition]
        cached = self._places.get(partition)
        place = cached[1] if cached is not None and cached[0] == offset else reader.seek(offset)
        collected = _Collector(offset, max_rows, max_bytes, to)
        there, caught_up = reader.written(place), False
        while collected.goes_on and not (caught_up := reader.is_at_end(place)):
            behind = _take_run(collected, reader, place) or _take_frames(collected, reader, place)
            behind = behind if behind != place else reader.onward(place)
            if behind == place:
                break
            place = behind
            if place.base != there.base:
                there = reader.written(place)
            elif to is None and place.position >= there.position and reader.onward(place) == place:
                # What has come since is the next read's: a writer may be as fast as this loop.
                caught_up = True
                break
        self._caught_up[partition] = caught_up and to is None
        self._places[partition] = (collected.next_offset, place)
        if collected.next_offset == offset:
            return None
        return collected.batch(partition)

    def caught_up(self, partition: int) -> bool:
        return self._caught_up.get(partition, False)

    def settle_aside(self) -> None:
        # A thread each: what one partition takes, the others need not wait for.
        pool = self._settlers = ThreadPoolExecutor(min(self._topic.partitions, SETTLERS), "penstock-settle")
        for reader in self._readers:
            reader.aside = lambda sync: self._unsettled.append(pool.submit(sync))

    def settle(self) -> None:
        while self._unsettled:
            self._unsettled.pop().result()

    def wait(self, timeout_s: float) -> None:
        self._watch.wait(timeout_s)

    def descriptor(self) -> int:
        return self._watch.descriptor()

    def finish(self) -> None:
        """Nothing is held back: only whole frames are records."""

    def close(self) -> None:
        self._watch.close()
        if self._settlers is not None:
            self._settlers.shutdown()
        for reader in (*self._readers, *self._tails):
            reader.close()


def _take_run(collected: _Collector, reader: PartitionReader, place: Position) -> Position | None:
    """Take the small frames at `place`; where to go on, None if there are none."""
    run, behind = reader.run(place, collected.rows_left)
    if not run.headers:
        return None
    collected.add(records_of(run), run.headers[-1].next_offset)
    number = bisect_right(run.headers, collected.next_offset, key=lambda header: header.next_offset)
    if number == len(run.headers):
        return behind
    last_us = run.headers[number - 1].append_us if number else place.last_us
    start = place.position + run.bodies[number] - HEADER_BYTES
    return Position(place.base, start, run.headers[number].base_offset, last_us)


def _take_frames(collected: _Collector, reader: PartitionReader, place: Position) -> Position:
    """Take one frame after the other, until one is small; the place of what was not taken."""
    for frame in reader.frames(place):
        header = frame.header
        collected.add(_records_of(frame), header.next_offset)
        place = reader.place_of(frame)
        if collected.next_offset == header.next_offset:
            place = after(header, frame.position, place.base)
        else:
            reader.keep(frame)
        if not collected.goes_on:
            break
    return place


def _records_of(frame: Frame) -> Records:
    header = frame.header
    values, keys = arrays_of_body(header, frame.body)
    offsets = np.arange(header.base_offset, header.base_offset + header.records, dtype=np.int64)
    return Records(values, keys, offsets, np.full(header.records, header.append_us, np.int64))


class _Collector:
    """Gathers records up to the limits. goes_on: whether there is room for more."""

    def __init__(self, offset: int, max_rows: int, max_bytes: int, to: int | None) -> None:
        self.next_offset = offset
        self.rows_left = max(max_rows, 1)
        self.goes_on = True
        self._bytes_left = max(max_bytes, 1)
        self._to = to
        self._chunks: list[Records] = []

    def add(self, records: Records, next_offset: int) -> None:
        """Take what fits of the records; next_offset: what comes behind them."""
        offsets, rows = records.offsets, len(records.offsets)
        end = next_offset if self._to is None else min(next_offset, self._to)
        first = int(np.searchsorted(offsets, self.next_offset))
        there = int(np.searchsorted(offsets, end)) - first
        taken = min(there, self.rows_left)
        taken = _fitting(records.values, first, taken, self._bytes_left, at_least=0 if self._chunks else 1)
        if taken > 0:
            self._take(records, first, taken, rows)
        if taken == there:
            self.next_offset = max(self.next_offset, end)
        else:
            self.next_offset = int(offsets[first + taken - 1]) + 1 if taken else self.next_offset
        self.goes_on = self.rows_left > 0 and self._bytes_left > 0 and self.next_offset == next_offset

    def batch(self, partition: int) -> RawBatch:
        """All that was gathered."""
        keys = None
        if any(chunk.keys is not None for chunk in self._chunks):
            keys = pa.chunked_array([_keys_of(chunk) for chunk in self._chunks], pa.binary())
        return RawBatch(
            partition,
            pa.chunked_array([chunk.values for chunk in self._chunks], pa.binary()),
            pa.chunked_array([pa.array(chunk.offsets) for chunk in self._chunks], pa.int64()),
            self.next_offset,
            keys,
            pa.chunked_array(
                [pa.array(chunk.append_us.view("datetime64[us]")) for chunk in self._chunks], pa.timestamp("us")
            ),
        )

    def _take(self, records: Records, first: int, taken: int, rows: int) -> None:
        values, keys = records.values, records.keys
        self._bytes_left -= _bytes_of(values, first, taken)
        if taken < rows:
            values = values.slice(first, taken)
            keys = keys.slice(first, taken) if keys is not None else None
        end = first + taken
        self._chunks.append(Records(values, keys, records.offsets[first:end], records.append_us[first:end]))
        self.rows_left -= taken


def _keys_of(records: Records) -> pa.Array:
    return records.keys if records.keys is not None else pa.nulls(len(records.values), pa.binary())


class LogVersions:
    """A reference in a topic: the records between two end-of-version marks are one version (semantics R2).

    With several partitions, the n-th version is complete when each of them has its n-th mark; that needs every mark
    to be held still, so such a topic must not lose records to retention.
    """

    OPTIONS = ("format",)

    def __init__(self, topic: LogTopic) -> None:
        self._topic = topic
        self._source = LogSource(topic)

    @classmethod
    def open(cls, url: Url) -> LogVersions:
        """The reference for `log:FOLDER`. Raises ConnectorError PS-CONN-006 if there is no such topic."""
        return cls(LogTopic.open(url.path))

    def poll(self, previous: str | None) -> Version | None:
        marks = [self._marks(partition) for partition in self._source.partitions()]
        count = min(len(found) for found in marks)
        if count == 0 or _version_name(marks, count) == previous:
            return None
        return self._version(marks, count)

    def recall(self, version: str) -> Version | None:
        marks = [self._marks(partition) for partition in self._source.partitions()]
        for count in range(1, min(len(found) for found in marks) + 1):
            if _version_name(marks, count) == version:
                return self._version(marks, count)
        return None

    def wait(self, timeout_s: float) -> None:
        self._source.wait(timeout_s)

    def close(self) -> None:
        self._source.close()

    def _version(self, marks: list[list[int]], count: int) -> Version:
        """The `count`-th version, counted from one."""
        if len(marks) > 1 and any(self._source.earliest(number) > 0 for number in self._source.partitions()):
            raise ConnectorError(
                "PS-CONN-002",
                f"the versions in {self._topic.path} can no longer be counted",
                expected="a reference topic with one partition, or with all its records",
                got=f"{len(marks)} partitions, of which the oldest records have left",
                hint="create the topic anew with one partition and write the reference again",
            )
        ends = [found[count - 1] for found in marks]
        starts = [
            found[count - 2] + 1 if count > 1 else self._source.earliest(number) for number, found in enumerate(marks)
        ]
        batches = [
            batch
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
            for batch in self._between(number, start, end)
        ]
        return Version(_version_name(marks, count), tuple(batches))

    def _marks(self, partition: int) -> list[int]:
        reader = PartitionReader(self._topic, partition)
        try:
            place = reader.seek(reader.earliest())
            return [frame.header.base_offset for frame in reader.frames(place) if frame.header.is_mark]
        finally:
            reader.close()

    def _between(self, partition: int, start: int, end: int) -> Iterator[RawBatch]:
        while start < end:
            batch = self._source.read(partition, start, 1 << 20, 1 << 28, end)
            if batch is None:
                raise ConnectorError(
                    "PS-CONN-002",
                    f"a version in {self._topic.path} ends early",
                    expected=f"records up to offset {end}",
                    got=f"offset {start}",
                )
            start = batch.next_offset
            yield batch


def _version_name(marks: list[list[int]], count: int) -> str:
    return "-".join(str(found[count - 1]) for found in marks)


def _fitting(values: pa.BinaryArray, first: int, wanted: int, max_bytes: int, *, at_least: int) -> int:
    """How many of the wanted values from `first` on stay within `max_bytes`."""
    if wanted <= 0:
        return 0
    ends = np.frombuffer(values.buffers()[1], np.int32, wanted + 1, (values.offset + first) * 4)
    if int(ends[-1]) - int(ends[0]) <= max_bytes:
        return wanted
    return max(at_least, int(np.searchsorted(ends, int(ends[0]) + max_bytes, side="right")) - 1)


def _bytes_of(values: pa.BinaryArray, first: int, count: int) -> int:
    ends = np.frombuffer(values.buffers()[1], np.int32, count + 1, (values.offset + first) * 4)
    return int(ends[-1]) - int(ends[0])


def _microseconds(timestamp: str) -> int:
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        raise ConnectorError(
            "PS-CONN-008",
            "the option start is wrong",
            expected="earliest, latest or a timestamp such as 2026-01-31T12:00:00",
            got=timestamp,
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
