"""Joins of small epochs read what rests from memory: it is the table's content whenever it is read."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import duckdb
import pytest

import penstock as ps
from penstock.engines.duckdb import scope
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.runtime.session import Session

SQL = """
CREATE TABLE given (rule VARCHAR PRIMARY KEY, value BIGINT);
CREATE TABLE t (k BIGINT PRIMARY KEY, a BIGINT);
CREATE VIEW rules AS SELECT max(value) FILTER (WHERE rule = 'low') AS low, count(*) AS n FROM given;
CREATE VIEW named AS SELECT value, count(*) AS n FROM given GROUP BY value;
CREATE VIEW v AS SELECT t.k, t.a * 2 AS twice, r.n, m.n AS same FROM t
    LEFT JOIN named m ON m.value = t.a CROSS JOIN rules r WHERE t.a > coalesce(r.low, 0);
"""


def opened(small_epoch: int = 30_000) -> Session:
    graph = ps.Pipeline.from_sql(SQL, name="p").graph()
    plan = compile_for_duckdb(graph, in_memory=True)
    return Session(graph, DuckState(plan, None, collect=True, small_epoch=small_epoch), None)


@pytest.mark.parametrize("small_epoch", [30_000, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_law_holds_while_what_rests_moves_now_and_then(
    monkeypatch: pytest.MonkeyPatch, small_epoch: int, seed: int
) -> None:
    """small_epoch 3: larger epochs, which plan every statement, come in between."""
    monkeypatch.setattr(scope, "RESTING", 1)
    chance, told = random.Random(seed), Counter[tuple[Any, ...]]()
    with opened(small_epoch) as session:
        session.insert("given", [{"rule": "low", "value": 1}, {"rule": "x", "value": 2}])
        for _ in range(40):
            rows = chance.choice([1, 1, 1, 4])
            session.insert("t", [{"k": chance.randrange(6), "a": chance.randrange(5)} for _ in range(rows)])
            if chance.random() < 0.2:
                session.insert("given", [{"rule": chance.choice(["low", "x", "y"]), "value": chance.randrange(4)}])
            if chance.random() < 0.1:
                session.delete("given", [{"rule": "x"}])
            for row in session.changes("v", session.commit()).to_pylist():
                told[row["k"], row["twice"], row["n"], row["same"]] += 1 if row["_op"].startswith("+") else -1
            told += Counter()
            with duckdb.connect() as batch:
                for name in ("given", "t"):
                    batch.register(name, session.read(name))
                for view in session._graph.views:
                    batch.execute(f"CREATE VIEW {view.name} AS {view.sql}")
                assert told == Counter(batch.execute("FROM v").fetchall())


def test_what_rests_is_held_and_what_moves_is_not() -> None:
    with opened() as session:
        session.insert("given", [{"rule": "low", "value": 1}])
        for n in range(scope.RESTING + 3):
            session.insert("t", [{"k": n, "a": 2}])
            session.commit()
        held = session._state._small.held("_ps_k_rules")
        assert held is not None
        assert held.to_pylist() == [{"low": 1, "n": 1}]
        # A source is not: a change in columns that nobody reads is no delta of it.
        assert session._state._small.held("_ps_k_t") is None
        assert session._state._small.held("_ps_k_given") is None
