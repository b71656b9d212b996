"""Real daily prices, and a market that moves by them: five shares from 2000 to 2013 (extra `demo`: bokeh_sampledata).

The prices are Quandl's WIKI prices, which are in the public domain; the package is under the BSD licence. Each day is
four prices: open, high and low in the order that fits the day, close. Days pass at any speed; times are those of the
replay, for a price of 2008 would be stale today.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from penstock.apps.margin.market import Market, Record, Simulation
from penstock.errors import DataError

FILE = "_data/stocks.csv.gz"
DIGITS = Decimal("0.0001")
# Where in its day each of the four prices comes.
MOMENTS = (0.1, 0.35, 0.65, 0.9)


@dataclass(frozen=True)
class Day:
    """Open, high, low and close of each share that was traded, adjusted for splits and dividends."""

    day: date
    prices: Mapping[str, tuple[Decimal, Decimal, Decimal, Decimal]]


@dataclass(frozen=True)
class History:
    """Trading days in order, and the shares that are in all of them."""

    days: tuple[Day, ...]
    symbols: tuple[str, ...]

    @classmethod
    def shipped(cls, first: date, last: date) -> History:
        """What the package has of these days.

        Raises:
            DataError: PS-DATA-007 when it is not installed, or has none of these days.
        """
        spec = find_spec("bokeh_sampledata")
        if spec is None or spec.origin is None:
            raise DataError(
                "PS-DATA-007",
                "there are no real prices here",
                expected="the package bokeh_sampledata",
                got="not installed",
                hint="pip install 'penstock[demo]'",
            )
        return cls.read(Path(spec.origin).parent / FILE, first, last)

    @classmethod
    def read(cls, path: Path, first: date, last: date) -> History:
        """Prices of a CSV file (gzip) with the columns Ticker, Date, Open, High, Low, Close, Adj Close."""
        days: dict[date, dict[str, tuple[Decimal, Decimal, Decimal, Decimal]]] = {}
        with gzip.open(path, "rt", newline="") as file:
            for row in csv.DictReader(file):
                day = date.fromisoformat(row["Date"])
                if first <= day <= last:
                    days.setdefault(day, {})[row["Ticker"]] = _adjusted(row)
        whole = set.intersection(*(set(prices) for prices in days.values())) if days else set()
        if len(days) < 2 or not whole:
            raise DataError(
                "PS-DATA-007",
                "there are no real prices of these days",
                expected="two days or more of 2000-03-01 to 2013-03-01",
                got=f"{first} to {last}",
            )
        return cls(tuple(Day(day, days[day]) for day in sorted(days)), tuple(sorted(whole)))

    def betas(self) -> list[float]:
        """Of each share against the mean of all, by daily returns of the close."""
        closes = np.array([[float(day.prices[symbol][3]) for symbol in self.symbols] for day in self.days])
        returns = np.diff(np.log(closes), axis=0)
        index = returns.mean(axis=1)
        variance = float(index.var())
        if variance == 0:
            return [1.0] * len(self.symbols)
        covariances = ((returns - returns.mean(axis=0)) * (index - index.mean())[:, None]).mean(axis=0)
        return [round(float(covariance) / variance, 4) for covariance in covariances]


class Replay(Simulation):
    """Accounts that trade at random in shares whose prices are history: so many days in a second of market time."""

    def __init__(self, history: History, market: Market, start: datetime, days_per_second: float) -> None:
        self._history = history
        self._days_per_second = days_per_second
        self._now = [history.days[0].prices[symbol][0] for symbol in history.symbols]
        super().__init__(replace(market, symbols=len(history.symbols), crash_at_s=None), start)
        self._betas = np.array(history.betas())

    def second(self, number: int) -> list[Record]:
        """The prices of the days that pass in this second, with fills at the prices before them."""
        records = self._trades(number)
        first, last = number * self._days_per_second, (number + 1) * self._days_per_second
        for position in range(int(first), min(int(last) + 1, len(self._history.days))):
            for moment, prices in zip(MOMENTS, _quotes(self._history, position), strict=True):
                if first <= position + moment < last:
                    at = (position + moment) / self._days_per_second
                    for symbol, price in enumerate(prices):
                        self._now[symbol] = price
                        records.append(self._price(symbol, at))
        return sorted(records, key=lambda record: record.at_s)

    def _name(self, symbol: int) -> str:
        return self._history.symbols[symbol]

    def _quote(self, symbol: int) -> Decimal:
        return self._now[symbol]


def _adjusted(row: Mapping[str, str]) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The day's four prices, to four digits: a split is no fall."""
    factor = Decimal(row["Adj Close"]) / Decimal(row["Close"])
    opened, high, low, close = ((Decimal(row[n]) * factor).quantize(DIGITS) for n in ("Open", "High", "Low", "Close"))
    return opened, high, low, close


def _quotes(history: History, position: int) -> Sequence[Sequence[Decimal]]:
    """The four prices of each share on a day: a day that ends higher has its low first."""
    moments: list[list[Decimal]] = [[], [], [], []]
    for symbol in history.symbols:
        opened, high, low, close = history.days[position].prices[symbol]
        order = (opened, low, high, close) if close >= opened else (opened, high, low, close)
        for moment, price in zip(moments, order, strict=True):
            moment.append(price)
    return moments
