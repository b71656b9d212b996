"""What `explain` says of a plan, beside the golden page of strategies."""

from __future__ import annotations

from datetime import datetime

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.plan.explain import explain


class S(ps.Contract):
    k: int
    at: datetime


class T(ps.Contract):
    k: int
    name: str


def notes(sql: str, *, emit: str = "changes") -> str:
    pipeline = ps.Pipeline("p")
    pipeline.stream("s", S, event_time="at", watermark="1 second")
    pipeline.table("t", T, key="k")
    pipeline.view("v", sql, emit=emit)  # type: ignore[arg-type]
    (report,) = explain(compile_for_duckdb(pipeline.graph(), in_memory=True), "v")
    return "; ".join(note for block in report.blocks for note in block.notes)


BUCKET = "time_bucket(INTERVAL '1 minute', at)"


def test_t3_a_final_view_says_what_is_frozen_at_close() -> None:
    joined = f"SELECT {BUCKET} AS w, name, count(*) AS n FROM s JOIN t ON s.k = t.k GROUP BY ALL"
    assert "frozen at close: what t does later does not change it" in notes(joined, emit="final")
    assert "frozen" not in notes(joined)
    assert "frozen" not in notes(f"SELECT {BUCKET} AS w, count(*) AS n FROM s GROUP BY ALL", emit="final")
