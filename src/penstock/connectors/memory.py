"""Topics, references and sinks in memory, for sessions and tests.

There is no registry of names: whoever makes the object hands it to both sides. Nothing outlives the process, so
within it the promises of durable connectors hold: offsets never change, an epoch delivered twice is kept once.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from penstock.connectors.base import Batch, Guarantee, RawBatch, SinkContext, TypedBatch, Version
from penstock.errors import ConnectorError


class MemoryTopic:
    """Partitions of batches. Appending and reading may happen in different threads.

    Example:
        >>> topic = MemoryTopic()
        >>> topic.append([b'{"n": 1}', b'{"n": 2}'])
        0
        >>> MemorySource(topic).read(0, 1, 10, 1000).values.to_pylist()
        [b'{"n": 2}']
    """

    def __init__(self, partitions: int = 1) -> None:
        self.changed = threading.Condition()
        self._batches: list[list[Batch]] = [[] for _ in range(partitions)]
        self._ends = [0] * partitions

    @property
    def partitions(self) -> int:
        return len(self._batches)

    def append(
        self,
        values: Sequence[bytes | None] | pa.BinaryArray,
        keys: Sequence[bytes | None] | pa.BinaryArray | None = None,
        *,
        partition: int = 0,
        time_us: int | None = None,
    ) -> int:
        """Add records as bytes; the offset of the first. time_us: their append time, None for none."""
        batch = RawBatch(
            partition,
            _chunked(values, pa.binary()),
            _chunked([], pa.int64()),
            0,
            _chunked(keys, pa.binary()) if keys is not None else None,
        )
        return self._add(batch, len(values), partition, time_us)

    def append_table(self, table: pa.Table, *, partition: int = 0, time_us: int | None = None) -> int:
        """Add rows as Arrow columns, with `_op` if they are not all inserts; the offset of the first."""
        return self._add(TypedBatch(partition, table, _chunked([], pa.int64()), 0), len(table), partition, time_us)

    def end(self, partition: int) -> int:
        """The offset that the next record gets."""
        return self._ends[partition]

    def batch_at(self, partition: int, offset: int) -> Batch | None:
        """The batch that holds `offset`."""
        batches = self._batches[partition]
        place = bisect_right(batches, offset, key=lambda batch: batch.next_offset)
        return batches[place] if place < len(batches) else None

    def _add(self, batch: Batch, rows: int, partition: int, time_us: int | None) -> int:
        with self.changed:
            first = self._ends[partition]
            if rows == 0:
                return first
            offsets = _chunked(np.arange(first, first + rows, dtype=np.int64), pa.int64())
            times = None
            if time_us is not None:
                times = pa.chunked_array([pa.array(np.full(rows, time_us, np.int64)).cast(pa.timestamp("us"))])
            self._batches[partition].append(replace(batch, offsets=offsets, next_offset=first + rows, times=times))
            self._ends[partition] = first + rows
            self.changed.notify_all()
            return first


class MemorySource:
    """Reads a topic in memory. start: `earliest` or `latest`."""

    def __init__(self, topic: MemoryTopic, *, start: str = "earliest") -> None:
        self._topic = topic
        self._first = [topic.end(number) if start == "latest" else 0 for number in range(topic.partitions)]
        self._seen = self._ends()

    def partitions(self) -> list[int]:
        return list(range(self._topic.partitions))

    def start(self, partition: int) -> int:
        return self._first[partition]

    def earliest(self, partition: int) -> int:
        return 0

    def latest(self, partition: int) -> int:
        return self._topic.end(partition)

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        end = self._topic.end(partition)
        if not 0 <= offset <= end:
            raise ConnectorError(
                "PS-CONN-005", f"offset {offset} is out of range", expected=f"0 to {end}", got=str(offset)
            )
        batch = self._topic.batch_at(partition, offset)
        limit = end if to is None else min(to, end)
        if batch is None or limit <= offset:
            return None
        first = offset - (batch.next_offset - batch.rows)
        rows = max(1, min(limit - offset, batch.rows - first, max_rows))
        match batch:
            case RawBatch():
                rows = _fitting(batch.values.slice(first, rows), max_bytes)
                return replace(
                    batch,
                    values=batch.values.slice(first, rows),
                    keys=batch.keys.slice(first, rows) if batch.keys is not None else None,
                    offsets=batch.offsets.slice(first, rows),
                    times=batch.times.slice(first, rows) if batch.times is not None else None,
                    next_offset=offset + rows,
                )
            case TypedBatch():
                return replace(
                    batch,
                    table=batch.table.slice(first, rows),
                    offsets=batch.offsets.slice(first, rows),
                    times=batch.times.slice(first, rows) if batch.times is not None else None,
                    next_offset=offset + rows,
                )

    def wait(self, timeout_s: float) -> None:
        with self._topic.changed:
            self._topic.changed.wait_for(lambda: self._ends() != self._seen, timeout_s)
            self._seen = self._ends()

    def finish(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The topic stays with whoever made it."""

    def _ends(self) -> list[int]:
        return [self._topic.end(number) for number in range(self._topic.partitions)]


class MemoryVersions:
    """A reference in memory: `publish` makes a new version current as a whole."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current: Version | None = None
        self._count = 0

    def publish(self, batches: Sequence[Batch]) -> str:
        """Make these records the newest version; its id."""
        with self._changed:
            self._count += 1
            self._current = Version(str(self._count), tuple(batches))
            self._changed.notify_all()
            return self._current.id

    def poll(self, previous: str | None) -> Version | None:
        current = self._current
        return current if current is not None and current.id != previous else None

    def recall(self, version: str) -> Version | None:
        current = self._current
        return current if current is not None and current.id == version else None

    def wait(self, timeout_s: float) -> None:
        with self._changed:
            count = self._count
            self._changed.wait_for(lambda: self._count != count, timeout_s)

    def close(self) -> None:
        """The versions stay with whoever made them."""


class MemoryStore:
    """What sinks in memory have delivered; outlives the sinks opened on it."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, str], dict[int, pa.Table]] = {}

    def open(self, context: SinkContext) -> MemorySink:
        """The sink for one sink of one pipeline."""
        return MemorySink(self._epochs.setdefault((context.state_id, context.sink), {}))

    def epochs(self, state_id: str, sink: str) -> dict[int, pa.Table]:
        """The changes of each epoch that was delivered, by epoch."""
        return dict(self._epochs.get((state_id, sink), {}))


class MemorySink:
    """Keeps each epoch's changes."""

    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, epochs: dict[int, pa.Table]) -> None:
        self._epochs = epochs

    def delivered(self) -> int:
        return max(self._epochs, default=-1)

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        self._epochs.setdefault(epoch, changes)

    def close(self) -> None:
        """The store stays with whoever made it."""


def _chunked(values: Sequence[bytes | None] | pa.Array, kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)], kind)


def _fitting(values: pa.ChunkedArray, max_bytes: int) -> int:
    """How many of the values stay within `max_bytes`, at least one."""
    total, rows = 0, 0
    for value in values:
        total += len(value.as_py() or b"")
        if rows and total > max_bytes:
            break
        rows += 1
    return rows
