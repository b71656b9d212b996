"""A market to run the monitor on: accounts that trade, prices that move together, jump, and crash when asked to.

Everything follows from one seed. Log prices are an index times the share's beta, plus a walk of its own; the index
jumps now and then. Which share ticks is Zipf-distributed. A crash takes the index down by a given part within a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import numpy as np

Topic = Literal["fills", "prices", "betas", "cash"]
SECONDS_OF_TRADING_A_YEAR = 252 * 6.5 * 3600
INDEX_VOLATILITY = 0.16
OWN_VOLATILITY = 0.30
JUMPS_A_YEAR = 40.0
JUMP_SIZE = 0.02
TICK_EXPONENT = 1.1
LEVERAGE = 1.8


@dataclass(frozen=True)
class Market:
    """What is simulated. ticks, fills: per second of market time. crash_at_s: when the index falls by `crash`."""

    accounts: int = 1_000
    symbols: int = 200
    ticks: float = 200.0
    fills: float = 20.0
    positions: int = 10
    seed: int = 7
    crash_at_s: float | None = None
    crash: float = 0.25


@dataclass(frozen=True)
class Record:
    """One record. at_s: market time since the start. key: what its topic is partitioned by."""

    topic: Topic
    at_s: float
    key: str
    value: bytes


class Simulation:
    """The records of a market, in order of time.

    Example:
        >>> market = Simulation(Market(accounts=2, symbols=3, positions=2), datetime(2026, 1, 5, 14, 30))
        >>> sorted({record.topic for record in market.opening()})
        ['betas', 'cash', 'fills', 'prices']
    """

    def __init__(self, market: Market, start: datetime) -> None:
        self._market = market
        self._start = start
        self._random = np.random.default_rng(market.seed)
        count = market.symbols
        self._betas = np.round(np.clip(self._random.normal(1.0, 0.4, count), -0.5, 3.0), 4)
        self._first = np.exp(self._random.normal(3.7, 0.9, count))
        self._own = np.zeros(count)
        self._index = 0.0
        self._moved_at = np.zeros(count)
        self._index_at = 0.0
        ranks = np.arange(1, count + 1, dtype=np.float64) ** -TICK_EXPONENT
        self._shares = ranks / ranks.sum()
        self._numbers = {"fills": 0, "cash": 0}
        self._crashed = False

    def opening(self) -> Iterator[Record]:
        """What is there before the first second: betas, prices, deposits, and the positions that they paid for."""
        for symbol in range(self._market.symbols):
            yield self._record(
                "betas", 0.0, self._name(symbol), {"symbol": self._name(symbol), "beta": f"{self._betas[symbol]:.4f}"}
            )
            yield self._price(symbol, 0.0)
        for number in range(self._market.accounts):
            worth = float(np.exp(self._random.normal(11.0, 0.8)))
            held = self._random.choice(self._market.symbols, min(self._market.positions, self._market.symbols), False)
            weights = self._random.dirichlet(np.ones(len(held)))
            yield self._cash(number, 0.0, worth)
            for symbol, weight in zip(held.tolist(), weights.tolist(), strict=True):
                side = -1 if self._random.random() < 0.15 else 1
                price = self._quote(symbol)
                quantity = side * max(1, round(worth * LEVERAGE * weight / float(price)))
                yield self._fill(number, symbol, quantity, price, 0.0)

    def second(self, number: int) -> list[Record]:
        """The records of one second of market time, counted from 0."""
        market = self._market
        times = np.sort(self._random.random(self._random.poisson(market.ticks)) + number)
        records = [
            self._tick(int(symbol), at) for at, symbol in zip(times.tolist(), self._ticking(len(times)), strict=True)
        ]
        records += self._trades(number)
        if market.crash_at_s is not None and not self._crashed and number >= market.crash_at_s:
            self._crashed = True
            self._index += float(np.log1p(-market.crash))
            records += [self._price(symbol, number + 0.999) for symbol in range(market.symbols)]
        records.sort(key=lambda record: record.at_s)
        return records

    def _trades(self, number: int) -> list[Record]:
        """The fills of one second."""
        records = []
        for at in np.sort(self._random.random(self._random.poisson(self._market.fills)) + number).tolist():
            symbol = int(self._ticking(1)[0])
            side = -1 if self._random.random() < 0.5 else 1
            quantity = side * int(self._random.integers(1, 200))
            account = int(self._random.integers(self._market.accounts))
            records.append(self._fill(account, symbol, quantity, self._quote(symbol), at))
        return records

    def _name(self, symbol: int) -> str:
        return f"S{symbol:05d}"

    def _ticking(self, count: int) -> list[int]:
        return self._random.choice(self._market.symbols, count, p=self._shares).tolist()  # type: ignore[no-any-return]

    def _tick(self, symbol: int, at: float) -> Record:
        """Move the index and the share to this moment, and quote the share."""
        years = max(at - self._index_at, 0.0) / SECONDS_OF_TRADING_A_YEAR
        self._index_at = at
        self._index += float(self._random.normal(0.0, INDEX_VOLATILITY * years**0.5))
        if self._random.random() < JUMPS_A_YEAR * years:
            self._index += float(self._random.normal(0.0, JUMP_SIZE))
        own = max(at - self._moved_at[symbol], 0.0) / SECONDS_OF_TRADING_A_YEAR
        self._moved_at[symbol] = at
        self._own[symbol] += self._random.normal(0.0, OWN_VOLATILITY * own**0.5)
        return self._price(symbol, at)

    def _quote(self, symbol: int) -> Decimal:
        level = self._first[symbol] * np.exp(self._betas[symbol] * self._index + self._own[symbol])
        return max(Decimal(f"{level:.2f}"), Decimal("0.01"))

    def _price(self, symbol: int, at: float) -> Record:
        return self._record(
            "prices", at, self._name(symbol), {"symbol": self._name(symbol), "price": str(self._quote(symbol))}
        )

    def _fill(self, account: int, symbol: int, quantity: int, price: Decimal, at: float) -> Record:
        self._numbers["fills"] += 1
        body = {
            "fill_id": f"F{self._market.seed}-{self._numbers['fills']}",
            "account_id": _account(account),
            "symbol": self._name(symbol),
            "quantity": str(quantity),
            "price": str(price),
        }
        return self._record("fills", at, _account(account), body)

    def _cash(self, account: int, at: float, amount: float) -> Record:
        self._numbers["cash"] += 1
        body = {
            "account_id": _account(account),
            "entry_id": f"C{self._market.seed}-{self._numbers['cash']}",
            "amount": f"{amount:.2f}",
            "kind": "deposit",
        }
        return self._record("cash", at, _account(account), body)

    def _record(self, topic: Topic, at: float, key: str, body: dict[str, str]) -> Record:
        body["timestamp"] = (self._start + timedelta(seconds=at)).isoformat(timespec="microseconds")
        return Record(topic, at, key, json.dumps(body, separators=(",", ":")).encode())


def _account(number: int) -> str:
    return f"A{number:06d}"
