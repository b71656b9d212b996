"""Tables that change for ten thousand epochs: neither memory nor the state's files grow with the number of epochs."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

import penstock as ps
from penstock.bench.footprint import memory_mb, size_mb
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.runtime.session import Session

TABLES = """
CREATE TABLE lines (o BIGINT, n INTEGER, price DECIMAL(15, 2), note VARCHAR, PRIMARY KEY (o, n));
CREATE TABLE orders (o BIGINT PRIMARY KEY, city VARCHAR);
CREATE VIEW totals AS SELECT city, count(*) AS n, sum(price) AS total FROM lines JOIN orders USING (o) GROUP BY city;
CREATE VIEW dear AS SELECT o, n, price FROM lines ORDER BY price DESC LIMIT 10;
"""
ORDERS, EPOCHS, SAMPLED = 5_000, 10_000, 1_000


@pytest.mark.soak
def test_memory_and_files_stay_flat(tmp_path: Path) -> None:
    graph = ps.Pipeline.from_sql(TABLES, name="p").graph()
    random = Random(1)

    def lines(count: int) -> list[dict[str, object]]:
        keys = {(random.randrange(ORDERS), random.randrange(4)) for _ in range(count)}
        return [{"o": o, "n": n, "price": f"{random.randrange(10**6)}.50", "note": f"note {o}"} for o, n in keys]

    sizes: list[tuple[float, float]] = []
    state = DuckState(compile_for_duckdb(graph, in_memory=False), tmp_path)
    with Session(graph, state, None) as session:
        session.insert("orders", [{"o": o, "city": f"city {o % 50}"} for o in range(ORDERS)])
        session.insert("lines", lines(4 * ORDERS))
        session.commit()
        for epoch in range(1, EPOCHS + 1):
            rows = lines(9)
            session.insert("lines", rows[3:])
            session.delete("lines", rows[:3])
            session.commit()
            if epoch % SAMPLED == 0:
                state.maintain()
                sizes.append((memory_mb(os.getpid()) or 0.0, size_mb(tmp_path)))
    settled, last = sizes[2], sizes[-1]
    assert last[0] <= 1.1 * settled[0], sizes
    # The journal has a row for each epoch.
    assert last[1] <= 1.1 * settled[1] + 2, sizes
