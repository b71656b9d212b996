"""Random queries over random sources hold the law in random epochs, and what comes and goes leaves nothing behind.

Their views are pinned to incremental, and the share of them that has no block on refresh is asserted per feature (P5).

A failure prints the case as an SQL file and its epochs; LAW_SHRINK=1 makes it small first (some minutes).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

import duckdb
import pytest
from hypothesis import event, given, note, seed, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.errors import DeclarationErrors
from penstock.graph import Graph
from penstock.plan.plan import Plan
from penstock.runtime.session import Session
from tests import soak
from tests.law.law import Fold, lawful, rows_of
from tests.law.oracle import Values, difference
from tests.law.random_queries import RECOMPUTED, RandomQuery, queries
from tests.law.random_world import TYPES, Contents, Event, Row, Source, epochs, row, sources

SOAK_CASES = 20_000
# Each with a seed of its own: they run side by side, and a long run of Hypothesis slows down.
SOAK_PARTS = 40


@dataclass(frozen=True)
class RandomCase:
    """Sources, one view over them, and epochs."""

    sources: tuple[Source, ...]
    query: RandomQuery
    history: tuple[tuple[Event, ...], ...]

    @property
    def sql(self) -> str:
        declared = "\n".join(s.sql for s in self.sources)
        return f"{declared}\nCREATE VIEW q WITH (state = 'unbounded', strategy = 'incremental') AS\n{self.query.sql};\n"

    def __repr__(self) -> str:
        lines = [f"epoch {n}: {', '.join(map(repr, e))}" for n, e in enumerate(self.history)]
        return f"\n{self.sql}" + "\n".join(lines)


@st.composite
def cases(draw: st.DrawFn) -> RandomCase:
    declared = draw(sources())
    query = draw(queries(declared))
    return RandomCase(declared, query, tuple(tuple(e) for e in draw(epochs(declared))))


# -- the report --------------------------------------------------------------------------------------------------------


@dataclass
class Shares:
    """How many cases had each feature, and how many of those had no block that is refreshed."""

    cases: Counter[str] = field(default_factory=Counter)
    incremental: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def count(self, query: RandomQuery, plan: Plan) -> None:
        refreshed = [n for n in plan.nodes if n.strategy == "refresh"]
        self.reasons.update(n.reason for n in refreshed)
        for feature in (RECOMPUTED,) if RECOMPUTED in query.features else ("all", *query.features):
            self.cases[feature] += 1
            self.incremental[feature] += not refreshed

    def lines(self) -> Iterator[str]:
        for feature, count in sorted(self.cases.items(), key=lambda item: (item[0] != "all", -item[1], item[0])):
            yield f"{feature:30} {count:6} cases, {self.incremental[feature] / count:6.1%} without a refresh"
        for title, counter in (("refreshed", self.reasons), ("refused", self.refused)):
            yield from (f"{title}: {count} x {reason}" for reason, count in counter.most_common())

    def record(self) -> dict[str, object]:
        """What of it a soak adds up."""
        return {"cases": self.cases, "incremental": self.incremental, "refused": self.refused.total()}

    def rare(self, share: float, cases: int) -> list[str]:
        """The features of at least so many cases of which fewer than that share have no refresh."""
        return [
            f"{feature}: {self.incremental[feature]} of {count}"
            for feature, count in self.cases.items()
            if feature != RECOMPUTED and count >= cases and self.incremental[feature] < share * count
        ]


SHARES = Shares()


@pytest.fixture(autouse=True, scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or capture is None:
        return
    with capture.global_and_fixture_disabled():
        terminal.write_line("")
        for line in SHARES.lines():
            terminal.write_line(line)


# -- the law -----------------------------------------------------------------------------------------------------------


def planned(case: RandomCase) -> tuple[Graph, Plan] | None:
    """None for what the planner refuses, and for what DuckDB itself cannot do; both are counted."""
    try:
        graph = ps.Pipeline.from_sql(case.sql, name="random").graph()
        plan = compile_for_duckdb(graph, in_memory=True)
    except DeclarationErrors as problem:
        reason = str(problem).split("\n")[0]
        SHARES.refused[reason] += 1
        event(reason)
        return None
    view = plan.view("q")
    assert view is not None
    if not Batch(case, view.oracle).can():
        return None
    SHARES.count(case.query, plan)
    return graph, plan


@cache
def batch_database() -> duckdb.DuckDBPyConnection:
    """A DuckDB that Penstock has never seen, for one case after the other: opening one takes as long as a case."""
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


class Batch:
    """The query over the contents. Only the newest one may be used."""

    def __init__(self, case: RandomCase, sql: str) -> None:
        self._connection = batch_database()
        self._sources, self._sql = case.sources, sql
        for (name,) in self._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            self._connection.execute(f"DROP TABLE {name}")
        for source in case.sources:
            columns = ", ".join(f"{name} {TYPES[tag]}" for name, tag in source.columns)
            self._connection.execute(f"CREATE TABLE {source.name} ({columns})")

    def can(self) -> bool:
        """Whether DuckDB itself can: some correlated subqueries it binds and then gives up."""
        try:
            self._connection.execute(f"EXPLAIN {self._sql}").fetchall()
        except duckdb.NotImplementedException as problem:
            SHARES.refused[f"by DuckDB: {problem}"] += 1
            return False
        return True

    def rows(self, contents: Contents) -> list[Values]:
        for source in self._sources:
            self._connection.execute(f"DELETE FROM {source.name}")
            rows = [[row[name] for name, _ in source.columns] for row in contents.rows.get(source.name, [])]
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                # Backwards, so that an answer which follows the order of the rows is seen.
                self._connection.executemany(f"INSERT INTO {source.name} VALUES ({marks})", rows[::-1])
        return self._connection.execute(self._sql).fetchall()


def give(session: Session, contents: Contents, happened: Event) -> None:
    rows = contents.take(happened)
    match happened.what:
        case "insert":
            session.insert(happened.source, list(rows))
        case "replace":
            session.replace(happened.source, list(rows))
        case "delete" if rows:
            session.delete(happened.source, list(rows))


def hold(case: RandomCase) -> None:
    """The law after every epoch. What is read is looked at after every other one and at the end: to read is to settle
    what small epochs have left behind, and several of them are to lie behind at once."""
    note(repr(case))
    found = planned(case)
    if found is None:
        return
    graph, plan = found
    view = plan.view("q")
    assert view is not None
    batch, contents, fold = Batch(case, view.oracle), Contents(case.sources), Fold()
    with Session(graph, DuckState(plan, None, collect=True, threads=1), None) as session:
        for left, happened in zip(reversed(range(len(case.history))), case.history, strict=True):
            for one in happened:
                give(session, contents, one)
            epoch = session.commit()
            expected = batch.rows(contents)
            fold.apply(session.changes("q", epoch), epoch, view.key)
            wrong = difference(fold.content(), expected)
            assert not wrong, f"epoch {epoch}, changes: {wrong}"
            if left % 2 == 0:
                wrong = difference(rows_of(session.read("q")), expected)
                assert not wrong, f"epoch {epoch}, read: {wrong}"
        assert session.dead_letters().num_rows == 0, session.dead_letters().to_pylist()


@pytest.mark.slow
def test_random_queries_hold_the_law() -> None:
    @lawful(300)
    @given(cases())
    def holds(case: RandomCase) -> None:
        hold(case)

    holds()


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_many_random_queries_hold_the_law(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part counts its own shares; `scripts/soak.py` adds them up, and holds them to what P5 asks."""
    shares, began = Shares(), time.process_time()
    monkeypatch.setattr(sys.modules[__name__], "SHARES", shares)

    @seed(f"{soak.SEED} {part}")
    @settings(lawful(1), max_examples=soak.count(SOAK_CASES // SOAK_PARTS), database=None)
    @given(cases())
    def holds(case: RandomCase) -> None:
        hold(case)

    holds()
    soak.record("random queries", time.process_time() - began, **shares.record())


@pytest.mark.slow
def test_p5_of_each_feature_nearly_all_cases_run_without_a_refresh() -> None:
    @lawful(300)
    @given(cases())
    def plans(case: RandomCase) -> None:
        planned(case)

    plans()
    assert SHARES.cases["all"] >= 20
    assert not SHARES.rare(0.9, 20)


# -- metamorphic -------------------------------------------------------------------------------------------------------


def after(case: RandomCase, plan: Plan, graph: Graph, history: Iterable[Iterable[Event]]) -> list[Values]:
    """What the view holds at the end."""
    contents = Contents(case.sources)
    with Session(graph, DuckState(plan, None, threads=1), None) as session:
        for happened in history:
            for one in happened:
                give(session, contents, one)
            session.commit()
        return rows_of(session.read("q"))


@st.composite
def rearranged(draw: st.DrawFn, case: RandomCase) -> list[list[Event]]:
    """The same events: each source's in their order, the sources interleaved and the epochs cut in another way."""
    waiting = {s.name: [e for epoch in case.history for e in epoch if e.source == s.name] for s in case.sources}
    epochs_: list[list[Event]] = [[]]
    while left := [name for name, events in waiting.items() if events]:
        if draw(st.booleans()):
            epochs_.append([])
        epochs_[-1].append(waiting[draw(st.sampled_from(left))].pop(0))
    return epochs_


@pytest.mark.slow
def test_any_split_and_any_order_of_commuting_changes_gives_the_same() -> None:
    @lawful(60)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        case = data.draw(cases())
        other = data.draw(rearranged(case))
        found = planned(case)
        if found is None:
            return
        graph, plan = found
        wrong = difference(after(case, plan, graph, other), after(case, plan, graph, case.history))
        assert not wrong, f"{case!r}\nin another order {other}: {wrong}"

    holds()


def state_rows(session: Session, plan: Plan) -> dict[str, int]:
    """Rows of every state table but those of keyed sources, in which deletes leave their place behind (R1)."""
    keyed = {s.source.name for s in plan.sources if s.source.key}
    names = [table.name for node in plan.nodes if node.name not in keyed for table in node.state]
    count = 'SELECT count(*) AS n FROM _ps."{}"'
    return {name: session.query(count.format(name))["n"][0].as_py() for name in names}


def _fresh(source: Source, rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows with keys that no other row of a table has."""
    return tuple(row | {"k": 100 + n} if source.kind == "table" else row for n, row in enumerate(rows))


@pytest.mark.slow
def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    @lawful(60)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        case = data.draw(cases())
        changing = [s for s in case.sources if s.kind in ("table", "multiset")]
        extra = {s.name: _fresh(s, data.draw(st.lists(row(s), min_size=1, max_size=4))) for s in changing}
        found = planned(case)
        if found is None:
            return
        graph, plan = found
        contents = Contents(case.sources)
        with Session(graph, DuckState(plan, None, threads=1), None) as session:
            for happened in case.history:
                for one in happened:
                    give(session, contents, one)
                session.commit()
            rows, states = rows_of(session.read("q")), state_rows(session, plan)
            for put in (session.insert, session.delete):
                for name, more in extra.items():
                    put(name, list(more))
                session.commit()
            wrong = difference(rows_of(session.read("q")), rows)
            assert not wrong, f"{case!r}\nwith {extra}: {wrong}"
            assert state_rows(session, plan) == states, f"{case!r}\nwith {extra}"

    holds()
