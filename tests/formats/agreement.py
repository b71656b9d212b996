"""What the agreement tests share: contracts with every kind of column, and both judges over the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

import duckdb
import pyarrow as pa

from penstock.connectors.base import RawBatch
from penstock.contract.schema import Column, RowCheck, Rule, Schema, Verdict
from penstock.formats.compiled import loader
from penstock.formats.decode import Decoder, decoder_for
from penstock.formats.few_records import MOST_RECORDS

UUID_PATTERN = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
APPENDED = datetime(2026, 1, 1)

FLAT = Schema(
    "Flat",
    (
        Column("i", "BIGINT", rules=(Rule("ge", -(2**62)),)),
        Column("n", "BIGINT", nullable=True),
        Column("s", "VARCHAR", rules=(Rule("max_length", 40),)),
        Column("u", "VARCHAR", nullable=True, rules=(Rule("pattern", UUID_PATTERN),)),
        Column("k", "VARCHAR", rules=(Rule("one_of", ("image", "video", "text")),)),
        Column("b", "BOOLEAN", nullable=True),
    ),
    (RowCheck("small", "i % 1000 <> 999"),),
)
SCALARS = Schema(
    "Scalars",
    (
        Column("at", "TIMESTAMP"),
        Column("f", "DOUBLE", nullable=True),
        Column("g", "FLOAT", nullable=True),
        Column("d", "DECIMAL(10,2)", nullable=True, rules=(Rule("multiple_of", 0.5),)),
        Column("h", "HUGEINT", nullable=True),
        Column("y", "DATE", nullable=True),
        Column("t", "TIME", nullable=True),
        Column("p", "INTERVAL", nullable=True),
        Column("u", "UUID", nullable=True),
        Column("x", "BLOB", nullable=True, rules=(Rule("max_length", 8),)),
        Column("z", "INTEGER", default="7"),
    ),
    extra="dead",
)
# no column that the proof by length does not measure
MEASURED = Schema(
    "Measured",
    (
        Column("b", "BOOLEAN"),
        Column("at", "TIMESTAMP", nullable=True),
        Column("f", "DOUBLE", nullable=True),
        Column("d", "DECIMAL(10,2)", nullable=True),
        Column("y", "DATE", nullable=True),
        Column("p", "INTERVAL", nullable=True),
        Column("u", "UUID", nullable=True),
        Column("x", "BLOB", nullable=True),
        Column("h", "HUGEINT", nullable=True),
        Column("z", "UTINYINT", nullable=True),
        Column("s", "VARCHAR", nullable=True),
    ),
)
# what Python can read as well, where records are few
COMMON = Schema(
    "Common",
    (
        Column("i", "BIGINT", rules=(Rule("ge", -(2**62)),)),
        Column("n", "BIGINT", nullable=True),
        Column("s", "VARCHAR", rules=(Rule("max_length", 40),)),
        Column("k", "VARCHAR", rules=(Rule("one_of", ("image", "video", "text")),)),
        Column("at", "TIMESTAMP", nullable=True),
        Column("f", "DOUBLE", nullable=True),
        Column("d", "DECIMAL(10,2)", nullable=True, rules=(Rule("multiple_of", 0.5),)),
        Column("y", "DATE", nullable=True),
        Column("t", "TIME", nullable=True),
        Column("b", "BOOLEAN", nullable=True),
        Column("x", "BLOB", nullable=True, rules=(Rule("max_length", 8),)),
        Column("z", "UTINYINT", default="7"),
    ),
)
NESTED = Schema(
    "Nested",
    (
        Column("l", "BIGINT[]", rules=(Rule("max_length", 3),), children=(Column("element", "BIGINT"),)),
        Column("m", "MAP(VARCHAR, DOUBLE)", nullable=True),
        Column(
            "q",
            "STRUCT(a BIGINT, b VARCHAR[])",
            nullable=True,
            children=(
                Column("a", "BIGINT"),
                Column("b", "VARCHAR[]", nullable=True, children=(Column("e", "VARCHAR", nullable=True),)),
            ),
        ),
    ),
)
SCHEMAS = {schema.name: schema for schema in (FLAT, SCALARS, MEASURED, COMMON, NESTED)}


@lru_cache
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


@lru_cache
def decoder(name: str, format: str = "json", kind: str = "stream", key: tuple[str, ...] = ()) -> Decoder:
    event_time = "at" if name == "Scalars" or (name == "Common" and kind == "stream") else None
    return decoder_for(SCHEMAS[name], format, event_time=event_time, max_ahead=timedelta(days=365), kind=kind, key=key)


def batch(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, header: tuple[str, ...] = ()
) -> RawBatch:
    return RawBatch(
        0,
        pa.chunked_array([pa.array(values, pa.binary())]),
        pa.chunked_array([pa.array(range(len(values)), pa.int64())]),
        len(values),
        None if keys is None else pa.chunked_array([pa.array(keys, pa.binary())]),
        pa.chunked_array([pa.array([APPENDED] * len(values), pa.timestamp("us"))]),
        header,
    )


def judged(judge: Decoder, given: RawBatch, *, guarded: bool = True) -> list[dict[str, object]]:
    relation = judge.stage([given])
    connection().register("raw", relation)
    try:
        return connection().sql(judge.select("raw", guarded=guarded)).to_arrow_table().to_pylist()
    finally:
        connection().unregister("raw")


def agree(
    judge: Decoder, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None
) -> list[Verdict | None]:
    """Both judges over the same records; fails where they differ."""
    given = batch(values, keys)
    fast = judged(judge, given)
    proven_as_judged(judge, given, fast)
    few_as_judged(judge, given, fast)
    verdicts = []
    for number, row in enumerate(fast):
        key = keys[number] if keys is not None else None
        verdict = judge.diagnose(values[number], key, APPENDED, ())
        assert row["_ps_ok"] is (verdict is None), (values[number], key, row, verdict)
        verdicts.append(verdict)
    return verdicts


def few_as_judged(judge: Decoder, given: RawBatch, judged_rows: Sequence[dict[str, object]]) -> None:
    """A record that Python proves alone has the row that SQL gives, to the value; so have all of them together."""
    proven = []
    for place, row in enumerate(judged_rows):
        record = _only(given, place)
        few = judge.few([record], columns=None)
        if few is not None:
            assert row["_ps_ok"], (record.values, row)
            wanted = {name: row[name] for name in few.column_names}
            assert repr(few.to_pylist()) == repr([wanted]), record.values
            proven.append(record)
    together = judge.few(proven[:MOST_RECORDS], columns=None) if proven else None
    assert together is None or together.num_rows == len(proven[:MOST_RECORDS])


def _only(given: RawBatch, place: int) -> RawBatch:
    return replace(
        given,
        values=given.values.slice(place, 1),
        offsets=given.offsets.slice(place, 1),
        keys=None if given.keys is None else given.keys.slice(place, 1),
        times=None if given.times is None else given.times.slice(place, 1),
    )


def proven_as_judged(judge: Decoder, given: RawBatch, judged_rows: Sequence[dict[str, object]]) -> None:
    """Where the compiled kernel proves a record, its row is the one that SQL gives, to the value and type."""
    loader.load()
    split = judge.prove([given], columns=None, threads=1)
    if split is None:
        return
    doubted = {offset for batch in split.doubtful for offset in batch.offsets.to_pylist()}
    assert doubted | set(split.proven["_ps_o"].to_pylist()) == set(given.offsets.to_pylist())
    assert split.proven.num_rows + len(doubted) == given.rows
    connection().register("proven", split.proven)
    try:
        for guarded in (True, False):
            rows = connection().sql(judge.select_proven("proven", guarded=guarded)).to_arrow_table().to_pylist()
            wanted = [row for row in judged_rows if row["_ps_o"] not in doubted]
            # by text, for NaN is not equal to itself
            for row, other in zip(rows, wanted, strict=True):
                assert row["_ps_ok"] is other["_ps_ok"], given.values[row["_ps_o"]]
                assert not row["_ps_ok"] or repr(row) == repr(other), given.values[row["_ps_o"]]
    finally:
        connection().unregister("proven")
