"""The one law, checked after every epoch: read = batch = fold of the changes, and changes that are well formed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa

import penstock as ps
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.pipeline import Graph
from penstock.plan.plan import Plan
from penstock.runtime.session import Session
from tests.law.oracle import Oracle, Values, difference
from tests.law.world import CONTRACTS, Event, World, declare, give


@dataclass(frozen=True)
class View:
    """One view of a case. window: the name in `oracle.WINDOWS` where it is a windowed group over a stream."""

    name: str
    sql: str
    window: str = ""
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """Views that are declared together, and checked all."""

    name: str
    views: tuple[View, ...]
    pinned: bool = False

    @property
    def sources(self) -> set[str]:
        words = {w for view in self.views for w in re.findall(r"\w+", view.sql.lower())}
        return words & set(CONTRACTS)

    def __str__(self) -> str:
        return self.name


@cache
def compiled(case: Case) -> tuple[Graph, Plan]:
    """The case's plan, in memory."""
    pipeline = ps.Pipeline("law")
    declare(pipeline, case.sources)
    for view in case.views:
        pipeline.view(view.name, view.sql, key=view.key, strategy="refresh" if case.pinned else "auto")
    graph = pipeline.graph()
    return graph, compile_for_duckdb(graph, in_memory=True)


def open_case(case: Case) -> Session:
    graph, plan = compiled(case)
    return Session(graph, DuckState(plan, None, collect=True, threads=1), None)


def rows_of(table: pa.Table) -> list[Values]:
    return list(zip(*[c.to_pylist() for c in table.columns], strict=True)) if table.num_columns else []


@dataclass
class Fold:
    """What the changes of one view amount to."""

    rows: Counter[str] = field(default_factory=Counter)
    values: dict[str, Values] = field(default_factory=dict)

    def apply(self, changes: pa.Table, epoch: int, key: tuple[str, ...]) -> None:
        records = rows_of(changes)
        columns = changes.column_names[:-4]
        per_key: Counter[Values] = Counter()
        removed: Counter[str] = Counter()
        added: Counter[str] = Counter()
        for number, record in enumerate(records):
            row, (op, of_epoch, seq, _) = record[:-4], record[-4:]
            assert seq == number, f"_seq {seq} at place {number}"
            assert of_epoch == epoch
            assert op in ("+I", "-U", "+U", "-D")
            if not key:
                assert op in ("+I", "-D"), f"{op} without a key"
            self._apply(op, row, removed, added)
            per_key[tuple(row[columns.index(c)] for c in key), op[0]] += 1  # type: ignore[index]
        if key:
            assert not per_key or max(per_key.values()) == 1, f"a key changed more than once: {records}"
            self._pairs(records, columns, key)
        assert not removed & added, f"rows went and came back: {list((removed & added).elements())}"

    def _apply(self, op: object, row: Values, removed: Counter[str], added: Counter[str]) -> None:
        name = repr(row)
        if op in ("+I", "+U"):
            self.rows[name] += 1
            self.values[name] = row
            added[name] += 1
            return
        assert self.rows[name] > 0, f"{op} of a row that is not there: {row}"
        self.rows[name] -= 1
        removed[name] += 1

    @staticmethod
    def _pairs(records: list[Values], columns: list[str], key: tuple[str, ...]) -> None:
        ops: dict[Values, list[object]] = {}
        for record in records:
            ops.setdefault(tuple(record[columns.index(c)] for c in key), []).append(record[-4])
        for values, found in ops.items():
            assert found in (["+I"], ["-D"], ["-U", "+U"]), f"key {values} has {found}"

    def content(self) -> list[Values]:
        return [self.values[name] for name, count in self.rows.items() for _ in range(count)]


def check(case: Case, epochs: list[list[Event]]) -> None:
    """Run the epochs and hold the law after each of them."""
    world, folds = World(), {view.name: Fold() for view in case.views}
    oracle = Oracle(case.sources)
    try:
        with open_case(case) as session:
            for events in epochs:
                give(session, events)
                world.take(events)
                epoch = session.commit()
                hold(case, session, world, oracle, folds, epoch)
    finally:
        oracle.close()


def hold(
    case: Case, session: Session, world: World, oracle: Oracle, folds: dict[str, Fold], epoch: int, *, applied: bool = False
) -> None:
    """The law at one epoch."""
    oracle.load(world, applied)
    _, plan = compiled(case)
    for view in case.views:
        expected = oracle.view(view.name, view.sql, view.window)
        planned = plan.view(view.name)
        assert planned is not None
        got = rows_of(session.read(view.name))
        wrong = difference(got, expected)
        assert not wrong, f"epoch {epoch}, read({view.name}): {wrong}"
        folds[view.name].apply(session.changes(view.name, epoch), epoch, planned.key)
        wrong = difference(folds[view.name].content(), got)
        assert not wrong, f"epoch {epoch}, changes({view.name}): {wrong}"
