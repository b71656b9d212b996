"""From a view's delta to change records (semantics E4, V5).

A keyed view's changes are `+I`, `-U`, `+U`, `-D`, at most one pair a key; one without a key repeats `+I` and `-D`. The
order within an epoch is fixed by the rows themselves, so that `_seq` is the same in every run.
"""

from __future__ import annotations

import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from penstock.engines.duckdb.prepared import carried
from penstock.engines.duckdb.redo import Moved
from penstock.engines.duckdb.scope import EpochScope
from penstock.engines.duckdb.state import table
from penstock.plan import grouped, multiset
from penstock.plan.blocks import GroupedBlock, Relation, column_list, quote


class Changes:
    """The change records of one epoch, by relation."""

    def __init__(self, scope: EpochScope) -> None:
        self._scope = scope
        self._rows: dict[str, pa.Table] = {}

    def send(self, sink: str, name: str) -> pa.Table | None:
        """Put the records of a relation into a sink's outbox; as the sink gets them, None where there are none."""
        scope, outbox = self._scope, table("o_" + sink)
        if name not in scope.deltas:
            return None
        if self._in_memory(name):
            rows = self.read(name)
            if rows and scope.behind is not None:
                scope.behind.stage(Moved(f"o_{sink}", rows))
            elif rows:
                scope.statements.give(f"_ps_out_{sink}", rows)
                scope.statements.write(f"INSERT INTO {outbox} SELECT * FROM {quote('_ps_out_' + sink)}")
            return rows or None
        if not scope.statements.write(f"INSERT INTO {outbox} {changes_sql(scope, name)}"):
            return None
        return scope.statements.fetch(f"SELECT * FROM {outbox} WHERE _epoch = {scope.epoch} ORDER BY _seq")

    def read(self, name: str) -> pa.Table | None:
        """The records of a relation, None where it did not move."""
        scope = self._scope
        if name not in scope.deltas:
            return None
        if not self._in_memory(name):
            return scope.statements.fetch(changes_sql(scope, name))
        if name not in self._rows and name in scope.changes:
            self._rows[name] = self._tagged(scope.changes[name])
        if name not in self._rows:
            sql = scope.text(("records", name, scope.deltas[name].sql), lambda: self._records(name))
            self._rows[name] = self._tagged(scope.statements.fetch(sql))
        return self._rows[name]

    def _in_memory(self, name: str) -> bool:
        fields = self._scope.plan.node(name).relation.fields
        return self._scope.statements.in_parts and carried(tuple(f.type for f in fields))

    def _records(self, name: str) -> str:
        """The same text in every epoch, with the types of the outbox."""
        fields = self._scope.plan.node(name).relation.fields
        columns = ", ".join(f"CAST({quote(f.name)} AS {f.type}) AS {quote(f.name)}" for f in fields)
        return f"SELECT {columns}, _op, _seq FROM ({numbered_sql(self._scope, name)}) ORDER BY _seq"

    def _tagged(self, records: pa.Table) -> pa.Table:
        scope, count = self._scope, len(records)
        columns = records.columns
        # by numpy: for values of Python, pyarrow looks for libraries, in vain and each time
        epochs = pa.chunked_array([pa.array(np.full(count, scope.epoch, dtype=np.int64))])
        flags = pa.chunked_array([pa.array(np.full(count, scope.correction))])
        names = [*records.column_names[:-1], "_epoch", "_seq", "_correction"]
        return pa.Table.from_arrays([*columns[:-1], epochs, columns[-1], flags], names=names)


# Types whose values Arrow puts in the order in which DuckDB does.
_ORDERED = re.compile(r"(TINY|SMALL|BIG)?INT|INTEGER|U(TINYINT|SMALLINT|INTEGER|BIGINT)|BOOLEAN|DATE|TIMESTAMP|VARCHAR")


def key_order(block: GroupedBlock, touched: pa.Table) -> NDArray[np.int64] | None:
    """The rows that `grouped.merge_step_sql` gives in the order of the view's key; None where DuckDB has to say.

    Reference version: `grouped.step_order_sql`.
    """
    if len(touched) < 2:
        return np.arange(len(touched))
    names = block.relation.key
    types = {field.name: field.type for field in block.relation.fields}
    if not all(_ORDERED.fullmatch(types[name]) for name in names):
        return None
    comes = touched.column(grouped.IN)
    values = [
        compute.if_else(comes, touched.column(grouped.AFTER + name), touched.column(grouped.BEFORE + name))
        for name in names
    ]
    table = pa.Table.from_arrays(values, names=list(names))
    places = compute.sort_indices(table, sort_keys=[(name, "ascending") for name in names])
    return np.asarray(places, dtype=np.int64)


def step_records(block: GroupedBlock, touched: pa.Table, order: NDArray[np.int64]) -> pa.Table:
    """The records of what `grouped.merge_step_sql` gives, where each group has one row in the view at most.

    order: of its rows. Reference version: `numbered_sql`, of the block's delta.
    """
    goes, comes = (touched.column(name).to_numpy()[order] for name in (grouped.OUT, grouped.IN))
    count = len(order)
    # of each group the row before and the row after, one after the other
    places = np.column_stack((order, order + len(touched))).ravel()
    there = np.column_stack((goes, comes)).ravel()
    both = np.repeat(goes & comes, 2)[there]
    after = np.tile((False, True), count)[there]
    names = list(block.relation.columns)
    before, now = (
        touched.select([label + name for name in names]).rename_columns(names)
        for label in (grouped.BEFORE, grouped.AFTER)
    )
    rows = pa.concat_tables([before, now]).combine_chunks().take(pa.array(places[there]))
    ops, numbers = _OPS.take(pa.array(both * 2 + after)), pa.array(np.arange(len(rows)))
    return pa.Table.from_arrays([*rows.columns, ops, numbers], names=[*names, "_op", "_seq"])


_OPS = pa.array(["-D", "+I", "-U", "+U"])


def changes_sql(scope: EpochScope, name: str) -> str:
    """The change records of a relation that moved, as the outbox has them."""
    columns = column_list(scope.plan.node(name).relation.columns)
    flag = f"{'TRUE' if scope.correction else 'FALSE'} AS _correction"
    rows = numbered_sql(scope, name)
    return f"SELECT {columns}, _op, {scope.epoch}::BIGINT AS _epoch, _seq, {flag} FROM ({rows}) ORDER BY _seq"


def numbered_sql(scope: EpochScope, name: str) -> str:
    """The change records of a relation that moved, with `_op` and `_seq`."""
    delta = scope.deltas[name]
    node = scope.plan.node(name)
    relation = node.relation
    columns = column_list(relation.columns)
    if not delta.weighted:
        order = "_ps_p, _ps_o" if relation.hidden else columns
        order += f", {columns}" if relation.hidden and relation.several else ""
        return f"SELECT {columns}, '+I' AS _op, row_number() OVER (ORDER BY {order}) - 1 AS _seq FROM {delta.sql}"
    net = (
        delta.sql
        if isinstance(node.block, GroupedBlock) and grouped.one_row_a_group(node.block)
        else f"({multiset.consolidated_sql(delta.sql, relation.fields)})"
    )
    return _keyed(relation, net) if relation.key else _repeated(relation, net)


def _keyed(relation: Relation, net: str) -> str:
    keys, columns = column_list(relation.key), column_list(relation.columns)
    paired = f"SELECT *, count(*) OVER (PARTITION BY {keys}) > 1 AS _ps_both FROM {net}"
    op = "CASE WHEN \"_ps_w\" < 0 THEN CASE WHEN _ps_both THEN '-U' ELSE '-D' END WHEN _ps_both THEN '+U' ELSE '+I' END"
    order = f'{keys}, "_ps_w", {columns}'
    return f"SELECT *, {op} AS _op, row_number() OVER (ORDER BY {order}) - 1 AS _seq FROM ({paired})"


def _repeated(relation: Relation, net: str) -> str:
    columns = column_list(relation.columns)
    copies = f'SELECT *, unnest(range(abs("_ps_w"))) AS _ps_copy FROM {net}'
    op = "CASE WHEN \"_ps_w\" < 0 THEN '-D' ELSE '+I' END"
    return f'SELECT *, {op} AS _op, row_number() OVER (ORDER BY "_ps_w", {columns}) - 1 AS _seq FROM ({copies})'


def fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """A query's rows as an Arrow table."""
    return connection.sql(sql).to_arrow_table()
