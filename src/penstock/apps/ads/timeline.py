"""The sound events of a topic as columns, in offset order, and when each of them was meant to be sent.

The event time is the intended time unless a load was disordered on purpose; the producers' own schedule (`Schedule`)
says it exactly, record by record, and is believed before the event time.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
COLUMNS = 7


@dataclass(frozen=True)
class Timeline:
    """The sound events of one partition.

    starts_us: start of the window. kinds: index into `EVENT_TYPES`. intended_us: when it was to be sent.
    late: 1 for events that no window took.
    """

    partition: int
    offsets: Integers
    campaigns: Integers
    starts_us: Integers
    kinds: Integers
    produce_ms: Integers
    intended_us: Integers
    late: Integers


@dataclass
class Collector:
    """Takes events one by one; `timeline` gives them as columns."""

    partition: int
    cells: array[int] = field(default_factory=lambda: array("q"))

    def add(
        self, offset: int, campaign: int, start_us: int, kind: int, produce_ms: int, event_us: int, *, late: bool
    ) -> None:
        self.cells.extend((offset, campaign, start_us, kind, produce_ms, event_us, late))

    def timeline(self) -> Timeline:
        columns = np.frombuffer(self.cells, dtype=np.int64).reshape(-1, COLUMNS).T.copy()
        return Timeline(self.partition, *columns)


class ScheduleWriter:
    """Appends when the records of a producer were meant to be sent. Not synced: a lost tail falls back to event times.

    The file is a sequence of (partition, first offset, count), then `count` times in microseconds, all int64.
    """

    def __init__(self, folder: Path, producer: int) -> None:
        self._file = (folder / f"schedule-{producer}.bin").open("wb")

    def add(self, partition: int, offset: int, due_ns: Integers) -> None:
        head = np.array([partition, offset, len(due_ns)], dtype=np.int64)
        self._file.write(head.tobytes() + (due_ns // 1_000).tobytes())

    def close(self) -> None:
        self._file.close()


def scheduled(timelines: list[Timeline], folder: Path) -> list[Timeline]:
    """The timelines with the intended times that the producers' schedules in `folder` have for them."""
    known = {timeline.partition: _unknown(timeline) for timeline in timelines}
    for path in sorted(folder.glob("schedule-*.bin")):
        data = np.fromfile(path, dtype=np.int64)
        at = 0
        while at + 3 <= len(data):
            partition, offset, count = data[at : at + 3].tolist()
            due_us = data[at + 3 : at + 3 + count]
            times = known.get(partition)
            if times is not None:
                inside = due_us[: max(0, len(times) - offset)]
                times[offset : offset + len(inside)] = inside
            at += 3 + count
    return [_believed(timeline, known[timeline.partition]) for timeline in timelines]


def _unknown(timeline: Timeline) -> Integers:
    end = int(timeline.offsets[-1]) + 1 if len(timeline.offsets) else 0
    return np.full(end, -1, dtype=np.int64)


def _believed(timeline: Timeline, times_us: Integers) -> Timeline:
    said = times_us[timeline.offsets] if len(timeline.offsets) else timeline.intended_us
    return replace(timeline, intended_us=np.where(said >= 0, said, timeline.intended_us))
