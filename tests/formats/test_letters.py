"""Every dead-letter rule of the guide, by name, on the record that the guide gives for it; and CSV by both judges."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.contract.schema import Column, RowCheck, Rule, Schema
from penstock.formats.decode import decoder_for
from tests.examples import examples
from tests.formats.agreement import APPENDED, SCHEMAS, batch, judged

SCHEMA = Schema(
    "Letters",
    (
        Column("a", "BIGINT", rules=(Rule("ge", 0), Rule("lt", 1000), Rule("multiple_of", 5))),
        Column("b", "BIGINT", nullable=True, rules=(Rule("gt", 0), Rule("le", 10))),
        Column("s", "VARCHAR", nullable=True, rules=(Rule("min_length", 2), Rule("max_length", 4))),
        Column("k", "VARCHAR", nullable=True, rules=(Rule("one_of", ("x", "y")),)),
        Column("c", "VARCHAR", nullable=True, rules=(Rule("pattern", "^z+$"),)),
        Column("d", "DECIMAL(6,2)", nullable=True),
        Column("f", "DOUBLE", nullable=True),
        Column("at", "TIMESTAMP", nullable=True),
    ),
    (RowCheck("b_below_a", "b < a"),),
    extra="dead",
)
AT = b',"at":"2026-01-01T00:00:00"}'
RULES = [
    ("encoding", b"\xff"),
    ("empty", None),
    ("empty", b" \n"),
    ("not_json", b'{"a":5,}'),
    ("not_json", b'{"a":NaN}'),
    ("not_json", b'{"a":5} x'),
    ("not_json", b'{"s":"\\ud800"}'),
    ("not_object", b"[1]"),
    ("duplicate_key", b'{"a":5,"a":5' + AT),
    ("missing", b'{"b":1' + AT),
    ("null", b'{"a":null' + AT),
    ("type", b'{"a":"5"' + AT),
    ("type", b'{"a":5.0' + AT),
    ("type", b'{"a":9223372036854775808' + AT),
    ("type", b'{"a":5,"f":1e400' + AT),
    ("type", b'{"a":5,"d":3.14159' + AT),
    ("ge", b'{"a":-5' + AT),
    ("lt", b'{"a":1000' + AT),
    ("multiple_of", b'{"a":7' + AT),
    ("gt", b'{"a":5,"b":0' + AT),
    ("le", b'{"a":15,"b":11' + AT),
    ("min_length", b'{"a":5,"s":"a"' + AT),
    ("max_length", b'{"a":5,"s":"abcde"' + AT),
    ("one_of", b'{"a":5,"k":"z"' + AT),
    ("pattern", b'{"a":5,"c":"zy"' + AT),
    ("extra", b'{"a":5,"new":1' + AT),
    ("b_below_a", b'{"a":5,"b":6' + AT),
    ("event_time", b'{"a":5}'),
    ("future", b'{"a":5,"at":"2026-01-01T01:00:00.000001"}'),
    ("op_not_allowed", b'{"a":5,"_op":"-D"' + AT),
    ("op_not_allowed", b'{"a":5,"_op":"?"' + AT),
]


@pytest.mark.parametrize(("rule", "value"), RULES)
def test_each_rule_has_its_name(rule: str, value: bytes | None) -> None:
    decoder = decoder_for(SCHEMA, "json", event_time="at", max_ahead=timedelta(hours=1))
    verdict = decoder.diagnose(value, None, APPENDED)
    assert verdict is not None
    assert verdict.rule == rule
    assert verdict.reason
    assert [row["_ps_ok"] for row in judged(decoder, batch([value]))] == [False]


def test_a_sound_record_has_no_letter() -> None:
    decoder = decoder_for(SCHEMA, "json", event_time="at", max_ahead=timedelta(hours=1))
    value = b'{"a":5,"b":1,"s":"ab","k":"x","c":"zz","d":"1.25","f":1e2,"at":"2026-01-01T01:00:00"}'
    assert decoder.diagnose(value, None, APPENDED) is None
    assert judged(decoder, batch([value]))[0]["_ps_ok"]


@pytest.mark.parametrize("value", [b'{"a":null}', b'{"b":1}', b'{"_op":"-D"}'])
def test_a_key_must_have_a_value(value: bytes) -> None:
    decoder = decoder_for(SCHEMA, "json", kind="table", key=("a",))
    verdict = decoder.diagnose(value, None, APPENDED)
    assert verdict is not None
    assert (verdict.rule, verdict.field) == ("key_null", "a")
    assert not judged(decoder, batch([value]))[0]["_ps_ok"]


def test_only_the_wanted_columns_come_out_and_all_are_judged() -> None:
    decoder = decoder_for(SCHEMA, "json", event_time="at")
    from tests.formats.agreement import connection

    connection().register("raw", decoder.stage([batch([b'{"a":7' + AT, b'{"a":5' + AT])]))
    table = connection().sql(decoder.select("raw", guarded=True, columns=["s"])).to_arrow_table()
    connection().unregister("raw")
    assert [n for n in table.column_names if not n.startswith("_ps_")] == ["s"]
    assert table.column("_ps_ok").to_pylist() == [False, True]


# -- CSV ---------------------------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(
        ["", '""', "1", "-1", "1e2", "1.5", "true", "TRUE", "abc", "image", '"image"', "null", "NaN", " 1"]
    ),
    st.sampled_from(
        ['"a""b"', '"a', 'a"b', '"x",', '"1"', '"2026-01-01T00:00:00"', "2026-01-01", "12.50", "é", "\x00"]
    ),
    st.text(max_size=6),
)


@pytest.mark.parametrize("name", ["Flat", "Scalars", "Measured", "Nested"])
def test_csv_is_judged_alike(name: str) -> None:
    schema = SCHEMAS[name]
    header = schema.names
    decoder = decoder_for(schema, "csv", event_time="at" if name == "Scalars" else None)

    @settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(CELLS, min_size=len(header) - 1, max_size=len(header) + 1), min_size=1, max_size=30))
    def check(rows: list[list[str]]) -> None:
        values = [",".join(row).encode("utf-8", "surrogatepass") for row in rows]
        fast = judged(decoder, batch(values, header=header))
        slow = [decoder.diagnose(value, None, APPENDED, header) for value in values]
        assert [row["_ps_ok"] for row in fast] == [verdict is None for verdict in slow], values

    check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"5,abc", (5, "abc")),
        (b'5,"a,b"', (5, "a,b")),
        (b'5,"a""b"', (5, 'a"b')),
        (b'5,"a\nb"', (5, "a\nb")),
        (b"5,", (5, None)),
        (b'5,""', (5, "")),
        (b"5,abc\r\n", (5, "abc")),
        (b"5", "fields"),
        (b"5,a,b", "fields"),
        (b'5,"a', "fields"),
        (b'5,"a"b', "fields"),
        (b"5.0,a", "type"),
        (b",a", "null"),
    ],
)
def test_csv_quoting(text: bytes, expected: tuple[int, str | None] | str) -> None:
    schema = Schema("Two", (Column("i", "BIGINT"), Column("s", "VARCHAR", nullable=True)))
    decoder = decoder_for(schema, "csv")
    row = judged(decoder, batch([text], header=("i", "s")))[0]
    verdict = decoder.diagnose(text, None, APPENDED, ("i", "s"))
    if isinstance(expected, str):
        assert not row["_ps_ok"]
        assert verdict is not None
        assert verdict.rule == expected
    else:
        assert verdict is None
        assert (row["_ps_ok"], row["i"], row["s"]) == (True, *expected)
