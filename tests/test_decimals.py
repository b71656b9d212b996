"""decimal_div against Python's own decimals."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, localcontext

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.decimals import DECIMAL_DIV


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(DECIMAL_DIV)
    return connection


NUMBERS = st.decimals(Decimal(-(10**15)), Decimal(10**15), places=4, allow_nan=False, allow_infinity=False)
RATES = st.decimals(Decimal(-1000), Decimal(1000), places=6, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(NUMBERS, RATES), min_size=1, max_size=50), st.integers(0, 10))
def test_it_is_exact_and_half_up(
    connection: duckdb.DuckDBPyConnection, pairs: list[tuple[Decimal, Decimal]], scale: int
) -> None:
    rows = ", ".join(f"({n}, {a}::DECIMAL(20,4), {b}::DECIMAL(10,6))" for n, (a, b) in enumerate(pairs))
    found = connection.execute(
        f"SELECT decimal_div(a, b, {scale}) FROM (VALUES {rows}) v (n, a, b) ORDER BY n"
    ).fetchall()
    for (a, b), (value,) in zip(pairs, found, strict=True):
        assert value == expected(a, b, scale)


def expected(a: Decimal, b: Decimal, scale: int) -> Decimal | None:
    if b == 0:
        return None
    with localcontext() as context:
        context.prec = 80
        return (a / b).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("a", "b", "scale", "quotient"),
    [("1", "3", 4, "0.3333"), ("-1", "2", 0, "-1"), ("1", "2", 0, "1"), ("5", "-1000", 2, "-0.01"), ("0", "7", 4, "0")],
)
def test_worked_examples(connection: duckdb.DuckDBPyConnection, a: str, b: str, scale: int, quotient: str) -> None:
    row = connection.execute(f"SELECT decimal_div({a}::DECIMAL(20,4), {b}::DECIMAL(10,6), {scale})").fetchone()
    assert row == (Decimal(quotient),)


def test_more_digits_than_it_can_keep_are_refused(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.InvalidInputException, match="ten digits"):
        connection.execute("SELECT decimal_div(0.12345678901::DECIMAL(20,11), 1, 4)").fetchall()
