"""Reading a source's records again, exactly those that a journal says were read, and typing them one by one.

The slow way on purpose: each record is examined in Python, apart from the vectorised check that the job uses. What
only SQL can say (row checks, event time) is asked later, of all records at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pyarrow as pa

from penstock.connectors.base import Batch, Source, TypedBatch
from penstock.contract.schema import Column, Schema, Verdict
from penstock.contract.types import (
    DecimalType,
    IntegerType,
    ListType,
    MapType,
    PlainType,
    SqlKind,
    StructType,
    parse_type,
)
from penstock.errors import ConnectorError
from penstock.formats.decode import RecordDecoder
from penstock.formats.rows import table_json

BATCH_ROWS = 65_536
BATCH_BYTES = 64 << 20
Range = tuple[int, int]


@dataclass(frozen=True)
class Journaled:
    """One epoch of the journal: what it read of each source, and the clock that stamped what had no append time.

    flush: it ended the streams, so that open windows are shown. idle: per source the partitions that were silent.
    """

    epoch: int
    at_us: int
    ranges: Mapping[str, Mapping[int, Range]]
    versions: Mapping[str, str]
    flush: bool = False
    idle: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Position:
    """Where a record stands, and the epoch that read it."""

    partition: int
    offset: int
    epoch: int


@dataclass(frozen=True)
class Dead:
    """A record that broke its contract."""

    position: Position
    rule: str


@dataclass(frozen=True)
class Examined:
    """The records of one source.

    rows: typed values of the sound ones, with partition, offset, epoch, operation and append time (`_ps_p`, `_ps_o`,
    `_ps_e`, `_ps_op`, `_ps_t`).
    """

    rows: pa.Table
    dead: tuple[Dead, ...]
    count: int


def examine_source(
    name: str, source: Source, schema: Schema, decoder: RecordDecoder, journal: Sequence[Journaled]
) -> Examined:
    """Examine all records of a stream or table.

    Raises:
        ConnectorError: PS-CONN-005 when records that were read are gone.
    """
    found = _Examination(schema, decoder)
    for entry in journal:
        for partition, (start, end) in sorted(entry.ranges.get(name, {}).items()):
            for batch in _exactly(name, source, partition, start, end):
                found.take(batch, entry)
    return found.result()


def examine_batches(batches: Sequence[Batch], schema: Schema, decoder: RecordDecoder, at_us: int) -> Examined:
    """Examine all records of one version of a reference."""
    found = _Examination(schema, decoder)
    for batch in batches:
        found.take(batch, Journaled(0, at_us, {}, {}))
    return found.result()


def _exactly(name: str, source: Source, partition: int, start: int, end: int) -> Iterator[Batch]:
    while start < end:
        batch = source.read(partition, start, BATCH_ROWS, BATCH_BYTES, end)
        if batch is None or batch.next_offset <= start:
            raise ConnectorError(
                "PS-CONN-005",
                f"{name}: records that the job has read are gone",
                expected=f"offsets {start} to {end} of partition {partition}",
                got=f"{source.earliest(partition)} to {source.latest(partition)}",
            )
        yield batch
        start = batch.next_offset


class _Examination:
    def __init__(self, schema: Schema, decoder: RecordDecoder) -> None:
        self._schema = schema
        self._decoder = decoder
        self._kinds = [parse_type(c.type) for c in schema.columns]
        self._columns: list[list[object]] = [[] for _ in schema.columns]
        self._positions: list[tuple[int, int, int, str, int]] = []
        self._dead: list[Dead] = []
        self._count = 0

    def take(self, batch: Batch, entry: Journaled) -> None:
        offsets = batch.offsets.to_pylist()
        times = _microseconds(batch.times) if batch.times is not None else [entry.at_us] * len(offsets)
        records = self._records(batch)
        for offset, time_us, (value, key, header) in zip(offsets, times, records, strict=True):
            position = Position(batch.partition, offset, entry.epoch)
            self._count += 1
            examined = self._decoder.examine(value, key, header)
            if isinstance(examined, Verdict):
                self._dead.append(Dead(position, examined.rule))
                continue
            self._positions.append((batch.partition, offset, entry.epoch, examined.operation, time_us))
            for values, kind, typed in zip(self._columns, self._kinds, examined.values, strict=True):
                values.append(plain(kind, typed))

    def _records(self, batch: Batch) -> Iterator[tuple[bytes | None, bytes | None, tuple[str, ...]]]:
        if isinstance(batch, TypedBatch):
            for text in table_json(batch.table, self._schema).to_pylist():
                yield text.encode(), None, ()
            return
        keys = batch.keys.to_pylist() if batch.keys is not None else [None] * batch.rows
        for value, key in zip(batch.values.to_pylist(), keys, strict=True):
            yield value, key, batch.header

    def result(self) -> Examined:
        names = [c.name for c in self._schema.columns]
        arrays = [pa.array(values, arrow_type(kind)) for values, kind in zip(self._columns, self._kinds, strict=True)]
        places = list(zip(*self._positions, strict=True)) or [()] * 5
        hidden = (("_ps_p", pa.int32()), ("_ps_o", pa.int64()), ("_ps_e", pa.int64()), ("_ps_op", pa.string()))
        arrays += [pa.array(list(places[n]), kind) for n, (_, kind) in enumerate(hidden)]
        arrays.append(pa.array(list(places[4]), pa.int64()).cast(pa.timestamp("us")))
        rows = pa.Table.from_arrays(arrays, names=[*names, *(n for n, _ in hidden), "_ps_t"])
        return Examined(rows, tuple(self._dead), self._count)


def _microseconds(times: pa.ChunkedArray) -> list[int]:
    values: list[int] = times.cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    return values


# -- from Python values to what Arrow and then SQL take ----------------------------------------------------------------


def arrow_type(kind: SqlKind) -> pa.DataType:
    """The Arrow type in which values of this kind are handed to SQL, which casts them to the column's own type."""
    match kind:
        case IntegerType():
            return pa.int64() if kind.lowest >= -(1 << 63) and kind.highest < 1 << 63 else pa.string()
        case DecimalType():
            return pa.string()
        case PlainType():
            return _PLAIN[kind.name]
        case ListType():
            return pa.list_(arrow_type(kind.element))
        case MapType():
            return pa.map_(pa.string(), arrow_type(kind.value))
        case StructType():
            return pa.struct([(name, arrow_type(inner)) for name, inner in kind.fields])


_PLAIN = {
    "FLOAT": pa.float64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "UUID": pa.string(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP": pa.timestamp("us"),
    "INTERVAL": pa.duration("us"),
}


def plain(kind: SqlKind, value: object) -> object:
    """A value as `arrow_type` takes it."""
    match value:
        case None:
            return None
        case Decimal():
            return format(value, "f")
        case UUID():
            return str(value)
        case bool():
            return value
        case int() if isinstance(kind, IntegerType) and pa.types.is_string(arrow_type(kind)):
            return str(value)
        case datetime() if value.tzinfo is not None:
            return value.astimezone(UTC).replace(tzinfo=None)
        case list() if isinstance(kind, ListType):
            return [plain(kind.element, item) for item in value]
        case dict() if isinstance(kind, MapType):
            return [(name, plain(kind.value, item)) for name, item in value.items()]
        case dict() if isinstance(kind, StructType):
            kinds = dict(kind.fields)
            return {name: plain(kinds[name], item) for name, item in value.items()}
    return value


def sql_columns(columns: Sequence[Column], alias: str) -> str:
    """The columns as SQL of their declared types, over a relation that holds `plain` values."""
    return ", ".join(f"CAST({alias}.{_quote(c.name)} AS {c.type}) AS {_quote(c.name)}" for c in columns)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
