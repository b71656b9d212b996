"""Only the columns that are read are built, and late rows are kept whole all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.pipeline import Pipeline
from penstock.plan.pruning import columns_judged, columns_read
from penstock.runtime.session import Session

STREAM = """
CREATE STREAM e (a BIGINT NOT NULL, b VARCHAR, c DOUBLE, at TIMESTAMP NOT NULL,
    WATERMARK FOR at AS at - INTERVAL '1 second'){options};
"""


def read(sql: str, options: str = "") -> frozenset[str] | None:
    plan = compile_for_duckdb(
        Pipeline.from_sql(STREAM.replace("{options}", options) + sql, name="p").graph(), in_memory=False
    )
    return columns_judged(plan, next(s for s in plan.sources if s.source.name == "e"))


@pytest.mark.parametrize(
    ("view", "columns"),
    [
        ("SELECT a, count(*) AS n FROM e GROUP BY a", {"a"}),
        ("SELECT count(*) AS n FROM e", set()),
        ("SELECT a FROM e WHERE b = 'c'", {"a", "b"}),
        ("SELECT time_bucket(INTERVAL '1 minute', at) AS m, sum(a) AS s FROM e GROUP BY ALL", {"a", "at"}),
        ("SELECT a, 'the c and \"c\" of it' AS t FROM e", {"a"}),
        ("SELECT x.a FROM e AS x", {"a"}),
        ("SELECT * FROM e", {"a", "b", "c", "at"}),
    ],
)
def test_columns_that_a_view_reads(view: str, columns: set[str]) -> None:
    assert read(f"CREATE VIEW v AS {view}; CREATE SINK s FROM v;") == frozenset(columns)


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        ("CREATE SINK s FROM e;", ""),
        ("CREATE VIEW v AS SELECT a FROM e;", " WITH (retention = '1 day')"),
        ("CREATE VIEW v WITH (state = 'unbounded') AS SELECT a, count(DISTINCT b) AS n FROM e GROUP BY a;", ""),
    ],
)
def test_where_rows_are_kept_or_handed_on_all_columns_are_built(sql: str, options: str) -> None:
    assert read(sql, options) is None


TABLE = "CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT, b VARCHAR, c BIGINT); CREATE VIEW v AS {view};"


@pytest.mark.parametrize(
    ("view", "columns"),
    [
        ("SELECT a, count(*) AS n FROM t GROUP BY a", {"a"}),
        ("SELECT x.a FROM t AS x JOIN t AS y ON y.k = x.c", {"a", "k", "c"}),
        ("SELECT * FROM t", {"k", "a", "b", "c"}),
        ("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM t AS u WHERE u.b = t.b)", {"a", "b"}),
        ("WITH RECURSIVE r(n) AS (SELECT a FROM t UNION SELECT n - 1 FROM r WHERE n > 0) SELECT n FROM r", None),
    ],
)
def test_of_a_tables_delta_only_what_is_read(view: str, columns: set[str] | None) -> None:
    plan = compile_for_duckdb(Pipeline.from_sql(TABLE.format(view=view), name="p").graph(), in_memory=False)
    (source,) = plan.sources
    assert columns_read(plan, source) == (None if columns is None else frozenset(columns))
    # the table keeps its rows whole
    assert columns_judged(plan, source) is None


@pytest.mark.parametrize("small_epoch", [0, 10_000])
def test_a_row_that_changes_where_nobody_reads_is_stored_and_not_told(small_epoch: int) -> None:
    pipeline = Pipeline.from_sql(TABLE.format(view="SELECT a, count(*) AS n FROM t GROUP BY a"), name="p")
    plan = compile_for_duckdb(pipeline.graph(), in_memory=True)
    with Session(pipeline.graph(), DuckState(plan, None, collect=True, small_epoch=small_epoch), None) as session:
        row = {"k": 1, "a": 5, "b": "old", "c": 1}
        session.insert("t", [row, row | {"k": 2}])
        session.commit()
        session.insert("t", [row | {"b": "older"}, row | {"b": "new"}])
        epoch = session.commit()
        assert session.changes("v", epoch).num_rows == 0
        assert session.read("t").sort_by("k").column("b").to_pylist() == ["new", "old"]
        session.delete("t", [{"k": 1}])
        assert session.changes("v", session.commit()).column("n").to_pylist() == [2, 1]
        assert session.read("t").column("k").to_pylist() == [2]


def test_late_rows_are_kept_with_columns_that_no_view_reads(tmp_path: Path) -> None:
    pipeline = Pipeline.from_sql(
        STREAM.replace("{options}", "")
        + "CREATE VIEW v AS SELECT time_bucket(INTERVAL '1 minute', at) AS m, sum(a) AS s FROM e GROUP BY ALL;",
        name="p",
    )
    with pipeline.open(state=tmp_path) as session:
        session.insert("e", [{"a": 1, "b": "x", "c": 1.5, "at": "2026-01-01T00:05:00"}])
        session.insert("e", [{"a": 2, "b": "late", "c": 2.5, "at": "2026-01-01T00:01:00"}])
        session.insert("e", [{"a": 4, "b": "y", "c": 3.5, "at": "2026-01-01T00:05:01"}])
        session.commit()
        (row,) = session.late_rows("e").to_pylist()
        assert (row["a"], row["b"], row["c"]) == (2, "late", 2.5)
        assert [r["s"] for r in session.read("v").to_pylist()] == [5]
        assert session.apply_late("e") == 1
        assert sorted(r["s"] for r in session.read("v").to_pylist()) == [2, 5]
