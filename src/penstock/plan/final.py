"""`emit = 'final'`: each row of a windowed group once, when the watermark has passed its window's end.

Delta rule, with M and M' the watermark before and after the epoch and E the rows emitted so far:

    closing:      d = rows of groups whose window ends in (M, M']  -  provisional rows of E in these windows
    correcting:   d = the group's own delta for windows that had closed before (a correction alone can touch those)
    flushing:     d = rows of all windows that end after M  -  provisional rows of E in them; they become provisional

A flush is the end of a stream (semantics T4): the watermark does not move, and a later run that closes the window emits
only what differs. E is kept until the correction horizon has passed.

Reference version: the group's content restricted to windows that end at or before the watermark.
"""

from __future__ import annotations

from penstock.plan.blocks import Field, FinalBlock, column_list, same


def rows_sql(block: FinalBlock, keyed_content: str, after: str, upto: str | None) -> str:
    """The group's rows with `_ps_end` in (after, upto] (SQL timestamps; `upto` None: no limit)."""
    columns = column_list(block.relation.columns)
    limit = f" AND _ps_end <= {upto}" if upto is not None else ""
    inner = f"SELECT {columns}, {block.window.end} AS _ps_end FROM {keyed_content}"
    return f"SELECT * FROM ({inner}) WHERE _ps_end > {after}{limit}"


def delta_sql(block: FinalBlock, rows: str, stored: str, after: str, upto: str | None) -> str:
    """Rows that were not emitted yet, and provisional ones that are no longer right."""
    columns = column_list(block.relation.columns)
    every = [Field(f.name, f.type) for f in block.relation.fields]
    limit = f" AND _ps_end <= {upto}" if upto is not None else ""
    emitted = f"(SELECT * FROM {stored} WHERE _ps_end > {after}{limit})"
    return (
        f'SELECT {columns}, _ps_end, -1 AS "_ps_w" FROM {emitted} AS l '
        f"WHERE NOT EXISTS (SELECT 1 FROM {rows} AS r WHERE {same('l', 'r', every)}) "
        f'UNION ALL SELECT {columns}, _ps_end, 1 AS "_ps_w" FROM {rows} AS l '
        f"WHERE NOT EXISTS (SELECT 1 FROM {emitted} AS r WHERE {same('l', 'r', every)})"
    )


def correction_sql(block: FinalBlock, group_delta: str, before: str) -> str:
    """The group's own delta for windows that had closed at `before`."""
    columns = column_list(block.relation.columns)
    inner = f'SELECT {columns}, {block.window.end} AS _ps_end, "_ps_w" FROM {group_delta}'
    return f"SELECT * FROM ({inner}) WHERE _ps_end <= {before}"
