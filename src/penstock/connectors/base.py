"""What every source and sink promises.

A source has partitions with offsets and can be read again from any offset that it still holds. It is polled, never
pushes, and knows nothing of epochs. A sink delivers one epoch's changes durably before `deliver` returns; what it
guarantees when an epoch is delivered twice is its `guarantee`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import pyarrow as pa

from penstock.errors import ConnectorError
from penstock.url import Url as Url


@dataclass(frozen=True)
class RawBatch:
    """Consecutive records of one partition, as bytes.

    values: binary, a null is a tombstone. keys: binary or None. offsets: int64, ascending, one per record.
    times: timestamp[us] append times, one per record, or None where the source has none. next_offset: where to read
    on (it may lie beyond the last offset + 1). header: the column names of a CSV file, else empty.
    """

    partition: int
    values: pa.ChunkedArray
    offsets: pa.ChunkedArray
    next_offset: int
    keys: pa.ChunkedArray | None = None
    times: pa.ChunkedArray | None = None
    header: tuple[str, ...] = ()
    end_of_version: bool = False

    @property
    def rows(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class TypedBatch:
    """Consecutive records of one partition that arrive as Arrow columns (Parquet, in-process sessions).

    table: the columns by name, and optionally `_op` (`+I`, `-U`, `+U`, `-D`). offsets, times: as in `RawBatch`.
    """

    partition: int
    table: pa.Table
    offsets: pa.ChunkedArray
    next_offset: int
    times: pa.ChunkedArray | None = None
    end_of_version: bool = False

    @property
    def rows(self) -> int:
        return len(self.offsets)


Batch = RawBatch | TypedBatch


class Source(Protocol):
    """Rows with offsets. Not thread-safe: one thread uses it."""

    def partitions(self) -> list[int]:
        """The partitions that exist now (they may grow)."""
        ...

    def start(self, partition: int) -> int:
        """The offset to begin with: `?start=earliest` (default), `latest` or a timestamp."""
        ...

    def earliest(self, partition: int) -> int:
        """The first offset still held."""
        ...

    def latest(self, partition: int) -> int:
        """The offset after the last record that is readable now."""
        ...

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        """Records from `offset` on, below `to` if given; None when there is none yet.

        Reads at least one record where there is one, even if it is larger than `max_bytes`. A batch may have no rows
        and still move `next_offset` on (marks, blank lines).
        Raises ConnectorError PS-CONN-005 when `offset` is no longer held, PS-CONN-004 when the data is damaged.
        """
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when new records may be there, at the latest after `timeout_s`."""
        ...

    def finish(self) -> None:
        """Nobody writes any more (end of stream, `--once`): what waits for its end, as a last line does, is whole."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Settling(Protocol):
    """A source that may read ahead of durability, so that whoever commits does not wait twice."""

    def settle_aside(self) -> None:
        """From now on `read` may give records that a power loss could still take: call `settle` before they count."""
        ...

    def settle(self) -> None:
        """Return when all records that `read` has given are durable. Raises what went wrong."""
        ...


@runtime_checkable
class Following(Protocol):
    """A source that others write to while it is read: whoever asks it until there is nothing more runs after them."""

    def caught_up(self, partition: int) -> bool:
        """Whether the last `read` of the partition (without `to`) has given all that was there when it began."""
        ...


@dataclass(frozen=True)
class Version:
    """One complete version of a reference. id: names the content (a hash, or the offset of the end mark)."""

    id: str
    batches: tuple[Batch, ...]


class VersionSource(Protocol):
    """A reference's source: whole versions, each complete or invisible (semantics R2)."""

    def poll(self, previous: str | None) -> Version | None:
        """The newest complete version if its id differs from `previous`, else None."""
        ...

    def recall(self, version: str) -> Version | None:
        """The version with that id, if it can still be read (replay of a journal)."""
        ...

    def wait(self, timeout_s: float) -> None: ...

    def close(self) -> None: ...


class Guarantee(Enum):
    """What happens to an epoch that is delivered again after a crash."""

    TRANSACTIONAL = "transactional"
    IDEMPOTENT = "idempotent"
    AT_LEAST_ONCE = "at_least_once"


@dataclass(frozen=True)
class SinkContext:
    """What a sink is told when it is opened. key: the view's key columns, empty where it has none."""

    pipeline: str
    sink: str
    state_id: str
    columns: pa.Schema
    key: tuple[str, ...]


class RowsRefused(ConnectorError):
    """A sink refuses rows of an epoch for good, and has written nothing of it. rows: their positions in `changes`."""

    def __init__(self, sink: str, rows: tuple[int, ...], reason: str) -> None:
        self.rows = rows
        self.reason = reason
        super().__init__(
            "PS-CONN-009",
            f"sink {sink} refuses {len(rows)} rows for good",
            expected="rows that the sink can take",
            got=reason,
            hint="on_error='dead' keeps such rows as dead letters and goes on",
        )


class Sink(Protocol):
    """Where a view's changes go. Used by one thread."""

    guarantee: Guarantee

    def delivered(self) -> int:
        """The last epoch of this state_id known to be delivered whole, -1 for none (at_least_once: always -1)."""
        ...

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        """Write one epoch durably. `changes`: the view's columns, then `_op`, `_epoch`, `_seq`, `_correction`.

        Delivering an epoch again (same content) must leave what delivering it once leaves, unless the sink is
        at_least_once. Raises a ConnectorError; `retryable` says whether trying again may help. Raises RowsRefused,
        before anything is written, when rows can never be taken.
        """
        ...

    def close(self) -> None: ...
