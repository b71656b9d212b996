"""What small epochs keep in memory instead of reading and writing tables: groups, and what is not settled yet.

It is done for the grouped blocks whose table nobody reads within an epoch (`blocks_behind`). Invariants, for each of
these and between two epochs:

- A row in memory is its group's state as it is now.
- A group that is not settled is in memory; a group that has gone is there too, with a count of zero, until it is.
- If `whole`, every group is in memory, so that one that is not is new. Else it is looked up in the table.

What an epoch moves is staged, and becomes true when the epoch has been committed; a rollback forgets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import pyarrow as pa

from penstock.engines.duckdb import redo
from penstock.engines.duckdb.prepared import Prepared, carried, distinct
from penstock.engines.duckdb.redo import Moved
from penstock.engines.duckdb.redo_log import RedoLog
from penstock.engines.duckdb.state import table
from penstock.plan import grouped
from penstock.plan.blocks import FlatBlock, GroupedBlock, Node, StepBlock, UnionBlock, quote
from penstock.plan.plan import Plan
from penstock.storage import failpoints

# Groups of a block that are held; above twice as many they are forgotten at the next settling.
KEPT_GROUPS = 5_000
# What may wait to be settled: so many epochs, or so many rows of all tables.
SETTLE_EPOCHS = 256
SETTLE_ROWS = 50_000


def blocks_behind(plan: Plan) -> dict[str, GroupedBlock]:
    """The grouped blocks whose table nobody reads within an epoch, and whose rows Arrow carries."""
    found = {}
    for node in plan.nodes:
        block = node.block
        if not isinstance(block, GroupedBlock) or block.strategy != "merge" or _content_read(plan, node):
            continue
        fields = [f.type for f in (*node.state[0].columns, *node.relation.fields)]
        names = [*grouped.step_names(block)]
        if carried(tuple(fields)) and distinct(tuple(names)):
            found[node.name] = block
    return found


def _content_read(plan: Plan, node: Node) -> bool:
    """Whether a block reads the relation's content, and not its delta alone."""
    for reader in plan.nodes:
        block = reader.block
        if node.name not in getattr(block, "inputs", ()):
            continue
        match block:
            case FlatBlock() if len(block.from_) == 1:
                if reader.content != "table" and _content_read(plan, reader):
                    return True
            case UnionBlock():
                if reader.content != "table" and _content_read(plan, reader):
                    return True
            case GroupedBlock(strategy="merge") | StepBlock():
                continue
            case _:
                return True
    return False


@dataclass
class Groups:
    """The groups of one block that are in memory. stored: their state table; types: of its columns."""

    block: GroupedBlock
    stored: str
    types: tuple[str, ...]
    rows: pa.Table
    whole: bool

    def indexed(self) -> pa.Table:
        """The rows with their places."""
        return self.rows.append_column(grouped.INDEX, pa.array(np.arange(len(self.rows))))

    def put(self, places: pa.ChunkedArray, rows: pa.Table) -> None:
        """These rows instead of the ones at the places."""
        stay = np.ones(len(self.rows), dtype=bool)
        stay[places.drop_null().to_numpy()] = False
        left = self.rows if stay.all() else self.rows.take(pa.array(np.flatnonzero(stay)))
        self.rows = _together(left, rows)


@dataclass
class Behind:
    """See the module. log: None in memory. delivered: per sink, up to which epoch its changes are not needed any
    more."""

    plan: Plan
    statements: Prepared
    log: RedoLog | None
    delivered: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = blocks_behind(self.plan)
        self._groups: dict[str, Groups] = {}
        self._epochs: list[list[Moved]] = []
        self._rows = 0
        self._staged: list[Moved] = []
        self._puts: list[Callable[[], None]] = []

    # -- an epoch ------------------------------------------------------------------------------------------------------

    def touched(self, name: str, sql: Callable[[str], str]) -> pa.Table:
        """Run a block's step; sql: its text, given the name of the groups in memory. Leaves `_ps_t_NAME`."""
        groups = self._groups.get(name) or self._load(name)
        result, text = f"_ps_t_{name}", sql(quote(f"_ps_h_{name}"))
        touched = self._step(name, groups, text)
        if not groups.whole and touched.column(grouped.INDEX).null_count:
            missing = f"(SELECT * FROM {quote(result)} WHERE {grouped.INDEX} IS NULL)"
            found = self.statements.fetch(grouped.merge_state_sql(groups.block, missing, table(groups.stored)))
            if len(found):
                groups.rows = _together(groups.rows, found)
                touched = self._step(name, groups, text)
        if len(touched):
            self._stage(groups, touched)
        return touched

    def _step(self, name: str, groups: Groups, text: str) -> pa.Table:
        self.statements.hold(f"_ps_h_{name}", groups.indexed(), (*groups.types, "BIGINT"))
        self.statements.store(f"_ps_t_{name}", text)
        rows = self.statements.held(f"_ps_t_{name}")
        assert rows is not None, "Arrow carries its types (blocks_behind)"
        return rows

    def _load(self, name: str) -> Groups:
        state = self.plan.node(name).state[0]
        rows = self.statements.fetch(f"SELECT * FROM {table(state.name)} LIMIT {KEPT_GROUPS + 1}").combine_chunks()
        whole = len(rows) <= KEPT_GROUPS
        types = tuple(f.type for f in state.columns)
        groups = Groups(self.blocks[name], state.name, types, rows if whole else rows.slice(0, 0), whole)
        self._groups[name] = groups
        return groups

    def _stage(self, groups: Groups, touched: pa.Table) -> None:
        names = groups.rows.column_names
        keys = tuple(k.name for k in groups.block.keys)
        sources = [*keys, *(f"n{name}" for name in names[len(keys) :])]
        rows = touched.select(sources).rename_columns(names)
        places = touched.column(grouped.INDEX)
        self._puts.append(lambda: groups.put(places, rows))
        self.stage(Moved(groups.stored, rows.append_column(redo.STAYS, touched.column(grouped.NEW)), keys))

    def stage(self, moved: Moved) -> None:
        """Part of what the epoch writes."""
        self._staged.append(moved)

    def write(self, epoch: int) -> None:
        """The epoch's redo row, in its transaction."""
        self.statements.give("_ps_redo_entry", redo.entry_row(epoch, redo.encoded(self._staged), pa.binary()))
        self.statements.write(f"INSERT INTO {table('redo')} SELECT * FROM _ps_redo_entry")

    def commit(self, epoch: int, after: int) -> None:
        """Make durable an epoch that has changed no table. after: the epoch before it."""
        if self.log is not None:
            self.log.append(epoch, after, redo.encoded(self._staged))

    def committed(self) -> None:
        """What was staged has been committed."""
        for put in self._puts:
            put()
        self._epochs.append(self._staged)
        self._rows += sum(len(part.rows) for part in self._staged)
        self._staged, self._puts = [], []

    def rolled_back(self) -> None:
        """What was staged is not true."""
        self._staged, self._puts = [], []

    # -- settling ------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether tables are behind."""
        return bool(self._epochs)

    @property
    def due(self) -> bool:
        """Whether so much has gathered that it is to be settled."""
        full = any(len(groups.rows) > 2 * KEPT_GROUPS for groups in self._groups.values())
        return len(self._epochs) >= SETTLE_EPOCHS or self._rows >= SETTLE_ROWS or full

    def settle(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Bring the tables up to date; what sinks have does not go into their outbox."""
        outboxes = {f"o_{sink}": epoch for sink, epoch in self.delivered.items()}
        epochs = [[part for part in parts if not _delivered(part, outboxes)] for parts in self._epochs]
        redo.settle(connection, epochs, outboxes)
        self._epochs, self._rows, self.delivered = [], 0, {}
        for name, groups in list(self._groups.items()):
            if len(groups.rows) > 2 * KEPT_GROUPS:
                self._groups[name] = replace(groups, rows=groups.rows.slice(0, 0), whole=False)
        failpoints.hit(redo.AFTER_COMMIT)
        if self.log is not None:
            self.log.settled()

    def forget(self) -> None:
        """Tables are about to change by other ways: nothing in memory is relied on. (Nothing is unsettled.)"""
        assert not self._epochs
        self._groups = {}


def _together(known: pa.Table, more: pa.Table) -> pa.Table:
    if not more.schema.equals(known.schema):
        more = more.cast(known.schema)
    return pa.concat_tables([known, more]).combine_chunks()


def _delivered(part: Moved, outboxes: dict[str, int]) -> bool:
    upto = outboxes.get(part.table)
    return upto is not None and part.rows.column("_epoch")[0].as_py() <= upto
