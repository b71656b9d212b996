"""The average cost of a position: an ordered fold over its fills, by (timestamp, fill_id).

Adding to a position averages its cost, reducing it leaves the cost as it is, crossing zero starts anew at the fill's
price. Fills that come out of order are put in their place as long as they are no older than `DISORDER`; an older one is
folded in after what is settled, so that the state stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from penstock.contract.model import Contract, Field
from penstock.steps import Change, Step, Timer

DISORDER = timedelta(minutes=10)
SIX_PLACES = Decimal("0.000001")
FOUR_PLACES = Decimal("0.0001")


class AverageCost(Contract):
    """A position after its fill number `fills`: its average cost, null where nothing is held, and what all fills so far
    opened and closed, at their prices (money).
    """

    account_id: str
    symbol: str
    fills: int
    average_cost: Decimal | None = Field(max_digits=18, decimal_places=6)
    opened_long: Decimal = Field(max_digits=20, decimal_places=4)
    closed_long: Decimal = Field(max_digits=20, decimal_places=4)
    opened_short: Decimal = Field(max_digits=20, decimal_places=4)
    closed_short: Decimal = Field(max_digits=20, decimal_places=4)


@dataclass(frozen=True)
class Lot:
    """What is held, signed, what a share of it cost on average, and what was opened and closed on the way here."""

    quantity: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    opened_long: Decimal = Decimal(0)
    closed_long: Decimal = Decimal(0)
    opened_short: Decimal = Decimal(0)
    closed_short: Decimal = Decimal(0)

    def after(self, quantity: Decimal, price: Decimal) -> Lot:
        """What is held after one more fill.

        Example:
            >>> lot = Lot(Decimal(100), Decimal(10)).after(Decimal(50), Decimal(13))
            >>> lot.quantity, lot.cost
            (Decimal('150'), Decimal('11.000000'))
        """
        total = self.quantity + quantity
        same_side = self.quantity == 0 or (quantity > 0) == (self.quantity > 0)
        closed = Decimal(0) if same_side else min(abs(quantity), abs(self.quantity))
        opened = abs(quantity) - closed
        bought = quantity > 0
        if total == 0:
            cost = Decimal(0)
        elif opened == 0:
            cost = self.cost
        elif same_side:
            cost = ((self.quantity * self.cost + quantity * price) / total).quantize(SIX_PLACES, ROUND_HALF_UP)
        else:
            cost = price.quantize(SIX_PLACES, ROUND_HALF_UP)
        return Lot(
            total,
            cost,
            self.opened_long + (_money(opened * price) if bought else 0),
            self.closed_long + (0 if bought else _money(closed * price)),
            self.opened_short + (0 if bought else _money(opened * price)),
            self.closed_short + (_money(closed * price) if bought else 0),
        )


def _money(value: Decimal) -> Decimal:
    return value.quantize(FOUR_PLACES, ROUND_HALF_UP)


@dataclass(frozen=True)
class PastFill:
    """A fill that may still be put behind an earlier one."""

    at: datetime
    fill_id: str
    quantity: Decimal
    price: Decimal


@dataclass
class FillHistory:
    """How many fills there were, the lot that is settled, and the fills since, in order."""

    fills: int = 0
    lot: Lot = Lot()
    recent: list[PastFill] = field(default_factory=list)


def average_cost(history: FillHistory | None, changes: Sequence[Change], timers: Sequence[Timer]) -> Step[FillHistory]:
    """One position's fills, folded; a row for the position as it is after them."""
    history = history or FillHistory()
    first = changes[0].row
    new = [_past(change) for change in changes]
    recent = sorted([*history.recent, *new], key=lambda fill: (fill.at, fill.fill_id))
    horizon = recent[-1].at - DISORDER
    lot = history.lot
    settled = [fill for fill in recent if fill.at < horizon]
    for fill in settled:
        lot = lot.after(fill.quantity, fill.price)
    kept = FillHistory(history.fills + len(changes), lot, recent[len(settled) :])
    for fill in kept.recent:
        lot = lot.after(fill.quantity, fill.price)
    row = {
        "account_id": first["account_id"],
        "symbol": first["symbol"],
        "fills": kept.fills,
        "average_cost": lot.cost if lot.quantity else None,
        "opened_long": lot.opened_long,
        "closed_long": lot.closed_long,
        "opened_short": lot.opened_short,
        "closed_short": lot.closed_short,
    }
    return Step(kept, [row])


def _past(change: Change) -> PastFill:
    row = change.row
    return PastFill(change.time, str(row["fill_id"]), _decimal(row["quantity"]), _decimal(row["price"]))


def _decimal(value: object) -> Decimal:
    assert isinstance(value, Decimal)
    return value
