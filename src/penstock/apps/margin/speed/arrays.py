"""The same figures on arrays of integers, in memory: the least that the arithmetic takes. Nothing is stored.

Money is in units of 0.0001, prices in cents. Results are exact: every product is rounded half away from zero where the
views round theirs, and no intermediate value passes 63 bits for accounts of ordinary size.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow as pa

from penstock.apps.margin.speed.portfolio import Integers, Portfolio, decimals, moments, names

DOLLAR = 10_000
ABSENT = -1
SHOCKS_WITHIN_SIX = (-6, -4, -2, 0, 2, 4, 6)


def quotient(dividend: Integers, divisor: Integers | int, places: int = 0) -> Integers:
    """dividend / divisor in units of 10^-places, rounded half away from zero; places are taken five at a time.

    Example:
        >>> quotient(np.array([5, -5, 2]), 2), quotient(np.array([1]), 3, 6)
        (array([ 3, -3,  1]), array([333333]))
    """
    found, rest = np.divmod(np.abs(dividend), np.abs(divisor))
    while places:
        step = min(places, 5)
        digits, rest = np.divmod(rest * 10**step, np.abs(divisor))
        found, places = found * 10**step + digits, places - step
    sign = np.where((dividend < 0) == (np.asarray(divisor) < 0), 1, -1)
    return cast("Integers", sign * (found + (2 * rest >= np.abs(divisor))))


class Arrays:
    """Margins and positions of a portfolio. `tick` works all of them out for its prices of the moment."""

    def __init__(self, book: Portfolio) -> None:
        self._book = book
        self._each = book.size.positions // book.size.accounts
        self._cash = book.deposit_cents * 100 - self._by_account(book.shares * book.cost_cents * 100)

    def tick(self) -> None:
        """All figures anew."""
        book, shares = self._book, self._book.shares
        self._price = price = book.price_cents[book.symbol]
        self._beta = book.beta_e4[book.symbol]
        self._value = value = shares * price * 100
        self._charge = charge = np.where(
            shares > 0,
            np.where(price < 500, value, quotient(value * 25, 100)),
            np.where(
                price >= 500,
                np.maximum(quotient(-value * 30, 100), -shares * 5 * DOLLAR),
                np.maximum(-value, -shares * 5 * DOLLAR // 2),
            ),
        )
        beta_value = quotient(value * self._beta, 10_000)
        self._lmv = self._by_account(np.maximum(value, 0))
        self._smv = self._by_account(np.maximum(-value, 0))
        self._gross = self._lmv + self._smv
        self._long_charge = self._by_account(np.where(shares > 0, charge, 0))
        self._exposure = self._by_account(beta_value)
        self._shorts = self._by_account((shares < 0).astype(np.int64))
        self._add_on = np.where(
            np.abs(value) > self._to_legs(quotient(self._gross * 30, 100)), quotient(np.abs(value) * 10, 100), 0
        )
        self._equity = self._cash + self._lmv - self._smv
        self._beta_add_on = np.where(np.abs(self._exposure) > self._equity * 2, quotient(self._gross * 5, 100), 0)
        self._leg_charges = self._by_account(charge + self._add_on)
        least = np.where(self._shorts > 0, 2_000 * DOLLAR, np.minimum(2_000 * DOLLAR, self._lmv))
        self._requirement = np.maximum(self._leg_charges + self._beta_add_on, least)
        self._worst = self._worst_equity(beta_value)
        self._call_values()
        self._trigger = self._trigger_prices()
        self._as_of = book.ticked_at[book.symbol]

    def _by_account(self, values: Integers) -> Integers:
        return cast("Integers", values.reshape(-1, self._each).sum(axis=1))

    def _to_legs(self, values: Integers) -> Integers:
        return np.repeat(values, self._each)

    def _worst_equity(self, beta_value: Integers) -> Integers:
        worst = np.full(len(self._cash), np.iinfo(np.int64).max)
        for shock in SHOCKS_WITHIN_SIX:
            shocked = self._value + quotient(beta_value * shock, 100)
            shocked = np.where(self._book.shares > 0, np.maximum(shocked, 0), np.minimum(shocked, 0))
            worst = np.minimum(worst, self._cash + self._by_account(shocked))
        return worst

    def _call_values(self) -> None:
        rate = 10**10 - quotient(self._long_charge, np.maximum(self._lmv, 1), 10)
        lacking = self._requirement - self._long_charge + self._smv - self._cash
        value = quotient(lacking * 10**6, np.maximum(rate, 1), 4)
        self._trigger_value = np.where((self._lmv > self._long_charge) & (value > 0), value, ABSENT)
        call = np.maximum(self._requirement - self._equity, 0)
        self._sale = quotient(call * 10**6, quotient(self._requirement, self._gross, 10), 4)

    def _trigger_prices(self) -> Integers:
        """In units of a millionth; ABSENT where there is none."""
        shares, value = self._book.shares, self._value
        equity, beta_add_on, cash = map(self._to_legs, (self._equity, self._beta_add_on, self._cash))
        rest = equity - value - (self._to_legs(self._leg_charges) - self._charge - self._add_on)
        rest -= beta_add_on - np.where(beta_add_on > 0, quotient(np.abs(value) * 5, 100), 0)
        rate = np.where(self._add_on > 0, 10, 0) + np.where(beta_add_on > 0, 5, 0)
        a_share = quotient(rest * 10**6, np.abs(shares))
        floored = quotient((equity - value - 2_000 * DOLLAR) * 100, -shares)
        floored = np.where(((self._to_legs(self._shorts) > 0) | (cash < 0)) & (floored > 0), floored, ABSENT)
        dear = quotient(-a_share, (75 - rate) * 100)
        jumps = rest - quotient(shares * 5 * DOLLAR * rate, 100) < 0
        of_long = np.where(dear >= 5_000_000, dear, np.where(jumps, 5_000_000, ABSENT))
        flat = (100 + rate) * 100
        dear = np.minimum(quotient(a_share, (130 + rate) * 100), quotient(a_share - 5 * 10**10, flat))
        cheap = np.minimum(quotient(a_share, (200 + rate) * 100), quotient(a_share - 25 * 10**9, flat))
        of_short = np.where(
            dear >= 5_000_000,
            np.minimum(dear, floored),
            np.where(
                cheap >= 5_000_000,
                np.minimum(5_000_000, floored),
                np.where(cheap >= 0, np.minimum(cheap, floored), ABSENT),
            ),
        )
        found = np.where(shares > 0, np.maximum(of_long, floored), np.where(floored > 0, of_short, ABSENT))
        return np.where(found >= 10**18, ABSENT, found)

    # -- for comparison ------------------------------------------------------------------------------------------------

    def margins(self) -> pa.Table:
        """The columns of `margin_calculations`."""
        initial = quotient(self._lmv, 2) + quotient(self._smv, 2)
        money = {
            "cash": self._cash,
            "lmv": self._lmv,
            "smv": self._smv,
            "gross": self._gross,
            "equity": self._equity,
            "requirement": self._requirement,
            "excess": self._equity - self._requirement,
            "initial_requirement": initial,
            "call_amount": np.maximum(self._requirement - self._equity, 0),
            "trigger_value": self._trigger_value,
            "sale_needed": self._sale,
            "beta_weighted_exposure": self._exposure,
            "worst_equity": self._worst,
        }
        columns = {
            name: decimals(values, 38, 4, values == ABSENT if name == "trigger_value" else None)
            for name, values in money.items()
        }
        as_of = self._as_of.reshape(-1, self._each).max(axis=1)
        return pa.table({"account_id": names("A", np.arange(len(self._cash))), **columns, "as_of": moments(as_of)})

    def positions(self) -> pa.Table:
        """The columns of `positions`."""
        book = self._book
        return pa.table(
            {
                "account_id": names("A", book.account),
                "symbol": names("S", book.symbol),
                "quantity": decimals(book.shares * 1_000_000, 18, 6),
                "average_cost": decimals(book.cost_cents * 10_000, 18, 6),
                "price": decimals(self._price * 10_000, 18, 6),
                "market_value": decimals(self._value, 20, 4),
                "beta": decimals(self._beta * 100, 16, 6),
                "requirement": decimals(self._charge + self._add_on, 21, 4),
                "trigger_price": decimals(self._trigger, 18, 6, self._trigger == ABSENT),
                "as_of": moments(self._as_of),
            }
        )
