"""The job's own answer: the records of the results topic, folded as they come.

Folding is strict: a retraction must take away exactly the row that is there, and an insert must find none. What does
not fit is kept in `mistakes`, for a job that doubles one row and forgets another may still end with the right sum.
Records without `_op` are rows that replace the one before of their campaign and window, as other programs write them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from penstock.apps.ads.counts import Cell, CellCounts, Counts
from penstock.connectors.log import LogSource, LogTopic

READ_RECORDS = 65_536
READ_BYTES = 64 << 20
MAX_MISTAKES = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Written = tuple[int, Counts]
"""When a row was written (append time, microseconds since 1970), and the row."""


@dataclass
class Fold:
    """The results as they stand.

    epoch: the newest epoch seen. written_us: append time of the newest record. history: all rows of each cell, in the
    order in which they were written (without those that retract).
    """

    cells: CellCounts = field(default_factory=dict)
    records: int = 0
    epoch: int = -1
    written_us: int = 0
    mistakes: list[str] = field(default_factory=list)
    history: defaultdict[Cell, list[Written]] = field(default_factory=lambda: defaultdict(list))

    def take(self, value: bytes | None, window_us: int, written_us: int) -> None:
        """Take in one record as it lies in the topic; one that is no result is a mistake."""
        try:
            record = json.loads(value or b"")
            self.apply(record, window_us, written_us)
        except (KeyError, TypeError, ValueError) as problem:
            self._mistake(f"not a result ({problem!r}): {value!r}")
        self.written_us = max(self.written_us, written_us)

    def apply(self, record: dict[str, object], window_us: int, written_us: int = 0) -> None:
        """Take in one result."""
        cell, counts = _row(record)
        operation = record.get("_op")
        self.records += 1
        if operation is not None:
            self.epoch = max(self.epoch, _integer(record, "_epoch"))
        if _microseconds(record["window_end"]) != cell[1] + window_us:
            self._mistake(f"window_end is not the end of the window: {record}")
        if record["click_through_rate"] != counts.click_through_rate:
            self._mistake(f"click_through_rate is not {counts.click_through_rate}: {record}")
        match operation:
            case "+I" | "+U":
                if cell in self.cells:
                    self._mistake(f"a row is already there: {record}")
                self._stands(cell, counts, written_us)
            case "-U" | "-D":
                if self.cells.pop(cell, None) != counts:
                    self._mistake(f"the retracted row is not there: {record}")
            case None:
                self._stands(cell, counts, written_us)
            case _:
                self._mistake(f"unknown _op {operation}: {record}")

    def without_history(self) -> Fold:
        """The same, without what came before."""
        return replace(self, history=defaultdict(list))

    def _stands(self, cell: Cell, counts: Counts, written_us: int) -> None:
        self.cells[cell] = counts
        self.history[cell].append((written_us, counts))

    def _mistake(self, text: str) -> None:
        if len(self.mistakes) < MAX_MISTAKES:
            self.mistakes.append(text)


class ResultsReader:
    """Follows the results topic in a folder; `poll` folds what is new."""

    def __init__(self, topic: str, window_s: float) -> None:
        self.fold = Fold()
        self._window_us = round(window_s * 1e6)
        self._source = LogSource(LogTopic.open(topic))
        self._offsets = {number: self._source.earliest(number) for number in self._source.partitions()}

    def poll(self) -> Fold:
        for partition, offset in self._offsets.items():
            while (batch := self._source.read(partition, offset, READ_RECORDS, READ_BYTES)) is not None:
                offset = batch.next_offset
                times = batch.times.cast("int64").to_pylist() if batch.times is not None else [0] * batch.rows
                for value, written_us in zip(batch.values.to_pylist(), times, strict=True):
                    self.fold.take(value, self._window_us, written_us)
            self._offsets[partition] = offset
        return self.fold

    def close(self) -> None:
        self._source.close()


def read_results(topic: str, window_s: float) -> Fold:
    """All results of the topic in a folder, folded."""
    reader = ResultsReader(topic, window_s)
    try:
        return reader.poll()
    finally:
        reader.close()


def _row(record: dict[str, object]) -> tuple[Cell, Counts]:
    names = ("count", "views", "clicks", "purchases", "max_produce_time")
    cell = (_integer(record, "campaign_id"), _microseconds(record["window_start"]))
    return cell, Counts(*(_integer(record, name) for name in names))


def _integer(record: dict[str, object], name: str) -> int:
    value = record[name]
    if not isinstance(value, int):
        raise TypeError(f"{name} is not an integer: {record}")
    return value


# All rows of a window say the same times.
@lru_cache(4_096)
def _microseconds(value: object) -> int:
    moment = datetime.fromisoformat(str(value))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND
