"""Comparisons that Python sees to hold exactly where DuckDB says so."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contract.schema import Column, RowCheck, Schema
from penstock.formats.plain_checks import plain_checks
from penstock.formats.scratch import scratch


def schema(sql: str, kind: str = "BIGINT", name: str = "n") -> Schema:
    return Schema("s", (Column(name, kind), Column("m", "BIGINT")), checks=(RowCheck("c", sql),))


@settings(max_examples=150, deadline=None)
@given(
    sign=st.sampled_from([">=", ">", "<=", "<", "=", "<>"]),
    number=st.integers(-3, 3) | st.sampled_from([-(10**17), 10**17]),
    values=st.lists(st.none() | st.integers(-4, 4) | st.sampled_from([-(2**63), 2**63 - 1]), max_size=6),
)
def test_they_hold_where_sql_does(sign: str, number: int, values: list[int | None]) -> None:
    sql = f"n {sign} {number}"
    checks = plain_checks(schema(sql))
    assert checks is not None
    (check,) = checks
    rows = pa.table({"n": pa.array(values, pa.int64())})
    with scratch() as connection:
        connection.register("rows", rows)
        found = connection.execute(f"SELECT coalesce({sql}, true) FROM rows").fetchall()
    assert [check.holds(value) for value in values] == [row[0] for row in found]
    if check.holds_for_all(rows["n"]):
        assert all(row[0] for row in found)
    elif sign != "<>":
        assert not all(row[0] for row in found)


@pytest.mark.parametrize(
    "sql", ["n > m", "n + 1 > 2", "n >= 1.5", "n > 0 AND n < 9", "length(n) > 3", "n > 1234567890123456789", "k > 1"]
)
def test_others_are_left_to_sql(sql: str) -> None:
    assert plain_checks(schema(sql)) is None


def test_columns_of_other_types_and_words_of_sql_are_left_to_sql() -> None:
    assert plain_checks(schema("n >= 0", "DOUBLE")) is None
    assert plain_checks(schema("current_date >= 0", "BIGINT", "current_date")) is None
    assert plain_checks(Schema("s", (Column("n", "BIGINT"),))) == ()
