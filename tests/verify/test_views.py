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
    ("sql", "reason"),
    [
        (WINDOW.format("s").replace("count(*)", "max((SELECT count(*) FROM s AS x))"), "in several ways"),
        ("SELECT w.m, x.k FROM (" + WINDOW.format("s") + ") AS w CROSS JOIN s AS x", "in several ways"),
    ],
)
def test_a_stream_read_with_and_without_a_window(sql: str, reason: str) -> None:
    assert reason in specs(lambda p: p.view("v", sql, state="unbounded"))["v"].skipped


@pytest.mark.parametrize(("other", "skipped"), [("t", True), ("r", False)])
def test_final_rows_are_frozen_while_tables_change(other: str, skipped: bool) -> None:
    bucket = "time_bucket(INTERVAL '1 minute', s.at)"
    sql = f"SELECT {bucket} AS m, count(*) AS n FROM s JOIN {other} AS o USING (k) GROUP BY 1"

    def declare(p: ps.Pipeline) -> None:
        p.view("v", sql, emit="final")
        p.view("w", "SELECT count(*) AS n FROM v")

    found = specs(declare)
    assert ("frozen" in found["v"].skipped) is skipped
    assert (found["w"].skipped == "it reads v, which is not compared") is skipped


def test_steps_and_what_reads_them_are_not_compared() -> None:
    def declare(p: ps.Pipeline) -> None:
        p.step("last", input="s", key="k", state=int, output=Total, function=lambda state, changes, timers: None)
        p.view("v", "SELECT k, sum(n) AS n FROM last GROUP BY k", state="unbounded")

    found = specs(declare)
    assert "a step" in found["last"].skipped
    assert "last" in found["v"].skipped


def test_transient_rows_are_not_compared() -> None:
    found = specs(lambda p: p.view("v", "SELECT k FROM s"), transient=True, watermark=None, event_time=None)
    assert "transient" in found["v"].skipped
