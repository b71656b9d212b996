"""What every engine promises, and the data that an epoch is made of.

An engine commits one epoch at a time, atomically: state, offsets, journal, dead letters, late rows and outbox together,
or none of them. It reads no clock and polls no source: all that is not determined by the input comes in with
`EpochInput` and goes into the journal (semantics E1). Times inside are integers, microseconds since 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa

from penstock.connectors.base import Batch
from penstock.plan.plan import Plan


@dataclass(frozen=True)
class SourceInput:
    """What one source gives to an epoch.

    batches: records in the order of (partition, offset). offsets: partition -> (from, to). version: for a reference,
    the id of the version that the batches are. advance_us: a watermark set by hand, in force after the batches.
    """

    batches: tuple[Batch, ...] = ()
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    version: str | None = None
    advance_us: int | None = None


def _settled() -> None:
    """Sources give durable records, unless they say otherwise."""


@dataclass(frozen=True)
class EpochInput:
    """All that an epoch depends on. idle: partitions outside of the watermark's minimum. flush: end of the stream.

    replay_to: how far the durable internal source `_replay` is read in this epoch (None: as far as it goes).
    at_us: the wall clock, for the journal alone. settle: called before the commit; it returns when the records of the
    epoch are durable where they came from.
    """

    epoch: int
    sources: Mapping[str, SourceInput] = field(default_factory=dict)
    idle: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    flush: bool = False
    replay_to: int | None = None
    at_us: int = 0
    settle: Callable[[], None] = field(default=_settled, compare=False)


@dataclass
class PartitionProgress:
    """How far a partition is: the next offset, its largest event time, and the floor that its watermark starts from.

    first_offset: where this state began to read it; None before the first epoch.
    """

    next_offset: int = 0
    largest_us: int | None = None
    floor_us: int | None = None
    first_offset: int | None = None

    def watermark_us(self, delay_us: int) -> int | None:
        """The watermark after all rows so far; None before the first one."""
        candidates = [self.largest_us - delay_us] if self.largest_us is not None else []
        candidates += [self.floor_us] if self.floor_us is not None else []
        return max(candidates, default=None)


@dataclass
class Counts:
    """The accounting of a source: rows = accepted + duplicate + dead; late is per view and counted beside it.

    unknown_fields: accepted records with fields that the contract does not have.
    """

    rows: int = 0
    accepted: int = 0
    duplicate: int = 0
    dead: int = 0
    unknown_fields: int = 0
    replayed: int = 0


@dataclass
class SourceProgress:
    """All that is known of a source after an epoch."""

    partitions: dict[int, PartitionProgress] = field(default_factory=dict)
    idle: tuple[int, ...] = ()
    watermark_us: int | None = None
    version: str | None = None
    counts: Counts = field(default_factory=Counts)

    def copy(self) -> SourceProgress:
        """One that moves on its own."""
        partitions = {number: replace(stood) for number, stood in self.partitions.items()}
        return replace(self, partitions=partitions, counts=replace(self.counts))


@dataclass
class Progress:
    """Where a pipeline stands: the last committed epoch (-1: none) and every source."""

    epoch: int = -1
    state_id: str = ""
    sources: dict[str, SourceProgress] = field(default_factory=dict)
    replay_offset: int = 0
    late: dict[str, int] = field(default_factory=dict)
    flushed: bool = False

    def copy(self) -> Progress:
        """One that moves on its own."""
        sources = {name: source.copy() for name, source in self.sources.items()}
        return replace(self, sources=sources, late=dict(self.late))


@dataclass(frozen=True)
class EpochResult:
    """What an epoch did. changes: per sink with rows, as the sink gets them; rows_out: per sink.

    touched: the blocks that ran, with the seconds that each took; alerts: sentences for the operator. again: the views
    that were computed again as a whole; spent: the seconds that each block took, with what was done for it before.
    """

    epoch: int
    rows_in: int
    changes: Mapping[str, pa.Table]
    late: Mapping[str, int]
    alerts: tuple[str, ...]
    touched: Mapping[str, float]
    seconds: float
    commit_seconds: float
    again: tuple[str, ...] = ()
    spent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LetterQuery:
    """Which dead letters are meant: those that everything given allows. beginning: of the id."""

    source: str | None = None
    status: str | None = None
    rule: str | None = None
    ids: tuple[str, ...] | None = None
    beginning: str | None = None


@dataclass(frozen=True)
class DeadLetter:
    """A record that broke the contract, as it came.

    status: dead, replayed or dropped; after a reset also kept (its source is not read that far yet) or reread (it was
    read again, and not refused).
    """

    id: str
    source: str
    partition: int
    offset: int
    epoch: int
    append_time_us: int | None
    key: bytes | None
    value: bytes | None
    rule: str
    field: str
    got: str
    reason: str
    status: str
    attempts: int


class EngineState(Protocol):
    """An opened state: the one writer of it."""

    plan: Plan
    progress: Progress

    def run(self, epoch: EpochInput) -> EpochResult:
        """Execute and commit one epoch; on any error nothing of it remains."""
        ...

    def outbox(self, sink: str, after_epoch: int) -> Iterator[tuple[int, pa.Table]]:
        """Committed changes that may not have been delivered, by epoch."""
        ...

    def delivered(self, sink: str, epoch: int) -> None:
        """The outbox up to `epoch` may be forgotten (at the next commit)."""
        ...

    def read(self, view: str) -> pa.Table:
        """The view's content now. Raises DataError where it is not kept."""
        ...

    def query(self, sql: str) -> pa.Table:
        """A read-only query over views, sources that are kept, and the ledgers."""
        ...

    def maintain(self) -> None:
        """Housekeeping while idle: checkpoint, and drop what the watermark has made unreachable."""
        ...

    def close(self) -> None: ...
