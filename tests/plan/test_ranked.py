"""Ranked blocks: what is kept, what is computed again, and the slow reference."""

from __future__ import annotations

from random import Random
from typing import Any

import duckdb
import pytest

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.plan import ranked
from penstock.plan.blocks import Field, Order, RankedBlock
from penstock.plan.plan import Plan
from tests.law.world import declare

LATEST = "SELECT g, k, v, at FROM s QUALIFY row_number() OVER (PARTITION BY g ORDER BY at DESC) = 1"


def _plan(sql: str, *sources: str, **options: Any) -> Plan:
    pipeline = ps.Pipeline("ranked")
    declare(pipeline, set(sources))
    pipeline.view("q", sql, **options)
    return compile_for_duckdb(pipeline.graph(), in_memory=False)


def test_the_first_places_of_an_append_only_stream_are_all_that_is_kept() -> None:
    plan = _plan(LATEST, "s")
    assert [t.name for n in plan.nodes for t in n.state] == ["c_q"]
    assert str(plan.node("q").state[0].bound) == "key cardinality: 1 rows for each partition"


def test_a_rank_that_an_outer_query_filters_is_never_made_beyond_it() -> None:
    plan = _plan(
        "SELECT q.k FROM (SELECT k, rank() OVER (PARTITION BY k ORDER BY x) AS n FROM m) AS q WHERE q.n < 3", "m"
    )
    block = next(n.block for n in plan.nodes if isinstance(n.block, RankedBlock))
    assert block.top is not None
    assert block.top.at_most == 2
    assert block.relation.columns == ("k",)


@pytest.mark.parametrize(
    ("sql", "key"),
    [
        ("SELECT k, n, row_number() OVER (PARTITION BY n ORDER BY a) AS r FROM t", ("k",)),
        ("SELECT n, a, row_number() OVER (PARTITION BY n ORDER BY a) AS r FROM t", ("n", "r")),
        ("SELECT n, k FROM t QUALIFY row_number() OVER (PARTITION BY n ORDER BY a) = 1", ("n",)),
        ("SELECT DISTINCT ON (n) n, a FROM t ORDER BY n, k", ("n",)),
        ("SELECT n, a, rank() OVER (PARTITION BY n ORDER BY a) AS r FROM t QUALIFY r = 1", ()),
        ("SELECT k, a FROM t ORDER BY a LIMIT 2", ("k",)),
    ],
)
def test_v5_the_key_of_a_ranked_view(sql: str, key: tuple[str, ...]) -> None:
    view = _plan(sql, "t").view("q")
    assert view is not None
    assert view.key == key


@pytest.mark.parametrize(
    "over",
    [
        "lead(a) OVER (ORDER BY k)",
        "percent_rank() OVER (ORDER BY n)",
        "sum(k) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)",
        "sum(k) OVER (ORDER BY n ROWS BETWEEN 2 PRECEDING AND UNBOUNDED FOLLOWING)",
    ],
)
def test_explain_says_that_a_window_over_all_rows_that_looks_ahead_is_computed_again(over: str) -> None:
    node = _plan(f"SELECT k, {over} AS b FROM t", "t").node("q")
    assert (node.strategy, node.reason) == ("refresh", "a window over all rows: they are one partition")


@pytest.mark.parametrize(
    ("over", "order"),
    [
        ("lag(a) OVER (ORDER BY n)", ("n", False, False)),
        ("row_number() OVER (ORDER BY n DESC)", ("n", True, False)),
        ("sum(k) OVER (ORDER BY a NULLS FIRST ROWS 2 PRECEDING)", ("a", False, True)),
        ("max(k) OVER (PARTITION BY a ORDER BY n) + rank() OVER (ORDER BY n, a)", ("n", False, False)),
        ("rank() OVER (ORDER BY n) + rank() OVER (ORDER BY n DESC)", None),
        ("rank() OVER (ORDER BY n) + rank() OVER (ORDER BY a)", None),
        ("count(*) OVER ()", None),
        ("lag(a, -1) OVER (ORDER BY n)", None),
        ("lag(a, k::INTEGER) OVER (ORDER BY n)", None),
        ("sum(k) OVER (ORDER BY n RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)", None),
        ("sum(k) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)", None),
        ("row_number() OVER (ORDER BY [n])", None),
    ],
)
def test_rows_before_the_first_that_moves_stay_where_no_window_looks_ahead(
    over: str, order: tuple[str, bool, bool] | None
) -> None:
    node = _plan(f"SELECT k, a, n, {over} AS b FROM t", "t").node("q")
    assert isinstance(node.block, RankedBlock)
    assert (node.strategy == "affected rows") == (order is not None)
    found = node.block.order
    assert (found and (found.descending, found.nulls_first)) == (order and order[1:])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("nulls_first", [False, True])
def test_the_rows_from_a_place_on_are_those_that_do_not_sort_before_it(descending: bool, nulls_first: bool) -> None:
    order = Order(Field("o", "INTEGER"), descending, nulls_first)
    way = f"{'DESC' if descending else 'ASC'} NULLS {'FIRST' if nulls_first else 'LAST'}"
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE r AS SELECT unnest([1, 2, 2, 3, NULL, NULL]) AS o")
        for place in (1, 2, 3, None):
            connection.execute("CREATE OR REPLACE TABLE p AS SELECT ?::INTEGER AS o", [place])
            found = connection.execute(ranked.from_place_sql(order, "r", "p")).fetchall()
            ranks = f"SELECT o, rank() OVER (ORDER BY o {way}) AS n FROM r"
            wanted = connection.execute(
                f"SELECT o FROM ({ranks}) WHERE n >= (SELECT min(n) FROM ({ranks}) WHERE o IS NOT DISTINCT FROM ?)",
                [place],
            ).fetchall()
            assert sorted(found, key=str) == sorted(wanted, key=str), place


def test_only_touched_partitions_are_computed_again() -> None:
    block = _plan("SELECT k, x, sum(x) OVER (PARTITION BY k) AS s FROM m", "m").node("q").block
    assert isinstance(block, RankedBlock)
    with duckdb.connect() as connection:
        connection.execute('CREATE TABLE stored AS SELECT i % 50 AS "_ps_k0", i AS "_ps_c1" FROM range(100) AS r(i)')
        connection.execute('CREATE TABLE moved AS SELECT 7 AS "_ps_k0", 0 AS "_ps_c1"')
        touched = f"({ranked.touched_sql(block, 'moved')})"
        rows = connection.execute(f"SELECT * FROM {ranked.within_sql(block, 'stored', touched)}").fetchall()
    assert sorted(rows) == [(7, 7), (7, 57)]


@pytest.mark.parametrize("at_most", [0, 1, 3])
def test_the_candidates_are_those_of_the_whole_content(at_most: int) -> None:
    """The fast rule against the slow reference, over many epochs of rows that come and go."""
    random = Random(at_most)
    pipeline = ps.Pipeline("ranked")
    declare(pipeline, {"m"})
    sql = f"SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x) AS n FROM m QUALIFY n <= {at_most}"
    pipeline.view("q", sql)
    block = compile_for_duckdb(pipeline.graph(), in_memory=True).node("q").block
    assert isinstance(block, RankedBlock)
    held: list[dict[str, Any]] = []
    with pipeline.open() as session:
        for _ in range(25):
            come = [{"k": random.choice([None, 1, 2]), "x": random.randint(0, 9)} for _ in range(random.randint(0, 4))]
            gone = random.sample(held, random.randint(0, len(held) // 2))
            session.insert("m", come)
            session.delete("m", gone)
            session.commit()
            held += come
            for row in gone:
                held.remove(row)
            whole = session.query(
                f"SELECT k, x, n FROM ({ranked.content_sql(block, chr(34) + 'q$rows' + chr(34))}) ORDER BY ALL"
            )
            assert session.query("SELECT * FROM q ORDER BY ALL").to_pylist() == whole.to_pylist()
