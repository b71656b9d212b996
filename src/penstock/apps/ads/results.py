"""The job's own answer: the change records of the results topic, folded as they come.

Folding is strict: a retraction must take away exactly the row that is there, and an insert must find none. What does
not fit is kept in `mistakes`, for a job that doubles one row and forgets another may still end with the right sum.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from penstock.apps.ads.counts import Cell, CellCounts, Counts
from penstock.connectors.log import LogSource, LogTopic

READ_RECORDS = 65_536
READ_BYTES = 64 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class Fold:
    """The results as they stand. epoch: the newest epoch seen. written_us: append time of the newest record."""

    cells: CellCounts = field(default_factory=dict)
    records: int = 0
    epoch: int = -1
    written_us: int = 0
    mistakes: list[str] = field(default_factory=list)

    def apply(self, record: dict[str, object], window_us: int) -> None:
        """Take in one change record."""
        cell, counts = _row(record)
        self.records += 1
        self.epoch = max(self.epoch, _integer(record, "_epoch"))
        if _microseconds(record["window_end"]) != cell[1] + window_us:
            self.mistakes.append(f"window_end is not the end of the window: {record}")
        if record["click_through_rate"] != counts.click_through_rate:
            self.mistakes.append(f"click_through_rate is not {counts.click_through_rate}: {record}")
        match record["_op"]:
            case "+I" | "+U":
                if cell in self.cells:
                    self.mistakes.append(f"a row is already there: {record}")
                self.cells[cell] = counts
            case "-U" | "-D":
                if self.cells.pop(cell, None) != counts:
                    self.mistakes.append(f"the retracted row is not there: {record}")
            case operation:
                self.mistakes.append(f"unknown _op {operation}: {record}")


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
                for value in batch.values.to_pylist():
                    self.fold.apply(json.loads(value), self._window_us)
                if batch.times is not None and batch.rows:
                    newest = batch.times[-1].cast("int64").as_py()
                    self.fold.written_us = max(self.fold.written_us, newest)
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


def _microseconds(value: object) -> int:
    moment = datetime.fromisoformat(str(value))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND
