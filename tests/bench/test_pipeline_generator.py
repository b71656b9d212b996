"""What the generator calls sound is accepted by both judges, and what it breaks is dead by the rule that it names."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.examples import examples

from penstock.bench.pipeline.dataset import Dataset, DatasetOptions
from penstock.bench.pipeline.disturbance import Disturbance
from penstock.bench.pipeline.generator import (
    DELETE,
    DUPLICATE,
    FIRST_BREAKAGE,
    LATE,
    SOUND,
    Recipe,
    RecordGenerator,
    Records,
)
from penstock.connectors.base import RawBatch
from penstock.contract.patterns import IP, UUID
from penstock.contract.schema import Column, ForeignKey, RowCheck, Rule, Schema
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationError, Where
from penstock.formats.decode import Decoder, decoder_for
from penstock.graph import SourceDecl
from penstock.load import load_pipeline

EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "8"))
DUE_US = 1_767_326_706_000_000
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
PATTERNS = (
    UUID,
    IP,
    "^[A-Z]{3}-[0-9]{2,4}$",
    "(?i)^ab+c?",
    "x",
    r"^\w+@\w+\.(com|org)$",
    "^[^a-c,]{4}$",
    "[[:alpha:]]+",
)


def bounds(low: object, high: object) -> st.SearchStrategy[tuple[Rule, ...]]:
    """None, one or both of two bounds, open or closed."""
    lower = st.sampled_from([(), (Rule("ge", low),), (Rule("gt", low),)])  # type: ignore[arg-type]
    upper = st.sampled_from([(), (Rule("le", high),), (Rule("lt", high),)])  # type: ignore[arg-type]
    return st.tuples(lower, upper).map(lambda pair: pair[0] + pair[1])


def lengths() -> st.SearchStrategy[tuple[Rule, ...]]:
    return st.tuples(st.integers(0, 4), st.integers(0, 9), st.sampled_from(["", "min", "max", "both"])).map(
        lambda t: (
            ((Rule("min_length", t[0]),) if t[2] in ("min", "both") else ())
            + ((Rule("max_length", t[0] + t[1]),) if t[2] in ("max", "both") else ())
        )
    )


@st.composite
def scalars(draw: st.DrawFn) -> tuple[str, tuple[Rule, ...]]:
    which = draw(st.sampled_from(["integer", "decimal", "float", "text", "pattern", "one_of", "time", "other"]))
    match which:
        case "integer":
            low = draw(st.integers(0, 20))
            step = draw(st.sampled_from([(), (Rule("multiple_of", 3),)]))
            high = draw(st.integers(low + 8, 100))
            return draw(st.sampled_from(INTEGERS)), draw(bounds(low, high)) + step
        case "decimal":
            type_name = draw(st.sampled_from(["DECIMAL(10,2)", "DECIMAL(38,0)", "DECIMAL(38,10)", "DECIMAL(4,4)"]))
            if type_name == "DECIMAL(4,4)":
                return type_name, draw(bounds(Decimal("-0.25"), 0.75))
            step = draw(st.sampled_from([(), (Rule("multiple_of", Decimal("0.5")),), (Rule("multiple_of", 5),)]))
            step = step if type_name != "DECIMAL(38,0)" else step[:0]
            return type_name, draw(bounds(Decimal("-7.5"), 1000)) + step
        case "float":
            return draw(st.sampled_from(["DOUBLE", "FLOAT"])), draw(bounds(-0.1, 1e6))
        case "text":
            return draw(st.sampled_from(["VARCHAR", "BLOB"])), draw(lengths())
        case "pattern":
            return "VARCHAR", (Rule("pattern", draw(st.sampled_from(PATTERNS))),)
        case "one_of":
            return draw(
                st.sampled_from(
                    [("VARCHAR", (Rule("one_of", ("a", "7", '\u00e9"')),)), ("BIGINT", (Rule("one_of", (3, -5)),))]
                )
            )
        case "time":
            name, low, high = draw(
                st.sampled_from(
                    [
                        ("TIMESTAMP", "2020-01-01T00:00:00", "2020-01-02T12:00:00+02:00"),
                        ("DATE", "2024-02-28", "2024-03-02"),
                        ("TIME", "08:00:00", "17:30:00"),
                    ]
                )
            )
            return name, draw(bounds(low, high))
    return draw(st.sampled_from(["BOOLEAN", "UUID", "INTERVAL"])), ()


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    type_name, rules = draw(scalars())
    nullable = draw(st.booleans())
    shape = draw(st.sampled_from(["scalar"] * 5 + ["list", "map", "struct"]))
    if shape == "scalar":
        return Column(name, type_name, nullable, rules)
    if shape == "struct":
        inner = (Column("a", type_name), Column("b", "BIGINT", nullable=True))
        return Column(name, f"STRUCT(a {type_name}, b BIGINT)", nullable, children=inner)
    element = Column("element", type_name, draw(st.booleans()))
    outer = f"{type_name}[]" if shape == "list" else f"MAP(VARCHAR, {type_name})"
    return Column(name, outer, nullable, draw(lengths()), children=(element,))


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    count = draw(st.integers(1, 6))
    found = tuple(draw(columns(f"c{number}")) for number in range(count))
    return Schema("Made", (Column("at", "TIMESTAMP"), *found), extra=draw(st.sampled_from(["ignore", "dead"])))


def stream(schema: Schema, **options: object) -> SourceDecl:
    return SourceDecl("made", "stream", schema, Where(), event_time="at", **options)  # type: ignore[arg-type]


def batch(records: Records) -> RawBatch:
    count = len(records.values)
    return RawBatch(
        0,
        pa.chunked_array([records.values]),
        pa.chunked_array([pa.array(range(count), pa.int64())]),
        count,
        times=pa.chunked_array([pa.array([DUE_US + 10_000_000] * count, pa.int64()).cast(pa.timestamp("us"))]),
    )


def check(generator: RecordGenerator, judge: Decoder, records: Records, *, slowly: int) -> None:
    """The fast judge over all records; the slow one over the first `slowly` and over all that are broken."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("raw", judge.stage([batch(records)]))
        fast = connection.sql(judge.select("raw", guarded=True)).to_arrow_table()["_ps_ok"].to_pylist()
    appended = batch(records).times[0].as_py()  # type: ignore[index]
    for position, value in enumerate(records.values.to_pylist()):
        fault = int(records.faults[position])
        way = generator.breakages[fault - FIRST_BREAKAGE] if fault >= FIRST_BREAKAGE else None
        if way is not None and way.rule == "references":
            continue  # judged against the reference, not by the record alone
        assert fast[position] is (way is None), (value, way)
        if way is not None or position < slowly:
            verdict = judge.diagnose(value, None, appended)
            if way is None:
                assert verdict is None, (value, verdict)
            else:
                assert verdict is not None, (value, way)
                assert verdict.rule == way.rule, (value, way, verdict)
                assert not way.field or verdict.field == way.field, (value, way, verdict)


@settings(max_examples=examples(EXAMPLES), deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas(), seed=st.integers(0, 1 << 20))
def test_sound_records_are_accepted_and_broken_ones_are_dead_by_the_rule_named(schema: Schema, seed: int) -> None:
    disturbance = Disturbance(broken=0.5)
    generator = RecordGenerator(Recipe(stream(schema), "at", disturbance=disturbance, seed=seed))
    try:
        records = generator.records(np.arange(120, dtype=np.int64) * 1_000 + DUE_US)
        judge = decoder_for(schema, "json", event_time="at")
        check(generator, judge, records, slowly=60)
        assert (records.faults >= FIRST_BREAKAGE).any()
    finally:
        generator.close()


def rows_of(records: Records) -> list[dict[str, object]]:
    return [json.loads(value) for value in records.values.to_pylist()]


def due(count: int, step_us: int = 1_000) -> np.ndarray:
    return np.arange(count, dtype=np.int64) * step_us + DUE_US


def test_the_same_seed_gives_the_same_records_however_they_are_asked_for_and_another_seed_others() -> None:
    schema = Schema("Made", (Column("at", "TIMESTAMP"), Column("n", "BIGINT"), Column("t", "VARCHAR", nullable=True)))

    def made(seed: int) -> list[object]:
        generator = RecordGenerator(Recipe(stream(schema), "at", disturbance=Disturbance(broken=0.3), seed=seed))
        return generator.records(due(200)).values.to_pylist()

    assert made(4) == made(4)
    assert made(4) != made(5)


def test_keys_of_the_ads_records_are_in_the_reference_and_broken_ones_are_not() -> None:
    plan = compile_for_duckdb(load_pipeline("ads").graph({}), in_memory=True)
    dataset = Dataset(plan, DatasetOptions(seed=3, disturbance=Disturbance(broken=0.5)))
    generator = dataset.generators["events"]
    known = {(r["ad_id"], r["campaign_id"]) for r in dataset.references["campaigns"].to_pylist()}
    records = generator.records(due(2_000))
    strangers = 0
    for value, fault in zip(records.values.to_pylist(), records.faults.tolist(), strict=True):
        if fault == SOUND:
            row = json.loads(value)
            assert (row["ad_id"], row["campaign_id"]) in known
            assert DUE_US <= row["event_time_ns"] // 1_000 <= DUE_US + 2_000_000
        elif generator.breakages[fault - FIRST_BREAKAGE].rule == "references":
            row = json.loads(value)
            assert (row["ad_id"], row["campaign_id"]) not in known
            strangers += 1
    assert strangers > 5
    check(
        generator,
        decoder_for(generator.schema, "json", event_time="make_timestamp_ns(event_time_ns)"),
        records,
        slowly=50,
    )
    dataset.close()


def test_row_checks_hold_for_sound_records_and_fail_for_broken_ones() -> None:
    schema = Schema(
        "Made",
        (Column("at", "TIMESTAMP"), Column("low", "BIGINT"), Column("high", "BIGINT"), Column("s", "VARCHAR")),
        (RowCheck("ordered", "low <= high"), RowCheck("near", "high - low < 100"), RowCheck("odd", "low % 2 = 1")),
    )
    checks = tuple((c.name, c.sql) for c in schema.checks)
    generator = RecordGenerator(Recipe(stream(schema), "at", checks, disturbance=Disturbance(broken=0.5), seed=9))
    records = generator.records(due(600))
    check(generator, decoder_for(schema, "json", event_time="at"), records, slowly=100)
    broken = {generator.breakages[f - FIRST_BREAKAGE].rule for f in records.faults.tolist() if f >= FIRST_BREAKAGE}
    assert {"ordered", "near", "odd", "future"} <= broken


def test_an_impossible_contract_is_told_with_its_source() -> None:
    impossible = Schema(
        "Made", (Column("at", "TIMESTAMP"), Column("n", "BIGINT", rules=(Rule("ge", 5), Rule("lt", 5))))
    )
    with pytest.raises(DeclarationError, match=r"PS-BENCH-005.*made"):
        RecordGenerator(Recipe(stream(impossible), "at"))
    never = Schema("Made", (Column("at", "TIMESTAMP"), Column("n", "BIGINT")), (RowCheck("never", "n < 0 AND n > 0"),))
    with pytest.raises(DeclarationError, match="checks"):
        RecordGenerator(Recipe(stream(never), "at", (("never", "n < 0 AND n > 0"),))).records(due(3))


def test_unique_columns_never_repeat_but_for_duplicates_also_between_generators() -> None:
    schema = Schema("Made", (Column("at", "TIMESTAMP"), Column("kind", "BOOLEAN"), Column("id", "BIGINT")))
    source = stream(schema, unique=("kind", "id"), within=timedelta(hours=1))
    seen: list[object] = []
    repeated = 0
    for index in range(2):
        generator = RecordGenerator(
            Recipe(source, "at", disturbance=Disturbance(duplicate=0.1), seed=2, index=index, of=2)
        )
        for _ in range(2):
            records = generator.records(due(3_000))
            seen += [r["id"] for r, f in zip(rows_of(records), records.faults, strict=True) if f != DUPLICATE]
            values = records.values.to_pylist()
            for position in np.flatnonzero(records.faults == DUPLICATE).tolist():
                repeated += 1
                assert values[position] in values[:position]
    assert len(seen) == len(set(seen))
    assert repeated > 500


def test_a_table_repeats_its_keys_with_growing_versions_and_streams_meet_them() -> None:
    user = Schema("User", (Column("id", "BIGINT"), Column("version", "BIGINT"), Column("name", "VARCHAR")))
    table = SourceDecl("users", "table", user, Where(), key=("id",), version="version")
    generator = RecordGenerator(Recipe(table, disturbance=Disturbance(deleted=0.2), keys=50, seed=1))
    records = generator.records(due(1_000))
    rows = rows_of(records)
    versions = [int(str(row["version"])) for row in rows]
    assert versions == sorted(set(versions))
    keys = {row["id"] for row in rows}
    assert len(keys) == 50
    assert [row.get("_op") == "-D" for row in rows] == (records.faults == DELETE).tolist()
    assert 100 < (records.faults == DELETE).sum() < 300
    clicks = Schema("Click", (Column("at", "TIMESTAMP"), Column("user_id", "BIGINT")))
    pools = {"user_id": generator.key_rows["id"].combine_chunks()}
    met = rows_of(RecordGenerator(Recipe(stream(clicks), "at", pools=pools)).records(due(1_000)))
    assert sum(row["user_id"] in keys for row in met) > 800


def test_late_records_lie_back_and_disorder_stays_within_its_bound() -> None:
    schema = Schema("Made", (Column("at", "TIMESTAMP"), Column("n", "BIGINT")))
    disturbance = Disturbance(late=0.2, late_by_s=100, disorder_s=2)
    records = RecordGenerator(Recipe(stream(schema), "at", disturbance=disturbance)).records(due(2_000))
    moments = pa.array([row["at"] for row in rows_of(records)]).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    behind_s = (due(2_000) - moments) / 1e6
    late = records.faults == LATE
    assert 300 < late.sum() < 500
    assert (behind_s[late] >= 100).all()
    assert (behind_s[~late] <= 2).all()
    assert behind_s[~late].max() > 1.5


@pytest.mark.parametrize(
    ("type_name", "expression", "unit"),
    [
        ("BIGINT", "make_timestamp_ns(t)", 1_000),
        ("BIGINT", "epoch_ms(t)", 0.001),
        ("BIGINT", "to_timestamp(t)", 0.000001),
        ("BIGINT", "make_timestamp(t)", 1),
        ("DOUBLE", "to_timestamp(t)", 0.000001),
    ],
)
def test_the_event_time_follows_through_an_expression(type_name: str, expression: str, unit: float) -> None:
    schema = Schema("Made", (Column("n", "BIGINT"), Column("t", type_name)))
    source = SourceDecl("made", "stream", schema, Where(), event_time=expression)
    rows = rows_of(RecordGenerator(Recipe(source, expression)).records(due(3)))
    assert [float(str(row["t"])) for row in rows] == pytest.approx([us * unit for us in due(3)], abs=1)


def test_an_event_time_of_two_columns_is_refused() -> None:
    schema = Schema("Made", (Column("d", "DATE"), Column("t", "TIME")))
    source = SourceDecl("made", "stream", schema, Where(), event_time="d + t")
    with pytest.raises(DeclarationError, match="one column"):
        RecordGenerator(Recipe(source, "d + t"))


def test_a_foreign_key_without_rows_is_told() -> None:
    schema = Schema(
        "Made", (Column("at", "TIMESTAMP"), Column("n", "BIGINT")), foreign_keys=(ForeignKey(("n",), "r", ("n",)),)
    )
    with pytest.raises(DeclarationError, match="reference r has no rows"):
        RecordGenerator(
            Recipe(stream(schema), "at", references={"r": pa.table({"n": pa.array([], pa.int64())})})
        ).records(due(1))
