"""Every kind of block over a stream, for a simulated week: bounded, its state stays flat; unbounded, it is refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationErrors
from penstock.plan.explain import explain
from tests.law.world import START


class E(ps.Contract):
    k: int
    v: int | None
    at: datetime


class T(ps.Contract):
    k: int
    label: str | None
    since: datetime


W = "time_bucket(INTERVAL 1 HOUR, at)"
# Bounded by the watermark or by keys, whatever becomes of the stream's rows: the query, and what explain says.
BY_ITSELF = {
    "window": (f"SELECT {W} AS w, k, count(*) AS n FROM e GROUP BY 1, 2", "watermark"),
    "distinct": ("SELECT DISTINCT k, v FROM e", "key cardinality"),
    "union": ("SELECT k FROM e UNION SELECT k FROM o", "key cardinality"),
    "except": ("SELECT k FROM e EXCEPT SELECT k FROM t", "key cardinality"),
    "rollup_of_keys": ("SELECT k, v, count(*) AS n FROM e GROUP BY ROLLUP (k, v)", "key cardinality"),
    "keys": ("SELECT k, sum(v) AS s, max(at) AS last FROM e GROUP BY k", "key cardinality"),
    "one_row": ("SELECT count(*) AS n, max(at) AS last FROM e", "one row"),
    "top_rows": (
        "SELECT k, v, at FROM e QUALIFY row_number() OVER (PARTITION BY k ORDER BY at DESC) <= 2",
        "2 rows for each partition",
    ),
    "pivot": ("PIVOT e ON v IN (1, 2) USING count(*) GROUP BY k", "key cardinality"),
    "ranked_windows": (
        f"SELECT w, k, rank() OVER (PARTITION BY w ORDER BY n DESC) AS r "
        f"FROM (SELECT {W} AS w, k, count(*) AS n FROM e GROUP BY 1, 2) AS c",
        "watermark",
    ),
    "hop": (
        "SELECT window_start, k, count(*) AS n FROM e GROUP BY hop(at, INTERVAL 2 HOURS, INTERVAL 1 HOUR), k",
        "watermark",
    ),
    "session": (
        "SELECT window_start, k, count(*) AS n FROM e GROUP BY session(at, INTERVAL 20 MINUTES), k",
        "watermark",
    ),
    "interval_join": (
        "SELECT e.k, o.v FROM e JOIN o ON o.k = e.k AND o.at BETWEEN e.at AND e.at + INTERVAL 1 HOUR",
        "watermark",
    ),
    "interval_exists": (
        "SELECT e.k, e.v FROM e SEMI JOIN o ON o.k = e.k AND o.at BETWEEN e.at AND e.at + INTERVAL 1 HOUR",
        "watermark",
    ),
}
# Rows of the stream are read again: bounded by its retention alone.
BY_RETENTION = {
    "affected_groups": "SELECT k, median(v) AS m FROM e GROUP BY k",
    "median_of_windows": f"SELECT {W} AS w, median(v) AS m FROM e GROUP BY 1",
    "inner_join": "SELECT e.v, t.label FROM e JOIN t ON t.k = e.k",
    "left_join": "SELECT e.v, t.label FROM e LEFT JOIN t ON t.k = e.k",
    "full_join": "SELECT e.v, t.label FROM e FULL JOIN t ON t.k = e.k",
    "stream_join": "SELECT e.v, o.v AS w FROM e JOIN o ON o.k = e.k AND o.v = e.v",
    "asof": "SELECT e.v, t.label FROM e ASOF JOIN t ON t.k = e.k AND t.since <= e.at",
    "windows": "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY at) AS s FROM e",
    "scalar": "SELECT k, v FROM e WHERE v > (SELECT avg(v) FROM e)",
    "not_in": "SELECT v FROM e WHERE k NOT IN (SELECT k FROM t)",
    "correlated": "SELECT k, v, (SELECT max(label) FROM t WHERE t.k = e.k) AS label FROM e",
    "exists": "SELECT e.v FROM e WHERE EXISTS (SELECT 1 FROM t WHERE t.k = e.k)",
    "list": "SELECT k, list(v ORDER BY at) AS l FROM e GROUP BY k",
    "refresh": "SELECT v, lead(v) OVER (ORDER BY at, k, v) AS n FROM e",
}


def _pipeline(sql: str, *, retention: str | None = None, acknowledged: bool = False) -> ps.Pipeline:
    pipeline = ps.Pipeline("bounds")
    for name in ("e", "o"):
        pipeline.stream(
            name, E, event_time="at", watermark="5 minutes", correction_horizon="12 hours", retention=retention
        )
    pipeline.table("t", T, key="k")
    if acknowledged:
        pipeline.view("q", sql, state="unbounded")
    else:
        pipeline.view("q", sql)
    return pipeline


def _sizes(pipeline: ps.Pipeline, folder: Path) -> list[int]:
    """Rows in the state's tables after each of eight days."""
    found: list[int] = []
    with pipeline.open(state=folder) as session:
        tables = [t.name for node in session._state.plan.nodes for t in node.state]
        session.insert("t", [{"k": k, "label": str(k), "since": START} for k in (1, 2)])
        for day in range(8):
            times = [START + timedelta(days=day, hours=h, minutes=10 * h % 60) for h in range(0, 24, 2)]
            rows = [{"k": k, "v": k + 1, "at": at} for at in times for k in (1, 2)]
            session.insert("e", rows)
            session.insert("o", rows[:-2])
            session.commit()
            session._state.maintain()
            count = " + ".join(f'(SELECT count(*) FROM _ps."{name}")' for name in tables)
            found.append(int(session.query(f"SELECT {count} AS n").to_pylist()[0]["n"]))
    return found


def _is_flat(sizes: list[int]) -> bool:
    return sizes[0] > 0 and max(sizes[3:]) == min(sizes[3:]) <= 3 * sizes[0]


@pytest.mark.parametrize("name", BY_ITSELF)
def test_what_windows_and_keys_bound_stays_flat_for_a_week(name: str, tmp_path: Path) -> None:
    sql, bound = BY_ITSELF[name]
    pipeline = _pipeline(sql)
    assert bound in str(explain(compile_for_duckdb(pipeline.graph(), in_memory=False)))
    assert _is_flat(sizes := _sizes(pipeline, tmp_path)), sizes


@pytest.mark.parametrize("name", BY_RETENTION)
def test_what_retention_bounds_stays_flat_for_a_week(name: str, tmp_path: Path) -> None:
    pipeline = _pipeline(BY_RETENTION[name], retention="1 day")
    assert "retention" in str(explain(compile_for_duckdb(pipeline.graph(), in_memory=False)))
    assert _is_flat(sizes := _sizes(pipeline, tmp_path)), sizes


@pytest.mark.parametrize("name", BY_RETENTION)
def test_what_nothing_bounds_is_refused_and_named(name: str) -> None:
    with pytest.raises(DeclarationErrors) as wrong:
        compile_for_duckdb(_pipeline(BY_RETENTION[name]).graph(), in_memory=False)
    assert {e.code for e in wrong.value.errors} == {"PS-DECL-010"}
    assert all("retention" in e.hint and e.where is not None for e in wrong.value.errors)
    compile_for_duckdb(_pipeline(BY_RETENTION[name], acknowledged=True).graph(), in_memory=False)
