"""Ranked blocks: window functions, QUALIFY, top-k per key, DISTINCT ON, ORDER BY ... LIMIT.

A partition is what agrees in `keys`, the PARTITION BY expressions that all window functions of the SELECT share: no
function looks beyond it. Without a common expression, all rows are one partition.

Delta rule, *affected partitions*:

    d  =  rows(P over content') - stored rows of P,   P the partitions that the delta touches

Delta rule, *affected rows*, where all rows are one partition and no function looks at what comes later in the order:

    d  =  rows(content') from p on - stored rows from p on,   p the first place in the order that the delta touches

Delta rule, *top rows* (rows are kept by the first places of one rank that the outputs need alone). C holds the
candidates of each partition, the input's rows within the first `at_most` places:

    C'  =  top(C + what comes)     for a touched partition none of whose candidates went
    C'  =  top(content')           for the others
    d   =  outputs(C') - outputs(C)

A row that is no candidate has `at_most` places of candidates before it, and so it has when rows come: it need not be
looked at. Over append-only input the candidates are therefore all that is kept.

Reference version: `content_sql`, the query over the input's whole content.
"""

from __future__ import annotations

from penstock.plan.blocks import Field, Order, RankedBlock, column_list, quote, same
from penstock.plan.noise import without_noise_sql

W = '"_ps_w"'


def content_sql(block: RankedBlock, content: str) -> str:
    """Partition keys and outputs of the whole block over the input's content (an SQL table or subquery)."""
    return outputs_sql(block, content)


def outputs_sql(block: RankedBlock, rows: str) -> str:
    """Partition keys and outputs over rows of the input, of whole partitions or of their candidates."""
    keys = [quote(k.name) for k in hidden(block)]
    outputs = [f"{sql} AS {quote(name)}" for name, sql in block.outputs]
    qualify = f" QUALIFY {block.qualify}" if block.qualify else ""
    return f"SELECT {', '.join([*keys, *outputs])} FROM {rows} AS i{qualify}"


def hidden(block: RankedBlock) -> tuple[Field, ...]:
    """What is stored of a row beside the outputs: its partition keys, or its place in the order."""
    return (*block.keys, *((block.order.column,) if block.order is not None else ()))


def fields(block: RankedBlock) -> tuple[Field, ...]:
    """Partition keys and outputs."""
    return (*hidden(block), *block.relation.fields)


def touched_sql(block: RankedBlock, delta: str) -> str:
    """The partitions that the delta touches; the first place in the order where that decides."""
    if (order := block.order) is not None:
        way = f"{'DESC' if order.descending else 'ASC'} NULLS {'FIRST' if order.nulls_first else 'LAST'}"
        column = quote(order.column.name)
        return f"SELECT {column} FROM {delta} ORDER BY {column} {way} LIMIT 1"
    return f"SELECT DISTINCT {column_list([k.name for k in block.keys]) or '1 AS _ps_one'} FROM {delta}"


def within_sql(block: RankedBlock, rows: str, partitions: str) -> str:
    """Those of the rows (an SQL table or subquery) that belong to the partitions."""
    if not block.keys:
        return f"(SELECT * FROM {rows})"
    return f"(SELECT s.* FROM {rows} AS s SEMI JOIN {partitions} AS a ON {same('s', 'a', block.keys)})"


def rows_sql(block: RankedBlock, content: str, partitions: str) -> str:
    """The outputs of the touched partitions over the input's content, or of the rows from the touched place on."""
    if block.order is not None:
        return from_place_sql(block.order, f"({outputs_sql(block, content)})", partitions)
    return outputs_sql(block, within_sql(block, content, partitions))


def stored_sql(block: RankedBlock, stored: str, partitions: str) -> str:
    """What is stored of the same."""
    if block.order is not None:
        return f"({from_place_sql(block.order, stored, partitions)})"
    return within_sql(block, stored, partitions)


def from_place_sql(order: Order, rows: str, place: str) -> str:
    """Those of the rows that do not come before the place."""
    return f"SELECT s.* FROM {rows} AS s CROSS JOIN {place} AS a WHERE {_not_before(order)}"


def _not_before(order: Order) -> str:
    mine, place = (f"{alias}.{quote(order.column.name)}" for alias in "sa")
    first, last = (mine, place) if order.nulls_first else (place, mine)
    earlier = f"{mine} {'>' if order.descending else '<'} {place}"
    return f"NOT (({first} IS NULL AND {last} IS NOT NULL) OR coalesce({earlier}, FALSE))"


def delta_sql(block: RankedBlock, old: str, new: str) -> str:
    """What the new rows have more and less than the old ones (both with partition keys)."""
    columns = column_list([f.name for f in fields(block)])
    gone = f"SELECT {columns} FROM {old} EXCEPT ALL SELECT {columns} FROM {new}"
    come = f"SELECT {columns} FROM {new} EXCEPT ALL SELECT {columns} FROM {old}"
    if block.noisy:
        return without_noise_sql(gone, come, fields(block), block.noisy)
    return f"SELECT *, -1 AS {W} FROM ({gone}) UNION ALL SELECT *, 1 AS {W} FROM ({come})"


def forget_sql(block: RankedBlock, stored: str, partitions: str) -> str:
    """Take what is stored of the partitions away."""
    if block.order is not None:
        return f"DELETE FROM {stored} AS s USING {partitions} AS a WHERE {_not_before(block.order)}"
    if not block.keys:
        return f"DELETE FROM {stored}"
    return f"DELETE FROM {stored} AS s USING {partitions} AS a WHERE {same('s', 'a', block.keys)}"


# -- top rows ----------------------------------------------------------------------------------------------------------


def broken_sql(block: RankedBlock, net: str, candidates: str) -> str:
    """The partitions that lose a candidate. net: the consolidated delta."""
    keys = column_list([k.name for k in block.keys], "n") or "1 AS _ps_one"
    loose = [Field(f.name, f.type) for f in block.columns]
    met = f"SEMI JOIN {candidates} AS s ON n.{W} < 0 AND {same('n', 's', loose)}"
    return f"SELECT DISTINCT {keys} FROM {net} AS n {met}"


def came_sql(block: RankedBlock, net: str, *, weighted: bool) -> str:
    """The rows that come, each as often as it does."""
    columns = column_list([f.name for f in block.columns])
    if not weighted:
        return f"(SELECT {columns} FROM {net})"
    return f"(SELECT {columns} FROM (SELECT *, unnest(range({W})) AS _ps_copy FROM {net} WHERE {W} > 0))"


def candidates_sql(block: RankedBlock, parts: list[str]) -> str:
    """The candidates among rows of the input."""
    assert block.top is not None
    columns = column_list([f.name for f in block.columns])
    rows = " UNION ALL ".join(f"SELECT {columns} FROM {part}" for part in parts)
    return f"SELECT {columns} FROM ({rows}) AS i QUALIFY {block.top.place} <= {block.top.at_most}"


def outside_sql(block: RankedBlock, rows: str, partitions: str) -> str:
    """Those of the rows that do not belong to the partitions."""
    return f"(SELECT s.* FROM {rows} AS s ANTI JOIN {partitions} AS a ON {same('s', 'a', block.keys)})"
