"""IN and NOT IN of several columns, with the NULLs of SQL: kept up where DuckDB has them too, else recomputed."""

from __future__ import annotations

import duckdb
import pytest

from tests.law.law import Case, View, check, compiled
from tests.law.world import dense

_CERTAIN = {
    "of_keys": "SELECT k, a FROM t WHERE (k, k + 0) IN (SELECT k, x FROM m)",
    "not_not_in": "SELECT k, x FROM m WHERE NOT ((k, x) NOT IN (SELECT k, n FROM t))",
    "not_of_keys": "SELECT k, a FROM t WHERE (k, k) NOT IN (SELECT k, k FROM tv)",
    "value_of_keys": "SELECT a, (k, k) IN (SELECT k, k FROM tv) AS i, (k, k) NOT IN (SELECT k, k FROM tv) AS o FROM t",
}
_OPEN = {
    "not_in": "SELECT k, x FROM m WHERE (k, x) NOT IN (SELECT k, n FROM t)",
    "not_in_itself": "SELECT a.k, a.x FROM m a WHERE (a.x, a.k) NOT IN (SELECT k, x FROM m)",
    "three": "SELECT k, x FROM m WHERE (k, x, x) NOT IN (SELECT v, k, v FROM s WHERE g = 'x')",
    "of_groups": "SELECT k, x FROM m WHERE (k, x) NOT IN (SELECT k, count(*) FROM s GROUP BY k)",
    "of_a_union": "SELECT k, x FROM m WHERE (k, x) NOT IN (SELECT k, n FROM t UNION SELECT k, v FROM s)",
    "value": "SELECT k, x, (k, x) IN (SELECT k, n FROM t) AS i, (k, x) NOT IN (SELECT k, n FROM t) AS o FROM m",
    "value_or": "SELECT k, x FROM m WHERE (k, x) NOT IN (SELECT k, n FROM t) OR k = 1",
    "value_of_groups": "SELECT k, x, (x, k) IN (SELECT count(*), k FROM s GROUP BY k) AS i FROM m",
    "having": "SELECT k, count(*) AS n FROM m GROUP BY k HAVING (k, count(*)) NOT IN (SELECT k, n FROM t)",
}


def _cases(queries: dict[str, str]) -> list[Case]:
    return [Case(name, (View("q", sql),)) for name, sql in queries.items()]


@pytest.mark.parametrize("case", _cases(_CERTAIN | _OPEN), ids=str)
def test_rows_that_are_in_a_subquery_are_those_of_the_batch(case: Case) -> None:
    for seed in (5, 6):
        check(case, dense(case.sources, seed))


@pytest.mark.parametrize("case", _cases(_CERTAIN), ids=str)
def test_rows_that_are_there_or_never_null_are_compared_incrementally(case: Case) -> None:
    assert "refresh" not in {n.strategy for n in compiled(case)[1].nodes}


@pytest.mark.parametrize("case", _cases(_OPEN), ids=str)
def test_columns_that_may_be_null_are_compared_incrementally_where_duckdb_answers_as_sql_does(case: Case) -> None:
    answer = duckdb.execute("SELECT (1, NULL::INTEGER) NOT IN (SELECT 2, 1)").fetchone()
    assert ("refresh" in {n.strategy for n in compiled(case)[1].nodes}) == (answer != (True,))
