"""Few records, examined one by one in Python: to run the vectorised statement takes longer, and to plan it far longer.

Invariant: the rows are those of `judge_sql`. Like the compiled kernel this proves records and is no judge of its own:
one that it refuses sends all of the batch to the statement. So no letter and no count depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from penstock.connectors.base import Batch, RawBatch
from penstock.contract.schema import Column, Verdict
from penstock.contract.types import DecimalType, IntegerType, SqlKind, parse_type
from penstock.formats.judge_sql import Judgement
from penstock.formats.plain_checks import plain_checks
from penstock.formats.scratch import scratch
from penstock.formats.verdict import Examined

# A record of 16 columns takes some 25 us, a statement 3 to 8 ms once it is prepared.
MOST_RECORDS = 250
# Values of other types are not the same in Python, in Arrow and in DuckDB without a cast.
_ALIKE = ("VARCHAR", "BOOLEAN", "DOUBLE", "DATE", "TIMESTAMP", "TIME", "BLOB")

Examine = Callable[[bytes | None, bytes | None, tuple[str, ...]], Examined | Verdict]


class FewRecords:
    """One contract."""

    def __init__(self, judgement: Judgement, examine: Examine) -> None:
        self._judgement, self._examine = judgement, examine
        columns = judgement.schema.columns
        places = {column.name: place for place, column in enumerate(columns)}
        plain = judgement.schema.column(judgement.event_time) if judgement.event_time is not None else None
        self._event = places[plain.name] if plain is not None and plain.type == "TIMESTAMP" else None
        known = judgement.event_time is None or self._event is not None
        self._deletes = judgement.kind == "table" and bool(judgement.key)
        checks = plain_checks(judgement.schema)
        self._checks = [(places[check.column], check) for check in checks or ()]
        # of a delete not all columns are checked
        checked = checks is not None and not (checks and self._deletes)
        simple = known and checked and not judgement.schema.foreign_keys
        self._fits = simple and all(_alike(parse_type(column.type)) for column in columns)
        self._fields: dict[str, pa.Field] = {}

    def rows(self, batches: Sequence[Batch], columns: Collection[str] | None) -> pa.Table | None:
        """The rows that `ingest` stores, all of them accepted; None where that is not certain."""
        count = sum(batch.rows for batch in batches)
        if not self._fits or count > MOST_RECORDS:
            return None
        raw = [batch for batch in batches if isinstance(batch, RawBatch)]
        found: list[Examined] = []
        times: list[datetime | None] = []
        for batch in raw:
            for value, key in _records(batch):
                examined = self._examine(value, key, batch.header)
                if isinstance(examined, Verdict) or not self._checked(examined):
                    return None
                found.append(examined)
            times += _times(batch)
        if len(found) < count or not all(map(self._timely, found, times)):
            return None
        return self._table(raw, found, columns)

    def _checked(self, examined: Examined) -> bool:
        return all(check.holds(examined.values[place]) for place, check in self._checks)

    def _timely(self, examined: Examined, append_time: datetime | None) -> bool:
        if self._event is None:
            return True
        at = examined.values[self._event]
        if not isinstance(at, datetime):
            return self._deletes and examined.operation == "-D"
        return append_time is None or at - append_time <= self._judgement.max_ahead

    def _table(
        self, batches: Sequence[RawBatch], found: Sequence[Examined], columns: Collection[str] | None
    ) -> pa.Table:
        partitions = [batch.partition for batch in batches for _ in range(batch.rows)]
        offsets = [offset for batch in batches for offset in batch.offsets.to_pylist()]
        given: list[tuple[pa.Field, Iterable[object]]] = [
            (pa.field("_ps_p", pa.int32()), partitions),
            (pa.field("_ps_o", pa.int64()), offsets),
        ]
        if self._judgement.kind == "table":
            given.append((pa.field("_ps_op", pa.string()), [each.operation for each in found]))
        for place, column in enumerate(self._judgement.schema.columns):
            if columns is None or column.name in columns:
                given.append((self._field(column), [each.values[place] for each in found]))
        event = self._event
        moments = [None if event is None else each.values[event] for each in found]
        given.append((pa.field("_ps_at", pa.timestamp("us")), moments))
        given.append((pa.field("_ps_extra", pa.bool_()), [each.extra for each in found]))
        given.append((pa.field("_ps_ok", pa.bool_()), [True] * len(found)))
        arrays = [pa.array(list(values), field.type) for field, values in given]
        return pa.Table.from_arrays(arrays, schema=pa.schema([field for field, _ in given]))

    def _field(self, column: Column) -> pa.Field:
        """As DuckDB would give it."""
        if not self._fields:
            columns = self._judgement.schema.columns
            nulls = ", ".join(f"NULL::{column.type} AS c{place}" for place, column in enumerate(columns))
            with scratch() as connection:
                schema = connection.sql(f"SELECT {nulls} LIMIT 0").to_arrow_table().schema
            self._fields = {c.name: pa.field(c.name, schema.field(place).type) for place, c in enumerate(columns)}
        return self._fields[column.name]


def _alike(kind: SqlKind) -> bool:
    match kind:
        case DecimalType():
            return True
        case IntegerType():
            return not kind.name.endswith("HUGEINT")
    return kind.name in _ALIKE


def _records(batch: RawBatch) -> Iterator[tuple[Any, Any]]:
    keys = batch.keys.to_pylist() if batch.keys is not None else [None] * batch.rows
    return zip(batch.values.to_pylist(), keys, strict=True)


def _times(batch: RawBatch) -> list[datetime | None]:
    if batch.times is None:
        return [None] * batch.rows
    return [time.as_py() for time in batch.times.cast(pa.timestamp("us"))]
