"""UNION ALL.

Delta rule: the union of the branches' deltas. Reference version: the union of the branches' contents.
"""

from __future__ import annotations

from penstock.plan.blocks import UnionBlock, column_list


def content_sql(block: UnionBlock, contents: dict[str, str]) -> str:
    """The whole union over the inputs' contents."""
    columns = column_list(block.relation.columns)
    return " UNION ALL ".join(f"SELECT {columns} FROM {contents[i]}" for i in block.inputs)


def delta_sql(block: UnionBlock, delta: str, weighted: bool) -> str:
    """One branch's delta as the union's; it has `_ps_w` unless the union is append-only."""
    columns = column_list(block.relation.columns)
    if block.relation.append_only:
        return f"SELECT {columns} FROM {delta}"
    return f'SELECT {columns}, {"_ps_w" if weighted else "1"} AS "_ps_w" FROM {delta}'
