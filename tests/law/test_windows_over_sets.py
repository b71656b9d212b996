"""Window functions over GROUPING SETS, ROLLUP and CUBE: the groups are blocks, the windows one over them."""

from __future__ import annotations

import pytest

from tests.law.law import Case, View, check, compiled
from tests.law.world import dense

_ROWS = "k, x, count(*) AS n"
QUERIES = {
    "rank_in_level": f"SELECT {_ROWS}, rank() OVER (PARTITION BY grouping(k, x) ORDER BY count(*) DESC) AS r FROM m "
    "GROUP BY ROLLUP (k, x)",
    "share_of_key": "SELECT k, x, sum(x) AS s, sum(sum(x)) OVER (PARTITION BY k) AS t FROM m GROUP BY CUBE (k, x)",
    "qualify": f"SELECT {_ROWS} FROM m GROUP BY GROUPING SETS ((k), (x), ()) "
    "QUALIFY row_number() OVER (PARTITION BY k ORDER BY count(*) DESC, x) = 1",
    "over_expression": "SELECT k + 1 AS y, count(*) AS n, max(count(*)) OVER (PARTITION BY k + 1) AS top FROM m "
    "GROUP BY ROLLUP (k + 1, x)",
    "having": f"SELECT {_ROWS}, row_number() OVER (PARTITION BY x ORDER BY k) AS r FROM m "
    "GROUP BY ROLLUP (k, x) HAVING count(*) > 1",
    "joined": "SELECT t.a, m.x, count(*) AS n, rank() OVER (PARTITION BY t.a ORDER BY count(*)) AS r "
    "FROM t JOIN m ON t.k = m.k GROUP BY ROLLUP (t.a, m.x)",
}


@pytest.mark.parametrize("name", QUERIES)
def test_windows_over_grouping_sets_are_their_batch_queries(name: str) -> None:
    case = Case(name, (View("q", QUERIES[name]),))
    assert "refresh" not in {n.strategy for n in compiled(case)[1].nodes}
    for seed in (7, 8):
        check(case, dense(case.sources, seed))
