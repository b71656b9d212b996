"""Making a state the state of a changed plan, in one transaction: a crash leaves the old one or the new one.

The change is an epoch of its own in the journal. Reused relations stay as they are. A relation that is built gets the
whole content of what it reads as if it were one epoch's delta, or, where the sources had to be read again, its tables
from the state that did that (`side`). Sinks get the difference between what the view told and what it says now; a new
sink gets all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from penstock.engines.base import Progress
from penstock.engines.duckdb import late_rows, state
from penstock.engines.duckdb.blocks import run_named_block
from penstock.engines.duckdb.connection import first_row, thread_count
from penstock.engines.duckdb.outbox import changes_sql
from penstock.engines.duckdb.recovery import open_state
from penstock.engines.duckdb.scope import Delta, EpochScope
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.statements import Planned
from penstock.errors import StateError
from penstock.formats.types_sql import literal
from penstock.functions import register
from penstock.plan import flat, multiset, union
from penstock.plan.blocks import (
    FlatBlock,
    Node,
    Relation,
    SourceBlock,
    UnionBlock,
    Windowed,
    column_list,
    content_name,
    quote,
)
from penstock.plan.change import Change, PlanNote, compare
from penstock.plan.plan import Plan
from penstock.plan.storage import HIDDEN_FIELDS
from penstock.storage import failpoints

BEFORE_COMMIT = failpoints.register(
    "change.before_commit", "a changed plan's state is written, the old one is in force"
)
AFTER_COMMIT = failpoints.register("change.after_commit", "the state is the changed plan's, nobody was told")
_SIDE = "_ps_side"


@dataclass(frozen=True)
class Found:
    """A state and what a plan would change in it.

    rows: of each relation that is stored. forgotten: until when (microseconds) a relation's windows are forgotten.
    """

    change: Change
    progress: Progress
    rows: dict[str, int] = field(default_factory=dict)
    forgotten: dict[str, int] = field(default_factory=dict)


def inspect(database: Path, plan: Plan) -> Found | None:
    """What `plan` changes in the state; None where there is none, or it is this plan's.

    Raises:
        StateError: PS-STATE-003 when a newer Penstock wrote it, PS-STATE-004 when it does not say what it belongs to,
            PS-STATE-005 when it cannot be read.
    """
    if not database.exists():
        return None
    with open_state(database) as connection:
        try:
            if not state.exists(connection):
                return None
            meta = state.known(connection)
        except duckdb.Error as problem:
            raise StateError(
                "PS-STATE-005",
                "the state cannot be read or written",
                expected=f"a state of Penstock at {database}",
                got=str(problem).split("\n")[0],
            ) from None
        if meta["plan"] == plan.fingerprint:
            return None
        if state.PROGRAM not in meta:
            state.check(connection, plan)
        return _found(connection, plan, meta)


def _found(connection: duckdb.DuckDBPyConnection, plan: Plan, meta: dict[str, str]) -> Found:
    old = PlanNote.from_json(meta[state.PROGRAM])
    progress = state.load_progress(connection, plan, meta["state_id"])
    unread = frozenset(
        name
        for name, source in progress.sources.items()
        if source.version is None and all(p.first_offset is None for p in source.partitions.values())
    )
    forgotten = {k.removeprefix(state.FORGOTTEN): int(v) for k, v in meta.items() if k.startswith(state.FORGOTTEN)}
    rows = {name: _count(connection, node.state[-1]) for name, node in old.nodes.items() if node.state}
    change = compare(old, plan, unread=unread, forgotten=frozenset(forgotten))
    return Found(change, progress, rows, forgotten)


def _count(connection: duckdb.DuckDBPyConnection, stored: str) -> int:
    row = first_row(connection.execute(f"SELECT count(*) FROM {table(stored)}"))
    return int(row[0]) if row else 0


def apply(database: Path, plan: Plan, found: Found, side: Path | None = None) -> None:
    """Make the state one of `plan`. side: the state file that holds what was read again.

    Raises:
        RunError: PS-RUN-003 when a query of the new plan fails on the rows that are there.
        StateError: PS-STATE-005 when it cannot be written. Either way the old state stays.
    """
    with open_state(database, beside=side) as connection:
        if side is not None:
            connection.execute(f"ATTACH {literal(str(side))} AS {_SIDE} (READ_ONLY)")
        register(connection, plan.graph.functions)
        connection.execute("BEGIN")
        try:
            _Applying(connection, plan, found, side is not None).run()
            failpoints.hit(BEFORE_COMMIT)
            connection.execute("COMMIT")
        except (duckdb.IOException, duckdb.TransactionException) as problem:
            raise StateError(
                "PS-STATE-005",
                "the changed state cannot be written; the old one stays",
                got=str(problem).split("\n")[0],
                hint="free some disk space, then start again: nothing is lost",
                retryable=True,
            ) from problem
        failpoints.hit(AFTER_COMMIT)
        connection.execute("CHECKPOINT")


class _Applying:
    """The transaction's work. Nothing of it shows before the commit."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: Plan, found: Found, sided: bool) -> None:
        self.connection, self.plan, self.change, self.sided = connection, plan, found.change, sided
        self.progress = found.progress.copy()
        self.started = self.progress.epoch >= 0
        self.progress.epoch += self.started
        marks = {name: s.watermark_us for name, s in self.progress.sources.items()}
        self.scope = EpochScope(
            Planned(connection),
            plan,
            self.progress.epoch,
            first=True,
            flush=False,
            before={},
            after=marks,
            late=frozenset(marks),
            threads=thread_count(connection),
            contents={n.name: content_name(n.relation) for n in plan.nodes},
        )
        self.built = [plan.node(name) for name in self.change.build]
        self.whole: dict[str, Delta] = {}
        self.forgotten = found.forgotten

    def run(self) -> None:
        if self.started:
            self._read_old()
        self._lay_out()
        if self.started:
            for node in self.built:
                self._build(node)
            self._late()
            self._tell_new_sinks()
            self._forget()
            self._tell_sinks()
            self._journal()
        self._sign()

    # -- what the old state holds --------------------------------------------------------------------------------------

    def _read_old(self) -> None:
        """Copies of what is read of the old layout, before it goes."""
        built = set(self.change.build)
        for name in dict.fromkeys(i for node in self.built for i in node.block.inputs if i not in built):
            if self._from_side(name) or all(n.name in self.change.again for n in self.built if name in n.block.inputs):
                continue
            self.whole[name] = self._copied(name)
        for sink in self.change.sinks_new:
            name = self.change.new.views[self.change.new.sinks[sink]].node
            if name not in built and name not in self.whole and name not in self.change.again:
                self.whole[name] = self._copied(name)
        for view in self._retold():
            node = self.change.old.views[view].node
            columns = column_list([n for n, _ in self.change.old.views[view].columns])
            kept = self.change.old.nodes[node].content != "none"
            rows = f"SELECT {columns} FROM {quote(node)}" if kept else f"SELECT {columns} FROM {self._empty(view)}"
            self.scope.temporary(f"_ps_told_{view}", rows)

    def _from_side(self, name: str) -> bool:
        return self.sided and name in self.change.again

    def _retold(self) -> Iterator[str]:
        """Views that are built again and have a sink that was there before."""
        new = self.change.new
        for view in dict.fromkeys(v for s, v in new.sinks.items() if s not in self.change.sinks_new):
            if new.views[view].node in self.change.build:
                yield view

    def _copied(self, name: str) -> Delta:
        relation = self.plan.node(name).relation
        rows = self.scope.temporary(f"_ps_in_{name}", f"SELECT * FROM {self._old_content(name)}")
        return self._delta(relation, quote(f"_ps_in_{name}"), rows)

    def _delta(self, relation: Relation, place: str, rows: int) -> Delta:
        if relation.append_only:
            return Delta(place, False, rows)
        return Delta(f'(SELECT *, 1 AS "_ps_w" FROM {place})', True, rows)

    def _old_content(self, name: str) -> str:
        """The content of a reused relation over what the old state holds (its hidden columns too)."""
        node, old = self.plan.node(name), self.change.old.nodes.get(name)
        if old is not None and old.content != "none":
            return self._conformed(node)
        match node.block:
            case FlatBlock():
                return f"({flat.content_sql(node.block, {i: self._old_content(i) for i in node.block.inputs})})"
            case UnionBlock():
                return f"({union.content_sql(node.block, {i: self._old_content(i) for i in node.block.inputs})})"
            case _:
                return self._nothing(node.relation)

    def _conformed(self, node: Node) -> str:
        """A stored content with the columns that its contract has now."""
        if not isinstance(node.block, SourceBlock) or node.name not in self.change.contracts:
            return content_name(node.relation)
        hidden = [quote(f.name) for f in HIDDEN_FIELDS] if node.relation.hidden else []
        columns = [*self._as_now(node.name), *hidden]
        return f"(SELECT {', '.join(columns)} FROM {content_name(node.relation)})"

    def _as_now(self, source: str) -> list[str]:
        """The columns of a source as SQL over what is stored of it."""
        before = {name for name, _, _ in self.change.old.sources[source].columns}
        fields = self.plan.node(source).relation.fields
        return [f"{quote(f.name) if f.name in before else 'NULL'}::{f.type} AS {quote(f.name)}" for f in fields]

    def _nothing(self, relation: Relation) -> str:
        fields = (*relation.fields, *(HIDDEN_FIELDS if relation.hidden else ()))
        return f"(SELECT {', '.join(f'NULL::{f.type} AS {quote(f.name)}' for f in fields)} WHERE FALSE)"

    def _empty(self, view: str) -> str:
        return self._nothing(self.plan.node(self.change.new.views[view].node).relation)

    # -- the new layout ------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Tables and views of the new plan; those of reused relations keep their rows."""
        old, connection = self.change.old, self.connection
        state.drop_views(connection)
        for name in (*self.change.drop, *(n for n in self.change.build if n in old.nodes)):
            for stored in old.nodes[name].state:
                connection.execute(f"DROP TABLE {table(stored)}")
        for node in self.built:
            state.create_tables(connection, node)
        for source in self.change.contracts:
            self._conform(source)
        for sink in self.change.sinks_gone:
            connection.execute(f"DROP TABLE {table('o_' + sink)}")
        for sink in self.change.sinks_new:
            state.create_outbox(connection, self.plan, sink)
        state.create_views(connection, self.plan)
        late_rows.create_late_tables(connection, self.plan)

    def _conform(self, source: str) -> None:
        """Give what is kept of a source the columns of its contract."""
        node = self.plan.node(source)
        names = [t.name for t in node.state] if source not in self.change.build else []
        before = {name for name, _, _ in self.change.old.sources[source].columns}
        for name in [*names, f"l_{source}"]:
            there = self._columns_of(name)
            if not there:
                continue
            partial = not before <= set(there)
            fields = [f for f in node.relation.fields if not partial or f.name in there]
            kept = [f"{quote(f.name) if f.name in there else 'NULL'}::{f.type} AS {quote(f.name)}" for f in fields]
            rest = [quote(c) for c in there if c not in before]
            moved = table(f"_ps_moved_{name}")
            self.connection.execute(f"CREATE TABLE {moved} AS SELECT {', '.join([*kept, *rest])} FROM {table(name)}")
            self.connection.execute(f"DROP TABLE {table(name)}")
            self.connection.execute(f"ALTER TABLE {moved} RENAME TO {quote(name)}")

    def _columns_of(self, stored: str) -> list[str]:
        """The columns of a state table; none where there is no such table."""
        rows = self.connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() "
            f"AND schema_name = '_ps' AND table_name = {literal(stored)} ORDER BY column_index"
        )
        return [name for (name,) in rows.fetchall()]

    # -- the rows ------------------------------------------------------------------------------------------------------

    def _build(self, node: Node) -> None:
        if isinstance(node.block, SourceBlock):
            if self._from_side(node.name):
                self._take(node)
            return
        if node.name in self.change.again:
            self._take(node)
            if node.content != "none":
                rows = self.scope.temporary(f"_ps_in_{node.name}", f"SELECT * FROM {content_name(node.relation)}")
                self.whole[node.name] = self._delta(node.relation, quote(f"_ps_in_{node.name}"), rows)
            return
        self.scope.deltas = {i: self.whole[i] for i in node.block.inputs if i in self.whole}
        if isinstance(node.block, FlatBlock) and len(node.block.from_) > 1:
            self._join(node, node.block)
        run_named_block(
            self.scope,
            node,
            problem="cannot be built from the rows that are there; the state is as it was",
            hint="guard it in the view (TRY_CAST, nullif, CASE)",
        )
        if node.name in self.scope.deltas:
            self.whole[node.name] = self.scope.deltas[node.name]

    def _join(self, node: Node, block: FlatBlock) -> None:
        """A join's terms are of one moving input; all of them at once are the whole join."""
        places = {
            i: self.whole[i].sql if i in self.whole else self._nothing(self.plan.node(i).relation) for i in block.inputs
        }
        weight = "" if block.relation.append_only else ', 1 AS "_ps_w"'
        sql = f"SELECT *{weight} FROM ({flat.content_sql(block, places)})"
        self.scope.started[node.name] = self.scope.temporary(f"_ps_d_{node.name}", sql)

    def _take(self, node: Node) -> None:
        """The tables of a relation from the state that read the sources again."""
        for stored in node.state:
            columns = column_list([f.name for f in stored.columns])
            self.connection.execute(
                f"INSERT INTO {table(stored.name)} ({columns}) SELECT {columns} FROM {_SIDE}.{table(stored.name)}"
            )

    def _late(self) -> None:
        """Which rows are late for what was built; corrections that had been applied to it must be asked for again."""
        rules = [(node, late) for node, late in self.plan.late_blocks if node.name in self.change.build]
        gone = ", ".join(literal(name) for name in (*self.change.build, *self.change.drop))
        if gone:
            self.connection.execute(f"DELETE FROM _ps.late WHERE block IN ({gone})")
        for node, late in rules:
            if not self._from_side(node.name):
                continue
            self.connection.execute(
                f"INSERT INTO _ps.late SELECT * REPLACE ({self.progress.epoch} AS epoch) FROM {_SIDE}._ps.late "
                f"WHERE block = {literal(node.name)}"
            )
            for name in dict.fromkeys((late.stream, late.relation)):
                kept = table(f"l_{name}")
                columns = column_list([*self.plan.node(name).relation.columns, "_ps_p", "_ps_o", "_ps_wm"])
                self.connection.execute(
                    f"INSERT INTO {kept} ({columns}) SELECT {columns} FROM {_SIDE}.{kept} AS s WHERE NOT EXISTS "
                    f"(SELECT 1 FROM {kept} AS k WHERE k._ps_p = s._ps_p AND k._ps_o = s._ps_o)"
                )
        self.progress.late = late_rows.late_counts(self.connection)

    def _forget(self) -> None:
        """Windows that a view had forgotten stay as they were told: the view that is built forgets them too."""
        old = self.change.old
        for name in (*self.change.build, *self.change.drop):
            self.connection.execute(f"DELETE FROM _ps.meta WHERE key = {literal(state.FORGOTTEN + name)}")
        for view in self._retold():
            cutoffs = [us for name, us in self.forgotten.items() if old.nodes[name].owner == view]
            for node in self.built if cutoffs else ():
                block = node.block
                if not isinstance(block, Windowed) or self.plan.owner(node.name) != view:
                    continue
                if block.window is not None and node.kept_after is not None:
                    state.forget_closed(self.connection, block, max(cutoffs), node.kept_after)

    # -- sinks, journal, signature -------------------------------------------------------------------------------------

    def _tell_sinks(self) -> None:
        new = self.change.new
        for view in self._retold():
            relation = self.plan.node(new.views[view].node).relation
            columns = column_list(relation.columns)
            now = self._new_content(new.views[view].node)
            moved = (
                f'SELECT {columns}, 1 AS "_ps_w" FROM {now} '
                f'UNION ALL SELECT {columns}, -1 AS "_ps_w" FROM {quote(f"_ps_told_{view}")}'
            )
            for sink in (s for s, v in new.sinks.items() if v == view and s not in self.change.sinks_new):
                self._tell(sink, relation, f"({moved})")

    def _tell_new_sinks(self) -> None:
        """All that their views say: also of windows that the old state has forgotten, where they were read again."""
        new = self.change.new
        for sink in self.change.sinks_new:
            node = self.plan.node(new.views[new.sinks[sink]].node)
            columns = column_list(node.relation.columns)
            if self._from_side(node.name):
                rows = f"{_SIDE}.{table('o_' + sink)}"
                weight = "CASE WHEN _op IN ('+I', '+U') THEN 1 ELSE -1 END"
            else:
                rows, weight = self._new_content(node.name), "1"
            self._tell(sink, node.relation, f'(SELECT {columns}, {weight} AS "_ps_w" FROM {rows})')

    def _new_content(self, name: str) -> str:
        node = self.plan.node(name)
        if node.content != "none":
            return quote(name)
        return self.whole[name].sql if name in self.whole else self._nothing(node.relation)

    def _tell(self, sink: str, relation: Relation, moved: str) -> None:
        self.scope.temporary("_ps_net", multiset.consolidated_sql(moved, relation.fields))
        self.scope.deltas = {relation.name: Delta('"_ps_net"', True)}
        sql = changes_sql(self.scope, relation.name)
        self.connection.execute(f"INSERT INTO {table('o_' + sink)} {sql}")

    def _journal(self) -> None:
        row = first_row(self.connection.execute("SELECT entry FROM _ps.journal ORDER BY epoch DESC LIMIT 1"))
        extra: dict[str, object] = {
            "flush": self.progress.flushed,
            "correction": False,
            "requests": [],
            "at_us": json.loads(row[0])["at_us"] if row else 0,
            "plan": self.plan.fingerprint,
            "advance": {},
            "changed": {what: self.change.views(what) for what in ("rebuilt", "added", "dropped")},
        }
        entry = state.journal_entry(self.progress, {}, extra)
        self.connection.execute(f"INSERT INTO _ps.journal VALUES ({self.progress.epoch}, {literal(entry)})")

    def _sign(self) -> None:
        self.connection.execute(f"DELETE FROM _ps.meta WHERE key IN ('plan', 'pipeline', {literal(state.PROGRAM)})")
        state.sign(self.connection, self.plan)
