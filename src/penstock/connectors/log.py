"""The embedded log as source and reference: `log:FOLDER?start=earliest`.

`start`: earliest (default), latest or a timestamp; `format` is the decoder's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from penstock.connectors.base import RawBatch, Url, Version
from penstock.connectors.log_frame import arrays_of_body
from penstock.connectors.log_reader import (
    SMALL_FRAME_RECORDS,
    Frame,
    PartitionReader,
    after,
)
from penstock.connectors.log_topic import LogTopic, Position
from penstock.connectors.log_writer import LogWriter
from penstock.connectors.partitioning import partition_for
from penstock.connectors.watch import FolderWatch
from penstock.errors import ConnectorError

__all__ = ["LogSource", "LogTopic", "LogVersions", "LogWriter", "partition_for"]


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
        last = place
        for frame in reader.frames(place):
            last = reader.place_of(frame)
            if not collected.add(frame):
                break
            last = after(frame.header, frame.position, last.base)
        if collected.next_offset == offset:
            return None
        self._places[partition] = (collected.next_offset, last)
        return collected.batch(partition)

    def wait(self, timeout_s: float) -> None:
        self._watch.wait(timeout_s)

    def finish(self) -> None:
        """Nothing is held back: only whole frames are records."""

    def close(self) -> None:
        self._watch.close()
        for reader in (*self._readers, *self._tails):
            reader.close()


class _Collector:
    """Gathers frames up to the limits; frames too small to be a chunk of their own are copied together."""

    def __init__(self, offset: int, max_rows: int, max_bytes: int, to: int | None) -> None:
        self.next_offset = offset
        self._rows_left = max(max_rows, 1)
        self._bytes_left = max(max_bytes, 1)
        self._to = to
        self._rows = 0
        self._small: list[_Piece] = []
        self._small_rows = 0
        self._chunks: list[list[_Piece]] = []
        self._has_keys = False

    def add(self, frame: Frame) -> bool:
        """Take what fits of a frame; whether the next frame may follow."""
        header = frame.header
        end = header.next_offset if self._to is None else min(header.next_offset, self._to)
        first = self.next_offset - header.base_offset
        wanted = min(end - self.next_offset, self._rows_left)
        if header.records == 0:
            self.next_offset = max(self.next_offset, end)
            return end == header.next_offset
        values, keys = arrays_of_body(header, frame.body)
        taken = _fitting(values, first, wanted, self._bytes_left, at_least=0 if self._rows else 1)
        if taken > 0:
            piece = _Piece(
                values.slice(first, taken),
                keys.slice(first, taken) if keys is not None else None,
                header.base_offset + first,
                header.append_us,
            )
            self._take(piece, taken)
        return self._rows_left > 0 and self._bytes_left > 0 and self.next_offset == header.next_offset

    def batch(self, partition: int) -> RawBatch:
        """All that was gathered."""
        self._end_small()
        keys = None
        if self._has_keys:
            keys = pa.chunked_array([_merged_keys(chunk) for chunk in self._chunks], pa.binary())
        return RawBatch(
            partition,
            pa.chunked_array([_merged([piece.values for piece in chunk]) for chunk in self._chunks], pa.binary()),
            pa.chunked_array([_offsets(chunk) for chunk in self._chunks], pa.int64()),
            self.next_offset,
            keys,
            pa.chunked_array([_times(chunk) for chunk in self._chunks], pa.timestamp("us")),
        )

    def _take(self, piece: _Piece, rows: int) -> None:
        self._has_keys |= piece.keys is not None
        if rows >= SMALL_FRAME_RECORDS:
            self._end_small()
            self._chunks.append([piece])
        else:
            self._small.append(piece)
            self._small_rows += rows
            if self._small_rows >= SMALL_FRAME_RECORDS:
                self._end_small()
        self.next_offset += rows
        self._rows += rows
        self._rows_left -= rows
        self._bytes_left -= _bytes_of(piece.values)

    def _end_small(self) -> None:
        if self._small:
            self._chunks.append(self._small)
        self._small, self._small_rows = [], 0


class _Piece(NamedTuple):
    """The part of one frame that is taken (a named tuple: one is made per frame, and frames may be tiny)."""

    values: pa.BinaryArray
    keys: pa.BinaryArray | None
    offset: int
    append_us: int


def _merged(arrays: list[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _merged_keys(chunk: list[_Piece]) -> pa.Array:
    missing = ((piece.keys if piece.keys is not None else pa.nulls(len(piece.values), pa.binary())) for piece in chunk)
    return _merged(list(missing))


def _offsets(chunk: list[_Piece]) -> pa.Array:
    counts = np.array([len(piece.values) for piece in chunk])
    begins = np.cumsum(counts) - counts
    firsts = np.array([piece.offset for piece in chunk], np.int64)
    return pa.array(np.arange(counts.sum(), dtype=np.int64) + np.repeat(firsts - begins, counts))


def _times(chunk: list[_Piece]) -> pa.Array:
    times = np.array([piece.append_us for piece in chunk], np.int64)
    return pa.array(np.repeat(times, [len(piece.values) for piece in chunk]).view("datetime64[us]"))


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


def _bytes_of(values: pa.BinaryArray) -> int:
    ends = np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, values.offset * 4)
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
