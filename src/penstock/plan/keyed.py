"""Keyed tables: the newest row of a key wins, by (version, partition, offset) (semantics R1).

Delta rule: of the epoch's records take the newest per key; where it is newer than the stored one,
d = - the stored row (if it lives) + the new row (unless it is a delete). A delete leaves its position behind, so that
an older row that comes later does not raise the dead.

Reference version: over all records ever accepted, the newest per key, without deletes (`reference_sql`).
"""

from __future__ import annotations

from penstock.pipeline import SourceDecl
from penstock.plan.blocks import Field, Relation, column_list, quote, same

POSITION = ("_ps_p", "_ps_o")


def order_sql(source: SourceDecl, alias: str, *, descending: bool) -> str:
    """ORDER BY terms from oldest to newest, or the other way round."""
    way = "DESC NULLS LAST" if descending else "ASC NULLS FIRST"
    columns = ([source.version] if source.version else []) + list(POSITION)
    return ", ".join(f"{alias}.{quote(c)} {way}" for c in columns)


def reference_sql(source: SourceDecl, relation: Relation, records: str) -> str:
    """The table that all `records` (columns, `_ps_op`, `_ps_p`, `_ps_o`) amount to."""
    columns = column_list(relation.columns)
    keys = column_list(source.key, "r")
    return (
        f"SELECT {columns} FROM (SELECT r.*, row_number() OVER (PARTITION BY {keys} "
        f"ORDER BY {order_sql(source, 'r', descending=True)}) AS _ps_n FROM {records} AS r) "
        f"WHERE _ps_n = 1 AND _ps_op IN ('+I', '+U')"
    )


def newest_sql(source: SourceDecl, relation: Relation, records: str, stored: str) -> str:
    """One wide row per key that moves: new columns, `_ps_live`, and the stored row's columns with prefix `o_`."""
    keys = [f for f in relation.fields if f.name in source.key]
    columns = column_list(relation.columns, "n")
    old = ", ".join(f"s.{quote(c)} AS {quote('o_' + c)}" for c in relation.columns)
    newest = (
        f"SELECT * FROM (SELECT r.*, row_number() OVER (PARTITION BY {column_list(source.key, 'r')} "
        f"ORDER BY {order_sql(source, 'r', descending=True)}) AS _ps_n FROM {records} AS r) WHERE _ps_n = 1"
    )
    return (
        f"SELECT {columns}, n._ps_p, n._ps_o, n._ps_op IN ('+I', '+U') AS _ps_live, {old}, "
        f"coalesce(s._ps_live, FALSE) AS _ps_was, s._ps_p AS _ps_from "
        f"FROM ({newest}) AS n LEFT JOIN {stored} AS s ON "
        f"{same('s', 'n', [Field(k.name, k.type, False) for k in keys])} "
        f"WHERE s._ps_o IS NULL OR {_newer(source)}"
    )


def _newer(source: SourceDecl) -> str:
    position = "(n._ps_p, n._ps_o) > (s._ps_p, s._ps_o)"
    if source.version is None:
        return position
    new, old = f"n.{quote(source.version)}", f"s.{quote(source.version)}"
    return (
        f"CASE WHEN {new} IS NOT DISTINCT FROM {old} THEN {position} "
        f"WHEN {old} IS NULL THEN TRUE WHEN {new} IS NULL THEN FALSE ELSE {new} > {old} END"
    )


def delta_sql(relation: Relation, moved: str) -> str:
    """The delta from the wide rows; a row that stays as it is is left out."""
    columns = column_list(relation.columns)
    old = ", ".join(f"{quote('o_' + c)} AS {quote(c)}" for c in relation.columns)
    unchanged = " AND ".join(f"{quote(c)} IS NOT DISTINCT FROM {quote('o_' + c)}" for c in relation.columns)
    changed = f"NOT (_ps_was AND _ps_live AND {unchanged})"
    return (
        f'SELECT {old}, -1 AS "_ps_w" FROM {moved} WHERE _ps_was AND {changed} '
        f'UNION ALL SELECT {columns}, 1 AS "_ps_w" FROM {moved} WHERE _ps_live AND {changed}'
    )


def delete_sql(source: SourceDecl, stored: str, moved: str) -> str:
    condition = " AND ".join(f"s.{quote(k)} = m.{quote(k)}" for k in source.key)
    return f"DELETE FROM {stored} AS s USING {moved} AS m WHERE {condition}"


def insert_sql(relation: Relation, stored: str, moved: str) -> str:
    columns = column_list([*relation.columns, "_ps_p", "_ps_o", "_ps_live"])
    return f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM {moved}"
