"""The pipeline that the crash harness runs: every kind of source, view and sink whose durability can fail.

A stream with duplicates, broken and late records; one whose records wait for a reference and come back by replay; a
versioned table with deletes; a reference that changes. Views that merge, join and close windows. Sinks: appended
file, folder, snapshot and log.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from penstock.contract.model import Contract, Field
from penstock.pipeline import Pipeline

KINDS = ("web", "shop", "phone")


class Order(Contract):
    """One order; producers send some twice, some broken and some late."""

    id: str
    user_id: int = Field(ge=0)
    product: int
    amount: Decimal = Field(max_digits=12, decimal_places=2)
    kind: Literal["web", "shop", "phone"]
    at: datetime


class Return(Contract):
    """One return; those of a product that is not known yet are dead until it is."""

    product: int
    amount: Decimal = Field(max_digits=12, decimal_places=2)


class User(Contract):
    """A user, the newest version winning."""

    user_id: int
    city: str | None = None
    version: int


class Product(Contract):
    """What there is to buy."""

    product: int
    name: str


def build() -> Pipeline:
    """The pipeline `shop`."""
    shop = Pipeline("shop")
    shop.stream(
        "orders",
        Order,
        event_time="at",
        watermark="2 seconds",
        unique="id",
        within="1 minute",
        idle_after="1 day",
        state="unbounded",
    )
    shop.stream("returns", Return, references={"product": "products.product"}, state="unbounded")
    shop.table("users", User, key="user_id", version="version")
    shop.reference("products", Product, key="product")
    shop.view(
        "per_second",
        """SELECT time_bucket(INTERVAL '1 second', at) AS second, kind, count(*) AS n, sum(amount) AS amount
        FROM orders GROUP BY ALL""",
        emit="final",
    )
    shop.view(
        "per_kind",
        "SELECT kind, count(*) AS n, sum(amount) AS amount, max(amount) AS most FROM orders GROUP BY kind",
        state="unbounded",
    )
    shop.view(
        "per_city",
        """SELECT u.city, count(*) AS n FROM orders AS o LEFT JOIN users AS u ON u.user_id = o.user_id
        GROUP BY u.city""",
        state="unbounded",
    )
    shop.view(
        "named",
        "SELECT o.id, p.name, o.amount FROM orders AS o JOIN products AS p ON p.product = o.product",
        state="unbounded",
    )
    shop.view(
        "per_product",
        "SELECT product, count(*) AS n, sum(amount) AS amount FROM returns GROUP BY product",
        state="unbounded",
    )
    for view in ("per_second", "per_kind", "per_city", "named", "per_product"):
        shop.sink(view, view=view)
    return shop


pipeline = build()
