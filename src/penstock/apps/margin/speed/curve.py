"""Latency under an open-loop load: ticks are due at even times, whether or not the pipeline keeps up.

An epoch takes all ticks that are due, conflated: one price for each symbol that is named, the newest. A latency is
from the time at which a tick was due to the end of the commit with its price or a newer one of the symbol.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from penstock.apps.margin.speed.portfolio import Portfolio
from penstock.runtime.session import Session


@dataclass(frozen=True)
class Latencies:
    """What a rate, in ticks per second, led to. changes: change records of all sinks, of all epochs."""

    rate: int
    ticks: int
    epochs: int
    changes: int
    p50_ms: float
    p99_ms: float


def latencies(session: Session, book: Portfolio, rate: int, seconds: float) -> Latencies:
    """Offer Zipf-distributed ticks for so many seconds, and take them all."""
    count = max(1, round(rate * seconds))
    symbols, due_s = book.popular(count), np.arange(count) / rate
    taken, epochs, changes = 0, 0, 0
    found = np.empty(count)
    began = time.perf_counter()
    while taken < count:
        passed = time.perf_counter() - began
        upto = int(np.searchsorted(due_s, passed, side="right"))
        if upto == taken:
            time.sleep(max(0.0, due_s[taken] - passed))
            continue
        session.insert("prices", book.tick_of(symbols[taken:upto]))
        session.commit()
        found[taken:upto] = time.perf_counter() - began - due_s[taken:upto]
        assert session.last is not None
        epochs, changes = epochs + 1, changes + sum(rows.num_rows for rows in session.last.changes.values())
        taken = upto
    p50, p99 = np.quantile(found, [0.5, 0.99]) * 1e3
    return Latencies(rate, count, epochs, changes, float(p50), float(p99))
