"""Reading sources: which records the next epoch gets.

Sources are polled; an epoch takes what is there, at most `max_rows` records and `max_bytes`, shared fairly between
partitions, so that epochs are small when it is quiet and large under load. All that is not determined by the offsets
(which partitions are idle, which version of a reference) is decided here and goes into the journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.connectors.base import Batch, Source, Version, VersionSource
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
        ranges: dict[int, tuple[int, int]] = {}
        # Looked up once: for the embedded log it means reading the tail.
        self._ends = {p: self.source.latest(p) for p in sorted(self.next_offsets)}
        behind = [p for p, end in self._ends.items() if _bounded(p, end, upto) > self.next_offsets[p]]
        share_rows = max(1, max_rows // max(1, len(behind)))
        share_bytes = max(1, max_bytes // max(1, len(behind)))
        for partition in sorted(self.next_offsets):
            start = self.next_offsets[partition]
            end = start
            if partition in behind:
                end = self._read_partition(partition, start, share_rows, share_bytes, upto, batches)
            ranges[partition] = (start, end)
        return SourceInput(tuple(batches), ranges)

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
        self,
        partition: int,
        start: int,
        max_rows: int,
        max_bytes: int,
        upto: Mapping[int, int] | None,
        batches: list[Batch],
    ) -> int:
        limit = upto.get(partition, start) if upto is not None else None
        offset, rows = start, 0
        while rows < max_rows:
            batch = self.source.read(partition, offset, max_rows - rows, max_bytes, limit)
            if batch is None:
                break
            batches.append(batch)
            rows += batch.rows
            offset = batch.next_offset
            if offset >= (self._ends[partition] if limit is None else limit):
                break
        if rows:
            self.last_rows_at[partition] = time.monotonic()
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


def _bounded(partition: int, end: int, upto: Mapping[int, int] | None) -> int:
    return end if upto is None else min(end, upto.get(partition, 0))


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
