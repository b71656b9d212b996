"""An order as a person types it: `BUY 100 AAPL @ 190`, or without a price."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from penstock.apps.margin.contracts import PRICE_LIMIT, QUANTITY_LIMIT
from penstock.errors import DataError

_ORDER = re.compile(r"(BUY|SELL)\s+([0-9]+(?:\.[0-9]{1,6})?)\s+([^\s@]+)(?:\s*@\s*([0-9]+(?:\.[0-9]{1,6})?))?", re.I)


@dataclass(frozen=True)
class Order:
    """quantity: signed, shares (positive: bought). price: per share, None: at the latest price."""

    symbol: str
    quantity: Decimal
    price: Decimal | None = None

    @classmethod
    def parse(cls, text: str) -> Order:
        """Read `BUY|SELL QUANTITY SYMBOL [@ PRICE]`; the symbol as the topics have it.

        Raises:
            DataError: PS-DATA-006.

        Example:
            >>> Order.parse("sell 12.5 AAPL @ 190.10")
            Order(symbol='AAPL', quantity=Decimal('-12.5'), price=Decimal('190.10'))
        """
        found = _ORDER.fullmatch(text.strip())
        if found is None:
            raise _unreadable(text, "BUY|SELL QUANTITY SYMBOL [@ PRICE], with at most six digits after the point")
        side, shares, symbol, price = found.groups()
        quantity = Decimal(shares)
        if not 0 < quantity <= QUANTITY_LIMIT:
            raise _unreadable(text, f"a quantity above 0 and up to {QUANTITY_LIMIT:,}")
        if price is not None and Decimal(price) > PRICE_LIMIT:
            raise _unreadable(text, f"a price up to {PRICE_LIMIT:,}")
        signed = quantity if side.upper() == "BUY" else -quantity
        return cls(symbol, signed, Decimal(price) if price is not None else None)

    def __str__(self) -> str:
        side = "BUY" if self.quantity > 0 else "SELL"
        at = "" if self.price is None else f" @ {self.price}"
        return f"{side} {abs(self.quantity)} {self.symbol}{at}"


def _unreadable(text: str, expected: str) -> DataError:
    return DataError(
        "PS-DATA-006", "the order cannot be read", expected=expected, got=text, hint="for example: BUY 100 AAPL @ 190"
    )
