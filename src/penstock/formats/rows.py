"""Rows from Python into records: dicts, Arrow, pandas or Polars, all as the JSON text that a topic would carry.

So there is one judge: a row that breaks its contract is a dead letter here as it would be from a topic. NaN and
infinities in floating columns are null, as pandas means them; a floating column of whole numbers fits an integer.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Protocol, TypeAlias
from uuid import UUID

import duckdb
import pyarrow as pa

from penstock.connectors.base import RawBatch
from penstock.contract.schema import Schema
from penstock.contract.types import DecimalType, IntegerType, parse_type, quote
from penstock.errors import DataError
from penstock.formats.encode import json_object
from penstock.formats.scratch import scratch


class ArrowStream(Protocol):
    """What Arrow tables, pandas and Polars frames have in common."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


Rows: TypeAlias = Sequence[Mapping[str, object]] | pa.Table | pa.RecordBatch | ArrowStream


def rows_to_batch(
    rows: Rows, schema: Schema, first_offset: int, partition: int = 0, *, op: str | None = None
) -> RawBatch:
    """The rows as one batch of JSON records with consecutive offsets.

    Args:
        op: the operation of all rows (`-D` deletes); None leaves it to a field `_op`, else `+I`.

    Raises:
        DataError: PS-DATA-001 when nothing can be said per row: no rows of a known form, or no column of the contract.
    """
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    elif not isinstance(rows, pa.Table) and hasattr(rows, "__arrow_c_stream__"):
        rows = pa.table(rows)
    if isinstance(rows, pa.Table):
        values = table_json(_with_op(_known(rows, schema), op), schema).cast(pa.binary())
    else:
        values = pa.chunked_array([pa.array(_dict_records(rows, schema, op), pa.binary())])
    count = len(values)
    offsets = pa.chunked_array([pa.array(range(first_offset, first_offset + count), pa.int64())])
    return RawBatch(partition, values, offsets, first_offset + count)


def table_json(table: pa.Table, schema: Schema, connection: duckdb.DuckDBPyConnection | None = None) -> pa.ChunkedArray:
    """Each row of an Arrow table as the JSON text of an object: a row's text depends on that row alone.

    connection: one that is in UTC and not in use elsewhere; without it one is opened, which takes some milliseconds.
    """
    if connection is None:
        with scratch() as opened:
            return table_json(table, schema, opened)
    connection.register("given", table)
    try:
        text = json_object(table, table.column_names, _lossless(table, schema))
        return connection.sql(f"SELECT {text} AS v FROM given").to_arrow_table().column("v").cast(pa.string())
    finally:
        connection.unregister("given")


def _lossless(table: pa.Table, schema: Schema) -> dict[str, str]:
    """SQL for the texts of values that fit the contract's type though their column's type is wider."""
    texts = {}
    for name in table.column_names:
        column, kind = schema.column(name), table.schema.field(name).type
        wanted = parse_type(column.type) if column is not None else None
        if pa.types.is_floating(kind) and isinstance(wanted, IntegerType):
            texts[name] = _whole_number(f"{quote(name)}::DOUBLE")
        elif pa.types.is_decimal(kind) and isinstance(wanted, DecimalType) and kind.scale > wanted.scale:
            narrow = f"try_cast({quote(name)} AS {wanted.name})"
            text = f"CASE WHEN {narrow} = {quote(name)} THEN {narrow}::VARCHAR ELSE {quote(name)}::VARCHAR END"
            texts[name] = f"'\"' || {text} || '\"'"
    return texts


def _whole_number(value: str) -> str:
    """pandas holds integers with gaps as floats: whole ones are integers again, others stay what they are (and die)."""
    whole = f"{value} = trunc({value}) AND abs({value}) < 9007199254740992"
    number = f"CASE WHEN {whole} THEN {value}::BIGINT::VARCHAR ELSE to_json({value})::VARCHAR END"
    return f"CASE WHEN isfinite({value}) THEN {number} END"


def _known(table: pa.Table, schema: Schema) -> pa.Table:
    if not set(table.column_names) & set(schema.names):
        raise DataError(
            "PS-DATA-001",
            f"the rows have no column of {schema.name}",
            expected=", ".join(schema.names),
            got=", ".join(table.column_names) or "no columns",
        )
    return table


def _with_op(table: pa.Table, op: str | None) -> pa.Table:
    if op is None:
        return table
    if "_op" in table.column_names:
        table = table.drop_columns(["_op"])
    return table.append_column("_op", pa.repeat(pa.scalar(op), table.num_rows))


def _dict_records(rows: object, schema: Schema, op: str | None) -> list[bytes]:
    if isinstance(rows, Mapping | str | bytes) or not isinstance(rows, Sequence):
        raise DataError(
            "PS-DATA-001",
            f"rows of {schema.name} have no usable form",
            expected="a list of dicts, or an Arrow, pandas or Polars table",
            got=type(rows).__name__,
        )
    records = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError("PS-DATA-001", f"row {number} is not a dict", expected="a dict", got=type(row).__name__)
        given = {str(name): _plain(value, number) for name, value in row.items()}
        records.append(_record(given if op is None else given | {"_op": op}))
    return records


def _record(row: dict[str, object]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    # a lone surrogate has no UTF-8: its three bytes are not valid and the record is dead, as it would be from a topic
    return text.encode("utf-8", "surrogatepass")


def _plain(value: object, number: int) -> object:
    match value:
        case Enum():
            return _plain(value.value, number)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return format(value, "f") if value.is_finite() else None
        case UUID():
            return str(value)
        case datetime():
            moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
            return moment.isoformat(timespec="microseconds")
        case date() | time():
            return value.isoformat()
        case timedelta():
            us = value // timedelta(microseconds=1)
            return f"{'-' if us < 0 else ''}PT{abs(us) // 1_000_000}.{abs(us) % 1_000_000:06d}S"
        case bytes() | bytearray():
            return base64.b64encode(bytes(value)).decode()
        case list() | tuple():
            return [_plain(item, number) for item in value]
        case Mapping():
            return {str(name): _plain(item, number) for name, item in value.items()}
    as_python = getattr(value, "item", None)
    if callable(as_python):
        return _plain(as_python(), number)
    raise DataError(
        "PS-DATA-001",
        f"row {number} has a value that no record can carry",
        expected="plain values",
        got=repr(value)[:80],
    )
