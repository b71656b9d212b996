"""Refresh: recompute the query over its inputs' contents and diff.

Delta rule: d = Q(contents now) - stored, as multisets. It is its own reference version.
"""

from __future__ import annotations

from penstock.plan.blocks import RefreshBlock, column_list


def delta_sql(block: RefreshBlock, rows: str, stored: str) -> str:
    """What `rows` (the query's result now) has more and less than `stored`."""
    columns = column_list(block.relation.columns)
    return (
        f'SELECT *, -1 AS "_ps_w" FROM (SELECT {columns} FROM {stored} EXCEPT ALL SELECT {columns} FROM {rows}) '
        f'UNION ALL SELECT *, 1 AS "_ps_w" FROM (SELECT {columns} FROM {rows} EXCEPT ALL SELECT {columns} FROM '
        f"{stored})"
    )


def renamed_sql(block: RefreshBlock) -> str:
    """The query with its columns named and typed as the relation's."""
    names = column_list(block.relation.columns)
    return f"SELECT * FROM ({block.sql}) AS q({names})"
