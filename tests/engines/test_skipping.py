"""A block none of whose inputs changed runs no statement; one whose filter drops every changed row runs few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pytest

import penstock as ps
from penstock.runtime.session import Session

SOURCES = """
CREATE TABLE busy (k BIGINT PRIMARY KEY, v BIGINT);
CREATE TABLE t (k BIGINT PRIMARY KEY, g VARCHAR, v BIGINT);
CREATE TABLE m (k BIGINT, x BIGINT);
CREATE STREAM s (k BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second') WITH (state = 'unbounded');
CREATE VIEW seen AS SELECT v, count(*) AS n FROM busy GROUP BY v;
"""
IDLE = {
    "flat": "SELECT k, v FROM t WHERE v > 0",
    "grouped": "SELECT g, count(*) AS n, sum(v) AS s FROM t GROUP BY g",
    "affected": "SELECT g, median(v) AS m FROM t GROUP BY g",
    "whole": "SELECT count(*) AS n, max(v) AS top FROM t",
    "joined": "SELECT t.k, m.x FROM t JOIN m ON t.k = m.k",
    "left_joined": "SELECT t.k, m.x FROM t LEFT JOIN m ON t.k = m.k",
    "both": "SELECT k FROM t UNION ALL SELECT k FROM m",
    "either": "SELECT k FROM t UNION SELECT k FROM m",
    "less": "SELECT k FROM t EXCEPT SELECT k FROM m",
    "numbered": "SELECT k, row_number() OVER (PARTITION BY g ORDER BY k) AS n FROM t",
    "top": "SELECT k, v FROM t ORDER BY v, k LIMIT 2",
    "among": "SELECT k FROM t WHERE k IN (SELECT k FROM m)",
    "recomputed": "SELECT k, unnest([1, 2]) AS u FROM m",
    "windowed": "SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM s GROUP BY ALL",
}


class Counting:
    """A connection that keeps the statements it is given."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.statements: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        if name not in ("execute", "_submit"):
            return found

        def counted(sql: object, *given: Any) -> Any:
            self.statements.append(str(sql))
            return found(sql, *given)

        return counted


def _sql(views: dict[str, str]) -> str:
    return SOURCES + "".join(
        f"CREATE VIEW {name} WITH (state = 'unbounded') AS {sql};\n" for name, sql in views.items()
    )


@contextmanager
def counted(views: dict[str, str]) -> Iterator[tuple[Session, Counting]]:
    """A pipeline with rows in every source, and the statements from there on."""
    with ps.Pipeline.from_sql(_sql(views), name="skipping").open() as session:
        session.insert("busy", [{"k": 1, "v": 1}])
        session.insert("t", [{"k": k, "g": "x", "v": k} for k in range(4)])
        session.insert("m", [{"k": k, "x": k} for k in range(4)])
        session.insert("s", [{"k": 1, "at": "2026-01-01T00:00:00"}])
        session.commit()
        small = session._state._small
        counting = Counting(small._connection)
        small._connection = counting  # type: ignore[assignment]
        yield session, counting


def _statements(views: dict[str, str]) -> list[str]:
    with counted(views) as (session, counting):
        # What is prepared once is prepared in the first epoch.
        for value in (2, 3):
            counting.statements.clear()
            session.insert("busy", [{"k": value, "v": value}])
            session.commit()
        return counting.statements


def test_idle_views_run_no_statement() -> None:
    alone, among = _statements({}), _statements(IDLE)
    assert len(among) == len(alone), sorted(set(among) - set(alone))


@pytest.mark.parametrize("view", IDLE)
def test_an_idle_view_runs_no_statement(view: str) -> None:
    assert len(_statements({view: IDLE[view]})) == len(_statements({}))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT g, count(*) AS n FROM t WHERE v > 100 GROUP BY g",
        "SELECT g, median(v) AS n FROM t WHERE v > 100 GROUP BY g",
        "SELECT m.x, count(*) AS n FROM t JOIN m ON t.k = m.k WHERE t.v > 100 GROUP BY m.x",
        "SELECT k, row_number() OVER (PARTITION BY g ORDER BY k) AS n FROM t WHERE v > 100",
    ],
)
def test_a_change_that_a_filter_drops_costs_few_statements(sql: str) -> None:
    def count(view: str) -> int:
        with counted({"q": view}) as (session, counting):
            for value in (7, 8):
                counting.statements.clear()
                session.insert("t", [{"k": value, "g": "x", "v": value}])
                session.commit()
            assert session.read("q").num_rows == 0
            return len(counting.statements)

    # A view that hands on what comes runs one for its changes at most.
    assert count(sql) <= count("SELECT k FROM t WHERE v > 100") + 2
