"""`emit = 'final'`: each row of a windowed group, or of ranks within windows, once, when the watermark passes its end.

Delta rule, with M and M' the watermark before and after the epoch and E the rows emitted so far (by group):

    closing:      d = rows of groups whose window ends in (M, M']  -  provisional rows of E in these windows
    correcting:   d = rows of the groups that a correction touches and whose window ends at or before M  -  theirs in E
    flushing:     d = rows of all windows that end after M  -  provisional rows of E in them; they become provisional

A closed window is frozen (semantics T3): its group may go on moving with a table that it is joined to, but only a
correction is shown. A flush is the end of a stream (semantics T4): the watermark does not move, and a later run that
closes the window emits only what differs. E is kept until the correction horizon has passed.

Reference version: the group's content restricted to windows that end in (M, M'], taken at the epoch that closed them.
"""

from __future__ import annotations

from penstock.plan.blocks import Field, FinalBlock, column_list, same


def fields(block: FinalBlock) -> tuple[Field, ...]:
    """What is stored of an emitted row beside `_ps_open`: its columns, its group's keys, its window's end."""
    return (*block.relation.fields, *block.keys, Field("_ps_end", "TIMESTAMP"))


def rows_sql(block: FinalBlock, keyed_content: str, after: str, upto: str | None) -> str:
    """The group's rows with `_ps_end` in (after, upto] (SQL timestamps; `upto` None: no limit)."""
    return f"SELECT * FROM ({_rows(block, keyed_content)}) WHERE {_between(after, upto)}"


def emitted_sql(stored: str, after: str, upto: str | None) -> str:
    """What was emitted of the same windows."""
    return f"SELECT * FROM {stored} WHERE {_between(after, upto)}"


def corrected_keys_sql(block: FinalBlock, group_delta: str, before: str) -> str:
    """The groups that the delta touches and whose windows had closed at `before`."""
    keys = column_list([k.name for k in block.keys])
    return f"SELECT DISTINCT {keys} FROM ({_rows(block, group_delta)}) WHERE _ps_end <= {before}"


def of_groups_sql(block: FinalBlock, rows: str, groups: str) -> str:
    """Those of the rows (an SQL table) that belong to the groups."""
    return f"SELECT * FROM {rows} AS s SEMI JOIN {groups} AS a ON {same('s', 'a', block.keys)}"


def corrected_rows_sql(block: FinalBlock, keyed_content: str, groups: str) -> str:
    """The groups' rows as they are now."""
    return of_groups_sql(block, f"({_rows(block, keyed_content)})", groups)


def delta_sql(block: FinalBlock, rows: str, emitted: str) -> str:
    """Rows that were not emitted yet, and emitted ones that are no longer right (both SQL tables or subqueries)."""
    columns = column_list([f.name for f in fields(block)])
    gone = f"SELECT {columns} FROM {emitted} EXCEPT ALL SELECT {columns} FROM {rows}"
    come = f"SELECT {columns} FROM {rows} EXCEPT ALL SELECT {columns} FROM {emitted}"
    return f'SELECT *, -1 AS "_ps_w" FROM ({gone}) UNION ALL SELECT *, 1 AS "_ps_w" FROM ({come})'


def _rows(block: FinalBlock, content: str) -> str:
    columns = column_list([*block.relation.columns, *(k.name for k in block.keys)])
    return f"SELECT {columns}, {block.window.end} AS _ps_end FROM {content}"


def _between(after: str, upto: str | None) -> str:
    return f"_ps_end > {after}" + (f" AND _ps_end <= {upto}" if upto is not None else "")
