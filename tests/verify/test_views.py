"""What is not compared is said, with the reason."""

from __future__ import annotations

from datetime import datetime

import pytest

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.verify.spec import ViewSpec
from penstock.verify.views import view_specs


class Row(ps.Contract):
    k: int
    at: datetime


class Total(ps.Contract):
    k: int
    n: int


WINDOW = "SELECT time_bucket(INTERVAL '1 minute', s.at) AS m, count(*) AS n FROM {} AS s GROUP BY ALL"


def specs(declare: object, **stream: object) -> dict[str, ViewSpec]:
    pipeline = ps.Pipeline("p")
    options: dict[str, object] = {"event_time": "at", "watermark": "5 seconds", "state": "unbounded"}
    pipeline.stream("s", Row, **(options | stream))  # type: ignore[arg-type]
    pipeline.table("t", Row, key="k")
    pipeline.reference("r", Row, key="k")
    declare(pipeline)  # type: ignore[operator]
    return {v.name: v for v in view_specs(compile_for_duckdb(pipeline.graph(), in_memory=True))}


def test_plain_views_are_compared() -> None:
    found = specs(lambda p: p.view("v", "SELECT k, count(*) AS n FROM s GROUP BY k"))
    assert found["v"].skipped == ""
    assert found["v"].key == ("k",)
    assert found["v"].late == ()


def test_a_window_leaves_out_late_rows() -> None:
    found = specs(lambda p: p.view("v", WINDOW.format("s"), emit="final"))
    assert found["v"].skipped == ""
    assert [(rule.stream, rule.counted) for rule in found["v"].late] == [("s", True)]


def test_a_window_over_a_filter_reads_the_filter_without_late_rows() -> None:
    def declare(p: ps.Pipeline) -> None:
        p.view("few", "SELECT * FROM s WHERE k > 1")
        p.view("v", WINDOW.format("few"))

    found = specs(declare)
    assert found["v"].skipped == ""
    assert found["v"].scoped == ("few",)
    assert [(rule.stream, rule.counted) for rule in found["v"].late] == [("s", False)]
    assert found["few"].late == ()


@pytest.mark.parametrize(
    "sql",
    [
        WINDOW.format("s").replace("count(*)", "max((SELECT count(*) FROM s AS x))"),
        "SELECT w.m, x.k FROM (" + WINDOW.format("s") + ") AS w CROSS JOIN s AS x",
    ],
)
def test_a_stream_read_with_and_without_a_window(sql: str) -> None:
    found = specs(lambda p: p.view("v", sql, state="unbounded"))["v"]
    assert (found.skipped, found.marked) == ("", ("s",))
    assert 'FROM _ps."h_s"' in found.sql
    assert '"s" AS "x"' in found.sql
    assert [(rule.stream, rule.counted) for rule in found.late] == [("s", True)]


HOP = "SELECT window_start, count(*) AS n FROM {} GROUP BY hop(at, INTERVAL 1 MINUTE, INTERVAL 20 SECONDS)"


@pytest.mark.parametrize(
    "sql",
    [
        HOP.format("s"),
        HOP.format("s AS x"),
        HOP.format("s WHERE k > 1"),
        HOP.format("s JOIN t USING (k)").replace("hop(at", "hop(s.at"),
        f"SELECT a.n FROM ({HOP.format('s')}) AS a",
    ],
)
def test_hopping_windows_leave_out_the_rows_that_are_late_for_them(sql: str) -> None:
    found = specs(lambda p: p.view("v", sql, state="unbounded"))["v"]
    assert (found.skipped, found.marked) == ("", ("s",))
    assert 'FROM _ps."h_s"' in found.sql
    assert found.sql.count("_ps_wm") == 2
    assert [(rule.stream, rule.counted) for rule in found.late] == [("s", True)]


def test_hopping_windows_over_a_view_are_not_compared() -> None:
    def declare(p: ps.Pipeline) -> None:
        p.view("few", "SELECT * FROM s WHERE k > 1")
        p.view("v", HOP.format("few"), state="unbounded")

    assert "not over a stream itself" in specs(declare)["v"].skipped


def test_a_filter_read_with_and_without_a_window_is_not_compared() -> None:
    def declare(p: ps.Pipeline) -> None:
        p.view("few", "SELECT * FROM s WHERE k > 1")
        p.view("v", "SELECT w.m, x.k FROM (" + WINDOW.format("few") + ") AS w CROSS JOIN s AS x", state="unbounded")

    assert "in several ways" in specs(declare)["v"].skipped


@pytest.mark.parametrize(("other", "kind"), [("t", "frozen"), ("r", "batch")])
def test_final_rows_are_frozen_while_tables_change(other: str, kind: str) -> None:
    bucket = "time_bucket(INTERVAL '1 minute', s.at)"
    sql = f"SELECT {bucket} AS m, count(*) AS n FROM s JOIN {other} AS o USING (k) GROUP BY 1"

    def declare(p: ps.Pipeline) -> None:
        p.view("v", sql, emit="final")
        p.view("w", "SELECT count(*) AS n FROM v")

    found = specs(declare)
    assert (found["v"].kind, found["v"].skipped) == (kind, "")
    assert found["v"].end == ("\"m\"::TIMESTAMP + INTERVAL '1' MINUTE" if kind == "frozen" else "")
    assert (found["w"].kind, found["w"].skipped) == ("batch", "")


def test_frozen_rows_that_do_not_tell_their_window_are_not_compared() -> None:
    sql = "SELECT count(*) AS n, k FROM s JOIN t USING (k) GROUP BY time_bucket(INTERVAL '1 minute', s.at), k"
    assert "do not tell the window" in specs(lambda p: p.view("v", sql, emit="final"))["v"].skipped


def test_steps_are_folds_and_what_reads_them_is_a_batch() -> None:
    def declare(p: ps.Pipeline) -> None:
        step = {"key": "k", "state": int, "output": Total, "function": lambda state, changes, timers: None}
        p.view("few", "SELECT * FROM s WHERE k > 1")
        p.view("joined", "SELECT s.k, s.at FROM s JOIN t USING (k)")
        p.step("last", input="s", **step)
        p.step("of_few", input="few", **step)
        p.step("of_joined", input="joined", time="at", **step)
        p.view("v", "SELECT k, sum(n) AS n FROM last GROUP BY k", state="unbounded")
        p.view("w", "SELECT k FROM of_joined")

    found = specs(declare)
    assert (found["last"].kind, found["last"].time, found["last"].streams) == ("step", '"at"', ("s",))
    assert found["of_few"].scoped == ("few",)
    assert (found["v"].kind, found["v"].skipped) == ("batch", "")
    assert "joins it" in found["of_joined"].skipped
    assert found["w"].skipped == "it reads of_joined, which is not compared"


def test_rows_that_pass_are_answered_and_sums_of_them_are_a_batch() -> None:
    def declare(p: ps.Pipeline) -> None:
        p.view("v", "SELECT k FROM s")
        p.view("joined", "SELECT s.k, t.at FROM s JOIN t USING (k)")
        p.view("n", "SELECT count(*) AS n FROM joined")
        p.view("at_once", "SELECT count(*) AS n FROM s JOIN t USING (k)")

    found = specs(declare, transient=True, watermark=None, event_time=None)
    assert [found[name].kind for name in ("v", "joined", "n")] == ["answered", "answered", "batch"]
    assert not any(found[name].skipped for name in ("v", "joined", "n"))
    assert "give the join a view of its own" in found["at_once"].skipped
