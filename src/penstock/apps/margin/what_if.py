"""What orders would do to an account's margin, against the live state and without changing it.

One query takes the account as it stands (a single statement, so all of it is of one epoch) to a scratch database, where
the pipeline's own views work out the figures twice: with what is held, and with the orders filled on top. There is no
second implementation of the rules. What is held comes back as one fill for each position, at price 0, and one entry of
cash, which is the same to these views as the history that it sums up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import duckdb

from penstock.apps.margin.enforcement import facts_of
from penstock.apps.margin.ladder import STATES, Standing, State, climb
from penstock.apps.margin.orders import Order
from penstock.engines.duckdb.connection import connect
from penstock.errors import DataError
from penstock.graph import Graph

Query = Callable[[str], Sequence[Mapping[str, object]]]
# Answered from the live state: prices that are stale now. What makes them so is not needed here.
_GIVEN = ("stale_symbols",)
# Either only makes what is given, or rests on the account's past, which an order does not change.
_LEFT_OUT = frozenset(
    {"market_calendar", "market_now", "average_costs", "trigger_terms", "triggers", "positions"}
    | {"flows", "mark_inputs", "marks", "margin_calculations", "actions"}
)


@dataclass(frozen=True)
class Figures:
    """An account's margin, money. equity, requirement and excess: None while a position has no price."""

    cash: Decimal
    lmv: Decimal
    smv: Decimal
    gross: Decimal
    equity: Decimal | None
    requirement: Decimal | None
    excess: Decimal | None
    initial_requirement: Decimal | None
    call_amount: Decimal | None
    sale_needed: Decimal | None
    worst_equity: Decimal | None
    stale: bool


@dataclass(frozen=True)
class WhatIf:
    """before, after: without and with the orders, filled at their prices. breach: excess after is below 0, or unknown.

    state, next_state: of the ladder; reason: of the step between them, empty where there is none; amount: of that step.
    """

    account_id: str
    orders: tuple[Order, ...]
    before: Figures
    after: Figures
    breach: bool
    state: State
    next_state: State
    reason: str
    amount: Decimal


def what_if(graph: Graph, query: Query, account_id: str, orders: Sequence[Order]) -> WhatIf:
    """What the account would look like with these orders filled now.

    Args:
        graph: the margin pipeline.
        query: runs SQL over the live state and gives its rows (a session's, or the control channel's).
        orders: filled in their order; one without a price at the latest price of its symbol.

    Raises:
        DataError: PS-DATA-005 for an account that was never seen or a symbol without a price.
    """
    live = _Live.of(query, account_id, orders)
    filled = tuple(replace(order, price=live.price(order)) for order in orders)
    with connect(None, threads=1) as scratch:
        _fill_scratch(scratch, graph, account_id, live)
        before, _ = _figures(scratch)
        for number, order in enumerate(filled):
            scratch.execute(
                "INSERT INTO fills SELECT ?, ?, ?, ?, ?, max(moved_at) FROM cash_balances",
                [f"order {number}", account_id, order.symbol, order.quantity, order.price],
            )
        after, row = _figures(scratch)
    climbed = climb(live.standing, facts_of(row), cast("datetime", row["as_of"]))
    return WhatIf(
        account_id,
        filled,
        before,
        after,
        after.excess is None or after.excess < 0,
        live.standing.state,
        climbed.standing.state,
        climbed.action.reason if climbed.action else "",
        climbed.action.amount if climbed.action else Decimal(0),
    )


@dataclass(frozen=True)
class _Live:
    """The account as it stands: rows by relation, each value as text, and where it is on the ladder."""

    rows: Mapping[str, Sequence[Mapping[str, str | None]]]
    standing: Standing

    @classmethod
    def of(cls, query: Query, account_id: str, orders: Sequence[Order]) -> _Live:
        """Ask the state, once.

        Raises:
            DataError: PS-DATA-005 when the account is unknown.
        """
        account = _text(account_id)
        held = f"SELECT symbol FROM holdings WHERE account_id = {account}"
        symbols = f"symbol IN ({held}) OR symbol IN ({', '.join(_text(order.symbol) for order in orders) or 'NULL'})"
        wanted = {
            "holdings": f"account_id = {account}",
            "cash_balances": f"account_id = {account}",
            "prices": symbols,
            "betas": symbols,
            "stale_symbols": symbols,
            "scenarios": "TRUE",
            "house_rules": "TRUE",
        }
        parts = [
            f"(SELECT list(t) FROM (SELECT COLUMNS(*)::VARCHAR FROM {name} WHERE {condition}) t) AS {name}"
            for name, condition in wanted.items()
        ]
        # where the engine keeps the state of a step: an account that never had a margin row has none
        ladder = f"(SELECT max(_ps_state) FROM _ps.fold_enforcement WHERE account_id = {account}) AS ladder"
        row = query(f"SELECT {', '.join([*parts, ladder])}")[0]
        rows = {name: cast("list[dict[str, str | None]]", row[name] or []) for name in wanted}
        if not rows["cash_balances"]:
            raise DataError(
                "PS-DATA-005",
                f"there is no account {account_id}",
                expected="an account that a fill or a cash entry has named",
                got=account_id,
                hint="penstock sql margin 'SELECT account_id FROM margin_calculations' lists them",
            )
        return cls(rows, _standing(account_id, cast("str | None", row["ladder"])))

    def price(self, order: Order) -> Decimal:
        """What the order is filled at.

        Raises:
            DataError: PS-DATA-005 when its symbol has no price: what is bought could not be valued.
        """
        found = next((row["price"] for row in self.rows["prices"] if row["symbol"] == order.symbol), None)
        if found is None:
            raise DataError(
                "PS-DATA-005",
                f"{order.symbol} has no price",
                expected="a symbol that the source prices has named",
                got=order.symbol,
                hint="a price on the order says what is paid, not what the shares are worth after it",
            )
        return Decimal(found) if order.price is None else order.price


def _standing(account_id: str, stored: str | None) -> Standing:
    if stored is None:
        return Standing(account_id)
    found: dict[str, Any] = json.loads(stored)
    assert found["state"] in STATES
    called_at = found["called_at"]
    return Standing(
        account_id,
        found["state"],
        found["episodes"],
        found["rising"],
        datetime.fromisoformat(called_at) if called_at is not None else None,
    )


def _fill_scratch(scratch: duckdb.DuckDBPyConnection, graph: Graph, account_id: str, live: _Live) -> None:
    """Make the sources that the views read, with the account's rows, and the views."""
    for source in graph.sources:
        columns = ", ".join(f'"{column.name}" {column.type}' for column in source.schema.columns)
        scratch.execute(f'CREATE TABLE "{source.name}" ({columns})')
    for name in _GIVEN:
        scratch.execute(f"CREATE TABLE {name} (symbol VARCHAR)")
    for name in ("prices", "betas", "scenarios", "house_rules", *_GIVEN):
        for row in live.rows[name]:
            marks = ", ".join("?" * len(row))
            scratch.execute(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    for row in live.rows["holdings"]:
        scratch.execute(
            "INSERT INTO fills VALUES (?, ?, ?, ?, 0, ?)",
            [f"held {row['symbol']}", account_id, row["symbol"], row["quantity"], row["filled_at"]],
        )
    for row in live.rows["cash_balances"]:
        scratch.execute("INSERT INTO cash VALUES (?, 'held', ?, 'held', ?)", [account_id, row["cash"], row["moved_at"]])
    for view in graph.views:
        if view.name not in _LEFT_OUT and view.name not in _GIVEN:
            scratch.execute(f'CREATE VIEW "{view.name}" AS {view.sql}')


def _figures(scratch: duckdb.DuckDBPyConnection) -> tuple[Figures, Mapping[str, object]]:
    """The account's figures, and its row of `standings`."""
    standings = _row(scratch, "SELECT * FROM standings")
    margins = _row(scratch, "SELECT * FROM margins")
    names = [name for name in Figures.__dataclass_fields__ if name != "worst_equity"]
    values: dict[str, Any] = {name: margins[name] for name in names}
    return Figures(**values, worst_equity=cast("Decimal | None", standings["worst_equity"])), standings


def _row(scratch: duckdb.DuckDBPyConnection, sql: str) -> Mapping[str, object]:
    result = scratch.execute(sql)
    names = [column[0] for column in result.description or ()]
    (row,) = result.fetchall()
    return dict(zip(names, row, strict=True))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
