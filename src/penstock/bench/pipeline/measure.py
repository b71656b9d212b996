"""From what producers and job have noted to latencies: due time of a record to the durable delivery of its epoch.

Definition. A record's latency runs from the time at which it was due (its intended time, whether or not the producer
kept it) to the moment when the epoch that read it had been committed and every sink had delivered it durably. So time
that a record waited because the load was behind counts, as it does for whoever waits for the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.bench.latency import LatencyHistogram
from penstock.bench.pipeline.load import Sent

Nanos = NDArray[np.int64]
BACKLOG_STEP_NS = 250_000_000
# A backlog grows if its last third is on average more than so many times its first third, and has grown by more than so
# much time of the load and so many records.
GROWTH = 1.5
WORTH_S = 0.1
WORTH_RECORDS = 20


@dataclass(frozen=True)
class Timeline:
    """One entry per record of the streams, in no order: when it was due, and when its epoch was delivered."""

    due_ns: Nanos
    done_ns: Nanos

    @property
    def latency_us(self) -> Nanos:
        return (self.done_ns - self.due_ns) // 1_000

    def since(self, start_ns: int) -> Timeline:
        """The records due from a moment on."""
        kept = self.due_ns >= start_ns
        return Timeline(self.due_ns[kept], self.done_ns[kept])


@dataclass(frozen=True)
class EpochRead:
    """One epoch: what it read (partition -> from, to) of one source, and when it was delivered."""

    ranges: Mapping[int, tuple[int, int]]
    done_ns: int


def due_by_offset(sent: Sequence[Sent]) -> dict[int, Nanos]:
    """When the record at each offset of each partition was due; every offset is somebody's."""
    found: dict[int, Nanos] = {}
    ends: dict[int, int] = {}
    for each in sent:
        for partition in np.unique(each.partitions).tolist():
            mine = each.partitions == partition
            ends[partition] = max(ends.get(partition, 0), int((each.offsets[mine] + each.counts[mine]).max()))
    for partition, end in ends.items():
        found[partition] = np.full(end, -1, np.int64)
    for each in sent:
        starts = np.concatenate([[0], np.cumsum(each.counts)])
        for number, (partition, offset, count) in enumerate(
            zip(each.partitions.tolist(), each.offsets.tolist(), each.counts.tolist(), strict=True)
        ):
            found[partition][offset : offset + count] = each.due_ns[starts[number] : starts[number] + count]
    return found


def timeline(due: Mapping[int, Nanos], epochs: Sequence[EpochRead]) -> Timeline:
    """Join due times and deliveries by offset. Offsets that nobody sent (a table's first rows) are left out."""
    dues: list[Nanos] = [np.empty(0, np.int64)]
    dones: list[Nanos] = [np.empty(0, np.int64)]
    for epoch in epochs:
        for partition, (start, end) in epoch.ranges.items():
            if partition in due and end > start:
                mine = due[partition][start:end]
                mine = mine[mine >= 0]
                dues.append(mine)
                dones.append(np.full(len(mine), epoch.done_ns, np.int64))
    return Timeline(np.concatenate(dues), np.concatenate(dones))


def histogram(records: Timeline) -> LatencyHistogram:
    """All latencies, in microseconds."""
    found = LatencyHistogram()
    found.add(records.latency_us)
    return found


def backlog(records: Timeline, start_ns: int, end_ns: int) -> NDArray[np.float64]:
    """How many records were due and not delivered, every quarter of a second."""
    moments = np.arange(start_ns, end_ns + 1, BACKLOG_STEP_NS, dtype=np.int64)
    due = np.searchsorted(np.sort(records.due_ns), moments, side="right")
    done = np.searchsorted(np.sort(records.done_ns), moments, side="right")
    return (due - done).astype(np.float64)


def is_growing(waiting: NDArray[np.float64], rate: float) -> bool:
    """Whether the source's lag grows: its last third against its first, by more than noise can make."""
    third = len(waiting) // 3
    if third == 0:
        return False
    first, last = float(waiting[:third].mean()), float(waiting[-third:].mean())
    return last > GROWTH * first and last - first > max(rate * WORTH_S, WORTH_RECORDS)
