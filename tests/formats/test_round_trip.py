"""What a sink writes is what a source reads, in every format."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from penstock.connectors.base import RawBatch
from penstock.contract.schema import Column, Schema
from penstock.formats.decode import decoder_for
from penstock.formats.encode import csv_names, encode
from tests.formats.agreement import judged

SCHEMA = Schema(
    "All",
    (
        Column("i", "BIGINT"),
        Column("s", "VARCHAR", nullable=True),
        Column("f", "DOUBLE", nullable=True),
        Column("d", "DECIMAL(18,4)", nullable=True),
        Column("b", "BOOLEAN", nullable=True),
        Column("at", "TIMESTAMP", nullable=True),
        Column("y", "DATE", nullable=True),
        Column("t", "TIME", nullable=True),
        Column("p", "INTERVAL", nullable=True),
        Column("x", "BLOB", nullable=True),
        Column("l", "BIGINT[]", nullable=True),
        Column("q", "STRUCT(a BIGINT, b VARCHAR)", nullable=True),
    ),
)
ROW = {
    "i": 2**63 - 1,
    "s": 'a"b,\n\\é',
    "f": 0.1,
    "d": Decimal("-12345678901234.5678"),
    "b": True,
    "at": datetime(2026, 1, 2, 3, 4, 5, 678901),
    "y": date(2024, 2, 29),
    "t": time(23, 59, 59, 999999),
    "p": timedelta(days=-1, microseconds=-5),
    "x": b"\x00\xff",
    "l": [1, None, -3],
    "q": {"a": 1, "b": "x"},
}
EMPTY = dict.fromkeys(ROW) | {"i": 0}


@pytest.mark.parametrize("format", ["changelog", "json", "csv", "upsert", "debezium"])
def test_round_trip(format: str) -> None:
    table = pa.Table.from_pylist([ROW, EMPTY]).append_column("_op", pa.array(["+I", "+I"]))
    if format in ("csv", "json"):
        table = table.drop_columns(["_op"])
    encoded = encode(table, format, ("i",))
    header = tuple(csv_names(table)) if format == "csv" else ()
    keys = pa.chunked_array([encoded.keys]) if encoded.keys is not None else None
    offsets = pa.chunked_array([pa.array([0, 1], pa.int64())])
    given = RawBatch(0, pa.chunked_array([encoded.values]), offsets, 2, keys, None, header)
    decoder = decoder_for(SCHEMA, format, kind="table", key=("i",))
    for row, expected in zip(judged(decoder, given), (ROW, EMPTY), strict=True):
        assert row["_ps_ok"], row
        assert {name: row[name] for name in ROW} | {"p": None} == expected | {"p": None}
        assert (row["p"] is None) == (expected["p"] is None)


def test_a_tombstone_deletes_by_key() -> None:
    table = pa.table({"i": [5], "_op": ["-D"]})
    encoded = encode(table, "upsert", ("i",))
    assert encoded.values.to_pylist() == [None]
    given = RawBatch(
        0,
        pa.chunked_array([encoded.values]),
        pa.chunked_array([pa.array([0], pa.int64())]),
        1,
        pa.chunked_array([encoded.keys]),
    )
    row = judged(decoder_for(SCHEMA, "upsert", kind="table", key=("i",)), given)[0]
    assert (row["_ps_op"], row["i"], row["_ps_ok"]) == ("-D", 5, True)


@pytest.mark.parametrize("value", ["0.4565", "-0.4565", "0.0000"])
@pytest.mark.parametrize("format", ["changelog", "csv"])
def test_a_decimal_that_is_all_fraction_has_a_zero_before_its_point(format: str, value: str) -> None:
    schema = Schema("Fraction", (Column("d", "DECIMAL(4,4)"),))
    table = pa.table({"d": pa.array([Decimal(value)], pa.decimal128(4, 4))})
    encoded = encode(table, format, ())
    header = tuple(csv_names(table)) if format == "csv" else ()
    offsets = pa.chunked_array([pa.array([0], pa.int64())])
    given = RawBatch(0, pa.chunked_array([encoded.values]), offsets, 1, None, None, header)
    row = judged(decoder_for(schema, format), given)[0]
    assert (row["d"], row["_ps_ok"]) == (Decimal(value), True)
