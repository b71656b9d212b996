"""Rows from Python: whatever form they come in, one judge, and a row's verdict depends on that row alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pyarrow as pa
import pytest

from penstock.connectors.base import TypedBatch
from penstock.contract.schema import Column, Schema
from penstock.errors import DataError
from penstock.formats.decode import decoder_for
from penstock.formats.rows import rows_to_batch
from tests.formats.agreement import APPENDED, judged

SCHEMA = Schema(
    "Rows",
    (
        Column("i", "BIGINT", nullable=True),
        Column("s", "VARCHAR", nullable=True),
        Column("f", "DOUBLE", nullable=True),
        Column("d", "DECIMAL(10,2)", nullable=True),
        Column("at", "TIMESTAMP", nullable=True),
        Column("y", "DATE", nullable=True),
        Column("t", "TIME", nullable=True),
        Column("u", "UUID", nullable=True),
        Column("x", "BLOB", nullable=True),
        Column("l", "BIGINT[]", nullable=True),
    ),
)
NAN, INF = float("nan"), float("inf")


class Kind(Enum):
    IMAGE = "image"


class Frame:
    """What a pandas or Polars frame shows of itself."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def _judge(rows: object) -> list[dict[str, object]]:
    return judged(decoder_for(SCHEMA, "json"), rows_to_batch(rows, SCHEMA, 0))  # type: ignore[arg-type]


def test_dicts_keep_every_value() -> None:
    row = {
        "i": -5,
        "s": Kind.IMAGE,
        "f": 0.1,
        "d": Decimal("12.50"),
        "at": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "y": date(2024, 2, 29),
        "t": time(1, 2, 3),
        "u": UUID(int=7),
        "x": b"\x00\xff",
        "l": (1, 2),
    }
    found = _judge([row])[0]
    expected = row | {"s": "image", "at": datetime(2026, 1, 1, 12), "l": [1, 2], "u": str(UUID(int=7))}
    assert found["_ps_ok"]
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("wrap", [lambda table: table, Frame, lambda table: table.to_batches()[0]])
def test_whole_floats_are_integers_again_row_by_row(wrap: type[Frame]) -> None:
    table = pa.table(
        {"i": pa.array([1.0, 2.5, NAN, None, 1e300, INF, -0.0]), "f": [NAN, 1.0, INF, None, 2.0, 0.5, 0.0]}
    )
    found = _judge(wrap(table))
    assert [row["_ps_ok"] for row in found] == [True, False, True, True, False, True, True]
    assert [row["i"] for row in found if row["_ps_ok"]] == [1, None, None, None, 0]
    assert [row["f"] for row in found if row["_ps_ok"]] == [None, None, None, 0.5, 0.0]


def test_arrow_columns_are_judged_and_diagnosed_alike() -> None:
    table = pa.table(
        {
            "i": pa.array([1.0, 2.5, None, NAN]),
            "d": pa.array([Decimal("1.25"), Decimal("1.255"), None, Decimal("-3")]),
            "s": ["a", "b", "c\0", None],
            "at": pa.array([0, 1, None, 2**40], pa.timestamp("ms", "UTC")),
        }
    )
    offsets = pa.chunked_array([pa.array(range(4), pa.int64())])
    times = pa.chunked_array([pa.array([APPENDED] * 4, pa.timestamp("us"))])
    decoder = decoder_for(SCHEMA, "json")
    fast = judged(decoder, TypedBatch(0, table, offsets, 4, times))
    slow = [decoder.diagnose_row(row, APPENDED) for row in table.to_pylist()]
    assert [row["_ps_ok"] for row in fast] == [True, False, False, True]
    assert [verdict.field if verdict else None for verdict in slow] == [None, "i", "s", None]


@pytest.mark.parametrize("rows", [[1], {"i": 1}, "text", [{"i": object()}], 7])
def test_what_is_no_row_is_refused(rows: object) -> None:
    with pytest.raises(DataError) as caught:
        rows_to_batch(rows, SCHEMA, 0)  # type: ignore[arg-type]
    assert caught.value.code == "PS-DATA-001"


def test_a_table_without_any_column_of_the_contract_is_refused() -> None:
    with pytest.raises(DataError):
        rows_to_batch(pa.table({"other": [1]}), SCHEMA, 0)


def test_operations_and_offsets() -> None:
    batch = rows_to_batch([{"i": 1}, {"i": 2}], SCHEMA, 10, op="-D")
    assert batch.next_offset == 12
    found = judged(decoder_for(SCHEMA, "json", kind="table", key=("i",)), batch)
    assert [(row["_ps_op"], row["_ps_o"], row["_ps_ok"]) for row in found] == [("-D", 10, True), ("-D", 11, True)]


def test_a_span_survives() -> None:
    schema = Schema("Span", (Column("p", "INTERVAL"),))
    for span in (timedelta(days=-1, microseconds=5), timedelta(0)):
        found = judged(decoder_for(schema, "json"), rows_to_batch([{"p": span}], schema, 0))[0]
        assert found["_ps_ok"]
