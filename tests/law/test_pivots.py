"""PIVOT and UNPIVOT: what they stand for has the rows, names and types that DuckDB gives, and holds the law."""

from __future__ import annotations

import duckdb
import pytest

from penstock.plan.plan import Plan
from tests.law.catalogue import CATALOGUE
from tests.law.law import Case, check, compiled
from tests.law.pivots import PIVOTS, RECOMPUTED
from tests.law.world import COLUMNS, TYPES, dense

_FORMS = [*(c for c in CATALOGUE if "pivot" in c.name), *RECOMPUTED]


def _columns(plan: Plan) -> list[tuple[str, str]]:
    view = plan.view("q")
    assert view is not None
    return [(f.name, f.type) for f in plan.node(view.node).relation.fields]


@pytest.fixture(scope="module")
def batch() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    for name, columns in COLUMNS.items():
        listed = ", ".join(f'"{c}" {t}' for c, t in zip(columns, TYPES[name], strict=True))
        connection.execute(f"CREATE TABLE {name} ({listed})")
    return connection


@pytest.mark.parametrize("case", _FORMS, ids=str)
def test_a_pivot_has_the_columns_that_duckdb_gives_it(case: Case, batch: duckdb.DuckDBPyConnection) -> None:
    described = batch.execute(f"DESCRIBE {case.views[0].sql}").fetchall()
    assert _columns(compiled(case)[1]) == [(row[0], row[1]) for row in described]


@pytest.mark.parametrize("case", _FORMS, ids=str)
def test_a_pivot_is_written_out(case: Case) -> None:
    strategies = {n.strategy for n in compiled(case)[1].nodes}
    assert ("refresh" in strategies) == (case in RECOMPUTED)


@pytest.mark.parametrize("case", [*PIVOTS, *RECOMPUTED], ids=str)
def test_a_pivot_is_its_batch_query(case: Case) -> None:
    check(case, dense(case.sources, 4))
