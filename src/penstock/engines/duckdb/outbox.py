"""From a view's delta to change records (semantics E4, V5).

A keyed view's changes are `+I`, `-U`, `+U`, `-D`, at most one pair a key; one without a key repeats `+I` and `-D`. The
order within an epoch is fixed by the rows themselves, so that `_seq` is the same in every run.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from penstock.engines.duckdb.scope import EpochScope
from penstock.plan import multiset
from penstock.plan.blocks import GroupedBlock, Relation, column_list


def changes_sql(scope: EpochScope, name: str, *, correction: bool) -> str | None:
    """The epoch's change records of a relation, or None where it did not move."""
    delta = scope.deltas.get(name)
    if delta is None:
        return None
    node = scope.plan.node(name)
    relation = node.relation
    extra = f"{scope.epoch}::BIGINT AS _epoch"
    flag = f"{'TRUE' if correction else 'FALSE'} AS _correction"
    columns = column_list(relation.columns)
    if not delta.weighted:
        order = "_ps_p, _ps_o" if relation.hidden else columns
        order += f", {columns}" if relation.hidden and relation.several else ""
        inner = f"SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS _seq FROM {delta.sql}"
        return f"SELECT {columns}, '+I' AS _op, {extra}, _seq, {flag} FROM ({inner}) ORDER BY _seq"
    net = (
        delta.sql
        if isinstance(node.block, GroupedBlock) and relation.key
        else f"({multiset.consolidated_sql(delta.sql, relation.fields)})"
    )
    numbered = _keyed(relation, net) if relation.key else _repeated(relation, net)
    return f"SELECT {columns}, _op, {extra}, _seq, {flag} FROM ({numbered}) ORDER BY _seq"


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
