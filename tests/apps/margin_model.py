"""The margin formulas as a slow model in Decimal, from the raw inputs, written from FINRA 4210 and the house's rules.

Nothing of the application is imported: figures are given by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, localcontext

ZERO = Decimal(0)
DEFAULTS = {
    "long_maintenance": "0.25",
    "short_maintenance": "0.30",
    "short_per_share": "5",
    "cheap_below": "5",
    "cheap_long_maintenance": "1",
    "cheap_short_maintenance": "1",
    "cheap_short_per_share": "2.5",
    "initial_long": "0.5",
    "initial_short": "1.5",
    "concentration_share": "0.3",
    "concentration_add_on": "0.1",
    "beta_exposure_multiple": "2",
    "beta_exposure_add_on": "0.05",
    "minimum_equity": "2000",
}


def rounded(value: Decimal, places: int = 4) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def quotient(a: Decimal, b: Decimal, places: int) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return rounded(a / b, places)


@dataclass(frozen=True)
class Leg:
    """Shares of one symbol, signed; price None where there is none."""

    quantity: Decimal
    price: Decimal | None
    beta: Decimal = Decimal(1)


@dataclass(frozen=True)
class Account:
    """One account, with its figures."""

    cash: Decimal
    legs: Mapping[str, Leg]
    rules: Mapping[str, Decimal] = field(default_factory=dict)
    values: Mapping[str, Decimal] = field(default_factory=dict)
    """Market values that are given (under stress), else shares times price."""

    def rule(self, name: str) -> Decimal:
        return self.rules.get(name, Decimal(DEFAULTS[name]))

    def value(self, symbol: str) -> Decimal:
        leg = self.legs[symbol]
        assert leg.price is not None
        return self.values[symbol] if symbol in self.values else rounded(leg.quantity * leg.price)

    @property
    def priced(self) -> bool:
        return all(leg.price is not None for leg in self.legs.values())

    @property
    def lmv(self) -> Decimal:
        return sum((self.value(s) for s, leg in self.legs.items() if leg.quantity > 0 and leg.price is not None), ZERO)

    @property
    def smv(self) -> Decimal:
        return sum((-self.value(s) for s, leg in self.legs.items() if leg.quantity < 0 and leg.price is not None), ZERO)

    @property
    def gross(self) -> Decimal:
        return self.lmv + self.smv

    @property
    def equity(self) -> Decimal:
        return self.cash + self.lmv - self.smv

    def charge(self, symbol: str) -> Decimal:
        """FINRA 4210(c)(1) to (3) for one leg."""
        leg, value = self.legs[symbol], abs(self.value(symbol))
        assert leg.price is not None
        shares, cheap = abs(leg.quantity), leg.price < self.rule("cheap_below")
        if leg.quantity > 0:
            high = cheap and self.rule("cheap_long_maintenance") > 0
            return rounded(value * self.rule("cheap_long_maintenance" if high else "long_maintenance"))
        kind = "cheap_short" if cheap else "short"
        return max(rounded(value * self.rule(f"{kind}_maintenance")), rounded(shares * self.rule(f"{kind}_per_share")))

    def concentration(self, symbol: str) -> Decimal:
        value = abs(self.value(symbol))
        large = value > rounded(self.gross * self.rule("concentration_share"))
        return rounded(value * self.rule("concentration_add_on")) if large else ZERO

    @property
    def beta_weighted_exposure(self) -> Decimal:
        return sum((rounded(self.value(s) * leg.beta) for s, leg in self.legs.items() if leg.price is not None), ZERO)

    @property
    def beta_add_on(self) -> Decimal:
        above = abs(self.beta_weighted_exposure) > self.equity * self.rule("beta_exposure_multiple")
        return rounded(self.gross * self.rule("beta_exposure_add_on")) if above and self.legs else ZERO

    @property
    def requirement(self) -> Decimal:
        """With minimum equity, FINRA 4210(b)(4)."""
        legs = sum((self.charge(s) + self.concentration(s) for s in self.legs), ZERO)
        shorts = any(leg.quantity < 0 for leg in self.legs.values())
        least = self.rule("minimum_equity") if shorts else min(self.rule("minimum_equity"), self.lmv)
        return max(legs + self.beta_add_on, least)

    @property
    def excess(self) -> Decimal:
        return self.equity - self.requirement

    @property
    def initial(self) -> Decimal:
        """Regulation T: half of longs; of shorts what is asked beyond the proceeds, which are part of cash."""
        beyond = max(self.rule("initial_short") - 1, ZERO)
        return rounded(self.lmv * self.rule("initial_long")) + rounded(self.smv * beyond)

    def excess_at(self, symbol: str, price: Decimal) -> Decimal:
        """Excess if this symbol alone had another price, and the house's add-ons that are in force went on being."""
        leg = self.legs[symbol]
        other = Account(self.cash, {**self.legs, symbol: Leg(leg.quantity, price, leg.beta)}, self.rules)
        add_ons = sum((self.concentration(s) for s in self.legs if s != symbol), ZERO)
        if self.concentration(symbol):
            add_ons += abs(other.value(symbol)) * self.rule("concentration_add_on")
        if self.beta_add_on:
            add_ons += other.gross * self.rule("beta_exposure_add_on")
        legs = sum((other.charge(s) for s in other.legs), ZERO)
        shorts = any(leg.quantity < 0 for leg in self.legs.values())
        least = self.rule("minimum_equity") if shorts else min(self.rule("minimum_equity"), other.lmv)
        return other.equity - max(legs + add_ons, least)

    def under(self, shock: Decimal, of_symbols: Mapping[str, Decimal]) -> Account:
        """The account when the index has moved by `shock`, and some symbols by shocks of their own."""
        legs, values = {}, {}
        for symbol, leg in self.legs.items():
            value = self.value(symbol)
            if symbol in of_symbols:
                value += rounded(value * of_symbols[symbol])
            else:
                value += rounded(rounded(value * leg.beta) * shock)
            value = max(value, ZERO) if leg.quantity > 0 else min(value, ZERO)
            values[symbol] = value
            legs[symbol] = Leg(leg.quantity, quotient(value, leg.quantity, 6), leg.beta)
        return Account(self.cash, legs, self.rules, values)
