"""Session blocks: rows with the bounds of the session that each is in.

The rows of one key (the other group keys) form a chain in order of time; a distance of `gap` or more begins a new
session. It starts with its first row and ends a gap after its last one.

Delta rule, with A the stored rows of the sessions that a row of the delta falls into, nearer than a gap to one of
theirs:

    d  =  sessions(A + delta) - A

Every other session is at least a gap away from all that moves, so it neither grows, merges nor splits. A row is late
when it comes behind the watermark of its own partition: then every session that could take it in may have closed, for
one closes when the watermark has passed its last row by a gap. What is not late is therefore never within a gap of a
closed session, and a closed session never changes.

Reference version: `content_sql`, the sessions of the input's whole content.
"""

from __future__ import annotations

from penstock.plan.blocks import Field, SessionBlock, column_list, quote, same
from penstock.plan.macros import session_sql

W = '"_ps_w"'
BOUNDS = (Field("window_start", "TIMESTAMP"), Field("window_end", "TIMESTAMP"))


def content_sql(block: SessionBlock, content: str) -> str:
    """The whole block over the input's content (an SQL table or subquery)."""
    columns = column_list([f.name for f in block.columns])
    found = session_sql(f"SELECT {columns} FROM {content}", tuple(k.name for k in block.keys), block.gap)
    return f"SELECT {column_list(block.relation.columns)} FROM ({found})"


def touched_sql(block: SessionBlock, delta: str, stored: str) -> str:
    """The stored rows of the sessions that the delta's rows fall into."""
    near = f"d._ps_at > s.window_start - {block.gap} AND d._ps_at < s.window_end"
    return f"SELECT s.* FROM {stored} AS s SEMI JOIN {delta} AS d ON {_alike('s', 'd', block)}{near}"


def rows_sql(block: SessionBlock, delta: str, touched: str, *, weighted: bool) -> str:
    """The sessions of the touched rows and the delta's."""
    columns = column_list([f.name for f in block.columns])
    if not weighted:
        return content_sql(block, f"(SELECT {columns} FROM {touched} UNION ALL SELECT {columns} FROM {delta})")
    every = f"SELECT {columns}, 1 AS {W} FROM {touched} UNION ALL SELECT {columns}, {W} FROM {delta}"
    net = f"SELECT {columns}, sum({W})::INTEGER AS {W} FROM ({every}) GROUP BY {columns} HAVING sum({W}) > 0"
    return content_sql(block, f"(SELECT {columns} FROM (SELECT *, unnest(range({W})) AS _ps_copy FROM ({net})))")


def delta_sql(block: SessionBlock, old: str, new: str) -> str:
    """What the new rows have more and less than the old ones."""
    columns = column_list(block.relation.columns)
    gone = f"SELECT {columns} FROM {old} EXCEPT ALL SELECT {columns} FROM {new}"
    come = f"SELECT {columns} FROM {new} EXCEPT ALL SELECT {columns} FROM {old}"
    return f"SELECT *, -1 AS {W} FROM ({gone}) UNION ALL SELECT *, 1 AS {W} FROM ({come})"


def forget_sql(block: SessionBlock, stored: str, touched: str) -> str:
    """Take the touched sessions away."""
    which = f"SELECT DISTINCT {column_list([*(k.name for k in block.keys), 'window_start'])} FROM {touched}"
    return (
        f"DELETE FROM {stored} AS s USING ({which}) AS a "
        f"WHERE {_alike('s', 'a', block)}s.{quote('window_start')} = a.{quote('window_start')}"
    )


def _alike(left: str, right: str, block: SessionBlock) -> str:
    return f"{same(left, right, block.keys)} AND " if block.keys else ""
