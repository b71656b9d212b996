"""The one law, checked after every epoch: read = batch = fold of the changes, and changes that are well formed."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Literal

import pyarrow as pa
from hypothesis import HealthCheck, Phase, settings

import penstock as ps
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.pipeline import Graph
from penstock.plan.plan import Plan
from penstock.runtime.session import Session
from tests.examples import examples
from tests.law.oracle import WINDOWS, Oracle, Values, difference
from tests.law.world import CONTRACTS, Event, World, declare, give


@dataclass(frozen=True)
class View:
    """One view of a case.

    window: the name in `oracle.WINDOWS` where it is a windowed group over a stream; a final one has the window's start
    as its first column.
    """

    name: str
    sql: str
    window: str = ""
    key: tuple[str, ...] = ()
    final: bool = False


@dataclass(frozen=True)
class Case:
    """Views that are declared together, and checked all.

    pinned: to refresh. definite: what the queries leave unstated is taken from the plan, which states it (V4).
    """

    name: str
    views: tuple[View, ...]
    pinned: bool = False
    definite: bool = False

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
        strategy: Literal["refresh", "auto"] = "refresh" if case.pinned else "auto"
        pipeline.view(view.name, view.sql, key=view.key, strategy=strategy, emit="final" if view.final else "changes")
    graph = pipeline.graph()
    return graph, compile_for_duckdb(graph, in_memory=True)


# All epochs large, both kinds in turn, all small.
SMALL_EPOCHS = (0, 4, 10_000)


def open_case(case: Case, small_epoch: int) -> Session:
    graph, plan = compiled(case)
    return Session(graph, DuckState(plan, None, collect=True, threads=1, small_epoch=small_epoch), None)


def rows_of(table: pa.Table) -> list[Values]:
    return list(zip(*[c.to_pylist() for c in table.columns], strict=True)) if table.num_columns else []


@dataclass
class Fold:
    """What the changes of one view amount to."""

    rows: Counter[str] = field(default_factory=Counter)
    values: dict[str, Values] = field(default_factory=dict)

    def apply(self, changes: pa.Table, epoch: int, key: tuple[str, ...], *, correction: bool = False) -> None:
        records = rows_of(changes)
        columns = changes.column_names[:-4]
        per_key: Counter[tuple[str, str]] = Counter()
        removed: Counter[str] = Counter()
        added: Counter[str] = Counter()
        for number, record in enumerate(records):
            row, (op, of_epoch, seq, corrects) = record[:-4], record[-4:]
            assert corrects == correction
            assert seq == number, f"_seq {seq} at place {number}"
            assert of_epoch == epoch
            assert op in ("+I", "-U", "+U", "-D")
            if not key:
                assert op in ("+I", "-D"), f"{op} without a key"
            self._apply(op, row, removed, added)
            per_key[repr([row[columns.index(c)] for c in key]), op[0]] += 1
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
        ops: dict[str, list[object]] = {}
        for record in records:
            ops.setdefault(repr([record[columns.index(c)] for c in key]), []).append(record[-4])
        for values, found in ops.items():
            assert found in (["+I"], ["-D"], ["-U", "+U"]), f"key {values} has {found}"

    def content(self) -> list[Values]:
        return [self.values[name] for name, count in self.rows.items() for _ in range(count)]


@dataclass
class Frozen:
    """What a final view must show: rows frozen when their window closed, and provisional ones of the last flush."""

    length: timedelta
    closed: list[Values] = field(default_factory=list)
    provisional: list[Values] = field(default_factory=list)

    def _end(self, row: Values) -> datetime:
        assert isinstance(row[0], datetime)
        return row[0] + self.length

    def move(
        self, batch: list[Values], before: datetime | None, after: datetime | None, *, flush: bool
    ) -> list[Values]:
        if after is not None:
            passed = [r for r in batch if self._end(r) <= after and (before is None or self._end(r) > before)]
            self.closed += passed
            self.provisional = [r for r in self.provisional if self._end(r) > after]
        if flush:
            self.provisional = [r for r in batch if after is None or self._end(r) > after]
        return [*self.closed, *self.provisional]

    def correct(self, batch: list[Values], at: datetime | None) -> list[Values]:
        """Late rows were applied: over streams alone, closed windows are as if the rows had not been late."""
        self.closed = [r for r in batch if at is not None and self._end(r) <= at]
        return [*self.closed, *self.provisional]


class Checker:
    """Holds one session of a case against the batch, epoch by epoch."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.world = World()
        self.oracle = Oracle(case.sources)
        self.plan = compiled(case)[1]
        self.folds = {view.name: Fold() for view in case.views}
        self.frozen = {view.name: Frozen(WINDOWS[view.window]) for view in case.views if view.final}

    def run(self, session: Session, history: list[list[Event]]) -> None:
        for events in history:
            before = self.world.watermark("s")
            give(session, events)
            self.world.take(events)
            flush = any(e.what == "flush" for e in events)
            epoch = session.commit(flush=flush)
            self.hold(session, epoch, before, flush=flush)
            if any(e.what == "apply" for e in events):
                self.correct(session, epoch)

    def correct(self, session: Session, epoch: int) -> None:
        asked = session.apply_late("s")
        if asked:
            self.world.apply_late("s")
            assert session.progress.epoch == epoch + 1
            self.hold(session, epoch + 1, self.world.watermark("s"), correction=True)
        assert session.apply_late("s") == 0, "late rows were applied twice"

    def hold(
        self, session: Session, epoch: int, before: datetime | None, *, flush: bool = False, correction: bool = False
    ) -> None:
        """The law at one epoch."""
        self.oracle.load(self.world)
        after = self.world.watermark("s")
        for view in self.case.views:
            if view.final:
                batch = self.oracle.view(view.name, view.sql, view.window)
                frozen = self.frozen[view.name]
                expected = (
                    frozen.correct(batch, after) if correction else frozen.move(batch, before, after, flush=flush)
                )
                self.oracle.put(view.name, view.sql, expected)
            else:
                planned = self.plan.view(view.name)
                sql = planned.oracle if planned is not None and self.case.definite else view.sql
                expected = self.oracle.view(view.name, sql, view.window)
            self._compare(session, view, epoch, expected, correction=correction)

    def _compare(self, session: Session, view: View, epoch: int, expected: list[Values], *, correction: bool) -> None:
        planned = self.plan.view(view.name)
        assert planned is not None
        got = rows_of(session.read(view.name))
        wrong = difference(got, expected)
        assert not wrong, f"epoch {epoch}, read({view.name}): {wrong}"
        changes = session.changes(view.name, epoch)
        self.folds[view.name].apply(changes, epoch, planned.key, correction=correction)
        wrong = difference(self.folds[view.name].content(), got)
        assert not wrong, f"epoch {epoch}, changes({view.name}): {wrong}"


def check(case: Case, history: list[list[Event]], small_epoch: int | None = None) -> Checker:
    """Run the epochs and hold the law after each of them. small_epoch: else it is one of `SMALL_EPOCHS`."""
    if small_epoch is None:
        small_epoch = SMALL_EPOCHS[sum(map(len, history)) % len(SMALL_EPOCHS)]
    checker = Checker(case)
    try:
        with open_case(case, small_epoch) as session:
            checker.run(session, history)
    finally:
        checker.oracle.close()
    return checker


def lawful(count: int) -> settings:
    """Settings of a law test. LAW_EXAMPLES asks for more of all; LAW_SHRINK=1 shrinks a failure (it takes minutes)."""
    return settings(
        max_examples=int(os.environ.get("LAW_EXAMPLES", examples(count))),
        phases=[p for p in Phase if p is not Phase.shrink or os.environ.get("LAW_SHRINK")],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
