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
    _one("except_all_columns", "SELECT k, x FROM m EXCEPT ALL SELECT n, k FROM t"),
    _one("except_all_types", "SELECT k FROM m EXCEPT ALL SELECT n + 0.5 FROM t"),
    _one("except_all_self", "SELECT a.x FROM m a EXCEPT ALL SELECT b.k FROM m b"),
    _one("intersect_all", "SELECT k, x FROM m INTERSECT ALL SELECT x, k FROM m"),
    _one(
        "intersect_all_group",
        "SELECT q.k, count(*) AS n FROM (SELECT k FROM m INTERSECT ALL SELECT k FROM s) AS q GROUP BY q.k",
    ),
    _one("intersect_all_in_except_all", "SELECT k FROM m INTERSECT ALL SELECT x FROM m EXCEPT ALL SELECT n FROM t"),
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

SUBQUERIES = (
    _one("in_pair", "SELECT m.k, m.x FROM m WHERE (m.k, m.x) IN (SELECT k, n FROM t)"),
    _one("in_correlated", "SELECT m.k FROM m WHERE m.x IN (SELECT n FROM t WHERE t.k = m.k)"),
    _one("in_group", "SELECT k, a FROM t WHERE k IN (SELECT k FROM m GROUP BY k HAVING count(*) > 1)"),
    _one("in_union", "SELECT k FROM t WHERE k IN (SELECT k FROM m UNION SELECT x FROM m)"),
    _one("in_aggregate", "SELECT k FROM t WHERE k IN (SELECT max(x) FROM m WHERE m.k = t.k)"),
    _one("in_total", "SELECT k FROM m WHERE x IN (SELECT max(n) FROM t)"),
    _one("in_limited", "SELECT k FROM t WHERE k IN (SELECT k FROM m ORDER BY k, x LIMIT 2)"),
    _one("in_self", "SELECT a.k, a.x FROM m a WHERE a.x IN (SELECT k FROM m)"),
    _one("in_expression", "SELECT k, x FROM m WHERE k + 1 IN (SELECT n * 2 FROM t) AND x IN (SELECT k FROM r)"),
    _one("in_or", "SELECT k, n FROM t WHERE k IN (SELECT k FROM m) OR n = 1"),
    _one("in_value", "SELECT k, x, x IN (SELECT n FROM t) AS i, x NOT IN (SELECT n FROM t) AS o FROM m"),
    _one("in_value_correlated", "SELECT k, x, x IN (SELECT n FROM t WHERE t.k > m.k) AS i FROM m"),
    _one(
        "in_case",
        "SELECT k, CASE WHEN k IN (SELECT x FROM m) THEN 'in' WHEN n IN (SELECT x FROM m) THEN 'n' END AS c FROM t",
    ),
    _one("not_in_correlated", "SELECT m.k, m.x FROM m WHERE m.x NOT IN (SELECT n FROM t WHERE t.k = m.k)"),
    _one("not_in_inequality", "SELECT m.k, m.x FROM m WHERE m.x NOT IN (SELECT n FROM t WHERE t.k > m.k)"),
    _one("not_in_certain", "SELECT k FROM t WHERE k NOT IN (SELECT k FROM tv)"),
    _one(
        "not_in_and",
        "SELECT m.k FROM m WHERE m.k NOT IN (SELECT n FROM t) AND m.x NOT IN (SELECT k FROM r WHERE label = 'x')",
    ),
    _one("not_not_in", "SELECT k, x FROM m WHERE NOT (x NOT IN (SELECT n FROM t))"),
    _one("any_all", "SELECT k, x FROM m WHERE x >= ALL (SELECT n FROM t) OR k < ANY (SELECT n FROM t WHERE a = 'x')"),
    _one(
        "any_all_values",
        "SELECT k, k > ALL (SELECT x FROM m) AS g, k <> ANY (SELECT x FROM m) AS d, k = ALL (SELECT x FROM "
        "m) AS e FROM t",
    ),
    _one("any_correlated", "SELECT t.k, t.n <= ANY (SELECT x FROM m WHERE m.k = t.k) AS l FROM t"),
    _one("any_equal", "SELECT k FROM t WHERE k = ANY (SELECT x FROM m) AND n <> ALL (SELECT k FROM m)"),
    _one("exists_inequality", "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM m WHERE m.k = t.k AND m.x <> t.n)"),
    _one(
        "not_exists_inequality",
        "SELECT t.k, t.n FROM t WHERE NOT EXISTS (SELECT * FROM m WHERE m.k < t.k AND m.x = t.n)",
    ),
    _one("exists_alone", "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM m WHERE x = 1)"),
    _one("not_exists_alone", "SELECT k FROM t WHERE NOT EXISTS (SELECT 1 FROM m WHERE x = 1)"),
    _one("exists_self", "SELECT a.k, a.x FROM m a WHERE EXISTS (SELECT 1 FROM m b WHERE b.k = a.k AND b.x > a.x)"),
    _one("exists_several", "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM m WHERE m.k <= t.k)"),
    _one(
        "exists_other_type",
        "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM (SELECT '0' || k AS y FROM m UNION ALL SELECT "
        "k::VARCHAR FROM m) AS q WHERE q.y = t.k)",
    ),
    _one(
        "scalar_other_type",
        "SELECT t.k, (SELECT count(*) FROM (SELECT '0' || k AS y FROM m UNION ALL SELECT k::VARCHAR FROM "
        "m) AS q WHERE q.y = t.k) AS n FROM t",
    ),
    _one(
        "left_other_type",
        "SELECT t.k, q.n FROM t LEFT JOIN (SELECT CASE WHEN x = 1 THEN '0' ELSE '' END || k AS y, count(*) AS n "
        "FROM m GROUP BY 1) AS q ON q.y = t.k",
    ),
    _one("scalar_null_outside", "SELECT t.k, (SELECT count(*) FROM m WHERE m.k > t.n OR t.n IS NULL) AS n FROM t"),
    _one(
        "same_names_domain",
        "SELECT m.k, (SELECT count(*) FROM t WHERE t.k > m.k OR t.n IN (SELECT m.x FROM m WHERE m.k = "
        "t.k)) AS c FROM m",
    ),
    _one("exists_join", "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM m JOIN r ON m.k = r.k WHERE m.x = t.n)"),
    _one("exists_outside", "SELECT t.k, t.n FROM t WHERE EXISTS (SELECT 1 FROM m WHERE t.n > 0 AND m.k = t.k)"),
    _one(
        "exists_or",
        "SELECT k, x FROM m WHERE EXISTS (SELECT 1 FROM t WHERE t.k = m.k) OR NOT EXISTS (SELECT 1 FROM r "
        "WHERE r.k > m.x)",
    ),
    _one(
        "exists_value",
        "SELECT k, EXISTS (SELECT 1 FROM m WHERE m.x = t.n AND m.k = t.k) AS e, NOT EXISTS (SELECT 1 FROM "
        "m) AS none FROM t",
    ),
    _one("exists_total", "SELECT k FROM t WHERE EXISTS (SELECT count(*) FROM m WHERE m.k = t.k HAVING count(*) > 1)"),
    _one(
        "exists_total_of_none",
        "SELECT k FROM t WHERE EXISTS (SELECT count(*) FROM m WHERE m.k = t.k HAVING count(*) < 1)",
    ),
    _one(
        "exists_group",
        "SELECT k FROM t WHERE EXISTS (SELECT m.x FROM m WHERE m.k = t.k GROUP BY m.x HAVING count(*) > 1)",
    ),
    _one("exists_limited", "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM m WHERE m.k = t.k LIMIT 1)"),
    _one("exists_in_aggregate", "SELECT count(*) FILTER (WHERE EXISTS (SELECT 1 FROM m WHERE m.k = t.k)) AS n FROM t"),
    _one("exists_stream", "SELECT s.k, s.v FROM s WHERE EXISTS (SELECT 1 FROM s2 WHERE s2.k = s.k AND s2.w > s.v)"),
    _one("scalar_where", "SELECT k, x FROM m WHERE x >= (SELECT avg(n) FROM t)"),
    _one(
        "scalar_empty",
        "SELECT t.k, (SELECT sum(x) FROM m WHERE m.k = t.k) AS s, (SELECT count(x) + 1 FROM m WHERE m.k = "
        "t.n) AS c FROM t",
    ),
    _one("scalar_of_both", "SELECT t.k, (SELECT max(m.x) + t.n FROM m WHERE m.k = t.k) AS s FROM t"),
    _one("scalar_inequality", "SELECT t.k, (SELECT count(*) FROM m WHERE m.k < t.k) AS below FROM t"),
    _one("scalar_in_argument", "SELECT t.k, (SELECT sum(m.x + t.n) FROM m WHERE m.k >= t.k) AS s FROM t"),
    _one("scalar_having", "SELECT t.k, (SELECT count(*) FROM m WHERE m.k = t.k HAVING count(*) <> 1) AS n FROM t"),
    _one("scalar_key", "SELECT m.x, (SELECT a FROM t WHERE t.k = m.x) AS a FROM m"),
    _one("scalar_fixed", "SELECT m.x, (SELECT a FROM t WHERE t.k = 1) AS a FROM m"),
    _one("scalar_first", "SELECT t.k, (SELECT x FROM m WHERE m.k = t.k ORDER BY x DESC LIMIT 1) AS top FROM t"),
    _one("scalar_limit", "SELECT t.k, (SELECT x FROM m ORDER BY x DESC LIMIT 1) AS top FROM t"),
    _one("scalar_nulls_meet", "SELECT m.x, (SELECT count(*) FROM r WHERE r.k IS NOT DISTINCT FROM m.k) AS n FROM m"),
    _one("scalar_no_from", "SELECT (SELECT count(*) FROM m) AS ms, (SELECT max(k) FROM t) AS top"),
    _one(
        "scalar_twice",
        "SELECT t.k FROM t WHERE (SELECT count(*) FROM m WHERE m.k = t.k) > (SELECT count(*) FROM r WHERE r.k = t.k)",
    ),
    _one("scalar_in_aggregate", "SELECT n, sum((SELECT max(x) FROM m WHERE m.k = t.k)) AS s FROM t GROUP BY n"),
    _one("scalar_over_group", "SELECT k, count(*) AS n, (SELECT max(a) FROM t WHERE t.k = m.k) AS a FROM m GROUP BY k"),
    _one("scalar_over_total", "SELECT count(*) AS n, (SELECT count(*) FROM t) AS ts FROM m"),
    _one("having_scalar", "SELECT k, sum(x) AS s FROM m GROUP BY k HAVING sum(x) >= (SELECT avg(n) FROM t)"),
    _one("having_correlated", "SELECT k FROM m GROUP BY k HAVING count(*) > (SELECT count(*) FROM t WHERE t.n = m.k)"),
    _one("having_in", "SELECT k, count(*) AS n FROM m GROUP BY k HAVING count(*) IN (SELECT n FROM t)"),
    _one("scalar_join_on", "SELECT t.k, m.x FROM t JOIN m ON t.k = m.k AND m.x = (SELECT max(x) FROM m)"),
    _one(
        "scalar_after_left",
        "SELECT t.k, m.x FROM t LEFT JOIN m ON t.k = m.k WHERE (SELECT count(*) FROM r WHERE r.k = m.x) = 0",
    ),
    _one(
        "scalar_case",
        "SELECT k, CASE WHEN n = 1 THEN (SELECT max(x) FROM m) ELSE (SELECT min(x) FROM m WHERE m.k = t.k) "
        "END AS c FROM t",
    ),
    _one("array_correlated", "SELECT t.k, ARRAY(SELECT m.x FROM m WHERE m.k < t.n ORDER BY m.x DESC) AS l FROM t"),
    _one(
        "three_deep",
        "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM m WHERE m.k = t.k AND m.x IN (SELECT r.k FROM r "
        "WHERE r.k <= t.n))",
    ),
    _one(
        "three_deep_not",
        "SELECT t.k FROM t WHERE NOT EXISTS (SELECT 1 FROM m WHERE m.k = t.k AND NOT EXISTS (SELECT 1 FROM "
        "r WHERE r.k = m.x AND r.k >= t.n))",
    ),
    _one(
        "three_deep_scalar",
        "SELECT t.k, (SELECT count(*) FROM m WHERE m.k = t.k AND m.x > (SELECT min(r.k) FROM r WHERE r.k = "
        "m.x OR r.k = t.n)) AS n FROM t",
    ),
    _one(
        "three_deep_local",
        "SELECT k FROM t WHERE k IN (SELECT x FROM m WHERE k IN (SELECT n FROM t WHERE n IN (SELECT k FROM r)))",
    ),
    _one("same_names", "SELECT m.k FROM m WHERE m.x IN (SELECT m.k FROM m WHERE m.x = (SELECT max(m.x) FROM m))"),
    _one(
        "in_of_cte",
        "WITH c AS (SELECT k, count(*) AS n FROM m GROUP BY k) SELECT t.k FROM t WHERE t.n IN (SELECT n "
        "FROM c) AND t.k >= (SELECT min(c.k) FROM c)",
    ),
    _one(
        "in_of_derived",
        "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM (SELECT k, count(*) AS n FROM m GROUP BY k) AS q "
        "WHERE q.k = t.k AND q.n > 1)",
    ),
    _one("in_and_distinct", "SELECT DISTINCT n FROM t WHERE k NOT IN (SELECT x FROM m WHERE x IS NOT NULL)"),
    _one(
        "in_and_window",
        "SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x) AS n FROM m WHERE EXISTS (SELECT 1 "
        "FROM t WHERE t.n = m.x)",
    ),
    _one("in_and_limit", "SELECT k, a FROM t WHERE k IN (SELECT k FROM m) ORDER BY k DESC LIMIT 2"),
    _one(
        "division",
        "SELECT o.k FROM m o WHERE NOT EXISTS (SELECT 1 FROM t WHERE NOT EXISTS (SELECT 1 FROM m i WHERE "
        "i.k = o.k AND i.x = t.n)) GROUP BY o.k",
    ),
    _one("may_be_several", "SELECT t.k, (SELECT max(x) FROM m WHERE m.k = t.k GROUP BY m.k + 0) AS x FROM t"),
    _one(
        "full_and_in", "SELECT t.k, m.x FROM t FULL JOIN m ON t.k = m.k WHERE t.k IN (SELECT k FROM r) OR m.x IS NULL"
    ),
    _one(
        "window_with_in",
        "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, count(*) AS n FROM s WHERE k IN (SELECT k "
        "FROM t) GROUP BY 1",
        "10s",
    ),
    _one(
        "by_window_value",
        "SELECT s2.w, (SELECT count(*) FROM s WHERE time_bucket(INTERVAL '10 seconds', s.at) = "
        "time_bucket(INTERVAL '10 seconds', s2.at)) AS n FROM s2",
    ),
)

GROUPING_SETS = (
    _one(
        "cube_grouping",
        "SELECT k, x % 2 AS p, grouping(k) AS g, grouping_id(k, x % 2) AS gi, sum(x) AS s, max(k) AS kk "
        "FROM m GROUP BY CUBE (k, x % 2)",
    ),
    _one(
        "rollup_join",
        "SELECT t.n, m.x, count(*) AS c, grouping(m.x) AS g FROM t JOIN m ON t.k = m.k WHERE m.x IS NOT "
        "NULL GROUP BY t.n, ROLLUP (m.x) HAVING count(*) > 1 OR grouping(m.x) = 1",
    ),
    _one("rollup_alone", "SELECT k FROM m GROUP BY ROLLUP (k)"),
    _one("rollup_total_first", "SELECT coalesce(k, -1) AS k, sum(x) AS s, x FROM m WHERE x = 1 GROUP BY ROLLUP (x, k)"),
    _one("sets_twice", "SELECT k, x, grouping_id(k, x) AS g FROM m GROUP BY GROUPING SETS (ROLLUP (k, x), (k), (k))"),
    _one("sets_by_number", "SELECT x, k, count(*) AS n FROM m GROUP BY GROUPING SETS ((1, 2), 2)"),
    _one("rollup_distinct", "SELECT DISTINCT k, count(*) AS n FROM m GROUP BY ROLLUP (k, x)"),
    _one(
        "rollup_window",
        "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, g, count(*) AS n FROM s GROUP BY ROLLUP (1, g)",
    ),
)

REWRITTEN = (*OUTER, *SET_OPERATIONS, *HIDDEN_NAMES, *SUBQUERIES, *GROUPING_SETS)
