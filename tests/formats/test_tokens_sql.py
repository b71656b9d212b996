"""Texts of values, read as they stand, against the same texts read by DuckDB's JSON functions."""

from __future__ import annotations

import json
from random import Random

import duckdb
import pyarrow as pa
import pytest

from penstock.contract.schema import Column
from penstock.formats.tokens_sql import token_check, token_value
from penstock.formats.types_sql import check, typed

TYPES = (
    "DECIMAL(15,2)",
    "DECIMAL(38,0)",
    "DECIMAL(4,4)",
    "DECIMAL(3,1)",
    "DATE",
    "TIMESTAMP",
    "TIME",
    "DOUBLE",
    "UUID",
)
PLAIN = (
    *(
        "0",
        "-0",
        "00",
        "1",
        "-1",
        "+1",
        "01",
        "1.",
        ".5",
        "0.5",
        "-0.25",
        "1.234",
        "12.30",
        "999.9",
        "1e3",
        "1E-2",
        " 1",
    ),
    *(
        "9999999999999.99",
        "99999999999999.99",
        "9" * 38,
        "9" * 39,
        "1_000",
        "0x1",
        "NaN",
        "Infinity",
        "true",
        "null",
        "",
    ),
    *("2026-02-28", "2026-02-29", "2024-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "2026-1-1"),
    *("2026-13-01", "2026-01-32", "2026-01-01 ", "2026-01-01T00:00", "2026-01-01 23:59:59.999999", "2026-01-01T24:00"),
    *("2026-01-01T12:00:00.1234567", "2026-01-01T12:00:00Z", "2026-01-01T12:00:00+14:00", "0000-01-01T00:00", "12:30"),
    *("9999-12-31T23:59:59.999999", "9999-12-31T23:59:59-01:00", "2026-02-30T00:00:00", "infinity", "epoch", "1\n"),
    "0ea9c16a-c840-470c-ac03-217d6d80b765",
)


def _texts() -> list[str]:
    """JSON texts: the plain ones as strings, some escaped, and as numbers where they are; then mangled ones."""
    strings = [json.dumps(text) for text in PLAIN]
    escaped = [f'"\\u{ord(text[0]):04x}{text[1:]}"' for text in PLAIN if text and text.isprintable()]
    numbers = ["0", "-0", "1", "-1", "1.5", "12.30", "1.234", "1e2", "-0.25", "9" * 38, "9" * 39, "true", "{}", "[1]"]
    random, mangled = Random(3), []
    for text in PLAIN * 20:
        place = random.randrange(len(text) + 1)
        mangled.append(json.dumps(text[:place] + random.choice("0159-+.:TZ \t") + text[place + random.randrange(2) :]))
    return strings + escaped + numbers + mangled


@pytest.mark.parametrize("name", TYPES)
def test_both_ways_say_the_same(name: str) -> None:
    column = Column("c", name)
    both = (
        f"SELECT t, {token_check(column, 't')} AS ok, {check(column, 't::JSON')} AS expected, "
        f"{token_value(column, 't')}::VARCHAR AS value, {typed(column, 't::JSON')}::VARCHAR AS other FROM texts"
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("texts", pa.table({"t": _texts()}))
        rows = connection.execute(both).fetchall()
    for text, ok, expected, value, other in rows:
        assert (bool(ok), value if ok else None) == (bool(expected), other if ok else None), text
    # A sound text and a broken one are among them, or nothing was compared.
    assert {bool(ok) for _, ok, *_ in rows} == {True, False}
