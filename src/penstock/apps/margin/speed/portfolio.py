"""A clearing house at one moment: accounts, what they hold and owe, and prices that tick.

All follows from a seed. Amounts are integers here: shares are whole, prices are cents, cash is in hundredths of a cent.
Each position is one fill, so that what is held is known without folding.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Integers = npt.NDArray[np.int64]

OPENING = datetime(2026, 1, 5, 14, 30)
SHORT_SHARE = 0.15
LEVERAGE = 1.8
MOVE = 0.002
TICK_EXPONENT = 1.1


@dataclass(frozen=True)
class Size:
    """How much there is. positions: of all accounts together."""

    accounts: int = 2_000
    symbols: int = 1_000
    positions: int = 20_000
    seed: int = 7


class Portfolio:
    """account, symbol, shares, cost_cents: of each position. price_cents, beta_e4: of each symbol. cash_e4: by account.

    Example:
        >>> book = Portfolio(Size(accounts=2, symbols=10, positions=6))
        >>> sorted(zip(book.account.tolist(), book.symbol.tolist())) == sorted(
        ...     set(zip(book.account.tolist(), book.symbol.tolist())))
        True
        >>> book.tick(3).num_rows
        3
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self._random = random = np.random.default_rng(size.seed)
        each = size.positions // size.accounts
        if not 1 <= each <= size.symbols:
            raise ValueError(f"{each} positions for each account of {size.symbols} symbols")
        self.price_cents = np.maximum(np.exp(random.normal(3.7, 0.9, size.symbols)) * 100, 100).astype(np.int64)
        self.beta_e4 = np.clip(random.normal(10_000, 4_000, size.symbols), -5_000, 30_000).astype(np.int64)
        worth = np.exp(random.normal(11.0, 0.8, size.accounts))
        self.account = np.repeat(np.arange(size.accounts), each)
        # Steps of at least one that together go round at most once: no account holds a symbol twice.
        steps = random.integers(1, size.symbols // each + 1, (size.accounts, each))
        self.symbol = (np.cumsum(steps, axis=1) + random.integers(0, size.symbols, (size.accounts, 1))).ravel()
        self.symbol %= size.symbols
        weights = random.dirichlet(np.ones(each), size.accounts).ravel()
        self.cost_cents = self.price_cents[self.symbol]
        sides = np.where(random.random(len(self.account)) < SHORT_SHARE, -1, 1)
        bought = 100 * LEVERAGE * np.repeat(worth, each) * weights / self.cost_cents
        self.shares = sides * np.maximum(bought.astype(np.int64), 1)
        self.deposit_cents = (worth * 100).astype(np.int64)
        self.ticked_at = np.zeros(size.symbols, np.int64)
        ranks = np.arange(1, size.symbols + 1, dtype=np.float64) ** -TICK_EXPONENT
        self._popularity = np.cumsum(ranks / ranks.sum())
        self._now_us = 0

    # -- what is loaded ------------------------------------------------------------------------------------------------

    def fills(self) -> pa.Table:
        """One fill for each position."""
        count = len(self.account)
        return pa.table(
            {
                "fill_id": [f"F{n}" for n in range(count)],
                "account_id": names("A", self.account),
                "symbol": names("S", self.symbol),
                "quantity": decimals(self.shares * 1_000_000, 18, 6),
                "price": decimals(self.cost_cents * 10_000, 18, 6),
                "timestamp": moments(np.zeros(count, np.int64)),
            }
        )

    def cash(self) -> pa.Table:
        """One deposit for each account."""
        count = self.size.accounts
        return pa.table(
            {
                "account_id": names("A", np.arange(count)),
                "entry_id": [f"C{n}" for n in range(count)],
                "amount": decimals(self.deposit_cents * 100, 20, 4),
                "kind": ["deposit"] * count,
                "timestamp": moments(np.zeros(count, np.int64)),
            }
        )

    def betas(self) -> pa.Table:
        """The beta of each symbol."""
        count = self.size.symbols
        return pa.table(
            {
                "symbol": names("S", np.arange(count)),
                "beta": decimals(self.beta_e4 * 100, 10, 6),
                "timestamp": moments(np.zeros(count, np.int64)),
            }
        )

    def prices(self) -> pa.Table:
        """The price of each symbol as it is now."""
        return self._prices(np.arange(self.size.symbols))

    # -- what ticks ----------------------------------------------------------------------------------------------------

    def tick(self, symbols: int) -> pa.Table:
        """New prices of so many symbols, all different, in one moment."""
        return self._tick(self._random.choice(self.size.symbols, symbols, replace=False))

    def popular(self, ticks: int) -> Integers:
        """The symbols of so many ticks, Zipf-distributed; one may be there several times."""
        return np.searchsorted(self._popularity, self._random.random(ticks)).astype(np.int64)

    def tick_of(self, symbols: Integers) -> pa.Table:
        """New prices of these symbols, one for each that is named."""
        return self._tick(np.unique(symbols))

    def _tick(self, symbols: Integers) -> pa.Table:
        self._now_us += 1_000
        before = self.price_cents[symbols]
        moved = np.maximum((before * (1 + self._random.normal(0, MOVE, len(symbols)))).astype(np.int64), 1)
        self.price_cents[symbols] = np.where(moved == before, before + 1, moved)
        self.ticked_at[symbols] = self._now_us
        return self._prices(symbols)

    def _prices(self, symbols: Integers) -> pa.Table:
        return pa.table(
            {
                "symbol": names("S", symbols),
                "price": decimals(self.price_cents[symbols] * 10_000, 18, 6),
                "timestamp": moments(self.ticked_at[symbols]),
            }
        )


def names(letter: str, numbers: Integers) -> pa.Array:
    """Names of accounts and symbols, in the order of their numbers."""
    return pa.array([f"{letter}{number:06d}" for number in numbers.tolist()])


def decimals(values: Integers, digits: int, places: int, absent: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Integers in units of the last place; null where absent."""
    wide = np.stack([values, values >> 63], axis=1)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(wide).tobytes())]
    found = pa.Array.from_buffers(pa.decimal128(digits, places), len(values), buffers)
    return found if absent is None else pc.if_else(pa.array(absent), None, found)


def moments(after_us: Integers) -> pa.Array:
    """Times so many microseconds after the opening."""
    start = (OPENING - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    return pa.array(start + after_us, pa.timestamp("us"))
