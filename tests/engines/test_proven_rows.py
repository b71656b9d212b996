"""Small epochs whose records the kernel has proven run no statement to judge them, and have the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import penstock as ps
from penstock.connectors.base import RawBatch
from penstock.engines.base import EpochInput, SourceInput
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.formats import decode
from penstock.formats.compiled import SWITCH, Loader
from penstock.formats.proven_rows import ProvenRows
from penstock.formats.rows import rows_to_batch

pytest.importorskip("numba")

CONTRACT = """
CREATE STREAM clicks (
    page VARCHAR NOT NULL REFERENCES pages (page), kind VARCHAR NOT NULL,
    n INTEGER NOT NULL CHECK (n >= 0), CHECK (big <> 7), CHECK (small < 51),
    small TINYINT, flag BOOLEAN, note VARCHAR, big BIGINT, at BIGINT NOT NULL,
    WATERMARK FOR (EVENT) AS (EVENT) - INTERVAL '5 seconds'
);
CREATE REFERENCE pages (page VARCHAR PRIMARY KEY, title VARCHAR);
CREATE VIEW v AS SELECT page, kind, count(*) AS n, sum(n) AS total, max(small) AS small, count(*) FILTER (WHERE flag)
    AS flags, max(note) AS note, sum(big) AS big, max(at) AS at FROM clicks GROUP BY page, kind;
CREATE SINK v_out FROM v;
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


EVENTS = {"make_timestamp_ns(at)": 1, "make_timestamp(at // 1000)": 1, "make_timestamp(at)": 1_000}


def record(n: int, other: Mapping[str, object] | None = None, units: int = 1) -> bytes:
    at = (int((START + timedelta(seconds=n)).timestamp()) * 10**9 + n * 137) // units
    made: dict[str, object] = {"page": f"/{n % 3}", "kind": ("view", "click")[n % 2], "n": n, "at": at}
    if n % 2:
        made |= {"small": n % 100 - 50, "flag": n % 4 == 1, "note": f"é{n}", "big": n - 2**60}
    made |= other or {}
    if other and "at" in other:
        made["at"] = int(str(other["at"])) // units
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode()


def batch(records: list[bytes], partition: int, first: int, appended: list[datetime | None]) -> RawBatch:
    values = pa.chunked_array([pa.array(records, pa.binary())])
    times = pa.chunked_array([pa.array([t and t.replace(tzinfo=None) for t in appended], pa.timestamp("us"))])
    offsets = pa.chunked_array([pa.array(np.arange(first, first + len(records)))])
    return RawBatch(partition, values, offsets, first + len(records), None, times)


ODD: list[dict[str, object]] = [
    {"at": -1},
    {"at": 0},
    {"at": 999},
    {"at": 2**63 - 1},
    {"at": 2**62 + 1},
    {"page": "/none"},
    {"n": -1},
    {"small": 1000},
    {"other": 1},
    {"kind": None},
    {"big": 7},
    {"at": int((START + timedelta(hours=2)).timestamp()) * 10**9},
]


@pytest.fixture(params=EVENTS)
def event(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch, event: str) -> tuple[DuckState, DuckState]:
    monkeypatch.setenv(SWITCH, "now")
    monkeypatch.setattr(decode, "loader", Loader())
    graph = ps.Pipeline.from_sql(CONTRACT.replace("EVENT", event), name="clicks").graph()
    first, second = (DuckState(compile_for_duckdb(graph, in_memory=True), None, collect=True) for _ in range(2))
    schema = next(source.schema for source in graph.sources if source.kind == "reference")
    pages = SourceInput((rows_to_batch([{"page": f"/{n}", "title": "t"} for n in range(3)], schema, 0),), {}, "1")
    for state in (first, second):
        state.run(EpochInput(0, {"pages": pages}, replay_to=0))
    return first, second


def test_the_rows_are_those_of_the_statement(
    states: tuple[DuckState, DuckState], monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    taken: list[bool] = []
    rows = ProvenRows.rows

    def watched(self: ProvenRows, *arguments: object) -> pa.Table | None:
        found = rows(self, *arguments)  # type: ignore[arg-type]
        taken.append(found is not None)
        return found

    offset = 0
    for epoch in range(1, 40):
        # more than those that Python examines one by one
        made = [record(n, None, EVENTS[event]) for n in range(epoch, epoch + 300)]
        odd = epoch % 3 == 2
        if odd:
            made[7] = record(epoch, ODD[epoch // 3 % len(ODD)], EVENTS[event])
        appended = [START + timedelta(seconds=n) if n % 2 else None for n in range(len(made))]
        batches = (batch(made[:200], 0, offset, appended[:200]), batch(made[200:], 1, offset, appended[200:]))
        given = EpochInput(
            epoch, {"clicks": SourceInput(batches, {0: (offset, offset + 200), 1: (offset, offset + 100)})}
        )
        offset += 200
        results = []
        for state, judge in zip(states, (watched, lambda *_: None), strict=True):
            monkeypatch.setattr(ProvenRows, "rows", judge)
            state.run(given)
            judged = state._small.held("_ps_i_clicks")
            assert judged is not None
            changes = state.collected["v"].to_pylist() if "v" in state.collected else []
            results.append((judged.schema, judged.to_pylist(), changes, vars(state.progress.sources["clicks"].counts)))
            results[-1] = (*results[-1], state.progress.sources["clicks"].watermark_us)
        for one, other in zip(results[0][1], results[1][1], strict=True):
            assert one == other
        assert results[0] == results[1]
    assert any(taken)
    assert not all(taken)
    first, second = ([letter.rule for letter in state.dead_letters()] for state in states)
    assert first == second != []


def test_a_contract_that_needs_sql_is_left_to_it(tmp_path: Path) -> None:
    for more in ("CHECK (n < small)", "at TIMESTAMP", "price DECIMAL(9, 2)", "code VARCHAR CHECK (length(code) = 2)"):
        sql = f"CREATE STREAM s (n BIGINT, small BIGINT, {more}); CREATE VIEW v AS SELECT count(*) AS n FROM s;"
        state = DuckState(compile_for_duckdb(ps.Pipeline.from_sql(sql, name="s").graph(), in_memory=True), None)
        assert not state.decoders["s"]._proven._fits, more  # type: ignore[attr-defined]
