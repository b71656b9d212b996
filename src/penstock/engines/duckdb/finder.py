"""Records by position, for the few of an epoch that are looked at one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.connectors.base import Batch, TypedBatch


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """One record as it came. header: of a CSV file; columns: of a typed record."""

    value: bytes | None
    key: bytes | None
    time: datetime | None
    header: tuple[str, ...] = ()
    columns: dict[str, object] | None = None


def find_records(batches: Sequence[Batch], places: Sequence[tuple[int, int]]) -> list[FoundRecord]:
    """The records at the places (partition, offset).

    Raises:
        KeyError: there is no such record.
    """
    found: dict[tuple[int, int], FoundRecord] = {}
    for partition in {partition for partition, _ in places}:
        wanted = np.array([offset for each, offset in places if each == partition], np.int64)
        for batch in (b for b in batches if b.partition == partition and b.rows):
            offsets = np.asarray(batch.offsets)
            there = _among(offsets, wanted)
            records = zip(offsets[there].tolist(), _records(batch, there), strict=True)
            # a position is a record's identity: the first batch that has it is as good as another
            found |= {(partition, offset): record for offset, record in records if (partition, offset) not in found}
    return [found[place] for place in places]


def _among(offsets: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the offsets are wanted; they ascend."""
    places = np.searchsorted(offsets, wanted)
    places = places[places < len(offsets)]
    there = np.zeros(len(offsets), np.bool_)
    there[places] = True
    there[places] = np.isin(offsets[places], wanted)
    return there


def _records(batch: Batch, there: NDArray[np.bool_]) -> Iterator[FoundRecord]:
    mask = pa.array(there)
    nothing = [None] * int(there.sum())
    times = batch.times.filter(mask).to_pylist() if batch.times is not None else nothing
    if isinstance(batch, TypedBatch):
        for columns, time in zip(batch.table.filter(mask).to_pylist(), times, strict=True):
            yield FoundRecord(json.dumps(columns, default=str).encode(), None, time, (), columns)
        return
    keys = batch.keys.filter(mask).to_pylist() if batch.keys is not None else nothing
    for value, key, time in zip(batch.values.filter(mask).to_pylist(), keys, times, strict=True):
        yield FoundRecord(value, key, time, batch.header)
