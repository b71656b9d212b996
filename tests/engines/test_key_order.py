"""The records of a small epoch are in the order in which DuckDB would put them."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.engines.duckdb.connection import connect
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.engines.duckdb.outbox import key_order
from penstock.plan import grouped
from penstock.plan.blocks import GroupedBlock

TYPES = {
    "BIGINT": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "UTINYINT": (pa.uint8(), st.integers(0, 255)),
    "VARCHAR": (pa.string(), st.text(st.characters(blacklist_categories=["Cs"]), max_size=4)),
    "BOOLEAN": (pa.bool_(), st.booleans()),
    "DATE": (pa.date32(), st.dates(date(1, 1, 1))),
    "TIMESTAMP": (pa.timestamp("us"), st.datetimes(datetime(1, 1, 1))),
}


def block_of(kinds: tuple[str, ...]) -> GroupedBlock:
    fields = ", ".join(f"c{place} {kind}" for place, kind in enumerate(kinds))
    keys = ", ".join(f"c{place}" for place in range(len(kinds)))
    sql = f"CREATE STREAM s ({fields}, v BIGINT); CREATE VIEW g AS SELECT {keys}, count(*) AS n FROM s GROUP BY {keys};"
    plan = compile_for_duckdb(ps.Pipeline.from_sql(sql, name="keys").graph(), in_memory=True)
    (block,) = [node.block for node in plan.nodes if isinstance(node.block, GroupedBlock)]
    return block


KINDS = (("VARCHAR",), ("BIGINT", "VARCHAR"), ("BOOLEAN", "DATE"), ("TIMESTAMP", "UTINYINT"), ("UTINYINT", "VARCHAR"))
BLOCKS = {kinds: block_of(kinds) for kinds in KINDS}


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_the_order_is_that_of_duckdb(data: st.DataObject) -> None:
    kinds = data.draw(st.sampled_from(KINDS))
    values = st.tuples(*(st.none() | TYPES[kind][1] for kind in kinds))
    groups = data.draw(st.lists(values, min_size=2, max_size=12, unique=True))
    shown = data.draw(
        st.lists(
            st.sampled_from([(True, False), (False, True), (True, True), (False, False)]),
            min_size=len(groups),
            max_size=len(groups),
        )
    )
    columns: dict[str, pa.Array] = {}
    for place, kind in enumerate(kinds):
        column = [group[place] for group in groups]
        # what a group does not show has no value
        before = [value if out else None for value, (out, _) in zip(column, shown, strict=True)]
        after = [value if comes else None for value, (_, comes) in zip(column, shown, strict=True)]
        columns[f"{grouped.BEFORE}c{place}"] = pa.array(before, TYPES[kind][0])
        columns[f"{grouped.AFTER}c{place}"] = pa.array(after, TYPES[kind][0])
    columns[grouped.OUT] = pa.array([out for out, _ in shown])
    columns[grouped.IN] = pa.array([comes for _, comes in shown])
    columns["place"] = pa.array(np.arange(len(groups)))
    touched = pa.table(columns)
    order = key_order(BLOCKS[kinds], touched)
    assert order is not None
    with connect(None) as connection:
        connection.register("touched", touched)
        sql = grouped.step_order_sql(BLOCKS[kinds], "touched")
        expected = [row[0] for row in connection.execute(f"SELECT place FROM ({sql})").fetchall()]
    assert [place for place in order.tolist() if any(shown[place])] == expected


def test_what_only_duckdb_orders_is_left_to_it() -> None:
    block = block_of(("DOUBLE",))
    touched = pa.table({f"{side}c0": pa.array([float("nan"), 1.0]) for side in (grouped.BEFORE, grouped.AFTER)})
    assert key_order(block, touched) is None
