"""The queries that hold the law: at least one of every kind that a batch DuckDB can run deterministically."""

from __future__ import annotations

from dataclasses import replace

from tests.law.law import Case, View
from tests.law.pivots import PIVOTS
from tests.law.rewritten import REWRITTEN


def _one(name: str, sql: str, window: str = "", key: tuple[str, ...] = ()) -> Case:
    return Case(name, (View("q", sql, window, key),))


FLAT = (
    _one("source_table", "SELECT * FROM t"),
    _one("source_versioned", "SELECT * FROM tv"),
    _one("source_multiset", "SELECT * FROM m"),
    _one("source_reference", "SELECT * FROM r"),
    _one("source_stream", "SELECT * FROM s"),
    _one("project", "SELECT k, v + 1 AS w, upper(g) AS g FROM s"),
    _one("filter", "SELECT k, v FROM s WHERE v > 0 AND (g = 'x' OR b)"),
    _one("null_logic", "SELECT k, v IS NULL AS missing, coalesce(v, -1) AS c FROM s WHERE NOT (v = 1) OR g IS NULL"),
    _one("case", "SELECT CASE WHEN v > 0 THEN 'up' WHEN v < 0 THEN 'down' END AS way, nullif(k, 1) AS n FROM s"),
    _one("project_table", "SELECT a, n FROM t"),
    _one("project_keyed", "SELECT k, a || '!' AS shout FROM t WHERE n IS NOT NULL"),
    _one("constant", "SELECT 1 AS one, 'a' AS letter FROM m"),
    _one("alias_in_where", "SELECT v + 1 AS w FROM s WHERE w > 1"),
    _one("odd_names", 'SELECT k AS "order", v AS "From", g AS "Two Words", at FROM s WHERE "order" = 1'),
    _one("shadowing_alias", "SELECT v AS k, k AS v FROM s WHERE k = 1"),
    _one("star_exclude", "SELECT * EXCLUDE (d, f) FROM s"),
    _one("in_list", "SELECT k FROM s WHERE g IN ('x', 'y') AND v BETWEEN 0 AND 2"),
)

JOINS = (
    _one("join_stream_table", "SELECT s.v, t.a FROM s JOIN t ON s.k = t.k"),
    _one("join_stream_reference", "SELECT s.v, r.label FROM s JOIN r ON s.k = r.k"),
    _one("join_table_table", "SELECT t.k, t.a, tv.c FROM t JOIN tv ON t.k = tv.k"),
    _one("join_using", "SELECT k, a, x FROM t JOIN m USING (k)"),
    _one("join_self", "SELECT p.x AS left_x, q.x AS right_x FROM m AS p JOIN m AS q ON p.k = q.k"),
    _one("join_self_stream", "SELECT p.v AS a, q.v AS b FROM s AS p JOIN s AS q ON p.k = q.k AND p.v < q.v"),
    _one(
        "join_self_three", "SELECT a.x AS x1, b.x AS x2, c.x AS x3 FROM m a JOIN m b ON a.k = b.k JOIN m c ON b.k = c.k"
    ),
    _one("join_three", "SELECT t.a, m.x, r.label FROM t JOIN m ON t.k = m.k JOIN r ON m.k = r.k"),
    _one("join_cross", "SELECT t.a, r.label FROM t, r WHERE t.n = 1"),
    _one("join_cross_explicit", "SELECT m.x, r.label FROM m CROSS JOIN r"),
    _one("join_nulls", "SELECT m.x, r.label FROM m JOIN r ON m.k IS NOT DISTINCT FROM r.k"),
    _one("join_inequality", "SELECT m.x, t.k FROM m JOIN t ON m.x < t.k"),
    _one("join_extra", "SELECT m.x, t.a FROM m JOIN t ON m.k = t.k AND t.a <> 'x' AND m.x = 1"),
    _one(
        "join_same_source_through_view",
        "SELECT p.a, q.n FROM t AS p JOIN (SELECT k, n FROM t WHERE n > 0) AS q ON p.k = q.k",
    ),
    _one("left_stream_table", "SELECT s.v, t.a FROM s LEFT JOIN t ON s.k = t.k"),
    _one("left_table_multiset", "SELECT t.k, t.a, m.x FROM t LEFT JOIN m ON t.k = m.k"),
    _one("left_extra", "SELECT t.k, m.x FROM t LEFT JOIN m ON t.k = m.k AND m.x = 1 AND t.n > 0"),
    _one("left_filtered", "SELECT t.k FROM t LEFT JOIN m ON t.k = m.k WHERE m.x IS NULL"),
    _one("left_constant", "SELECT t.k, m.x, 1 AS one, coalesce(m.x, -9) AS c FROM t LEFT JOIN m ON t.k = m.k"),
    _one("left_chain", "SELECT t.k, m.x, r.label FROM t LEFT JOIN m ON t.k = m.k LEFT JOIN r ON m.x = r.k"),
    _one("left_chain_first", "SELECT t.k, m.x, r.label FROM t LEFT JOIN m ON t.k = m.k LEFT JOIN r ON t.n = r.k"),
    _one("left_then_inner", "SELECT t.k, m.x, r.label FROM t LEFT JOIN m ON t.k = m.k JOIN r ON t.n = r.k"),
    _one(
        "inner_over_left", "SELECT t.k, m.x, r.label FROM t LEFT JOIN m ON t.k = m.k JOIN r ON coalesce(m.x, 0) = r.k"
    ),
    _one("inner_then_left", "SELECT t.k, m.x, r.label FROM t JOIN m ON t.k = m.k LEFT JOIN r ON m.x = r.k"),
    _one("left_self", "SELECT a.x AS x1, b.x AS x2 FROM m a LEFT JOIN m b ON a.k = b.x"),
    _one(
        "left_twice_same",
        "SELECT t.k, a.x AS x1, b.x AS x2 FROM t LEFT JOIN m a ON t.k = a.k LEFT JOIN m b ON t.n = b.k",
    ),
    _one(
        "left_shared_base", "SELECT p.k, q.n FROM t AS p LEFT JOIN (SELECT k, n FROM t WHERE n > 0) AS q ON p.k = q.k"
    ),
    # DuckDB 1.5 finds nothing by EXISTS over two inequalities.
    _one(
        "left_unequal_twice",
        "SELECT a.x AS x1, b.x AS x2, r.label FROM m a LEFT JOIN m b ON a.k < b.k AND a.x <> b.x CROSS JOIN r",
    ),
    _one("semi_unequal_twice", "SELECT a.k, a.x FROM m a SEMI JOIN m b ON a.k < b.k AND a.x <> b.x"),
    _one("anti_unequal_twice", "SELECT a.k, a.x FROM m a ANTI JOIN t b ON a.k < b.k AND a.x <> b.n"),
    _one("left_true", "SELECT t.k, r.label FROM t LEFT JOIN r ON TRUE"),
    _one("left_nulls", "SELECT m.x, r.label FROM m LEFT JOIN r ON m.k IS NOT DISTINCT FROM r.k"),
    _one("left_or", "SELECT m.x, r.label FROM m LEFT JOIN r ON m.k = r.k OR m.x = r.k"),
    _one("right_join", "SELECT t.k, m.x FROM t RIGHT JOIN m ON t.k = m.k"),
    _one("full_join", "SELECT t.k, m.x FROM t FULL JOIN m ON t.k = m.k"),
    _one("semi_join", "SELECT t.k FROM t SEMI JOIN m ON t.k = m.k"),
    _one("anti_join", "SELECT t.k FROM t ANTI JOIN m ON t.k = m.k"),
    _one("join_group", "SELECT r.label, count(*) AS n, sum(m.x) AS x FROM m JOIN r ON m.k = r.k GROUP BY r.label"),
    _one("left_group", "SELECT t.k, count(m.x) AS n, sum(m.x) AS x FROM t LEFT JOIN m ON t.k = m.k GROUP BY t.k"),
    _one("self_group", "SELECT p.k, count(*) AS n, sum(q.x) AS x FROM m p JOIN m q ON p.k = q.k GROUP BY p.k"),
    _one("stream_stream", "SELECT s.v, s2.w FROM s JOIN s2 ON s.k = s2.k"),
    _one("left_stream_stream", "SELECT s.v, s2.w FROM s LEFT JOIN s2 ON s.k = s2.k"),
    _one(
        "interval_join",
        "SELECT s.v, s2.w FROM s JOIN s2 ON s.k = s2.k AND s2.at BETWEEN s.at AND s.at + INTERVAL 5 SECONDS",
        "behind",
    ),
)

GROUPS = (
    _one("count", "SELECT g, count(*) AS n, count(v) AS c FROM s GROUP BY g"),
    _one("sums", "SELECT g, sum(v) AS v, sum(d) AS d, avg(v) AS av, avg(d) AS ad FROM s GROUP BY g"),
    _one("sums_retracted", "SELECT k, sum(x) AS s, avg(x) AS a, count(x) AS c, count(*) AS n FROM m GROUP BY k"),
    _one("sum_double", "SELECT g, sum(f) AS f, avg(f) AS a FROM s GROUP BY g"),
    _one("min_max", "SELECT g, min(v) AS low, max(g) AS high, max(f) AS f, min(at) AS first_at FROM s GROUP BY g"),
    _one("min_max_retracted", "SELECT n, min(a) AS low, max(k) AS high FROM t GROUP BY n"),
    _one("bools", "SELECT g, bool_and(b) AS a, bool_or(b) AS o, count_if(b) AS c FROM s GROUP BY g"),
    _one("bools_retracted", "SELECT k, bool_and(x > 0) AS a, bool_or(x > 0) AS o FROM m GROUP BY k"),
    _one(
        "filter_clause",
        "SELECT g, count(*) FILTER (WHERE b) AS n, sum(v) FILTER (WHERE v > 0) AS s, avg(v) FILTER (WHERE k = 1) AS "
        "a FROM s GROUP BY g",
    ),
    _one(
        "filter_retracted",
        "SELECT k, count(*) FILTER (WHERE x = 1) AS n, sum(x) FILTER (WHERE x = 1) AS s, count_if(x = 0) AS z FROM "
        "m GROUP BY k",
    ),
    _one("distinct_aggregates", "SELECT k, count(DISTINCT x) AS n, sum(DISTINCT x) AS s FROM m GROUP BY k"),
    _one("string_agg", "SELECT n, string_agg(a, ',' ORDER BY a) AS s, list(k ORDER BY k DESC) AS l FROM t GROUP BY n"),
    _one("string_agg_two_orders", "SELECT g, string_agg(g, ',' ORDER BY v, k, g) AS s FROM s GROUP BY g"),
    _one("median", "SELECT k, median(x) AS m FROM m GROUP BY k"),
    _one("statistics", "SELECT g, stddev_pop(v) AS sd, quantile_cont(v, 0.5) AS q FROM s GROUP BY g"),
    _one("arg_max", "SELECT k, arg_max(x, x) AS a, max(x) AS x FROM m GROUP BY k"),
    _one(
        "over_aggregates",
        "SELECT g, sum(v) * 2 + count(*) AS z, CASE WHEN count(*) > 1 THEN 'many' ELSE 'one' END AS c FROM s GROUP "
        "BY g",
    ),
    _one("having", "SELECT k, count(*) AS n FROM m GROUP BY k HAVING count(*) > 1"),
    _one("having_alias", "SELECT k, count(*) AS n FROM m GROUP BY k HAVING n > 1"),
    _one("having_null", "SELECT k, sum(x) AS s FROM m GROUP BY k HAVING sum(x) > 0"),
    _one("having_unselected", "SELECT k FROM m GROUP BY k HAVING max(x) = 1 AND count(*) < 3"),
    _one("having_affected", "SELECT n, max(k) AS m FROM t GROUP BY n HAVING max(k) > 1"),
    _one("by_expression", "SELECT coalesce(k, -1) % 2 AS parity, count(*) AS n FROM m GROUP BY coalesce(k, -1) % 2"),
    _one("by_alias", "SELECT x + 1 AS y, count(*) AS n FROM m GROUP BY y"),
    _one("by_alias_shadowing", "SELECT x % 2 AS k, count(*) AS n FROM m GROUP BY k, x"),
    _one("by_ordinal", "SELECT k, x, count(*) AS n FROM m GROUP BY 2, 1"),
    _one("by_all", "SELECT k, x + 1 AS y, count(*) AS n FROM m GROUP BY ALL"),
    _one("by_all_constant", "SELECT 'c' AS c, k, count(*) AS n FROM m GROUP BY ALL"),
    _one("by_all_nothing", "SELECT count(*) AS n, sum(x) AS s FROM m GROUP BY ALL"),
    _one("by_all_only_constant", "SELECT 'c' AS c, count(*) AS n FROM m GROUP BY ALL"),
    _one("by_constant", "SELECT 2 AS two, k, count(*) AS n FROM m GROUP BY two, k"),
    _one("by_two_keys", "SELECT g, k, count(*) AS n FROM s GROUP BY g, k"),
    _one("group_unselected_key", "SELECT count(*) AS n FROM m GROUP BY k"),
    _one("group_without_aggregates", "SELECT k, x FROM m GROUP BY k, x"),
    _one("group_expression_of_key", "SELECT k + 1 AS k1, count(*) AS n FROM m GROUP BY k"),
    _one("global", "SELECT count(*) AS n, sum(x) AS s, avg(x) AS a FROM m"),
    _one("global_stream", "SELECT count(*) AS n, min(v) AS low, max(d) AS high, bool_and(b) AS a FROM s"),
    _one("global_affected", "SELECT max(k) AS m, count(DISTINCT a) AS d FROM t"),
    _one("global_having", "SELECT count(*) AS n FROM m HAVING count(*) > 1"),
    _one("global_filtered", "SELECT count(*) AS n, sum(v) AS s FROM s WHERE v > 100"),
    _one("group_literal_argument", "SELECT k, sum(1) AS n, count(1) AS c, max('a') AS a FROM m GROUP BY k"),
    _one("any_value", "SELECT k, any_value(x) AS x, first(x) AS f, last(x) AS l FROM m WHERE x = 1 GROUP BY k"),
    _one("nan_group", "SELECT f, count(*) AS n FROM s GROUP BY f"),
)

SETS = (
    _one("distinct", "SELECT DISTINCT k, x FROM m"),
    _one("distinct_stream", "SELECT DISTINCT g FROM s"),
    _one("distinct_expression", "SELECT DISTINCT x IS NULL AS missing FROM m"),
    _one("distinct_join", "SELECT DISTINCT r.label FROM m JOIN r ON m.k = r.k"),
    _one("distinct_over_group", "SELECT DISTINCT count(*) AS n FROM m GROUP BY k"),
    _one("distinct_on", "SELECT DISTINCT ON (k) k, x FROM m ORDER BY k, x"),
    _one("union_all", "SELECT k FROM t UNION ALL SELECT k FROM m"),
    _one("union_all_same", "SELECT k, x FROM m UNION ALL SELECT x, k FROM m"),
    _one("union", "SELECT k FROM t UNION SELECT k FROM m"),
    _one("union_types", "SELECT k AS v FROM m UNION ALL SELECT n + 0.5 FROM t"),
    _one("union_three", "SELECT k FROM t UNION ALL SELECT k FROM m UNION SELECT k FROM r"),
    _one("union_by_name", "SELECT k, x FROM m UNION ALL BY NAME SELECT a, k FROM t"),
    _one("union_streams", "SELECT k, at FROM s UNION ALL SELECT k, at FROM s2"),
    _one("union_group", "SELECT k, count(*) AS n FROM (SELECT k FROM t UNION ALL SELECT k FROM m) AS u GROUP BY k"),
    _one("except", "SELECT k FROM t EXCEPT SELECT k FROM m"),
    _one("except_all", "SELECT k FROM m EXCEPT ALL SELECT k FROM t"),
    _one("intersect", "SELECT k FROM t INTERSECT SELECT k FROM m"),
    _one("values_alone", "VALUES (1, 'a'), (2, NULL)"),
    _one("values", "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(id, name)"),
    _one("no_from", "SELECT 42 AS answer, 'x' AS name"),
    _one("join_values", "SELECT m.x, v.name FROM m JOIN (VALUES (1, 'a'), (2, 'b')) AS v(id, name) ON m.k = v.id"),
)

NESTED = (
    _one("cte", "WITH c AS (SELECT k, x FROM m WHERE x = 1) SELECT k FROM c"),
    _one(
        "cte_twice",
        "WITH c AS (SELECT k, count(*) AS n FROM m GROUP BY k) SELECT a.k, b.n FROM c a JOIN c b ON a.n = b.n",
    ),
    _one(
        "cte_chain",
        "WITH c AS (SELECT k FROM m), d AS (SELECT k, count(*) AS n FROM c GROUP BY k) SELECT * FROM d WHERE n > 1",
    ),
    _one("cte_shadows", "WITH t AS (SELECT k FROM m) SELECT k FROM t"),
    _one("cte_refresh", "WITH c AS (SELECT k FROM m ORDER BY k LIMIT 2) SELECT c.k, t.a FROM c JOIN t ON c.k = t.k"),
    _one("subquery", "SELECT q.k, q.n FROM (SELECT k, count(*) AS n FROM m GROUP BY k) AS q WHERE q.n > 1"),
    _one(
        "subquery_join",
        "SELECT t.a, q.n FROM t LEFT JOIN (SELECT k, count(*) AS n FROM m GROUP BY k) AS q ON t.k = q.k",
    ),
    _one("group_of_group", "SELECT n, count(*) AS c FROM (SELECT k, count(*) AS n FROM m GROUP BY k) AS q GROUP BY n"),
    _one("in_subquery", "SELECT k FROM t WHERE k IN (SELECT k FROM m)"),
    _one("not_in_subquery", "SELECT k FROM t WHERE k NOT IN (SELECT k FROM m)"),
    _one("exists", "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM m WHERE m.k = t.k AND m.x = 1)"),
    _one("not_exists", "SELECT k FROM t WHERE NOT EXISTS (SELECT 1 FROM m WHERE m.k = t.k)"),
    _one("scalar", "SELECT k, (SELECT max(x) FROM m) AS top FROM t"),
    _one("scalar_correlated", "SELECT k, (SELECT count(*) FROM m WHERE m.k = t.k) AS n FROM t"),
    _one("window_function", "SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x) AS n FROM m"),
    _one("window_sum", "SELECT k, x, sum(x) OVER (PARTITION BY k) AS s FROM m"),
    _one("rank", "SELECT k, a, rank() OVER (ORDER BY n) AS r FROM t"),
    _one("lag", "SELECT k, lag(a) OVER (ORDER BY k) AS before FROM t"),
    _one("qualify", "SELECT k, x FROM m QUALIFY row_number() OVER (PARTITION BY k ORDER BY x DESC) = 1"),
    _one("limit", "SELECT k, a FROM t ORDER BY k DESC LIMIT 2"),
    _one("limit_group", "SELECT k, count(*) AS n FROM m GROUP BY k ORDER BY n DESC, k LIMIT 2"),
    _one("order_by", "SELECT k, a FROM t ORDER BY a"),
    _one("rollup", "SELECT k, x, count(*) AS n FROM m GROUP BY ROLLUP (k, x)"),
    _one("grouping_sets", "SELECT k, x, count(*) AS n FROM m GROUP BY GROUPING SETS ((k), (x), ())"),
    _one("unnest", "SELECT k, unnest([1, 2]) AS u FROM m"),
    _one("lateral", "SELECT t.k, l.y FROM t, LATERAL (SELECT t.k + 1 AS y) AS l"),
    _one(
        "recursive",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT c.n, t.k FROM c, t",
    ),
    _one("pivot", "PIVOT m ON x IN (0, 1) USING count(*) AS n GROUP BY k"),
    _one("pivot_standard", "SELECT * FROM (SELECT k, x FROM m) PIVOT (count(*) FOR x IN (0, 1))"),
    _one("pivot_join", "SELECT t.a, p.* FROM t JOIN (PIVOT m ON x IN (0, 1) USING count(*) GROUP BY k) p ON p.k = t.k"),
    _one("unpivot", "UNPIVOT (SELECT k, x, k + x AS y FROM m) ON x, y INTO NAME what VALUE v"),
    _one("unpivot_standard", "SELECT k, what, v FROM (SELECT k, n, k AS o FROM t) UNPIVOT (v FOR what IN (n, o))"),
    _one("lateral_unnest", "SELECT m.k, l.u FROM m, LATERAL unnest([m.x, 7]) AS l(u)"),
    _one(
        "full_join_views",
        "SELECT k, a.n, b.o FROM (SELECT k, count(*) AS n FROM m GROUP BY k) a FULL JOIN "
        "(SELECT k, max(n) AS o FROM t GROUP BY k) b USING (k)",
    ),
    _one("not_in_nulls", "SELECT k FROM t WHERE k NOT IN (SELECT x FROM m)"),
    _one(
        "recursive_tree",
        "WITH RECURSIVE c(id, top, depth) AS (SELECT k, k, 0 FROM t WHERE n IS NULL UNION ALL "
        "SELECT t.k, c.top, depth + 1 FROM t JOIN c ON t.n = c.id WHERE depth < 4) "
        "SELECT top, count(*) AS n, max(depth) AS d FROM c GROUP BY top",
    ),
    _one("struct", "SELECT {'k': k, 'x': x} AS pair, [k, x] AS both_values FROM m"),
    Case(
        "views",
        (
            View("a", "SELECT k, x FROM m WHERE x IS NOT NULL"),
            View("b", "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k"),
            View("c", "SELECT t.a, b.n, b.s FROM t LEFT JOIN b ON t.k = b.k"),
            View("d", "SELECT a, count(*) AS n, max(s) AS s FROM c GROUP BY a"),
        ),
    ),
    Case(
        "shared_view",
        (
            View("base", "SELECT k, v, g FROM s WHERE v IS NOT NULL"),
            View("one", "SELECT g, count(*) AS n FROM base GROUP BY g"),
            View("two", "SELECT k, max(v) AS v FROM base GROUP BY k"),
            View("three", "SELECT one.n, two.v FROM one JOIN two ON one.n = two.k"),
        ),
    ),
    Case(
        "shared_join",
        (
            View("j", "SELECT m.k, m.x, t.a FROM m LEFT JOIN t ON m.k = t.k"),
            View("per_a", "SELECT a, count(*) AS n FROM j GROUP BY a"),
            View("most", "SELECT a, max(x) AS x FROM j GROUP BY a"),
            View("back", "SELECT j.x, p.n FROM j JOIN per_a AS p ON j.a = p.a"),
            View("uniques", "SELECT DISTINCT a FROM j"),
        ),
    ),
    Case(
        "diamond",
        (
            View("l", "SELECT k, count(*) AS n FROM m GROUP BY k"),
            View("r2", "SELECT k, max(x) AS x FROM m GROUP BY k"),
            View("both", "SELECT l.k, l.n, r2.x FROM l JOIN r2 ON l.k = r2.k"),
            View("left_both", "SELECT l.k, l.n, r2.x FROM l LEFT JOIN r2 ON l.k = r2.k AND r2.x = 1"),
        ),
    ),
    Case(
        "inner_names",
        (
            View("q__rows", "SELECT k FROM m"),
            View("q", "SELECT k, count(*) AS n FROM m WHERE x = 1 GROUP BY k"),
            View("z__c", "SELECT k FROM t"),
            View("z", "WITH c AS (SELECT k FROM m) SELECT k, count(*) AS n FROM c GROUP BY k"),
        ),
    ),
    Case(
        "refresh_below",
        (
            View("top", "SELECT k, x FROM m ORDER BY x, k LIMIT 3"),
            View("n", "SELECT x, count(*) AS n FROM top GROUP BY x"),
            View("j", "SELECT top.k, t.a FROM top LEFT JOIN t ON top.k = t.k"),
        ),
    ),
)

# Semantics V4: order that the query does not state is made definite, in the oracle too.
UNSTATED = tuple(
    replace(case, definite=True)
    for case in (
        _one(
            "sessions",
            "WITH marked AS (SELECT k, at, CASE WHEN at - lag(at) OVER (PARTITION BY k ORDER BY at) < "
            "INTERVAL '4 seconds' THEN 0 ELSE 1 END AS fresh FROM s), numbered AS (SELECT k, at, sum(fresh) OVER "
            "(PARTITION BY k ORDER BY at ROWS UNBOUNDED PRECEDING) AS session FROM marked) "
            "SELECT k, session, count(*) AS n, min(at) AS began, max(at) AS ended FROM numbered GROUP BY ALL",
        ),
        _one("limit_alone", "SELECT k, x FROM m LIMIT 2"),
        _one("limit_offset", "SELECT k, x FROM m ORDER BY x LIMIT 2 OFFSET 1"),
        _one("limit_ties", "SELECT n, a, k FROM t ORDER BY n DESC LIMIT 2"),
        _one("limit_in_subquery", "SELECT q.k, count(*) AS n FROM (SELECT k, x FROM m LIMIT 3) AS q GROUP BY q.k"),
        _one("list_alone", "SELECT k, list(x) AS l, string_agg(x::VARCHAR, ',') AS s FROM m GROUP BY k"),
        _one("list_partly_ordered", "SELECT n, list(k ORDER BY a) AS l FROM t GROUP BY n"),
        _one("list_of_stream", "SELECT g, array_agg(v) AS l, string_agg(g) AS s FROM s GROUP BY g"),
        _one("picking", "SELECT k, first(x) AS f, last(x) AS l, any_value(x) AS a FROM m GROUP BY k"),
        _one("mode", "SELECT k, mode(x) AS m FROM m GROUP BY k"),
        _one("arg_max_ties", "SELECT n, arg_max(k, a) AS k, min_by(a, n) AS a FROM t GROUP BY n"),
        _one("row_number_ties", "SELECT k, x, row_number() OVER (PARTITION BY k) AS n FROM m"),
        _one("lag_ties", "SELECT k, n, lag(k) OVER (ORDER BY n) AS l, first_value(a) OVER (ORDER BY n) AS f FROM t"),
        _one("top_per_group", "SELECT k, x FROM m QUALIFY row_number() OVER (PARTITION BY k ORDER BY x) = 1"),
        _one("distinct_on_ties", "SELECT DISTINCT ON (n) n, k, a FROM t"),
        _one("list_over", "SELECT k, x, list(x) OVER (PARTITION BY k) AS l FROM m"),
        _one(
            "string_agg_over",
            "SELECT n, string_agg(a, ',') OVER (PARTITION BY n ORDER BY k % 2 DESC) AS s, "
            "list(a) FILTER (WHERE k > 0) OVER (ORDER BY n) AS l FROM t",
        ),
        _one(
            "values_over_peers",
            "SELECT n, first_value(a) OVER w AS f, last_value(k) OVER w AS l, "
            "nth_value(k, 2 IGNORE NULLS) OVER w AS n2, any_value(k) OVER (PARTITION BY n) AS y FROM t "
            "WINDOW w AS (ORDER BY n DESC)",
        ),
        _one("arg_max_over", "SELECT n, arg_max(k, a) OVER (PARTITION BY n) AS m, mode(a) OVER () AS o FROM t"),
        _one(
            "list_of_rows", "SELECT k, list(k) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS l FROM t"
        ),
        _one("lead_by_range", "SELECT k, lead(k, 2, -1) OVER (ORDER BY n RANGE UNBOUNDED PRECEDING) AS l FROM t"),
        _one("ntile_ties", "SELECT k, ntile(2) OVER (PARTITION BY x ORDER BY k) AS n, x FROM m"),
        _one(
            "row_number_of_groups",
            "SELECT x, count(*) AS c, row_number() OVER (ORDER BY count(*)) AS n FROM m GROUP BY ALL",
        ),
        _one(
            "row_number_of_rollup",
            "SELECT k, x, sum(x) AS c, row_number() OVER (ORDER BY sum(x)) AS n FROM m GROUP BY ROLLUP (k, x)",
        ),
        _one(
            "row_number_over_subquery", "SELECT q.k, row_number() OVER () AS n FROM (SELECT k FROM m WHERE x = 1) AS q"
        ),
        _one(
            "row_number_correlated", "SELECT row_number() OVER () AS n, (SELECT a FROM t WHERE t.k = m.x) AS a FROM m"
        ),
        _one("limit_star", 'SELECT * FROM (PIVOT m ON x IN (0, 1) USING count(*)) AS p ORDER BY "0" LIMIT 2'),
        _one(
            "array_subquery",
            "SELECT t.k, ARRAY(SELECT m.x FROM m WHERE m.k = t.n) AS l, ARRAY(SELECT x FROM m) AS a FROM t",
        ),
        _one("asof_ties", "SELECT t.k, s.v, s.g FROM t ASOF JOIN s ON t.n = s.k AND t.k >= s.v"),
        _one("asof_left_ties", "SELECT s.v, t.n AS tn, t.a, t.k AS tk FROM s ASOF LEFT JOIN t ON s.v >= t.n"),
        _one("running_rows", "SELECT k, sum(k) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING) AS s FROM t"),
    )
)

# Window functions, the first places, LIMIT and DISTINCT ON; ties are broken by the plan.
RANKED = tuple(
    replace(case, definite=True)
    for case in (
        _one(
            "top_of_stream", "SELECT g, k, v, at FROM s QUALIFY row_number() OVER (PARTITION BY g ORDER BY at DESC) = 1"
        ),
        _one(
            "top_where",
            "SELECT q.k, q.x FROM (SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x DESC) AS rn FROM m) AS q "
            "WHERE q.rn <= 2",
        ),
        _one(
            "top_between",
            "SELECT q.k, q.x FROM (SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x) AS rn FROM m) AS q "
            "WHERE q.rn >= 2 AND q.rn < 4 AND q.k IS NOT NULL",
        ),
        _one(
            "top_cte",
            "WITH r AS (SELECT k, n, a, rank() OVER (PARTITION BY n ORDER BY a) AS place FROM t) "
            "SELECT k, a, place FROM r WHERE place <= 2 AND k > 0",
        ),
        _one(
            "top_dense",
            "SELECT k, x, dense_rank() OVER (PARTITION BY k ORDER BY x) AS d FROM m QUALIFY d BETWEEN 2 AND 2",
        ),
        _one("top_reversed", "SELECT n, k FROM t QUALIFY 3 > row_number() OVER (PARTITION BY n ORDER BY k DESC)"),
        _one(
            "top_of_join",
            "SELECT t.a, m.x, row_number() OVER (PARTITION BY t.a ORDER BY m.x) AS rn FROM t LEFT JOIN m ON t.k = m.k "
            "QUALIFY rn <= 2",
        ),
        _one(
            "top_joined",
            "SELECT r.label, q.x FROM (SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x) AS rn FROM m) AS q "
            "JOIN r ON q.k = r.k WHERE q.rn = 1 AND r.label <> 'x'",
        ),
        _one(
            "top_of_top",
            "SELECT k, x FROM m QUALIFY row_number() OVER (PARTITION BY k ORDER BY x) <= 2 ORDER BY x LIMIT 2",
        ),
        _one(
            "top_of_groups",
            "SELECT k, x, count(*) AS n FROM m GROUP BY k, x "
            "QUALIFY row_number() OVER (PARTITION BY k ORDER BY n DESC) = 1",
        ),
        _one(
            "top_and_more", "SELECT k, x FROM m QUALIFY rank() OVER (PARTITION BY k ORDER BY x) <= 2 AND x IS NOT NULL"
        ),
        _one("top_or", "SELECT k, x FROM m QUALIFY row_number() OVER (PARTITION BY k ORDER BY x) <= 1 OR x = 1"),
        _one(
            "functions",
            "SELECT k, n, a, lag(k) OVER w AS l, lead(k, 2) OVER w AS d, ntile(2) OVER w AS t, "
            "percent_rank() OVER w AS p, cume_dist() OVER w AS c, first_value(a) OVER w AS f, "
            "last_value(a) OVER w AS z, nth_value(k, 2) OVER w AS s "
            "FROM t WINDOW w AS (PARTITION BY n ORDER BY a)",
        ),
        _one("frame_rows", "SELECT k, x, sum(x) OVER (PARTITION BY k ORDER BY x ROWS 1 PRECEDING) AS s FROM m"),
        _one(
            "frame_range",
            "SELECT g, at, v, count(*) OVER (PARTITION BY g ORDER BY at RANGE BETWEEN INTERVAL 5 SECONDS PRECEDING AND "
            "CURRENT ROW) AS n FROM s",
        ),
        _one("over_filter", "SELECT g, v, count(*) FILTER (WHERE b) OVER (PARTITION BY g) AS n FROM s"),
        _one(
            "over_floats",
            "SELECT g, f, f - avg(f) OVER (PARTITION BY g) AS off, sum(f) OVER (PARTITION BY g) AS s FROM s",
        ),
        _one(
            "common_partition",
            "SELECT k, x, sum(x) OVER (PARTITION BY k) AS s, row_number() OVER (PARTITION BY x, k ORDER BY x) AS n "
            "FROM m",
        ),
        _one(
            "nothing_common",
            "SELECT k, x, count(*) OVER (PARTITION BY k) AS a, count(*) OVER (PARTITION BY x) AS b FROM m",
        ),
        _one("partition_by_expression", "SELECT k, x, max(x) OVER (PARTITION BY coalesce(k, -1) % 2) AS m FROM m"),
        _one(
            "over_groups",
            "SELECT k, x, sum(x) AS s, rank() OVER (PARTITION BY k ORDER BY sum(x) DESC) AS r, "
            "sum(count(*)) OVER (PARTITION BY k) AS all_rows FROM m GROUP BY k, x HAVING count(*) < 3",
        ),
        _one("over_no_groups", "SELECT count(*) AS n, row_number() OVER () AS r FROM m"),
        _one(
            "after_descending",
            "SELECT k, x, row_number() OVER (ORDER BY x DESC NULLS FIRST) AS r, "
            "lag(k, 2) OVER (ORDER BY x DESC NULLS FIRST, k) AS l FROM m",
        ),
        _one("after_nulls_first", "SELECT k, n, dense_rank() OVER (ORDER BY n NULLS FIRST) AS r FROM t"),
        _one("after_nulls_last", "SELECT k, x, sum(x) OVER (ORDER BY k) AS s, count(*) OVER (ORDER BY k) AS n FROM m"),
        _one(
            "after_partly",
            "SELECT g, v, sum(v) OVER (PARTITION BY g ORDER BY at) AS s, row_number() OVER (ORDER BY at, v) AS r "
            "FROM s",
        ),
        _one("after_qualify", "SELECT k, x FROM m QUALIFY x IS DISTINCT FROM lag(x) OVER (ORDER BY k)"),
        _one(
            "after_range",
            "SELECT at, v, count(*) OVER (ORDER BY at RANGE BETWEEN INTERVAL 5 SECONDS PRECEDING AND CURRENT ROW) "
            "AS n, "
            "max(v) OVER (ORDER BY at ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS h FROM s",
        ),
        _one("after_floats", "SELECT v, f, sum(f) OVER (ORDER BY v DESC) AS s FROM s"),
        _one(
            "after_groups",
            "SELECT x, count(*) AS c, sum(count(*)) OVER (ORDER BY count(*) DESC) AS s FROM m GROUP BY x",
        ),
        _one("ahead_lead", "SELECT k, lead(a) OVER (ORDER BY k) AS a FROM t"),
        _one("ahead_share", "SELECT k, percent_rank() OVER (ORDER BY n) AS p FROM t"),
        _one("ahead_frame", "SELECT k, sum(k) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s FROM t"),
        _one("ahead_alone", "SELECT k, x, sum(x) OVER (ORDER BY k) AS s, count(*) OVER () AS n FROM m"),
        _one("qualify_alone", "SELECT k, x FROM m QUALIFY x IS DISTINCT FROM lag(x) OVER (PARTITION BY k ORDER BY x)"),
        _one("qualify_unselected", "SELECT x FROM m QUALIFY count(*) OVER (PARTITION BY k) > 1"),
        _one("distinct_over_window", "SELECT DISTINCT k, count(*) OVER (PARTITION BY k) AS n FROM m"),
        _one(
            "subquery_in_window", "SELECT k, x, x IN (SELECT k FROM t) AS i, max(x) OVER (PARTITION BY k) AS m FROM m"
        ),
        _one("distinct_on_hidden", "SELECT DISTINCT ON (n % 2) a FROM t ORDER BY n % 2, k * -1"),
        _one("distinct_on_stream", "SELECT DISTINCT ON (k, g) k, g, v, at FROM s ORDER BY k, g, at DESC"),
        _one("distinct_on_limit", "SELECT DISTINCT ON (k) k, x FROM m ORDER BY k, x LIMIT 2"),
        _one("limit_hidden", "SELECT a FROM t ORDER BY n DESC NULLS FIRST, k LIMIT 2"),
        _one("limit_alias", "SELECT k AS n, n AS k FROM t ORDER BY n + 1 DESC, t.n LIMIT 2"),
        _one("limit_none", "SELECT k FROM t LIMIT 0"),
        _one("offset_alone", "SELECT k, x FROM m ORDER BY x OFFSET 2"),
        _one("limit_stream", "SELECT v, at FROM s ORDER BY at DESC, v LIMIT 3"),
        _one("limit_union", "SELECT k FROM t UNION ALL SELECT x FROM m ORDER BY k LIMIT 3"),
        _one("limit_distinct", "SELECT DISTINCT x FROM m ORDER BY x DESC LIMIT 2"),
        _one("limit_join", "SELECT t.a, m.x FROM t JOIN m ON t.k = m.k ORDER BY ALL LIMIT 3"),
        _one(
            "limit_having", "SELECT k, sum(x) AS s FROM m GROUP BY k HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT 1"
        ),
        _one(
            "session_of_stream",
            "SELECT k, window_start, window_end, count(*) AS n, max(g) AS g FROM s "
            "GROUP BY session(at, INTERVAL 4 SECONDS), k",
            "behind",
        ),
        _one(
            "session_of_rows",
            "SELECT window_end, count(*) AS n FROM t WHERE a IS NOT NULL "
            "GROUP BY session(make_timestamp(k::BIGINT * 1000000), INTERVAL 2 SECONDS)",
        ),
        _one(
            "session_of_join",
            "SELECT r.label, window_start, sum(m.x) AS x FROM m JOIN r ON m.k = r.k "
            "GROUP BY session(make_timestamp(m.x::BIGINT * 1000000), INTERVAL 1 SECOND), r.label",
        ),
        _one(
            "hop_of_rows",
            "SELECT window_start, window_end, t.a, count(*) AS n, sum(m.x) AS x FROM t JOIN m ON t.k = m.k "
            "GROUP BY hop(make_timestamp(t.k::BIGINT * 1000000), INTERVAL 3 SECONDS, INTERVAL 1 SECOND), t.a",
        ),
        Case(
            "ranks_over_views",
            (
                View("top", "SELECT k, x, row_number() OVER (PARTITION BY k ORDER BY x) AS rn FROM m QUALIFY rn <= 2"),
                View("per_place", "SELECT rn, count(*) AS n, sum(x) AS s FROM top GROUP BY rn"),
                View("named", "SELECT top.k, top.rn, t.a FROM top LEFT JOIN t ON top.k = t.k"),
                View("best", "SELECT a, rn FROM named ORDER BY a, rn LIMIT 2"),
            ),
        ),
    )
)

# unnest, LATERAL and ASOF joins.
EXPANDED = tuple(
    replace(case, definite=True)
    for case in (
        _one("unnest_lists", "SELECT k, unnest([x, NULL, k]) AS u, unnest(['a', 'b']) AS w FROM m WHERE x IS NOT NULL"),
        _one("unnest_join", "SELECT t.a, unnest(range(m.x)) AS u FROM t LEFT JOIN m ON t.k = m.k"),
        _one("unnest_distinct", "SELECT DISTINCT unnest([g, 'z']) AS g FROM s"),
        _one("unnest_below", "SELECT q.u, count(*) AS n FROM (SELECT unnest([k, x]) AS u FROM m) AS q GROUP BY q.u"),
        _one(
            "unnest_from",
            "SELECT m.k, u.v + 1 AS v FROM m, unnest([m.x, 7, NULL]) AS u(v) WHERE u.v IS NOT NULL OR m.k = 1",
        ),
        _one(
            "unnest_from_join",
            "SELECT t.a, u.v, count(*) AS n FROM t JOIN m ON t.k = m.k CROSS JOIN unnest(range(m.x + t.k)) AS u(v) "
            "LEFT JOIN r ON r.k = u.v GROUP BY t.a, u.v",
        ),
        _one("unnest_left", "SELECT t.k, u.v FROM t LEFT JOIN unnest(range(t.n)) AS u(v) ON TRUE"),
        _one(
            "unnest_twice",
            "SELECT m.k, a.v AS v1, b.v AS v2 FROM m, unnest([m.x, 1]) AS a(v), unnest([a.v, 2]) AS b(v)",
        ),
        _one(
            "lateral_where",
            "SELECT t.k, l.y + 1 AS y FROM t, LATERAL (SELECT t.n * 2 AS y WHERE t.n > 0) AS l WHERE l.y < 9",
        ),
        _one(
            "lateral_top",
            "SELECT t.k, l.x FROM t, "
            "LATERAL (SELECT m.x FROM m WHERE m.k = t.n AND m.x >= 0 ORDER BY m.x DESC LIMIT 2) AS l",
        ),
        _one(
            "lateral_top_left",
            "SELECT t.k, l.x FROM t "
            "LEFT JOIN LATERAL (SELECT x FROM m WHERE t.n = m.k ORDER BY x LIMIT 1) AS l ON TRUE",
        ),
        _one(
            "lateral_rows",
            "SELECT t.a, l.y FROM t CROSS JOIN LATERAL (SELECT m.x + 1 AS y FROM m WHERE m.k = t.k) AS l",
        ),
        _one("asof_after", "SELECT t.k, m.x FROM t ASOF JOIN m ON t.k > m.x"),
        _one("asof_before", "SELECT m.k, m.x, t.k AS tk, t.a FROM m ASOF LEFT JOIN t ON m.k = t.n AND m.x <= t.k"),
        _one("asof_turned", "SELECT m.x, t.a FROM m ASOF JOIN t ON t.n = m.k AND t.k > m.x"),
        _one("asof_stream", "SELECT s.at, s.k, s2.w FROM s ASOF LEFT JOIN s2 ON s.k = s2.k AND s.at >= s2.at"),
        _one(
            "asof_then", "SELECT s.v, t.a, r.label FROM s ASOF JOIN t ON s.v >= t.n JOIN r ON r.k = t.k WHERE s.v < 3"
        ),
        _one(
            "asof_other_type",
            "SELECT t.k, q.y, q.x FROM t ASOF JOIN "
            "(SELECT CASE WHEN x = 1 THEN '0' ELSE '' END || k AS y, x FROM m) AS q ON t.k = q.y AND t.n >= q.x",
        ),
        _one(
            "lateral_other_type",
            "SELECT t.k, l.x FROM t, LATERAL (SELECT m.x FROM m "
            "WHERE CASE WHEN m.x = 1 THEN '0' ELSE '' END || m.k = t.k ORDER BY m.x LIMIT 1) AS l",
        ),
        _one("asof_group", "SELECT t.a, count(*) AS n FROM m ASOF LEFT JOIN t ON m.x >= t.k GROUP BY t.a"),
        _one(
            "asof_of_query",
            "WITH q AS (SELECT k, max(x) AS x FROM m GROUP BY k) SELECT t.a, q.x FROM t ASOF LEFT JOIN q ON t.k >= q.k",
        ),
        _one(
            "asof_twice",
            "SELECT m.x, a.a AS a1, b.a AS a2 FROM m ASOF LEFT JOIN t AS a ON m.x >= a.k "
            "ASOF LEFT JOIN t AS b ON m.k < b.k",
        ),
        _one("unnest_groups", "SELECT k, unnest(list(x)) AS x FROM m GROUP BY k"),
    )
)

_BUCKET = "time_bucket(INTERVAL '10 seconds', at)"
WINDOWS = (
    _one("window", f"SELECT {_BUCKET} AS w, g, count(*) AS n, sum(v) AS s FROM s GROUP BY ALL", "10s"),
    _one("window_trunc", "SELECT date_trunc('minute', at) AS w, count(*) AS n FROM s GROUP BY 1", "1m"),
    _one("window_affected", f"SELECT {_BUCKET} AS w, count(DISTINCT k) AS u, median(v) AS m FROM s GROUP BY 1", "10s"),
    _one("window_sum_double", f"SELECT {_BUCKET} AS w, sum(f) AS f FROM s GROUP BY w", "10s"),
    _one("window_min", f"SELECT {_BUCKET} AS w, k, min(v) AS low, max(v) AS high FROM s GROUP BY w, k", "10s"),
    _one("window_filtered", f"SELECT {_BUCKET} AS w, count(*) AS n FROM s WHERE v > 0 GROUP BY 1", "10s"),
    _one("window_having", f"SELECT {_BUCKET} AS w, count(*) AS n FROM s GROUP BY 1 HAVING count(*) > 1", "10s"),
    _one(
        "window_refresh",
        f"SELECT {_BUCKET} AS w, k, count(*) AS n FROM s GROUP BY 1, 2 ORDER BY n DESC, w, k LIMIT 3",
        "10s",
    ),
    _one("window_join", f"SELECT {_BUCKET} AS w, t.a, count(*) AS n FROM s JOIN t ON s.k = t.k GROUP BY 1, 2", "10s"),
    _one(
        "window_left_join",
        f"SELECT {_BUCKET} AS w, t.a, count(*) AS n FROM s LEFT JOIN t ON s.k = t.k GROUP BY 1, 2",
        "10s",
    ),
    _one(
        "window_reference",
        f"SELECT {_BUCKET} AS w, r.label, sum(s.v) AS v FROM s JOIN r ON s.k = r.k GROUP BY 1, 2",
        "10s",
    ),
    _one(
        "window_cte",
        f"WITH c AS (SELECT at, k FROM s WHERE v IS NOT NULL) SELECT {_BUCKET} AS w, count(*) AS n FROM c GROUP BY 1",
        "10s",
    ),
    _one(
        "window_as_expression",
        f"SELECT {_BUCKET} + INTERVAL '10 seconds' AS w_end, count(*) AS n FROM s GROUP BY {_BUCKET}",
        "10s",
    ),
    _one(
        "window_top",
        f"SELECT {_BUCKET} AS w, g, count(*) AS n FROM s GROUP BY 1, 2 "
        "QUALIFY row_number() OVER (PARTITION BY w ORDER BY n DESC, g) <= 2",
        "10s",
    ),
    Case(
        "window_share",
        (
            View("per_g", f"SELECT {_BUCKET} AS w, g, count(*) AS n FROM s GROUP BY ALL", "10s"),
            View("share", "SELECT w, g, n, sum(n) OVER (PARTITION BY w) AS all_n FROM per_g"),
        ),
    ),
    Case(
        "window_over_join_view",
        (
            View("j", "SELECT s.at, s.v, t.a FROM s LEFT JOIN t ON s.k = t.k"),
            View("w", f"SELECT {_BUCKET} AS w, a, count(*) AS n, sum(v) AS v FROM j GROUP BY 1, 2", "10s"),
            View("u", f"SELECT {_BUCKET} AS w, count(DISTINCT a) AS n FROM j GROUP BY 1", "10s"),
        ),
    ),
    Case(
        "two_windows",
        (
            View("short", "SELECT time_bucket(INTERVAL '4 seconds', at) AS w, count(*) AS n FROM s GROUP BY 1", "4s"),
            View("long", "SELECT time_bucket(INTERVAL '1 minute', at) AS w, count(*) AS n FROM s GROUP BY 1", "1m"),
            View("everything", "SELECT count(*) AS n FROM s"),
            View("over", "SELECT w, n FROM short WHERE n > 1"),
            View("joined", "SELECT short.w, s.v FROM short JOIN s ON short.w = s.at"),
        ),
    ),
    _one(
        "window_of_other_column",
        "SELECT time_bucket(INTERVAL '10 seconds', at + INTERVAL '1 second') AS w, count(*) AS n FROM s GROUP BY 1",
    ),
)

CATALOGUE: tuple[Case, ...] = (
    *FLAT,
    *JOINS,
    *GROUPS,
    *SETS,
    *NESTED,
    *UNSTATED,
    *RANKED,
    *WINDOWS,
    *REWRITTEN,
    *PIVOTS,
)
