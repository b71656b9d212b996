"""The 22 queries of TPC-H, maintained: inserts, updates and deletes in every table, and the refresh functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from penstock.bench.views.changes import Change
from penstock.bench.views.suite import only, suite
from penstock.bench.views.tpch import Tpch
from penstock.bench.views.tpch_rows import KEYS
from penstock.graph import Graph
from tests.law.suites import SuiteChecker

# They end in a LIMIT whose order does not tell all rows apart.
LIMITED = ("q2", "q3", "q10", "q18", "q21")
# Parameters of another choice than the published ones, with which the queries find something in few rows.
WIDER = {
    "p_brand = 'Brand#23' AND p_container = 'MED BOX'": "p_brand LIKE 'Brand#2%' AND p_container LIKE 'MED%'",
    "p_container IN ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')": "p_container LIKE 'LG%'",
    "p_brand = 'Brand#34'": "p_brand LIKE 'Brand#3%'",
    "p_size BETWEEN 1 AND 15 AND l_shipmode IN ('AIR', 'AIR REG')": "p_size BETWEEN 1 AND 50",
    "HAVING sum(l_quantity) > 300": "HAVING sum(l_quantity) > 150",
    "n_name = 'SAUDI ARABIA'": "n_regionkey = 4",
}


def _wider(graph: Graph) -> Graph:
    views = []
    for view in graph.views:
        sql = view.sql
        for published, other in WIDER.items():
            sql = sql.replace(published, other)
        views.append(replace(view, sql=sql))
    return replace(graph, views=tuple(views))


GRAPH = _wider(suite("tpch"))
# Rows of each table that change in one epoch.
MIXED = {
    "lineitem": 60,
    "orders": 20,
    "customer": 12,
    "part": 9,
    "partsupp": 12,
    "supplier": 4,
    "nation": 1,
    "region": 1,
}


@contextmanager
def checked(seed: int, views: tuple[str, ...], factor: float) -> Iterator[tuple[SuiteChecker, Tpch]]:
    tables, checker = Tpch(factor, seed), SuiteChecker(only(GRAPH, views), definite=LIMITED)
    try:
        checker.epoch(tables.load(KEYS))
        yield checker, tables
    finally:
        checker.close()


def mixed(tables: Tpch, share: float = 1.0) -> list[Change]:
    return [tables.change(name, max(1, round(rows * share))) for name, rows in MIXED.items()]


ALL = tuple(v.name for v in GRAPH.views)


@pytest.mark.slow
@pytest.mark.parametrize("views", [ALL[:8], ALL[8:16], ALL[16:]], ids=lambda names: f"{names[0]}-{names[-1]}")
def test_tpch_is_its_batch_after_every_epoch(views: tuple[str, ...]) -> None:
    with checked(1, views, 0.002) as (checker, tables):
        for _ in range(3):
            checker.epoch(mixed(tables))
        checker.epoch(tables.refresh(20))
        for name in KEYS:
            for _ in range(3):
                checker.epoch([tables.change(name, 1)])
        checker.epoch(mixed(tables, 5.0))
        assert checker.changed == set(views), set(views) - checker.changed


@pytest.mark.slow
def test_tpch_from_nothing_and_back() -> None:
    """Views over empty tables; then the rows come, table by table, and all orders and their lines go again."""
    tables, checker = Tpch(0.0005, 7), SuiteChecker(GRAPH, definite=LIMITED)
    try:
        checker.epoch([])
        for name in KEYS:
            checker.epoch(tables.load([name]))
        while tables.rows("orders"):
            checker.epoch(tables.retire(200))
    finally:
        checker.close()
