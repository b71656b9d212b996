"""What small epochs keep in memory instead of reading and writing tables: groups, and what is not settled yet.

It is done for the grouped blocks whose table nobody reads within an epoch (`blocks_behind`). Invariants, for each of
these and between two epochs:

- A row in memory is its group's state as it is now.
- A group that is not settled is in memory; a group that has gone is there too, with a count of zero, until it is.
- Rows for an outbox are in memory until they are settled or delivered.
- Settling writes each group as it is now, however many epochs have moved it. (What opens a state after a crash has the
  entries alone, and writes the last of each: `redo.apply`.)
- If `whole`, every group is in memory, so that one that is not is new. Else it is looked up in the table.

What an epoch moves is staged, and becomes true when the epoch has been committed; a rollback forgets it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.engines.duckdb import redo
from penstock.engines.duckdb.prepared import Prepared, carried, distinct
from penstock.engines.duckdb.redo import Moved
from penstock.engines.duckdb.redo_log import RedoLog
from penstock.engines.duckdb.state import table
from penstock.plan import grouped
from penstock.plan.blocks import FlatBlock, GroupedBlock, Node, StepBlock, UnionBlock, quote
from penstock.plan.plan import Plan
from penstock.storage import failpoints

# Groups of a block that are held; above twice as many, the next settling forgets those not touched lately.
KEPT_GROUPS = 5_000
# What may wait to be settled: so many epochs, or so many bytes that they moved. A start after a crash reads it all.
SETTLE_EPOCHS = 1_024
SETTLE_BYTES = 32 << 20


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
    """The groups of one block that are in memory, those touched last at the end.

    stored: their state table; types: of its columns. behind: of each row, whether the table does not have it yet;
    there: whether the group is there, or has gone.
    """

    block: GroupedBlock
    stored: str
    types: tuple[str, ...]
    rows: pa.Table
    whole: bool
    behind: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    there: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.block.keys)

    def indexed(self) -> pa.Table:
        """The rows with their places."""
        return self.rows.append_column(grouped.INDEX, pa.array(np.arange(len(self.rows))))

    def add(self, rows: pa.Table) -> None:
        """Groups as their table has them."""
        self._append(rows, np.zeros(len(rows), dtype=bool), np.ones(len(rows), dtype=bool))

    def put(self, places: pa.ChunkedArray, rows: pa.Table, there: NDArray[np.bool_]) -> None:
        """These rows, which are not settled, instead of the ones at the places."""
        stay = np.ones(len(self.rows), dtype=bool)
        stay[places.drop_null().to_numpy()] = False
        self._keep(stay)
        self._append(rows, np.ones(len(rows), dtype=bool), there)

    def unsettled(self) -> Moved | None:
        """What the table does not have yet: each group once."""
        if not self.behind.any():
            return None
        places = np.flatnonzero(self.behind)
        there = pa.array(self.there[places])
        return Moved(self.stored, self.rows.take(pa.array(places)).append_column(redo.STAYS, there), self.keys)

    def settled(self) -> None:
        """The table has all: what has gone leaves memory, and so does most where there is too much."""
        self._keep(self.there)
        self.behind[:] = False
        if self.many:
            self.whole = False
            self._keep(np.arange(len(self.rows)) >= len(self.rows) - KEPT_GROUPS)

    @property
    def many(self) -> bool:
        """Whether there are more than are to be held."""
        return len(self.rows) > 2 * KEPT_GROUPS

    def _keep(self, stay: NDArray[np.bool_]) -> None:
        if not stay.all():
            self.rows = self.rows.take(pa.array(np.flatnonzero(stay)))
            self.behind, self.there = self.behind[stay], self.there[stay]

    def _append(self, rows: pa.Table, behind: NDArray[np.bool_], there: NDArray[np.bool_]) -> None:
        self.rows = _together([self.rows, rows])
        self.behind, self.there = np.concatenate([self.behind, behind]), np.concatenate([self.there, there])


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
        # What waits: epochs, what they moved in bytes, and what is to be added, by table.
        self._epochs, self._bytes = 0, 0
        self._added: dict[str, deque[tuple[int, pa.Table]]] = {}
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
                groups.add(found)
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
        groups = self._groups[name] = Groups(self.blocks[name], state.name, types, rows.slice(0, 0), whole)
        if whole:
            groups.add(rows)
        return groups

    def _stage(self, groups: Groups, touched: pa.Table) -> None:
        names = groups.rows.column_names
        keys = groups.keys
        sources = [*keys, *(f"n{name}" for name in names[len(keys) :])]
        rows = touched.select(sources).rename_columns(names)
        places, there = touched.column(grouped.INDEX), touched.column(grouped.NEW)
        self._puts.append(lambda: groups.put(places, rows, there.to_numpy()))
        self.stage(Moved(groups.stored, rows.append_column(redo.STAYS, there), keys))

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

    def committed(self, epoch: int) -> None:
        """What was staged has been committed."""
        for put in self._puts:
            put()
        for part in self._staged:
            self._bytes += part.rows.nbytes
            if part.keys is None:
                self._added.setdefault(part.table, deque()).append((epoch, part.rows))
        self._epochs += 1
        self._staged, self._puts = [], []

    def rolled_back(self) -> None:
        """What was staged is not true."""
        self._staged, self._puts = [], []

    # -- settling ------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether tables are behind."""
        return self._epochs > 0

    @property
    def due(self) -> bool:
        """Whether so much has gathered that it is to be settled."""
        many = any(groups.many for groups in self._groups.values())
        return self._epochs >= SETTLE_EPOCHS or self._bytes >= SETTLE_BYTES or many

    def forget_delivered(self, sink: str, upto: int) -> None:
        """What a sink has is not settled any more, and leaves its outbox with the next settling."""
        self.delivered[sink] = upto
        waiting = self._added.get(f"o_{sink}", deque())
        while waiting and waiting[0][0] <= upto:
            waiting.popleft()

    def settle(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Bring the tables up to date."""
        moved = [part for groups in self._groups.values() if (part := groups.unsettled()) is not None]
        moved += [Moved(name, _together(rows for _, rows in added)) for name, added in self._added.items() if added]
        redo.settle(connection, [moved], {f"o_{sink}": epoch for sink, epoch in self.delivered.items()})
        self._epochs, self._bytes, self._added, self.delivered = 0, 0, {}, {}
        for groups in self._groups.values():
            groups.settled()
        failpoints.hit(redo.AFTER_COMMIT)
        if self.log is not None:
            self.log.settled()

    def forget(self) -> None:
        """Tables are about to change by other ways: nothing in memory is relied on. (Nothing is unsettled.)"""
        assert not self._epochs
        self._groups = {}


def _together(tables: Iterable[pa.Table]) -> pa.Table:
    """All rows in one piece, in the types of the first table: what is in hundreds, DuckDB reads slowly."""
    first, *others = tables
    return pa.concat_tables(
        [first, *(t if t.schema.equals(first.schema) else t.cast(first.schema) for t in others)]
    ).combine_chunks()
