"""Watermarks record by record (semantics T1), apart from the engine, which goes by epochs and by arrays.

A partition's watermark before a record is the largest event time before it, less the delay, and never below the
partition's floor. The stream's is the least of its partitions' after each epoch, idle ones left out, and never goes
back. A partition that wakes, or is seen only when others have been read, has the stream's watermark as its floor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from penstock.verify.records import Journaled

Place = tuple[int, int]


@dataclass
class Watermarks:
    """before: of its partition before each record; after: of the stream after each epoch. None: there is none yet."""

    before: dict[Place, datetime | None] = field(default_factory=dict)
    after: dict[int, datetime | None] = field(default_factory=dict)


@dataclass
class _Partition:
    mark: datetime | None = None

    def rise(self, to: datetime | None) -> None:
        if to is not None:
            self.mark = to if self.mark is None else max(self.mark, to)


def watermarks(
    source: str,
    delay: timedelta,
    rows: Iterable[tuple[int, int, int, datetime]],
    journal: Sequence[Journaled],
) -> Watermarks:
    """The watermarks of a stream. rows: epoch, partition, offset and event time of each, in the order of offsets."""
    came: Mapping[tuple[int, int], list[tuple[int, datetime]]] = defaultdict(list)
    for epoch, partition, offset, at in rows:
        came[epoch, partition].append((offset, at))
    found, idle, stream = Watermarks(), frozenset[int](), _Partition()
    partitions: dict[int, _Partition] = {}
    for entry in journal:
        now_idle = entry.idle.get(source, idle)
        for partition in idle - now_idle:
            partitions[partition].rise(stream.mark)
        idle = now_idle
        for partition in sorted(entry.ranges.get(source, {})):
            mine = partitions.setdefault(partition, _Partition(stream.mark))
            for offset, at in came[entry.epoch, partition]:
                found.before[partition, offset] = mine.mark
                mine.rise(at - delay)
        stream.rise(_least([p.mark for number, p in partitions.items() if number not in idle]))
        found.after[entry.epoch] = stream.mark
    return found


def _least(marks: Sequence[datetime | None]) -> datetime | None:
    """None where one of them is None, or there are none."""
    known = [mark for mark in marks if mark is not None]
    return min(known) if known and len(known) == len(marks) else None
