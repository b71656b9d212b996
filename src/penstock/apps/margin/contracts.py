"""What comes in: fills, prices, betas and cash, and what the desk edits: scenarios, house rules and market hours.

Limits of quantity and price keep every product within DECIMAL(20,4); see `docs/apps/margin.md` for what each column is.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from penstock.contract.model import Contract, Field

QUANTITY_LIMIT = Decimal(10) ** 9
PRICE_LIMIT = Decimal(10) ** 6
CASH_LIMIT = Decimal(10) ** 14


class Fill(Contract):
    """An execution. quantity: signed, shares (positive: bought). price: per share."""

    fill_id: str = Field(min_length=1)
    account_id: str = Field(min_length=1, pii=True)
    symbol: str = Field(min_length=1)
    quantity: Decimal = Field(max_digits=18, decimal_places=6, ge=-QUANTITY_LIMIT, le=QUANTITY_LIMIT)
    price: Decimal = Field(max_digits=18, decimal_places=6, ge=0, le=PRICE_LIMIT)
    timestamp: datetime


class Price(Contract):
    """The latest price of a symbol, by its own time. 0 is a price: of a share that is worth nothing."""

    symbol: str = Field(min_length=1)
    price: Decimal = Field(max_digits=18, decimal_places=6, ge=0, le=PRICE_LIMIT)
    timestamp: datetime


class Beta(Contract):
    """How a symbol moves with the index: 1 as the index, 2 twice as much, below 0 against it."""

    symbol: str = Field(min_length=1)
    beta: Decimal = Field(max_digits=10, decimal_places=6)
    timestamp: datetime


class CashEntry(Contract):
    """Money that moves without a fill: deposits, withdrawals (negative), interest, fees."""

    account_id: str = Field(min_length=1, pii=True)
    entry_id: str = Field(min_length=1)
    amount: Decimal = Field(max_digits=20, decimal_places=4, ge=-CASH_LIMIT, le=CASH_LIMIT)
    kind: str = Field(min_length=1)
    timestamp: datetime


class Scenario(Contract):
    """A shock of the index (symbol null: each share moves by beta * shock), or of one symbol (by shock itself)."""

    scenario: str = Field(min_length=1)
    symbol: str | None = None
    shock: Decimal = Field(max_digits=10, decimal_places=6)


class HouseRule(Contract):
    """One figure of the margin rules; what is not given has its default."""

    rule: str = Field(min_length=1)
    value: Decimal = Field(max_digits=18, decimal_places=6, ge=0)


class MarketSession(Contract):
    """A time at which the market is open, in UTC, half-open. Sessions do not overlap."""

    opens_at: datetime
    closes_at: datetime
