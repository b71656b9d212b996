"""V3: floats that are added up in another order are no change; every other float is told with all its digits."""

from __future__ import annotations

import random
from typing import Any

import duckdb
import pytest

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.plan.blocks import GroupedBlock, RefreshBlock
from penstock.plan.noise import close_sql
from tests.law.law import Fold, rows_of
from tests.law.oracle import difference


class M(ps.Contract):
    k: int
    f: float
    note: str | None


SUM = "SELECT k, sum(f) AS f FROM m GROUP BY k"
QUERIES = {
    "affected groups": SUM,
    "without keys": "SELECT avg(f) AS f FROM m",
    "refresh": f"{SUM} ORDER BY k LIMIT 10",
    "through a cte": "WITH c AS (SELECT k, stddev_pop(f) + 1 AS s FROM m GROUP BY k) SELECT k, max(s) * 2 AS s FROM c "
    "GROUP BY ROLLUP (k)",
    "over a window": "SELECT k, f, sum(f) OVER (PARTITION BY k) AS t FROM m",
    "a union": f"{SUM} UNION SELECT -k, -avg(f) FROM m GROUP BY k",
}


def _open(sql: str) -> ps.Pipeline:
    pipeline = ps.Pipeline("noise")
    pipeline.table("m", M)
    pipeline.view("q", sql)
    return pipeline


def _row(f: float, note: str | None = None, k: int = 1) -> dict[str, Any]:
    return {"k": k, "f": f, "note": note}


@pytest.mark.parametrize("sql", QUERIES.values(), ids=QUERIES.keys())
def test_v3_the_order_of_additions_is_no_change(sql: str) -> None:
    values = [0.1 * n for n in range(1, 40)]
    with _open(sql).open() as session:
        session.insert("m", [_row(f) for f in values])
        session.commit()
        before = rows_of(session.read("q"))
        told = 0
        for f in values:
            # The row goes and comes with another note: it is stored behind the others, and added last.
            session.delete("m", [_row(f)])
            session.insert("m", [_row(f, "moved")])
            told += len(rows_of(session.changes("q", session.commit())))
        assert told == 0
        assert rows_of(session.read("q")) == before
        session.insert("m", [_row(0.5)])
        assert rows_of(session.changes("q", session.commit())), "a change is told"


@pytest.mark.parametrize("sql", QUERIES.values(), ids=QUERIES.keys())
def test_v3_what_is_told_is_what_is_kept(sql: str) -> None:
    """Rows at random, so that noise and changes come together: read, fold and batch agree."""
    draw = random.Random(5)
    fold, held = Fold(), list[dict[str, Any]]()
    pipeline = _open(sql)
    planned = compile_for_duckdb(pipeline.graph(), in_memory=True).view("q")
    assert planned is not None
    with pipeline.open() as session:
        for _ in range(12):
            for _ in range(6):
                row = _row(draw.choice((0.1, 0.2, 0.3, 1e-3, 7.7, -0.3)), draw.choice("ab"), draw.randrange(3))
                if held and draw.random() < 0.5:
                    row = held.pop(draw.randrange(len(held)))
                    session.delete("m", [row])
                else:
                    held.append(row)
                    session.insert("m", [row])
            epoch = session.commit()
            fold.apply(session.changes("q", epoch), epoch, planned.key)
            assert not difference(fold.content(), rows_of(session.read("q")))
        batch = duckdb.connect()
        batch.execute("CREATE TABLE m (k BIGINT, f DOUBLE, note VARCHAR)")
        batch.executemany("INSERT INTO m VALUES (?, ?, ?)", [(r["k"], r["f"], r["note"]) for r in held])
        assert not difference(rows_of(session.read("q")), batch.execute(sql).fetchall())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT f FROM m ORDER BY f LIMIT 3",
        "SELECT k, max(f) AS f FROM m GROUP BY k",
        "SELECT k, CASE WHEN sum(f) > 0 THEN max(f) END AS f FROM m GROUP BY k ORDER BY k LIMIT 3",
    ],
)
def test_v3_a_float_that_is_not_added_up_is_told_with_every_digit(sql: str) -> None:
    with _open(sql).open() as session:
        session.insert("m", [_row(1e15)])
        session.commit()
        session.delete("m", [_row(1e15)])
        session.insert("m", [_row(1e15 + 0.125)])
        changes = session.changes("q", session.commit()).to_pylist()
        assert [(c["f"], c["_op"][0]) for c in changes] == [(1e15, "-"), (1e15 + 0.125, "+")]


@pytest.mark.parametrize(
    ("left", "right", "close"),
    [
        ("1.0", "1.0 + 1e-13", True),
        ("1.0", "1.0 + 1e-11", False),
        ("-1e20", "-1e20 * (1 + 1e-13)", True),
        ("0.0", "1e-300", False),
        ("1.0", "'inf'", False),
        ("'inf'", "'inf'", True),
        ("'inf'", "'-inf'", False),
        ("'nan'", "'nan'", True),
        ("'nan'", "1.0", False),
        ("NULL", "NULL", True),
        ("NULL", "0.0", False),
    ],
)
def test_v3_what_is_noise(left: str, right: str, close: bool) -> None:
    condition = close_sql(f"({left})::DOUBLE", f"({right})::DOUBLE")
    row = duckdb.connect().execute(f"SELECT coalesce({condition}, FALSE)").fetchone()
    assert row == (close,)


def test_v3_a_row_with_another_change_is_told_with_its_new_digits() -> None:
    sql = "SELECT k, count(note) AS n, sum(f) AS f FROM m GROUP BY k"
    for query in (sql, f"{sql} ORDER BY k LIMIT 3"):
        with _open(query).open() as session:
            session.insert("m", [_row(1e15)])
            session.commit()
            session.insert("m", [_row(0.125, "x")])
            session.commit()
            assert rows_of(session.read("q")) == [(1, 1, 1e15 + 0.125)]


def test_noise_is_no_part_of_a_fingerprint() -> None:
    blocks = [
        n.block
        for sql in (SUM, QUERIES["refresh"])
        for n in compile_for_duckdb(_open(sql).graph(), in_memory=True).nodes
        if isinstance(n.block, GroupedBlock | RefreshBlock)
    ]
    assert [b.noisy for b in blocks] == [("f",), ("f",)]
    assert not any("noisy" in repr(b) for b in blocks)


def test_v3_zero_is_one_group_whichever_sign_came_first() -> None:
    """0.0 equals -0.0; what is told of the group must not depend on which of them a row has."""
    views = (
        "CREATE VIEW grouped AS SELECT f, count(*) AS n FROM m GROUP BY f;"
        "CREATE VIEW plain AS SELECT DISTINCT f FROM m; CREATE VIEW united AS SELECT f FROM m UNION SELECT -f FROM m;"
    )
    pipeline = ps.Pipeline.from_sql(f"CREATE TABLE m (k INT PRIMARY KEY, f DOUBLE); {views}", name="zero")
    with pipeline.open() as session:
        for key, f in enumerate((-0.0, 0.0, -0.0)):
            session.insert("m", [{"k": key, "f": f}])
            epoch = session.commit()
            for view in ("grouped", "plain", "united"):
                assert str(session.read(view)["f"].to_pylist()) == "[0.0]"
                assert "-0.0" not in str(session.changes(view, epoch)["f"].to_pylist())
