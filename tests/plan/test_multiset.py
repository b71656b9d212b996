"""Weighted deltas against a Counter, over rows that the same transaction has inserted."""

from __future__ import annotations

import random
from collections import Counter

import duckdb
import pyarrow as pa

from penstock.plan import multiset
from penstock.plan.blocks import Field

FIELDS = (Field("name", "VARCHAR"), Field("amount", "DECIMAL(20,4)"))
ROWS = 400
EPOCHS = 30


def test_rows_that_come_and_go_in_one_transaction() -> None:
    """Row ids of a transaction's own rows: DuckDB 2.0 crashes here when they are a filter of the scan."""
    random_rows = random.Random(5)
    held: Counter[tuple[str, int]] = Counter()
    connection = duckdb.connect()
    connection.execute("CREATE TABLE stored (name VARCHAR, amount DECIMAL(20,4))")
    for epoch in range(EPOCHS):
        come = [(f"row {random_rows.randrange(ROWS)}", epoch) for _ in range(ROWS)]
        after = held + Counter(come)
        go = random_rows.sample(sorted(after.elements()), ROWS // 2)
        delta = [(*row, 1) for row in come] + [(*row, -1) for row in go]
        random_rows.shuffle(delta)
        names, amounts, weights = zip(*delta, strict=True)
        connection.register("given", pa.table({"name": names, "amount": amounts, "w": weights}))
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE delta AS "
            'SELECT name, amount::DECIMAL(20,4) AS amount, w AS "_ps_w" FROM given'
        )
        connection.execute("BEGIN")
        connection.execute(multiset.insert_sql("stored", "delta", FIELDS, True))
        connection.execute(multiset.delete_sql("stored", "delta", FIELDS))
        held = after - Counter(go)
        found = connection.execute("SELECT name, amount::INTEGER FROM stored").fetchall()
        assert Counter(found) == held
        connection.execute("COMMIT")
