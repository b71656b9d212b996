"""Queries that rewrites make joins, unions and groups of (plan/rewrite/): the shapes that a rewrite can get wrong."""

from __future__ import annotations

from tests.law.law import Case, View


def _one(name: str, sql: str, window: str = "") -> Case:
    return Case(name, (View("q", sql, window),))


OUTER = (
    _one(
        "left_self_three",
        "SELECT a.x AS x1, b.x AS x2, c.k FROM m a LEFT JOIN m b ON a.k = b.x LEFT JOIN m c ON b.x = c.k",
    ),
    _one(
        "left_self_inner",
        "SELECT a.x, b.k, c.x AS y FROM m a JOIN m b ON a.k = b.k LEFT JOIN m c ON a.x = c.k AND b.x = 1",
    ),
    _one("left_self_stream", "SELECT a.v, b.g FROM s a LEFT JOIN s b ON a.k = b.v"),
    _one("semi_condition", "SELECT t.k, t.a FROM t SEMI JOIN m ON t.k = m.k AND t.n <> m.x"),
    _one("anti_condition", "SELECT m.k, m.x FROM m ANTI JOIN t ON t.k > m.x OR t.n = m.k"),
    _one("anti_self", "SELECT a.k, a.x FROM m a ANTI JOIN m b ON a.k = b.k AND a.x < b.x"),
    _one(
        "semi_then_left",
        "SELECT t.k, m.x, r.label FROM t SEMI JOIN r q ON q.k = t.n LEFT JOIN m ON t.k = m.k JOIN r ON r.k = t.n",
    ),
    _one("anti_after_left", "SELECT t.k, m.x FROM t LEFT JOIN m ON t.k = m.k ANTI JOIN r ON r.k = m.x"),
    _one("semi_using", "SELECT k, a FROM t SEMI JOIN m USING (k)"),
    _one(
        "right_chain",
        "SELECT t.k, m.x, r.label FROM t LEFT JOIN m ON t.k = m.k RIGHT JOIN r ON r.k = m.x JOIN m n ON n.k = r.k",
    ),
    _one("right_condition", "SELECT t.k, m.x FROM t RIGHT JOIN m ON t.k > m.k AND m.x = 1"),
    _one("full_self", "SELECT a.x AS x1, b.x AS x2 FROM m a FULL JOIN m b ON a.k = b.x"),
    _one("full_using", "SELECT k, t.a, m.x FROM t FULL JOIN m USING (k) WHERE k IS DISTINCT FROM 1"),
    _one("full_after_join", "SELECT t.k, m.x, r.label FROM t JOIN m ON t.k = m.k FULL JOIN r ON r.k = m.x"),
    _one(
        "full_twice",
        "SELECT t.k, m.x, r.label, tv.c FROM t FULL JOIN m ON t.k = m.k FULL JOIN r ON r.k = m.x AND t.n = "
        "r.k LEFT JOIN tv ON tv.k = t.k",
    ),
    _one("full_condition", "SELECT t.k, m.x FROM t FULL JOIN m ON t.k < m.k OR t.n = m.x"),
    _one(
        "full_group",
        "SELECT coalesce(t.k, m.k) AS key, count(t.k) AS ts, count(m.x) AS ms FROM t FULL JOIN m ON t.k = "
        "m.k GROUP BY ALL",
    ),
    _one("full_streams", "SELECT s.v, s2.w FROM s FULL JOIN s2 ON s.k = s2.k"),
)

SET_OPERATIONS = (
    _one("except_columns", "SELECT k, x FROM m EXCEPT SELECT n, k FROM t"),
    _one("except_chain", "SELECT k FROM m EXCEPT SELECT k FROM t UNION SELECT n FROM t EXCEPT SELECT x FROM m"),
    _one("except_types", "SELECT k FROM m EXCEPT SELECT n + 0.5 FROM t"),
    _one("intersect_columns", "SELECT k, x FROM m INTERSECT SELECT k, n FROM t"),
    _one(
        "intersect_group",
        "SELECT q.k, count(*) AS n FROM (SELECT k FROM m INTERSECT SELECT n FROM t) AS q GROUP BY q.k",
    ),
    _one("except_streams", "SELECT k FROM s EXCEPT SELECT k FROM s2"),
    _one("union_name_distinct", "SELECT k, x FROM m UNION BY NAME SELECT n AS x, k FROM t"),
    _one("union_name_values", "SELECT a, k FROM t UNION ALL BY NAME (SELECT 7 AS k, 1.5 AS z)"),
    _one("distinct_over_having", "SELECT DISTINCT max(x) AS x, k > 1 AS high FROM m GROUP BY k HAVING count(*) > 1"),
    _one("distinct_global", "SELECT DISTINCT count(*) AS n FROM m"),
    _one("values_union", "SELECT k FROM m UNION SELECT * FROM (VALUES (1), (NULL), (9)) AS v(k)"),
    _one("values_left", "SELECT v.id, m.x FROM (VALUES (1), (2), (5)) AS v(id) LEFT JOIN m ON m.k = v.id"),
    _one(
        "values_twice",
        "SELECT v.id, w.id AS other FROM (VALUES (1), (2)) AS v(id) JOIN (VALUES (2), (3)) AS w(id) ON v.id < w.id",
    ),
    _one("constant_group", "SELECT count(*) AS n, max(q.one) AS m FROM (SELECT 1 AS one) AS q"),
    _one("constant_cte", "WITH c AS (SELECT 2 AS top) SELECT m.k, m.x FROM m, c WHERE m.k < c.top"),
)

HIDDEN_NAMES = (
    _one("cte_of_its_source", "WITH t AS (SELECT k FROM t WHERE k > 0) SELECT k FROM t"),
    _one(
        "cte_inside_cte",
        "WITH c AS (SELECT k FROM t) SELECT q.k FROM (WITH c AS (SELECT k FROM c WHERE k > 0) SELECT k "
        "FROM c) AS q JOIN c ON c.k = q.k",
    ),
    _one(
        "cte_later_name",
        "WITH c AS (SELECT k FROM m), m AS (SELECT k FROM t) SELECT c.k, m.k AS other FROM c JOIN m ON c.k = m.k",
    ),
    _one("cte_hidden_limit", "WITH t AS (SELECT k FROM t) SELECT k FROM t ORDER BY k LIMIT 2"),
)

REWRITTEN = (*OUTER, *SET_OPERATIONS, *HIDDEN_NAMES)
