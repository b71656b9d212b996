"""Refresh: recompute the query over its inputs' contents and diff.

Delta rule: d = Q(contents now) - stored, as multisets, but for the noise of sums of floats. It is its own reference
version.
"""

from __future__ import annotations

from penstock.plan.blocks import RefreshBlock, column_list
from penstock.plan.noise import without_noise_sql


def delta_sql(block: RefreshBlock, rows: str, stored: str) -> str:
    """What `rows` (the query's result now) has more and less than `stored`."""
    columns = column_list(block.relation.columns)
    gone = f"SELECT {columns} FROM {stored} EXCEPT ALL SELECT {columns} FROM {rows}"
    come = f"SELECT {columns} FROM {rows} EXCEPT ALL SELECT {columns} FROM {stored}"
    if block.noisy:
        return without_noise_sql(gone, come, block.relation.fields, block.noisy)
    return f'SELECT *, -1 AS "_ps_w" FROM ({gone}) UNION ALL SELECT *, 1 AS "_ps_w" FROM ({come})'


def renamed_sql(block: RefreshBlock) -> str:
    """The query with its columns named and typed as the relation's."""
    names = column_list(block.relation.columns)
    return f"SELECT * FROM ({block.sql}) AS q({names})"
