"""The margin views against their own SQL as one batch, over a simulated market that crashes, cut into random epochs."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from penstock.apps.margin.ladder import STATES
from penstock.apps.margin.market import Market, Record, Simulation
from penstock.apps.margin.pipeline import build
from penstock.decimals import DECIMAL_DIV
from penstock.runtime.session import Session

START = datetime(2026, 1, 5, 14, 30)
# What a step folds depends on the past; what stands above it is compared given its newest rows.
GIVEN = ("average_costs", "marks")
EMPTY = ("stale_symbols", "symbol_shocks")
SECONDS = 90


FILLS = pa.schema(
    [
        ("fill_id", pa.string()),
        ("account_id", pa.string()),
        ("symbol", pa.string()),
        ("quantity", pa.decimal128(18, 6)),
        ("price", pa.decimal128(18, 6)),
        ("timestamp", pa.timestamp("us")),
    ]
)
CASH = pa.schema(
    [
        ("account_id", pa.string()),
        ("entry_id", pa.string()),
        ("amount", pa.decimal128(20, 4)),
        ("kind", pa.string()),
        ("timestamp", pa.timestamp("us")),
    ]
)


@pytest.mark.slow
def test_every_view_is_its_sql_after_random_epochs() -> None:
    cut = random.Random(11)
    market = Market(accounts=12, symbols=8, ticks=4, fills=1, positions=3, crash_at_s=60, crash=0.4)
    simulation = Simulation(market, START)
    records = [*simulation.opening(), *(r for second in range(SECONDS) for r in simulation.second(second))]
    fed: dict[str, list[dict[str, Any]]] = {"fills": [], "cash": [], "prices": [], "betas": [], "tick": []}
    actions: list[dict[str, Any]] = []
    with build().open() as session:
        while records:
            now, records = _split(records, cut.randrange(1, 120))
            for record in now:
                fed[record.topic].append(_row(record))
                session.insert(record.topic, fed[record.topic][-1:])
            fed["tick"].append({"tick": len(fed["tick"]), "at": max(_row(record)["timestamp"] for record in now)})
            session.insert("tick", fed["tick"][-1:])
            epoch = session.commit()
            actions += session.changes("enforcement", epoch).to_pylist()
        assert len(session.dead_letters()) == 0
        check_views(session, fed, actions)
        check_actions(session, actions)


def _split(records: list[Record], rows: int) -> tuple[list[Record], list[Record]]:
    return records[:rows], records[rows:]


def _row(record: Record) -> dict[str, Any]:
    values = json.loads(record.value)
    exact = {k: Decimal(v) for k, v in values.items() if k in ("price", "quantity", "beta", "amount")}
    return {**values, **exact, "timestamp": datetime.fromisoformat(values["timestamp"])}


def check_views(session: Session, fed: dict[str, list[dict[str, Any]]], actions: list[dict[str, Any]]) -> None:
    graph = build().graph()
    batch = duckdb.connect()
    batch.execute(f"SET TimeZone = 'UTC'; {DECIMAL_DIV}")
    for source in graph.sources:
        if source.kind != "stream":
            batch.register(source.name, session.read(source.name))
    batch.register("fills", pa.Table.from_pylist(fed["fills"], FILLS))
    batch.register("cash", pa.Table.from_pylist(fed["cash"], CASH))
    batch.register("tick", pa.Table.from_pylist(fed["tick"]))
    batch.register("enforcement", pa.Table.from_pylist(actions))
    newest = {row["symbol"]: row["price"] for row in fed["prices"]}
    assert {row["symbol"]: row["price"] for row in session.read("prices").to_pylist()} == newest
    for view in graph.views:
        if view.name in GIVEN:
            batch.register(view.name, session.read(view.name))
            continue
        batch.execute(f'CREATE TABLE "{view.name}" AS {view.sql}')
        expected = Counter(map(repr, batch.execute(f'SELECT * FROM "{view.name}"').fetchall()))
        held = session.read(view.name)
        batch.register("held", held)
        found = Counter(map(repr, batch.execute("SELECT * FROM held").fetchall()))
        assert found == expected, view.name
        assert found or view.name in EMPTY, view.name


def check_actions(session: Session, actions: list[dict[str, Any]]) -> None:
    """Each account's actions are a chain that ends where its newest margin row says."""
    assert {"WARNING", "MARGIN_CALL", "LIQUIDATION"} <= {action["state"] for action in actions}
    assert len({action["action_id"] for action in actions}) == len(actions)
    state: dict[str, str] = {}
    for action in actions:
        assert action["previous_state"] == state.get(action["account_id"], "ACTIVE")
        state[action["account_id"]] = action["state"]
    for row in session.read("margin_calculations").to_pylist():
        breached = row["excess"] < 0
        assert (STATES.index(state.get(row["account_id"], "ACTIVE")) >= STATES.index("MARGIN_CALL")) or not breached
