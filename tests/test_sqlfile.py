"""SQL files: what each statement declares, and that every mistake has its place."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contract.schema import ForeignKey, RowCheck, Rule
from penstock.errors import CODES, DeclarationErrors, Error, Where
from penstock.pipeline import Graph
from penstock.sqlfile import read_pipeline

CLICKS = """\
-- Clicks; the semicolon in this comment ends nothing.
CREATE PARAMETER delay INTERVAL DEFAULT '5 seconds' COMMENT 'how late';
CREATE REFERENCE pages (url VARCHAR PRIMARY KEY, section VARCHAR);
CREATE STREAM clicks (
  user_id BIGINT NOT NULL CHECK (user_id >= 0) PII,
  url VARCHAR NOT NULL REFERENCES pages (url),
  kind ENUM('view', 'it''s; ok') NOT NULL,
  at TIMESTAMP,
  price DECIMAL(18, 4) COMMENT 'in euro',
  "two words" VARCHAR[],
  CONSTRAINT sane CHECK (url <> '' AND user_id < 10),
  UNIQUE (user_id, at) WITHIN INTERVAL '1 hour',
  WATERMARK FOR at AS at - $delay
) WITH (idle_after = '10 s', extra = 'dead', state = 'unbounded');
CREATE TABLE users (user_id INT, name TEXT, changed TIMESTAMP, PRIMARY KEY (user_id)) WITH (version = changed);
CREATE CLOCK tick EVERY INTERVAL 1 SECOND;
CREATE VIEW per_minute WITH (emit = 'final', key = 'minute, kind') AS
  SELECT time_bucket(INTERVAL '1 minute', at) AS minute, kind, count(*) AS n -- kept; verbatim
  FROM clicks GROUP BY ALL;
CREATE SINK counts FROM per_minute WITH (on_error = 'dead')
"""


def graph(text: str) -> Graph:
    return read_pipeline(text, name="p", file="p.sql").graph()


def mistakes(text: str) -> list[Error]:
    with pytest.raises(DeclarationErrors) as caught:
        graph(text)
    return caught.value.errors


def test_a_stream_says_columns_checks_keys_and_times() -> None:
    stream = graph(CLICKS).source("clicks")
    assert stream is not None
    assert stream.where == Where("p.sql", 4, 1)
    assert [(c.name, c.type, c.nullable) for c in stream.schema.columns] == [
        ("user_id", "BIGINT", False),
        ("url", "VARCHAR", False),
        ("kind", "VARCHAR", False),
        ("at", "TIMESTAMP", True),
        ("price", "DECIMAL(18,4)", True),
        ("two words", "VARCHAR[]", True),
    ]
    assert stream.schema.columns[0].pii
    assert stream.schema.columns[2].rules == (Rule("one_of", ("view", "it's; ok")),)
    assert stream.schema.columns[4].description == "in euro"
    assert stream.schema.checks == (
        RowCheck("check_1", "user_id >= 0"),
        RowCheck("sane", "url <> '' AND user_id < 10"),
    )
    assert stream.schema.foreign_keys == (ForeignKey(("url",), "pages", ("url",)),)
    assert stream.schema.extra == "dead"
    assert (stream.event_time, stream.watermark) == ("at", timedelta(seconds=5))
    assert (stream.unique, stream.within) == (("user_id", "at"), timedelta(hours=1))
    assert (stream.idle_after, stream.state) == (timedelta(seconds=10), "unbounded")


def test_tables_references_and_clocks() -> None:
    found = graph(CLICKS)
    users, pages, tick = found.source("users"), found.source("pages"), found.source("tick")
    assert users is not None
    assert pages is not None
    assert tick is not None
    assert (users.kind, users.key, users.version) == ("table", ("user_id",), "changed")
    assert next((c.type, c.nullable) for c in users.schema.columns) == ("INTEGER", False)
    assert (pages.kind, pages.key, pages.schema.columns[0].nullable) == ("reference", ("url",), False)
    assert tick.clock == timedelta(seconds=1)


def test_a_view_keeps_its_text_and_the_place_of_its_first_character() -> None:
    view = graph(CLICKS).views[0]
    assert view.where == Where("p.sql", 18, 3)
    assert view.sql == CLICKS[CLICKS.index("SELECT") : CLICKS.index(";\nCREATE SINK")]
    assert (view.emit, view.key) == ("final", ("minute", "kind"))


def test_sinks_and_parameters() -> None:
    found = graph(CLICKS)
    assert (found.sinks[0].view, found.sinks[0].on_error) == ("per_minute", "dead")
    parameter = found.parameters[0]
    assert (parameter.type, parameter.default, parameter.help) == ("interval", "5 seconds", "how late")


@pytest.mark.parametrize(
    ("watermark", "event_time", "delay_s"),
    [
        ("WATERMARK FOR at AS at - INTERVAL '5 seconds'", "at", 5),
        ("WATERMARK FOR at AS at - INTERVAL '5' SECONDS", "at", 5),
        ("watermark for at as at", "at", 0),
        ("WATERMARK FOR (make_timestamp(n)) AS (make_timestamp( n )) - INTERVAL 2 MINUTES", "make_timestamp(n)", 120),
    ],
)
def test_watermarks(watermark: str, event_time: str, delay_s: int) -> None:
    stream = graph(f"CREATE STREAM s (at TIMESTAMP, n BIGINT, {watermark})").sources[0]
    assert (stream.event_time, stream.watermark) == (event_time, timedelta(seconds=delay_s))


def test_a_composite_foreign_key() -> None:
    text = (
        "CREATE REFERENCE r (a INT, b INT, PRIMARY KEY (a, b)); "
        "CREATE STREAM s (x INT, y INT, FOREIGN KEY (x, y) REFERENCES r (a, b))"
    )
    stream = graph(text).source("s")
    assert stream is not None
    assert stream.schema.foreign_keys == (ForeignKey(("x", "y"), "r", ("a", "b")),)


def test_a_step_names_its_parts_by_module() -> None:
    text = (
        "CREATE STREAM s (k INT, n INT); CREATE STEP f FROM s WITH (key = 'k', state = 'builtins:int', "
        "output = 'penstock.contract.schema:Nothing', function = 'operator:add')"
    )
    (error,) = mistakes(text)
    assert (error.code, error.where) == ("PS-DECL-003", Where("p.sql", 1, 95))
    assert "Nothing" in error.got


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "got"),
    [
        ("CREATE STREM s (a INT)", 1, 8, "PS-DECL-006", "STREM"),
        ("SELECT 1", 1, 1, "PS-DECL-006", "SELECT"),
        ("CREATE STREAM s (a FOO)", 1, 20, "PS-DECL-006", "FOO"),
        ("CREATE STREAM s (a TIMESTAMP WITH TIME ZONE)", 1, 20, "PS-DECL-006", "TIMESTAMP WITH TIME ZONE"),
        ("CREATE STREAM s (a INT NOT NUL)", 1, 24, "PS-DECL-006", "NOT"),
        ("CREATE STREAM s (a INT,\n  CHECK (a > ))", 2, 10, "PS-DECL-006", "Required"),
        ("CREATE STREAM s (a INT) WITH (idle_aftr = '1s')", 1, 31, "PS-DECL-005", "idle_aftr"),
        ("CREATE STREAM s (a INT) WITH (state = 'x')", 1, 31, "PS-DECL-005", "x"),
        ("CREATE STREAM s (a INT", 1, 23, "PS-DECL-006", "the end of the statement"),
        ("CREATE STREAM s (a INT PRIMARY KEY)", 1, 1, "PS-DECL-005", "PRIMARY KEY"),
        ("CREATE STREAM s (a TIMESTAMP, WATERMARK FOR a AS b)", 1, 31, "PS-DECL-006", "b"),
        ("CREATE VIEW v SELECT 1", 1, 15, "PS-DECL-006", "SELECT"),
        ("CREATE VIEW v WITH (emit = 'finl') AS SELECT 1", 1, 21, "PS-DECL-005", "finl"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", 1, 8, "PS-DECL-006", "OR"),
        ("CREATE TABLE IF NOT EXISTS t (a INT)", 1, 14, "PS-DECL-006", "IF"),
        ("CREATE SINK s FROM nowhere", 1, 1, "PS-DECL-003", "nowhere"),
        ("CREATE CLOCK c EVERY 'soon'", 1, 1, "PS-DECL-005", "'soon' is not a duration"),
    ],
)
def test_a_mistake_has_its_place(text: str, line: int, column: int, code: str, got: str) -> None:
    (error,) = mistakes(text)
    assert (error.code, error.where) == (code, Where("p.sql", line, column))
    assert error.got.startswith(got)


@pytest.mark.parametrize(
    ("clause", "hint"),
    [
        ("DEFAULT 3", "coalesce(column, value)"),
        ("GENERATED ALWAYS AS (1 + 1)", "in a view"),
        ("AS (1 + 1)", "in a view"),
        ("UNIQUE", "WITHIN"),
        ("COLLATE NOCASE", "in a view"),
    ],
)
def test_a_clause_that_a_source_does_not_have_is_refused_with_what_to_write(clause: str, hint: str) -> None:
    (error,) = mistakes(f"CREATE STREAM s (a BIGINT,\n  b INT {clause})")
    assert (error.code, error.where, error.got) == ("PS-DECL-006", Where("p.sql", 2, 9), clause.split()[0])
    assert hint in error.hint


def test_all_mistakes_are_told_at_once_and_reading_goes_on() -> None:
    text = (
        "CREATE STREAM s (a FOO, b BIGINT NOT NUL, CHECK (b > ), c INT);\n"
        "CREATE VIEW v SELECT 1;\n"
        "CREATE SINK k FROM nowhere;"
    )
    found = [(e.where.line, e.where.column) for e in mistakes(text) if e.where]
    assert found == [(1, 20), (1, 34), (1, 50), (2, 15), (3, 1)]


def test_a_quote_that_is_never_closed_is_one_mistake() -> None:
    (error,) = mistakes("CREATE STREAM s (a INT, CHECK (a = 'x));")
    assert error.code == "PS-DECL-006"
    assert error.where is not None
    assert error.where.file == "p.sql"


@given(st.text(alphabet="CREATE STREAM sab(),;'\"$=-\n/*INTWHcheck<>1.[]{}", max_size=80))
def test_no_text_is_a_crash(text: str) -> None:
    try:
        graph("CREATE STREAM s (a INT); " + text)
    except DeclarationErrors as caught:
        assert all(error.code in CODES and error.where for error in caught.errors)


@given(st.integers(0, len(CLICKS) - 1), st.sampled_from(["", ";", "(", ")", "'", ",", "$", "\x00", "é", "CREATE "]))
def test_no_damage_to_a_right_file_is_a_crash(position: int, replacement: str) -> None:
    try:
        graph(CLICKS[:position] + replacement + CLICKS[position + 1 :])
    except Error as caught:
        assert caught.code in CODES
