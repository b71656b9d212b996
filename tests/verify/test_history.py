"""From which epoch until which a row was there (semantics R1, R4, T1)."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb

import penstock as ps
from penstock.graph import SourceDecl
from penstock.verify.history import ALWAYS, keep_history

START = datetime(2026, 1, 1)


class Row(ps.Contract):
    k: int
    v: int
    at: datetime


def source(kind: str, **options: object) -> SourceDecl:
    pipeline = ps.Pipeline("p")
    getattr(pipeline, kind)("s", Row, **options)
    return pipeline.graph().sources[0]


def typed(rows: list[tuple[int, int, int, int, str, int]]) -> duckdb.DuckDBPyConnection:
    """Rows of (epoch, partition, offset, k, op, second)."""
    connection = duckdb.connect()
    connection.execute(
        'CREATE TABLE t (k BIGINT, v BIGINT, "at" TIMESTAMP, _ps_p INTEGER, _ps_o BIGINT, _ps_e BIGINT, '
        "_ps_op VARCHAR, _ps_at TIMESTAMP)"
    )
    for epoch, partition, offset, k, op, second in rows:
        at = START + timedelta(seconds=second)
        connection.execute("INSERT INTO t VALUES (?, 0, ?, ?, ?, ?, ?, ?)", [k, at, partition, offset, epoch, op, at])
    return connection


def spans(connection: duckdb.DuckDBPyConnection) -> dict[int, tuple[int, int | None]]:
    rows = connection.execute("SELECT _ps_o, _ps_from, _ps_until FROM _h_s ORDER BY 1").fetchall()
    return {o: (start, end if end < ALWAYS else None) for o, start, end in rows}


def test_r1_the_newest_row_of_a_key_is_there_until_it_is_overtaken_or_deleted() -> None:
    connection = typed(
        [
            (0, 0, 0, 1, "+I", 0),
            (0, 0, 1, 2, "+I", 0),
            (1, 0, 2, 1, "+I", 0),
            (1, 0, 3, 1, "+I", 0),
            (2, 0, 4, 2, "-D", 0),
            (4, 0, 5, 2, "+I", 0),
        ]
    )
    keep_history(connection, source("table", key="k"), "t", {})
    # Offset 2 was overtaken in its own epoch: nobody ever saw it.
    assert spans(connection) == {0: (0, 1), 1: (0, 2), 3: (1, None), 5: (4, None)}


def test_r1_an_older_version_never_shows() -> None:
    connection = typed([(0, 0, 0, 1, "+I", 9), (1, 0, 1, 1, "+I", 5), (2, 0, 2, 1, "+I", 10)])
    keep_history(connection, source("table", key="k", version="at"), "t", {})
    assert spans(connection) == {0: (0, 2), 2: (2, None)}


def test_r1_copies_of_a_row_come_and_go() -> None:
    connection = typed([(0, 0, 0, 1, "+I", 0), (0, 0, 1, 1, "+I", 0), (2, 0, 2, 1, "-D", 0), (3, 0, 3, 7, "-D", 0)])
    keep_history(connection, source("table", state="unbounded"), "t", {})
    assert sorted(spans(connection).values(), key=str) == [(0, 2), (0, None)]


def test_r4_a_row_goes_with_the_epoch_that_moves_the_watermark_past_it() -> None:
    connection = typed([(0, 0, 0, 1, "+I", 0), (1, 0, 1, 1, "+I", 30), (2, 0, 2, 1, "+I", 100), (3, 0, 3, 1, "+I", 1)])
    declared = source("stream", event_time="at", watermark="5 seconds", retention="60 seconds")
    marks = {n: START + timedelta(seconds=s) for n, s in enumerate((-5, 25, 95, 95))}
    keep_history(connection, declared, "t", marks)
    # 95 - 60 = 35: both go with epoch 2; the last one was too old when it came.
    assert spans(connection) == {0: (0, 2), 1: (1, 2), 2: (2, None), 3: (3, 3)}
