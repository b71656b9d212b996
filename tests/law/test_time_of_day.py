"""T5: `now()` is the newest tick of the one clock: what is read is the batch in which it is that tick."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DeclarationErrors
from tests.examples import examples

START = datetime(2026, 1, 1)
SQL = """
CREATE CLOCK tick EVERY INTERVAL '1 second';
CREATE TABLE orders (id BIGINT PRIMARY KEY, ts TIMESTAMP NOT NULL);
CREATE STREAM events (k BIGINT NOT NULL, ts TIMESTAMP NOT NULL) WITH (state = 'unbounded');
"""
VIEWS = {
    "recent": "SELECT id FROM orders WHERE ts > now() - INTERVAL 10 second",
    "counted": (
        "SELECT k, count(*) AS n FROM events "
        "WHERE ts > CURRENT_TIMESTAMP - INTERVAL 5 second AND ts <= now() GROUP BY k"
    ),
    "older": "SELECT o.id, e.k FROM orders o JOIN events e ON e.ts < o.ts WHERE o.ts < get_current_timestamp()",
    "today": "SELECT id, current_date AS d, 'now()' AS w FROM orders WHERE ts::DATE = today() -- now()",
}
MOMENTS = st.integers(-20, 40).map(lambda s: START + timedelta(seconds=s))
EPOCHS = st.lists(
    st.tuples(st.lists(MOMENTS, max_size=3), st.lists(MOMENTS, max_size=3), st.integers(0, 3)), min_size=1, max_size=5
)


def _pipeline(views: dict[str, str], sql: str = SQL) -> ps.Pipeline:
    text = sql + "".join(f"CREATE VIEW {name} WITH (state = 'unbounded') AS {view}\n;" for name, view in views.items())
    return ps.Pipeline.from_sql(text, name="clocked")


def _batch(
    orders: list[tuple[int, datetime]], events: list[tuple[int, datetime]], tick: datetime | None, sql: str
) -> Counter[object]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE orders (id BIGINT, ts TIMESTAMP); CREATE TABLE events (k BIGINT, ts TIMESTAMP)"
        )
        for name, rows in (("orders", orders), ("events", events)):
            if rows:
                connection.executemany(f"INSERT INTO {name} VALUES (?, ?)", rows)
        at = f"TIMESTAMP '{tick}'" if tick else "NULL::TIMESTAMP"
        for word in ("now()", "CURRENT_TIMESTAMP", "get_current_timestamp()"):
            sql = sql.replace(word, at) if "'now()'" not in sql else sql
        sql = sql.replace("current_date", f"CAST({at} AS DATE)").replace("today()", f"CAST({at} AS DATE)")
        return Counter(connection.execute(sql).fetchall())


@settings(max_examples=examples(8), deadline=None)
@given(epochs=EPOCHS)
def test_t5_rows_leave_when_the_clock_passes(epochs: list[tuple[list[datetime], list[datetime], int]]) -> None:
    orders: list[tuple[int, datetime]] = []
    events: list[tuple[int, datetime]] = []
    ticks = 0
    with _pipeline(VIEWS).open() as session:
        for new, came, passed in epochs:
            for at in new:
                orders.append((len(orders), at))
                session.insert("orders", [{"id": orders[-1][0], "ts": at}])
            for at in came:
                events.append((at.second % 2, at))
                session.insert("events", [{"k": events[-1][0], "ts": at}])
            for _ in range(passed):
                ticks += 1
                session.insert("tick", [{"tick": ticks, "at": START + timedelta(seconds=ticks)}])
            session.commit()
            newest = START + timedelta(seconds=ticks) if ticks else None
            for name, sql in VIEWS.items():
                read = Counter(tuple(row.values()) for row in session.read(name).to_pylist())
                assert read == _batch(orders, events, newest, sql), name


@pytest.mark.parametrize("clocks", ["", SQL.split(";")[0] + "; CREATE CLOCK tock EVERY INTERVAL '2 seconds';"])
def test_without_one_clock_it_is_refused_and_the_hint_says_what_to_declare(clocks: str) -> None:
    rest = SQL.split(";", 1)[1]
    with pytest.raises(DeclarationErrors) as problem:
        _pipeline({"recent": VIEWS["recent"]}, clocks + rest).open()
    (error,) = problem.value.errors
    assert error.code == "PS-DECL-008"
    assert "CREATE CLOCK tick EVERY" in error.hint
