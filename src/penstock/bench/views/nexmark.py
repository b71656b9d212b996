"""Nexmark: people, auctions and bids of an auction site, in the order of their time, drawn from a seed.

Of 50 events one is a person, three are auctions and 46 are bids. Half of the bids go to one hot auction, three quarters
come from one hot bidder, as in the published generator; names and texts are simpler. Nothing is late.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.bench.views.arrays import Integers, drawn, moments, picked, sentences
from penstock.bench.views.changes import Change

CYCLE, PEOPLE, AUCTIONS = 50, 1, 3
FIRST_ID = 1_000
FIRST_TIME_US = 1_767_225_600_000_000  # 2026-01-01
STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
CITIES = (
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
)
CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
SIDE_ROWS = 10_000


class Nexmark:
    """The three streams.

    Args:
        spacing_us: the time between two events.

    Example:
        >>> [(change.source, change.size) for change in Nexmark(seed=1).events(100)]
        [('person', 2), ('auction', 6), ('bid', 92)]
    """

    def __init__(self, seed: int, spacing_us: int = 1_000) -> None:
        self._random = np.random.default_rng(seed)
        self._spacing_us = spacing_us
        self._next = 0
        self._texts = sentences(seed, 500)

    def side_input(self) -> Change:
        """The reference of q13."""
        keys = np.arange(SIDE_ROWS)
        return Change("side_input", pa.table({"key": keys, "value": [f"value {key}" for key in keys.tolist()]}))

    def events(self, count: int) -> list[Change]:
        """The next events, by stream."""
        numbers = np.arange(self._next, self._next + count)
        self._next += count
        place = numbers % CYCLE
        people, bids = numbers[place < PEOPLE], numbers[place >= PEOPLE + AUCTIONS]
        auctions = numbers[(place >= PEOPLE) & (place < PEOPLE + AUCTIONS)]
        parts = (("person", people, self._people), ("auction", auctions, self._auctions), ("bid", bids, self._bids))
        return [Change(name, draw(events)) for name, events, draw in parts if len(events)]

    def bids(self, count: int) -> Change:
        """The next events, all of them bids: what an epoch that is smaller than a cycle consists of mostly."""
        numbers = np.arange(self._next, self._next + count)
        self._next += count
        return Change("bid", self._bids(numbers))

    def _times(self, numbers: Integers) -> Integers:
        return FIRST_TIME_US + numbers * self._spacing_us

    def _people(self, numbers: Integers) -> pa.Table:
        rows = len(numbers)
        return pa.table(
            {
                "id": FIRST_ID + numbers // CYCLE,
                "name": drawn(self._random, self._texts, rows),
                "emailAddress": drawn(self._random, self._texts, rows),
                "creditCard": [f"{number:016d}" for number in self._random.integers(0, 10**15, rows).tolist()],
                "city": drawn(self._random, CITIES, rows),
                "state": drawn(self._random, STATES, rows),
                "dateTime": moments(self._times(numbers)),
                "extra": drawn(self._random, self._texts, rows),
            }
        )

    def _auctions(self, numbers: Integers) -> pa.Table:
        rows = len(numbers)
        times = self._times(numbers)
        first_bids = self._prices(rows)
        last = numbers // CYCLE
        hot = self._random.integers(0, 4, rows) > 0
        sellers = np.where(hot, last // 100 * 100, last - self._random.integers(0, 1_000, rows) % (last + 1))
        return pa.table(
            {
                "id": FIRST_ID + last * AUCTIONS + numbers % CYCLE - PEOPLE,
                "itemName": drawn(self._random, self._texts, rows),
                "description": drawn(self._random, self._texts, rows),
                "initialBid": first_bids,
                "reserve": first_bids + self._prices(rows),
                "dateTime": moments(times),
                "expires": moments(times + self._random.integers(1, 40_000, rows) * self._spacing_us),
                "seller": FIRST_ID + sellers,
                "category": 10 + self._random.integers(0, 5, rows),
                "extra": drawn(self._random, self._texts, rows),
            }
        )

    def _bids(self, numbers: Integers) -> pa.Table:
        rows = len(numbers)
        auctions = np.maximum(1, numbers // CYCLE * AUCTIONS)
        hot = self._random.integers(0, 2, rows) > 0
        auction = np.where(hot, auctions // 100 * 100, auctions - self._random.integers(0, 100, rows) % auctions)
        people = np.maximum(1, numbers // CYCLE)
        hot = self._random.integers(0, 4, rows) > 0
        bidder = np.where(hot, people // 100 * 100 + 1, people - self._random.integers(0, 1_000, rows) % people)
        channels = self._random.integers(0, 2 * len(CHANNELS), rows)
        other = self._random.integers(0, 10_000, rows).tolist()
        named = [*CHANNELS, *("" for _ in CHANNELS)]
        names = [named[c] or f"channel-{o}" for c, o in zip(channels.tolist(), other, strict=True)]
        urls = [
            f"https://www.nexmark.com/{o % 17}a/{o % 5}b/{o % 3}c/item.htm?query=1"
            + ("" if named[c] else f"&channel_id={o}")
            for c, o in zip(channels.tolist(), other, strict=True)
        ]
        return pa.table(
            {
                "auction": FIRST_ID + auction,
                "bidder": FIRST_ID + bidder,
                "price": self._prices(rows),
                "channel": pa.array(names, pa.string()),
                "url": pa.array(urls, pa.string()),
                "dateTime": moments(self._times(numbers)),
                "extra": picked(self._texts, self._random.integers(0, len(self._texts), rows)),
            }
        )

    def _prices(self, rows: int) -> Integers:
        return (10 ** (self._random.random(rows) * 6) * 100).astype(np.int64)
