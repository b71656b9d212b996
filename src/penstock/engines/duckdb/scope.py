"""What the blocks of one epoch share: deltas, contents, watermarks, and how a delta moves what is stored.

A delta is a temporary table or a subquery; it has `_ps_w` unless its relation is append-only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import pyarrow as pa

from penstock.connectors.base import Batch
from penstock.engines.duckdb.behind import Behind
from penstock.engines.duckdb.statements import Statements
from penstock.formats.decode import Decoder
from penstock.plan import multiset
from penstock.plan.blocks import Field, Relation, SourceBlock, column_list
from penstock.plan.flat import exact
from penstock.plan.plan import Plan
from penstock.plan.storage import HIDDEN_FIELDS
from penstock.plan.switching import Unit

MOST_TEXTS = 1_000
# Epochs in which a relation has not moved, after which it is thought to stay as it is for longer.
RESTING = 4


@dataclass(frozen=True)
class Delta:
    """What a relation did in this epoch: `sql` is a table or subquery; rows may be unknown (-1) for a subquery."""

    sql: str
    weighted: bool
    rows: int = -1


@dataclass
class EpochScope:
    """What the blocks of one epoch share.

    statements: how they are run; what one block alone uses may go straight to their `connection`.
    before, after: the watermark per relation lineage (by stream). late: streams that may have late rows now.
    threads: of the database. started: joins whose delta has been begun, with its rows so far. guarded: sources in which
    a record may be malformed, parsed by the slower statement. columns: of each source, those that are needed of its
    records; reads: those that are needed of its delta (None: all). versions: something that changes with the content of
    a reference. given: relations that Python has given and blocks may read until the epoch ends. again: the groups that
    are computed again as a whole. spent: the seconds that each block took. behind: what small epochs keep in memory.
    changes: change records that are known already, by relation, without epoch and flag. moved_at: the last epoch in
    which a relation moved, of those that have since the state was opened.
    """

    statements: Statements
    plan: Plan
    epoch: int
    first: bool
    flush: bool
    before: Mapping[str, int | None]
    after: Mapping[str, int | None]
    late: frozenset[str]
    threads: int = 1
    deltas: dict[str, Delta] = field(default_factory=dict)
    keyed: dict[str, Delta] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    guarded: frozenset[str] = frozenset()
    correction: bool = False
    columns: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    reads: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    versions: dict[str, object] = field(default_factory=dict)
    records: dict[str, tuple[Decoder, Sequence[Batch]]] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    again: Mapping[str, Unit] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    behind: Behind | None = None
    changes: dict[str, pa.Table] = field(default_factory=dict)
    moved_at: Mapping[str, int] = field(default_factory=dict)
    _balanced: dict[tuple[str, tuple[str, ...]], bool] = field(default_factory=dict)

    def spend(self, block: str, started: float) -> None:
        """A block has run since `started` (as `time.perf_counter` counts)."""
        self.spent[block] = self.spent.get(block, 0.0) + time.perf_counter() - started

    @cached_property
    def idle(self) -> frozenset[str]:
        """The blocks that do not run, for the groups behind them are computed again."""
        return frozenset().union(*(unit.own for unit in self.again.values()))

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """For what may change tables (`Statements.connection`)."""
        return self.statements.connection

    def temporary(self, name: str, sql: str) -> int:
        """Make (or replace) a temporary relation; the number of its rows."""
        return self.statements.store(name, sql)

    def content(self, name: str) -> str:
        """What a join reads for the relation as it is now: its table, or in a small epoch the rows of one that rests.

        Of what rests, only relations whose content changes with their deltas alone are held: no source (a change in
        columns that nobody reads is no delta), nothing with event time (rows go when windows close), no floats.
        """
        stored, node = self.contents[name], self.plan.node(name)
        relation, moved = node.relation, self.moved_at.get(name, -1)
        if not self.statements.in_parts or self.correction or self.again or name in self.deltas:
            return stored
        if isinstance(node.block, SourceBlock) or node.content != "table" or 0 <= self.epoch - moved <= RESTING:
            return stored
        if relation.streams or relation.hidden or relation.transient or not exact(relation.fields):
            return stored
        return self.statements.keep(f"_ps_k_{name}", f"SELECT {column_list(relation.columns)} FROM {stored}", moved)

    def balanced(self, name: str, columns: tuple[str, ...]) -> bool:
        """Whether the delta of `name` gives as many rows as it takes, for each value of the columns."""
        delta = self.deltas[name]
        if not delta.weighted:
            return False
        known = self._balanced.get((name, columns))
        if known is None:
            groups = f" GROUP BY {column_list(columns)}" if columns else ""
            sql = f'SELECT 1 FROM {delta.sql}{groups} HAVING sum("_ps_w") <> 0 LIMIT 1'
            known = self._balanced[name, columns] = not len(self.statements.fetch(sql))
        return known

    def text(self, key: tuple[str, ...], make: Callable[[], str]) -> str:
        """An SQL text that depends on its key alone; making it anew would take longer than a small statement."""
        texts = self.statements.texts
        if (found := texts.get(key)) is None:
            if len(texts) >= MOST_TEXTS:
                texts.clear()
            found = texts[key] = make()
        return found

    def watermark(self, streams: tuple[str, ...], *, after: bool) -> int | None:
        """The minimum over the streams; None where one has none yet."""
        marks = [(self.after if after else self.before).get(s) for s in streams]
        known = [m for m in marks if m is not None]
        return min(known) if known and len(known) == len(marks) else None


def set_delta(scope: EpochScope, relation: Relation, sql: str, rows: int = -1) -> None:
    if rows != 0:
        scope.deltas[relation.name] = Delta(sql, not relation.append_only, rows)


def delta_name(relation: Relation) -> str:
    return f"_ps_d_{relation.name}"


def stored_fields(relation: Relation) -> tuple[Field, ...]:
    return (*relation.fields, *(HIDDEN_FIELDS if relation.hidden else ()))


def apply_multiset(scope: EpochScope, relation: Relation, delta: Delta, stored: str) -> None:
    """Move stored rows by a delta: first what comes, so that what comes and goes in one epoch can go."""
    fields = stored_fields(relation)
    scope.statements.write(multiset.insert_sql(stored, delta.sql, fields, delta.weighted))
    if delta.weighted:
        scope.statements.write(multiset.delete_sql(stored, delta.sql, fields))
