"""A look at a value gives what the close look gives, or says that it is not sure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.contract.patterns import IP, UUID
from penstock.contract.schema import Column, Rule, Schema, Verdict
from penstock.formats import verdict
from penstock.formats.glance import UNSURE, glance
from penstock.formats.jsontext import Json, NotJson, Number, Object, _Reader, read_json
from penstock.formats.judge_sql import Judgement
from tests.examples import examples

COLUMNS = [
    Column("c", "BIGINT"),
    Column("c", "TINYINT", rules=(Rule("gt", 3), Rule("le", 100))),
    Column("c", "HUGEINT", rules=(Rule("lt", 10),)),
    Column("c", "UBIGINT", nullable=True, rules=(Rule("ge", 2.5),)),
    Column("c", "BIGINT", rules=(Rule("multiple_of", 5),)),
    Column("c", "BIGINT", rules=(Rule("one_of", (5, 7)),)),
    Column("c", "VARCHAR", nullable=True),
    Column("c", "VARCHAR", rules=(Rule("pattern", UUID),)),
    Column("c", "VARCHAR", rules=(Rule("pattern", IP),)),
    Column("c", "VARCHAR", rules=(Rule("pattern", "^a+$"),)),
    Column("c", "VARCHAR", rules=(Rule("one_of", ("a", "b\0", "7")),)),
    Column("c", "VARCHAR", rules=(Rule("one_of", ("a", "aa")), Rule("min_length", 2))),
    Column("c", "VARCHAR", default='"a"'),
    Column("c", "BOOLEAN"),
    Column("c", "BOOLEAN", rules=(Rule("one_of", (True,)),)),
    Column("c", "DOUBLE"),
    Column("c", "TIMESTAMP"),
]
TEXTS = st.sampled_from(["", "a", "aa", "b\0", "7", "\0", "é", "1.2.3.4", "::1", "300.1.2.3", "2026-01-01T00:00:00"])
NUMBERS = ["0", "-0", "5", "7", "100", "127", "128", "1e2", "5.0", "2", "3", "-1", "9" * 18, "9" * 19, "1" * 45]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    TEXTS,
    TEXTS.map(lambda text: text + "\n"),
    st.uuids().map(str),
    st.sampled_from(NUMBERS).map(Number),
    st.integers(-(2**70), 2**70).map(lambda number: Number(str(number))),
    st.just([]),
    st.builds(Object, st.just([])),
)
many = settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: f"{column.type} {[r.name for r in column.rules]}")
@many
@given(value=VALUES)
def test_a_glance_is_never_wrong(column: Column, value: Json) -> None:
    judge = verdict.Judge(Judgement(Schema("S", (column,)), "stream", (), None, timedelta(hours=1)))
    judge._columns = [(column, "c", lambda _: UNSURE)]
    closely = judge.examine(Object([("c", value)]), None)
    seen = glance(column)(value)
    if seen is not UNSURE:
        assert not isinstance(closely, Verdict)
        assert (seen, type(seen)) == (closely.values[0], type(closely.values[0]))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (COLUMNS[0], Number("9223372036854775807")),
        (COLUMNS[1], Number("4")),
        (COLUMNS[6], "any"),
        (COLUMNS[7], "12345678-1234-1234-1234-123456789abC"),
        (COLUMNS[8], "2001:db8::1"),
        (COLUMNS[10], "a"),
        (COLUMNS[13], False),
    ],
)
def test_what_is_usual_is_seen_at_once(column: Column, value: Json) -> None:
    assert glance(column)(value) is not UNSURE


FIELDS = st.sampled_from(
    [
        '"a":1',
        '"b":"x"',
        '"c":null',
        ' "d" : true ',
        '"e":-1.5e3',
        '"f":01',
        '"g":"\\n"',
        '"h":tru',
        '"i":"x',
        '"j":[1]',
    ]
)


@many
@given(
    fields=st.lists(FIELDS, max_size=6),
    end=st.sampled_from(["}", "", ",}", "} x", "]", ',"', ',"z"']),
    cut=st.integers(0, 4),
)
def test_what_is_wrong_with_a_text_does_not_depend_on_where_reading_begins(
    fields: list[str], end: str, cut: int
) -> None:
    text = " {" + ",".join(fields) + end
    text = text[: len(text) - cut]
    assert _read(lambda: read_json(text)) == _read(_Reader(text).read)


def _read(reader: Callable[[], Json]) -> Json:
    try:
        return reader()
    except NotJson as problem:
        return str(problem)
