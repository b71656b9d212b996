"""Kept statements give what statements that are planned anew give, whatever the data does in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.engines.duckdb import prepared as module
from penstock.engines.duckdb.connection import connect
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.engines.duckdb.prepared import Prepared, carried
from penstock.engines.duckdb.statements import Planned
from penstock.engines.duckdb.statistics import of_relation, of_rows
from penstock.errors import RunError
from penstock.runtime.session import Session


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = connect(None)
    connection.execute(
        'CREATE SCHEMA _ps; CREATE TABLE _ps."stored" (k BIGINT, v HUGEINT); CREATE TABLE "odd name" (k INT)'
    )
    connection.execute('CREATE VIEW seen AS SELECT k FROM _ps."stored"')
    yield connection
    connection.close()


def numbers(*values: int) -> pa.Table:
    return pa.table({"k": pa.array(values, pa.int64())})


def is_prepared(statements: Prepared, sql: str) -> bool:
    text = statements._texts[sql]
    return bool(text.prepared)


# -- what is prepared, and what never is -------------------------------------------------------------------------------


def test_what_reads_a_table_is_never_prepared_and_sees_every_change(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    reads = ['SELECT count(*) AS n FROM _ps."stored" WHERE k > 5', "SELECT count(*) AS n FROM Seen WHERE k > 5"]
    reads.append('SELECT count(*) AS n FROM "odd name" WHERE k > 5')
    for last in range(12):
        database.execute('INSERT INTO _ps."stored" VALUES (?, 0)', [last])
        database.execute('INSERT INTO "odd name" VALUES (?)', [last])
        for sql in reads:
            assert statements.fetch(sql).column("n").to_pylist() == [max(0, last - 5)]
    assert not any(is_prepared(statements, sql) for sql in reads)


def test_what_reads_rows_in_memory_is_prepared_and_sees_every_change(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    sql = 'SELECT k, count(*) AS n FROM "_ps_given" WHERE k > 5 GROUP BY k ORDER BY k'
    for values in ((1, 2), (), (7, 7, 1), (9,) * 5000, (6,), ()):
        statements.give("_ps_given", numbers(*values))
        expected = [(k, values.count(k)) for k in sorted(set(values)) if k > 5]
        rows = statements.fetch(sql)
        assert list(zip(rows["k"].to_pylist(), rows["n"].to_pylist(), strict=True)) == expected
    assert is_prepared(statements, sql)


def test_an_alias_or_column_may_have_the_name_of_a_table(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    named = 'SELECT "seen"."k" AS "stored" FROM "_ps_given" AS "seen"'
    written = f'INSERT INTO _ps."stored" (k, v) {named.replace(" AS ", ", 1 AS ", 1)}'
    reads = 'SELECT count(*) AS n FROM "_ps_given" AS g JOIN seen USING (k)'
    for value in range(4):
        statements.give("_ps_given", numbers(value))
        assert statements.fetch(named).column(0).to_pylist() == [value]
        assert statements.write(written) == 1
        assert statements.fetch(reads).column("n").to_pylist() == [1]
    assert is_prepared(statements, named)
    assert is_prepared(statements, written)
    assert not is_prepared(statements, reads)


def test_an_insert_from_rows_in_memory_is_prepared(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    sql = 'INSERT INTO _ps."stored" (k, v) SELECT k, k FROM "_ps_given"'
    for value in range(4):
        statements.give("_ps_given", numbers(value, value))
        assert statements.write(sql) == 2
    statements.commit()
    assert is_prepared(statements, sql)
    assert database.execute("SELECT count(*), sum(v) FROM _ps.stored").fetchall() == [(8, 12)]


def test_what_one_block_makes_for_itself_is_a_table(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    for value in range(4):
        statements.connection.execute(f"CREATE OR REPLACE TEMP TABLE _ps_own AS SELECT {value} AS k")
        assert statements.fetch("SELECT k FROM _ps_own").column("k").to_pylist() == [value]
    assert not is_prepared(statements, "SELECT k FROM _ps_own")


# -- relations ---------------------------------------------------------------------------------------------------------


def test_rows_of_other_types_are_not_read_by_an_old_plan(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    sql = 'SELECT max(k)::VARCHAR AS k FROM "_ps_given"'
    tables = [
        numbers(1),
        numbers(3),
        numbers(2),
        pa.table({"k": ["x"]}),
        pa.table({"k": ["y"]}),
        numbers(4),
        numbers(5),
    ]
    for table in tables:
        statements.give("_ps_given", table)
        assert statements.fetch(sql).column("k").to_pylist() == [str(table["k"][0])]


def test_after_a_rollback_everything_is_made_again(database: duckdb.DuckDBPyConnection) -> None:
    statements = Prepared(database)
    sql = 'SELECT sum(k)::BIGINT AS k FROM "_ps_given"'
    for value in range(6):
        statements.begin()
        if value % 3:
            assert statements.connection.execute("SELECT 1").fetchall() == [(1,)]
        statements.give("_ps_given", numbers(value))
        assert statements.fetch(sql).column("k").to_pylist() == [value]
        assert statements.changing is bool(value % 3)
        if value % 2:
            statements.commit()
        else:
            statements.roll_back()
        assert not statements.changing


def test_a_relation_can_be_added_to(database: duckdb.DuckDBPyConnection) -> None:
    for statements in (Prepared(database), Planned(database)):
        for value in range(4):
            assert statements.store("_ps_d", f"SELECT {value}::BIGINT AS k") == 1
            assert statements.add("_ps_d", "SELECT 7::BIGINT AS k UNION ALL SELECT 8") == 2
            assert sorted(statements.fetch("SELECT k FROM _ps_d")["k"].to_pylist()) == sorted([value, 7, 8])


def test_columns_of_one_name_are_told_apart_as_in_a_table(database: duckdb.DuckDBPyConnection) -> None:
    for statements in (Prepared(database), Planned(database)):
        for value in range(3):
            assert statements.store("_ps_d", f'SELECT {value} AS k, {value} AS v, {value + 1} AS "K"') == 1
            assert statements.fetch("SELECT k, v FROM _ps_d").to_pylist() == [{"k": value, "v": value}]


def test_what_is_kept_is_read_again_when_its_version_changes(
    database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = Prepared(database)

    def count(version: object) -> object:
        known = statements.keep("_ps_known", 'SELECT k FROM _ps."stored"', version)
        return statements.fetch(f"SELECT count(*) AS n FROM {known} AS r").column("n").to_pylist()[0]

    database.execute('INSERT INTO _ps."stored" VALUES (1, 1)')
    assert [count(1), count(1)] == [1, 1]
    database.execute('INSERT INTO _ps."stored" VALUES (2, 2)')
    assert [count(1), count(2)] == [1, 2]
    monkeypatch.setattr(module, "KEPT_ROWS", 2)
    database.execute('INSERT INTO _ps."stored" VALUES (3, 3)')
    assert [count(3), count(3)] == [3, 3]
    assert statements.keep("_ps_known", 'SELECT k FROM _ps."stored"', 3).startswith("(")


VALUES = [
    ("HUGEINT", "170141183460469231731687303715884105727"),
    ("HUGEINT", "-170141183460469231731687303715884105727"),
    ("UHUGEINT", "340282366920938463463374607431768211455"),
    ("UUID", "'6ccd780c-baba-1026-9564-5b8c656024db'"),
    ("JSON", """'{"a": [1, 1.50, null]}'"""),
    ("ENUM('a', 'b c')", "'b c'"),
    ("DECIMAL(38,9)", "12345678901234567890123456789.123456789"),
    ("TIMESTAMP", "'infinity'"),
    ("TIMESTAMP_NS", "'2026-01-01 00:00:00.123456789'"),
    ("TIMESTAMP WITH TIME ZONE", "'2026-01-01 00:00:00+02'"),
    ("TIME WITH TIME ZONE", "'10:00:00+02'"),
    ("DATE", "'-infinity'"),
    ("TIME", "'24:00:00'"),
    ("INTERVAL", "INTERVAL '300000000 hours 1 month 3 days'"),
    ("DOUBLE", "'nan'"),
    ("DOUBLE", "'-0.0'"),
    ("FLOAT", "0.1"),
    ("BIT", "'10101'"),
    ("BLOB", r"'\x00\xff'"),
    ("VARCHAR", "chr(0) || 'é'"),
    ("INTEGER[]", "[1, NULL]"),
    ("HUGEINT[]", "[1, NULL]"),
    ("STRUCT(a INTEGER, u UUID)", "{'a': 1, 'u': uuid()}"),
    ("STRUCT(a INTEGER, b VARCHAR[])", "{'a': 1, 'b': ['x', NULL]}"),
    ("MAP(VARCHAR, INTEGER)", "MAP {'x': 1}"),
    ("UNION(a INTEGER, b VARCHAR)", "union_value(b := 'x')"),
    ("UBIGINT", "18446744073709551615"),
    ("BOOLEAN", "true"),
]


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_values_of_every_type_come_back_as_they_were(
    database: duckdb.DuckDBPyConnection, kind: str, value: str
) -> None:
    statements = Prepared(database)
    database.execute(f"CREATE TABLE typed AS SELECT ({value})::{kind} AS x UNION ALL SELECT NULL")
    told = "SELECT typeof(x) AS t, x::VARCHAR AS v, x IS NULL AS n FROM {} ORDER BY n"
    for _ in range(3):
        assert statements.store("_ps_typed", "SELECT x FROM typed") == 2
        got = statements.connection.execute(told.format("_ps_typed")).fetchall()
        assert got == database.execute(told.format("typed")).fetchall()
        differ = "SELECT count(*) FROM _ps_typed AS a JOIN typed AS b ON a.x IS NOT DISTINCT FROM b.x"
        if kind != "JSON":
            assert statements.connection.execute(differ).fetchall() == [(2,)]


def test_a_type_that_arrow_changes_is_not_carried() -> None:
    assert carried(("BIGINT", "HUGEINT", "DECIMAL(18,3)", "UUID", "VARCHAR[]"))
    for kind in ("INTERVAL", "HUGEINT[]", "STRUCT(a INTERVAL)", "MAP(VARCHAR, UUID)", "TIME WITH TIME ZONE", "BIT"):
        assert not carried(("BIGINT", kind))


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.none() | st.integers(-(10**15), 10**15)),
    max_size=12,
)


@given(ROWS)
def test_statistics_are_the_same_by_query_and_by_hand(rows: list[tuple[int, bool, bool, int | None]]) -> None:
    types = (pa.int32(), pa.bool_(), pa.bool_(), pa.timestamp("us"))
    names = ("_ps_p", "_ps_ok", "_ps_extra", "_ps_at")
    columns = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(types)]
    judged = pa.table(columns, names=names)
    with duckdb.connect() as connection:
        statements = Planned(connection)
        statements.give("judged", judged)
        by_query = of_relation(statements, "judged")
    assert sorted(of_rows(judged), key=lambda s: s.partition) == sorted(by_query, key=lambda s: s.partition)


# -- epochs ------------------------------------------------------------------------------------------------------------

TOTALS = """
CREATE STREAM sales (shop BIGINT NOT NULL, amount BIGINT NOT NULL CHECK (amount >= 0));
CREATE TABLE shops (shop BIGINT PRIMARY KEY, city VARCHAR NOT NULL) WITH (state = 'unbounded');
CREATE VIEW totals AS SELECT shop, count(*) AS n, sum(amount) AS total, avg(amount) AS mean FROM sales GROUP BY shop;
CREATE VIEW widths AS SELECT shop, sum(CAST(amount AS SMALLINT)) AS total FROM sales GROUP BY shop;
CREATE VIEW cities AS SELECT city, count(*) AS n FROM shops GROUP BY city;
"""


def sessions(folder: Path | None, small_epoch: int) -> Session:
    graph = ps.Pipeline.from_sql(TOTALS, name="totals").graph()
    plan = compile_for_duckdb(graph, in_memory=folder is None)
    return Session(graph, DuckState(plan, folder, collect=True, small_epoch=small_epoch), None)


def commit(session: Session, number: int) -> list[dict[str, object]]:
    """One epoch, with a few records that break the contract; its changes."""
    sales = [{"shop": n % 3, "amount": 100 + n * number} for n in range(number % 5)]
    session.insert("sales", [*sales, *([{"shop": 1, "amount": -1}] if number % 4 == 1 else [])])
    if number % 3 == 0:
        session.insert("shops", [{"shop": number, "city": f"c{number % 2}"}])
    epoch = session.commit()
    return [row for view in ("totals", "widths", "cities") for row in session.changes(view, epoch).to_pylist()]


def test_small_epochs_and_large_ones_say_the_same() -> None:
    with sessions(None, 0) as large, sessions(None, 3) as mixed, sessions(None, 10_000) as small:
        for number in range(20):
            expected = commit(large, number)
            assert commit(mixed, number) == expected
            assert commit(small, number) == expected
        for view in ("totals", "widths", "cities"):
            rows = large.read(view).sort_by([(large.read(view).column_names[0], "ascending")])
            for other in (mixed, small):
                assert other.read(view).sort_by([(rows.column_names[0], "ascending")]) == rows
        assert len(small.dead_letters()) == len(large.dead_letters()) > 0


def test_an_epoch_that_fails_in_its_midst_leaves_nothing_behind() -> None:
    with sessions(None, 10_000) as session, sessions(None, 0) as other:
        for number in range(8):
            assert commit(session, number) == commit(other, number)
            before = session.read("totals").sort_by("shop")
            offsets = dict(session._next)
            session.insert("sales", [{"shop": 1, "amount": 100_000}])
            with pytest.raises(RunError, match="widths"):
                session.commit()
            assert session.read("totals").sort_by("shop") == before
            session._pending, session._next = {}, offsets


def test_a_state_is_opened_again(tmp_path: Path) -> None:
    with sessions(None, 0) as other:
        for number in range(0, 12, 3):
            with sessions(tmp_path, 10_000) as session:
                for step in range(number, number + 3):
                    assert commit(session, step) == commit(other, step)
