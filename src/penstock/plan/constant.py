"""Constant relations: VALUES, and a SELECT without FROM.

Delta rule: all rows come in the first epoch, none ever after. Reference version: the query itself (`content_sql`).
"""

from __future__ import annotations

from penstock.plan.blocks import ConstantBlock, column_list


def content_sql(block: ConstantBlock) -> str:
    """The rows, with the relation's names and types."""
    return f"SELECT * FROM ({block.sql}) AS q({column_list(block.relation.columns)})"
