"""Groups that an epoch may compute again: either way in any order keeps the law, and the choice is the shorter one."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.connectors.base import RawBatch
from penstock.engines.base import EpochInput, SourceInput
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.engines.duckdb.switch import RETRY, SAMPLES, Switch
from penstock.plan.plan import Plan
from penstock.plan.switching import Unit, units
from penstock.runtime.session import Session
from tests.law.law import SMALL_EPOCHS, Case, Checker, View, compiled, lawful
from tests.law.test_law import FAMILIES
from tests.law.world import Event, dense, epochs

JOIN = "FROM t JOIN m ON t.k = m.k"
SWITCHING = Case(
    "switching",
    (
        View("sums", f"SELECT t.a, sum(m.x) AS s, avg(m.x) AS v, count(m.x) AS c, count(*) AS n {JOIN} GROUP BY t.a"),
        View("total", f"SELECT sum(t.n + m.x) AS s, count(*) AS n {JOIN}"),
        View("having", f"SELECT t.n, count(*) AS c {JOIN} GROUP BY t.n HAVING count(*) > 1"),
        View("flags", f"SELECT t.a, bool_and(m.x > 0) AS e, bool_or(m.x > 0) AS o {JOIN} GROUP BY t.a"),
        View("outer_sums", "SELECT t.a, sum(m.x) AS s FROM t LEFT JOIN m ON t.n = m.k GROUP BY t.a"),
        View("extremes", f"SELECT t.a, min(m.x) AS lo, max(t.n) AS hi {JOIN} GROUP BY t.a"),
        View("kinds", f"SELECT DISTINCT t.a, m.x {JOIN}"),
        View("filtered", f"SELECT m.x, count(*) FILTER (WHERE t.a = 'x') AS c, sum(t.n) AS s {JOIN} GROUP BY m.x"),
        View("both", f"SELECT a, count(*) AS n FROM (SELECT t.a {JOIN} UNION ALL SELECT c FROM tv) GROUP BY a"),
        View(
            "over",
            f"WITH q AS (SELECT t.n AS k, count(*) AS n {JOIN} GROUP BY 1) "
            f"SELECT c, sum(n) AS s FROM q JOIN tv USING (k) GROUP BY c",
        ),
        View("there", "SELECT t.a, count(*) AS n FROM t WHERE EXISTS (SELECT 1 FROM m WHERE m.k = t.k) GROUP BY t.a"),
        View("self", "SELECT x.a, count(*) AS n FROM t AS x JOIN t AS y ON x.n = y.k GROUP BY x.a"),
    ),
)
MANY = ("outer_joins", "groups", "unstated", "rewritten_joins", "rewritten_sets", "subqueries", "more_subqueries")


class Coin(Switch):
    """Each unit either way, by chance; never in the first epoch, as the real one."""

    def __init__(self, state: DuckState, seed: int) -> None:
        super().__init__(state.plan, state.cursor())
        self._random = Random(seed)
        self.tossed: set[str] = set()

    def choose(self, epoch: EpochInput) -> Mapping[str, Unit]:
        taken = {name: unit for name, unit in self.units.items() if epoch.epoch and self._random.random() < 0.5}
        self.tossed |= set(taken)
        return taken


def check_switching(case: Case, history: list[list[Event]], seed: int) -> Coin:
    graph, plan = compiled(case)
    state = DuckState(plan, None, collect=True, threads=1, small_epoch=SMALL_EPOCHS[seed % len(SMALL_EPOCHS)])
    coin = state.switch = Coin(state, seed)
    checker = Checker(case)
    try:
        with Session(graph, state, None) as session:
            checker.run(session, history)
    finally:
        checker.oracle.close()
    return coin


def hold_switching(case: Case, examples: int) -> None:
    @lawful(examples)
    @given(epochs(case.sources), st.integers(0, 1_000))
    def holds(history: list[list[Event]], seed: int) -> None:
        check_switching(case, history, seed)

    for seed in range(3):
        assert check_switching(case, dense(case.sources, seed), seed).tossed
    holds()


@pytest.mark.slow
def test_groups_that_are_computed_again_at_random_are_their_batch_queries() -> None:
    hold_switching(SWITCHING, 6)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in FAMILIES if case.name in MANY], ids=str)
def test_families_that_are_computed_again_at_random_are_their_batch_queries(case: Case) -> None:
    hold_switching(case, 6)


def test_every_view_of_the_case_switches() -> None:
    plan = compiled(SWITCHING)[1]
    found = units(plan)
    assert {unit.view for unit in found.values()} == {view.name for view in SWITCHING.views}
    assert {plan.node(name).strategy for name in found} == {"merge", "affected groups"}


# -- what may switch ---------------------------------------------------------------------------------------------------

TABLES = """
CREATE TABLE a (k BIGINT PRIMARY KEY, g BIGINT, x BIGINT);
CREATE TABLE b (k BIGINT PRIMARY KEY, y BIGINT);
CREATE VIEW v {options} AS {view};
"""
JOINED = "SELECT g, sum(x * y) AS s, count(*) AS n FROM a JOIN b ON a.k = b.k GROUP BY g"


def plan_of(view: str, options: str = "", more: str = "") -> Plan:
    text = TABLES.format(view=view, options=options) + more
    return compile_for_duckdb(ps.Pipeline.from_sql(text, name="p").graph(), in_memory=True)


def test_a_unit_is_the_group_with_the_joins_that_lead_to_it_alone() -> None:
    (unit,) = units(plan_of(JOINED)).values()
    assert (unit.group, unit.view, unit.reads, unit.sources) == ("v", "v", frozenset("ab"), frozenset("ab"))
    assert unit.own == {"v$rows"}


@pytest.mark.parametrize(
    ("view", "options", "more"),
    [
        (JOINED, "WITH (strategy = 'incremental')", ""),
        (JOINED, "WITH (strategy = 'refresh')", ""),
        ("SELECT g, sum(x) AS s FROM a GROUP BY g", "", ""),
        ("SELECT a.k, y FROM a JOIN b ON a.k = b.k", "", ""),
    ],
)
def test_what_is_pinned_or_needs_no_join_does_not_switch(view: str, options: str, more: str) -> None:
    assert not units(plan_of(view, options, more))


def test_a_join_that_others_read_runs_in_any_case() -> None:
    joined = "SELECT g, x, y FROM a JOIN b ON a.k = b.k"
    plan = plan_of(joined, "", "CREATE VIEW w AS SELECT g, sum(x) AS s, count(y) AS n FROM v GROUP BY g;")
    assert all("v" not in unit.own for unit in units(plan).values())


def test_windows_and_streams_with_event_times_do_not_switch() -> None:
    sql = """
    CREATE STREAM s (k BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 second')
        WITH (state = 'unbounded');
    CREATE TABLE b (k BIGINT PRIMARY KEY, y BIGINT);
    CREATE VIEW v WITH (state = 'unbounded') AS SELECT y, count(*) AS n FROM s JOIN b ON s.k = b.k GROUP BY y;
    """
    assert not units(compile_for_duckdb(ps.Pipeline.from_sql(sql, name="p").graph(), in_memory=True))


# -- the choice --------------------------------------------------------------------------------------------------------


def epoch_of(number: int, rows: int) -> EpochInput:
    values = pa.chunked_array([pa.array([b"{}"] * rows, pa.binary())])
    batch = RawBatch(0, values, pa.chunked_array([pa.array(range(rows), pa.int64())]), rows)
    return EpochInput(number, {"a": SourceInput((batch,))})


class Costs:
    """A switch over an imagined machine: what either way takes, and which way it went."""

    def __init__(self, changes: float, again: float) -> None:
        state = DuckState(plan_of(JOINED), None)
        self.switch = Switch(state.plan, state.cursor())
        self.costs = {False: changes, True: again}
        self.number = 0

    def go(self, rows: int) -> bool:
        self.number += 1
        epoch = epoch_of(self.number, rows)
        again = self.switch.choose(epoch)
        self.switch.learn(epoch, again, {"v$rows": self.costs[bool(again)] / 2, "v": self.costs[bool(again)] / 2})
        return bool(again)


def test_the_shorter_way_is_taken_once_both_are_known() -> None:
    costs = Costs(changes=0.5, again=0.1)
    taken = [costs.go(100) for _ in range(50)]
    assert taken == [False] * SAMPLES + [True] * (50 - SAMPLES)
    # what is learnt of wide changes says nothing of narrow ones
    assert not costs.go(1)


def test_a_way_that_loses_is_given_up_and_tried_again_later() -> None:
    costs = Costs(changes=0.1, again=0.5)
    taken = [costs.go(100) for _ in range(RETRY)]
    assert taken.count(True) <= SAMPLES
    assert not any(taken[20:])
    costs.costs[False] = 2.0
    assert [costs.go(100) for _ in range(30)].count(True) > 20


def test_small_changes_of_small_tables_are_never_computed_again() -> None:
    costs = Costs(changes=0.0005, again=0.0001)
    assert not any(costs.go(1) for _ in range(30))


def test_the_epoch_says_what_was_computed_again() -> None:
    plan = plan_of(JOINED)
    state = DuckState(plan, None, collect=True)
    coin = state.switch = Coin(state, 1)
    with Session(plan.graph, state, None) as session:
        for k in range(8):
            session.insert("a", [{"k": k, "g": k % 2, "x": k}])
            session.insert("b", [{"k": k, "y": 2}])
            session.commit()
            assert session.last is not None
            entry = session.query("SELECT entry->'again' AS again FROM _ps.journal ORDER BY epoch DESC LIMIT 1")
            assert session.last.again == (("v",) if "v" in str(entry.to_pylist()) else ())
        assert coin.tossed == {"v"}
        assert sorted(r["s"] for r in session.read("v").to_pylist()) == [24, 32]
