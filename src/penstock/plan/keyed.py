"""Keyed tables: the newest row of a key wins, by (version, partition, offset) (semantics R1).

Delta rule: of the epoch's records take the newest per key; where it is newer than the stored one,
d = - the stored row (if it lives) + the new row (unless it is a delete). A delete leaves its position behind, so that
an older row that comes later does not raise the dead. The delta has only the columns that any block or sink reads; a
row that changes in none of them is no change.

Reference version: over all records ever accepted, the newest per key, without deletes (`reference_sql`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def newest_sql(source: SourceDecl, records: str) -> str:
    """Of the epoch's records the newest of each key."""
    return (
        f"SELECT * EXCLUDE (_ps_n) FROM (SELECT r.*, row_number() OVER (PARTITION BY {column_list(source.key, 'r')} "
        f"ORDER BY {order_sql(source, 'r', descending=True)}) AS _ps_n FROM {records} AS r) WHERE _ps_n = 1"
    )


def stored_sql(source: SourceDecl, relation: Relation, read: Sequence[str], newest: str, stored: str, by: str) -> str:
    """The stored rows of the keys in `newest`: keys, version, what is read, their positions and row ids.

    Wide tables are mostly texts that nobody reads: those of the other columns would cost most of an epoch. by: the key
    column to find them by, if it is worth it, else empty. DuckDB skips what no key of a join can match while it scans,
    but only where the join has one, so the others are conditions that it does not take for keys.
    """
    keys = _keys(source, relation)
    if by:
        others = same("s", "n", [key for key in keys if key.name != by])
        matches = f"s.{quote(by)} = n.{quote(by)} AND ({others}) IS TRUE"
    else:
        matches = same("s", "n", keys)
    return (
        f"{_found(source, relation, read, stored)} JOIN (SELECT {column_list(source.key)} FROM {newest}) AS n "
        f"ON {matches}"
    )


def stored_row_sql(
    source: SourceDecl, relation: Relation, read: Sequence[str], values: Mapping[str, str], stored: str
) -> str:
    """The same of one key. values: its columns' values in SQL, which takes half as long to plan as a join."""
    keys = " AND ".join(f"s.{quote(name)} = {value}" for name, value in values.items())
    return f"{_found(source, relation, read, stored)} WHERE {keys}"


def _found(source: SourceDecl, relation: Relation, read: Sequence[str], stored: str) -> str:
    needed = {*read, *source.key, source.version}
    columns = column_list([c for c in relation.columns if c in needed], "s")
    return f"SELECT {columns}, s._ps_p, s._ps_o, s._ps_live, s.rowid AS _ps_row FROM {stored} AS s"


def moved_sql(source: SourceDecl, relation: Relation, read: Sequence[str], newest: str, found: str) -> str:
    """One wide row per key that moves: new columns, `_ps_live`, and of the stored row (`_ps_row`) what is read, with
    prefix `o_`. newest, found: relations that the two functions above give.
    """
    columns = column_list(relation.columns, "n")
    old = "".join(f"s.{quote(c)} AS {quote('o_' + c)}, " for c in read)
    return (
        f"SELECT {columns}, n._ps_p, n._ps_o, n._ps_op IN ('+I', '+U') AS _ps_live, {old}"
        f"coalesce(s._ps_live, FALSE) AS _ps_was, s._ps_p AS _ps_from, s._ps_row "
        f"FROM {newest} AS n LEFT JOIN {found} AS s ON {same('s', 'n', _keys(source, relation))} "
        f"WHERE s._ps_o IS NULL OR {_newer(source)}"
    )


def _keys(source: SourceDecl, relation: Relation) -> list[Field]:
    """Without a NULL: a record with one in its key is dead."""
    return [Field(f.name, f.type, False) for f in relation.fields if f.name in source.key]


def _newer(source: SourceDecl) -> str:
    position = "(n._ps_p, n._ps_o) > (s._ps_p, s._ps_o)"
    if source.version is None:
        return position
    new, old = f"n.{quote(source.version)}", f"s.{quote(source.version)}"
    return (
        f"CASE WHEN {new} IS NOT DISTINCT FROM {old} THEN {position} "
        f"WHEN {old} IS NULL THEN TRUE WHEN {new} IS NULL THEN FALSE ELSE {new} > {old} END"
    )


def delta_sql(read: Sequence[str], moved: str) -> str:
    """The delta from the wide rows, as far as it is read; a row that stays as it is there is left out."""
    columns = "".join(f"{quote(c)}, " for c in read)
    old = "".join(f"{quote('o_' + c)} AS {quote(c)}, " for c in read)
    unchanged = "".join(f" AND {quote(c)} IS NOT DISTINCT FROM {quote('o_' + c)}" for c in read)
    changed = f"NOT (_ps_was AND _ps_live{unchanged})"
    return (
        f'SELECT {old}-1 AS "_ps_w" FROM {moved} WHERE _ps_was AND {changed} '
        f'UNION ALL SELECT {columns}1 AS "_ps_w" FROM {moved} WHERE _ps_live AND {changed}'
    )


def delete_sql(stored: str, moved: str, rows: Sequence[int] | None = None) -> str:
    """The rows that were found go by their row ids, which are theirs until the transaction ends. rows: these few.

    None of them was inserted in this transaction: an epoch deletes from a table before it inserts, and once. So the ids
    may be a filter of DuckDB's scan (decision 0025).
    """
    if rows is not None:
        return f"DELETE FROM {stored} WHERE rowid IN ({', '.join(map(str, rows))})"
    return f"DELETE FROM {stored} WHERE rowid IN (SELECT _ps_row FROM {moved} WHERE _ps_row IS NOT NULL)"


def insert_sql(relation: Relation, stored: str, moved: str) -> str:
    columns = column_list([*relation.columns, "_ps_p", "_ps_o", "_ps_live"])
    return f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM {moved}"
