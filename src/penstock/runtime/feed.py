"""Reading sources: which records the next epoch gets.

Sources are polled; an epoch takes what is there, at most `max_rows` records and `max_bytes`, shared fairly between
partitions, so that epochs are small when it is quiet and large under load. All that is not determined by the offsets
(which partitions are idle, which version of a reference) is decided here and goes into the journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.connectors.base import Batch, Following, RawBatch, Settling, Source, TypedBatch, Version, VersionSource
from penstock.engines.base import Progress, SourceInput
from penstock.errors import ConnectorError, Error
from penstock.pipeline import SourceDecl

REFERENCE_POLL_S = 0.5
PARTITIONS_POLL_S = 1.0


@dataclass
class Feed:
    """One stream or table and where the loop stands in it. lag: records that were there at the last look, and are not
    read."""

    declared: SourceDecl
    source: Source
    next_offsets: dict[int, int] = field(default_factory=dict)
    last_rows_at: dict[int, float] = field(default_factory=dict)
    lag: int = 0
    _partitions_at: float = 0.0
    _ends: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Asked once: each time it would take as long as a read.
        self._following = self.source if isinstance(self.source, Following) else None
        self._settling = self.source if isinstance(self.source, Settling) else None

    def settle(self) -> None:
        """Wait for the records that were read: an epoch must not outlive what it counted."""
        if self._settling is not None:
            self._settling.settle()

    def start(self, progress: Progress) -> None:
        """Take offsets from the state, and the source's own start for partitions that are new."""
        for partition, stood in progress.sources[self.declared.name].partitions.items():
            self.next_offsets[partition] = stood.next_offset
        self._look_for_partitions()

    def _look_for_partitions(self) -> None:
        now = time.monotonic()
        if self.next_offsets and now - self._partitions_at < PARTITIONS_POLL_S:
            return
        self._partitions_at = now
        for partition in self.source.partitions():
            if partition not in self.next_offsets:
                self.next_offsets[partition] = self.source.start(partition)
            self.last_rows_at.setdefault(partition, now)

    def read(self, max_rows: int, max_bytes: int, upto: Mapping[int, int] | None = None) -> SourceInput:
        """The next records of all partitions. upto: read no further than that in each (drain)."""
        self._look_for_partitions()
        batches: list[Batch] = []
        ends = dict(self.next_offsets)
        waiting = [p for p in sorted(ends) if upto is None or upto.get(p, 0) > ends[p]]
        # Where a partition has less than its share, the others may take the rest. None is asked for its end: it has
        # been reached when nothing more can be read.
        while waiting and max_rows > 0 and max_bytes > 0:
            share = _Room(max(1, max_rows // len(waiting)), max(1, max_bytes // len(waiting)))
            more = []
            for partition in waiting:
                room, before = replace(share), len(batches)
                ends[partition] = self._read_partition(partition, ends[partition], room, upto, batches)
                max_rows -= share.rows - room.rows
                max_bytes -= share.bytes - room.bytes
                if room.rows <= 0 or room.bytes <= 0:
                    more.append(partition)
                if len(batches) > before:
                    self.last_rows_at[partition] = time.monotonic()
            if len(more) == len(waiting):
                break
            waiting = more
        self._ends = {p: self.source.latest(p) for p in waiting}
        return SourceInput(tuple(batches), {p: (start, ends[p]) for p, start in sorted(self.next_offsets.items())})

    def read_exactly(self, upto: Mapping[int, int]) -> SourceInput:
        """All records up to the given offsets, whatever their number (replay of a journal)."""
        batches: list[Batch] = []
        for partition in sorted(self.next_offsets):
            start, end = self.next_offsets[partition], upto[partition]
            while start < end:
                batch = self.source.read(partition, start, end - start, 1 << 30, end)
                if batch is None or batch.next_offset <= start:
                    raise ConnectorError(
                        "PS-CONN-005",
                        f"{self.declared.name}: recorded records are not there",
                        expected=f"offsets {start} to {end} of partition {partition}",
                        got=f"{self.source.earliest(partition)} to {self.source.latest(partition)}",
                    )
                batches.append(batch)
                start = batch.next_offset
        return SourceInput(tuple(batches), {p: (self.next_offsets[p], upto[p]) for p in upto})

    def _read_partition(
        self, partition: int, offset: int, room: _Room, upto: Mapping[int, int] | None, batches: list[Batch]
    ) -> int:
        """Read what there is and fits; where it ends."""
        limit = upto.get(partition, offset) if upto is not None else None
        while room.rows > 0 and room.bytes > 0:
            batch = self.source.read(partition, offset, room.rows, room.bytes, limit)
            if batch is None:
                break
            batches.append(batch)
            room.rows -= batch.rows
            room.bytes -= _bytes_of(batch)
            offset = batch.next_offset
            if limit is not None and offset >= limit:
                break
            # What comes while an epoch is read is the next one's, else the two run after one another.
            if limit is None and self._following is not None and self._following.caught_up(partition):
                break
        return offset

    def taken(self, given: SourceInput) -> None:
        """The epoch with this input is committed."""
        for partition, (_, end) in given.offsets.items():
            self.next_offsets[partition] = end
        self.lag = sum(max(0, self._ends.get(p, 0) - offset) for p, offset in self.next_offsets.items())

    def idle(self) -> tuple[int, ...]:
        """The partitions that have been silent for longer than `idle_after`, though all of them was read."""
        now, limit = time.monotonic(), self.declared.idle_after.total_seconds()
        return tuple(
            p
            for p, offset in sorted(self.next_offsets.items())
            if now - self.last_rows_at.get(p, now) > limit and self.source.latest(p) <= offset
        )

    def latest(self) -> dict[int, int]:
        """Where each partition ends now."""
        self._look_for_partitions()
        return {p: self.source.latest(p) for p in self.next_offsets}


@dataclass
class _Room:
    """How many records and bytes an epoch still has room for."""

    rows: int
    bytes: int


def _bytes_of(batch: Batch) -> int:
    match batch:
        case RawBatch():
            return int(batch.values.nbytes)
        case TypedBatch():
            return int(batch.table.nbytes)


@dataclass
class ReferenceFeed:
    """One reference. A version that was refused is not offered again."""

    declared: SourceDecl
    source: VersionSource
    seen: str | None = None
    alert: str = ""
    _polled_at: float = 0.0

    def poll(self, *, now: bool = False) -> SourceInput | None:
        """The next version, if there is one."""
        moment = time.monotonic()
        if not now and moment - self._polled_at < REFERENCE_POLL_S:
            return None
        self._polled_at = moment
        try:
            version: Version | None = self.source.poll(self.seen)
        except ConnectorError as problem:
            if problem.message != self.alert:
                self.alert = problem.message
                raise ReferenceUnreadable(self.declared.name, problem) from problem
            return None
        if version is None:
            return None
        self.alert = ""
        self.seen = version.id
        return SourceInput(version.batches, {}, version.id)

    def recall(self, version: str) -> SourceInput | None:
        """A recorded version, if it can still be read."""
        found = self.source.recall(version)
        if found is None:
            return None
        self.seen = found.id
        return SourceInput(found.batches, {}, found.id)


class ReferenceUnreadable(Exception):
    """A reference cannot be read now; the old version stays. Raised once for each different problem."""

    def __init__(self, name: str, problem: Error) -> None:
        super().__init__(f"reference {name} cannot be read: {problem.message}; {problem.got}")
        self.name = name
        self.problem = problem
