"""Which result of a cell was the first to include an event, from the results alone.

A result says how many events of its cell it includes, of each type, and the newest `produce_time` among them; not which
events they are. Any job that reads every partition in offset order includes a prefix of each partition's events of the
cell, so what has to be found for each result is the length of those prefixes, k(p):

    sum of k(p) = count          the same for each event type
    max of produce_time = max_produce_time, so that no prefix reaches an event sent later
    k(p) never falls from one result to the next

With one partition k is the count: exact. With more, these equations leave a small range between `least` and `most`,
which holds the truth whatever the job did in between. A result that no prefixes can explain is `impossible`: such a job
has lost, doubled or invented an event on the way, even if its last result is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.apps.ads.generate import EVENT_TYPES

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
MAX_WIDTH = 4_096


@dataclass(frozen=True)
class CellEvents:
    """The accepted events of one cell in one partition, in offset order."""

    kinds: Integers
    produce_ms: Integers
    intended_us: Integers


@dataclass(frozen=True)
class CellResults:
    """The results of one cell in the order in which they were written; by_kind has a row per result."""

    written_us: Integers
    by_kind: Integers
    max_produce_ms: Integers


@dataclass(frozen=True)
class Inclusion:
    """Least and most events of each partition (rows) that each result (columns) includes; impossible results."""

    least: Integers
    most: Integers
    impossible: Flags


@dataclass(frozen=True)
class Included:
    """For every event of one partition that a result includes: when it was meant to be sent, and the earliest and the
    latest time at which the first result that includes it can have been written (microseconds since 1970)."""

    intended_us: Integers
    earliest_us: Integers
    latest_us: Integers


def inclusion(parts: Sequence[CellEvents], results: CellResults) -> Inclusion:
    """How far each result reaches into each partition."""
    falls = _falls(results)
    kept = _chosen(results, ~falls)
    counts = kept.by_kind.sum(axis=1)
    prefixes = [_Prefixes(part) for part in parts]
    most = np.array([prefix.sent_by(kept.max_produce_ms) for prefix in prefixes], dtype=np.int64)
    most = most.reshape(len(parts), len(counts))
    least, most = _narrowed(np.zeros_like(most), most, counts)
    wrong = (least > most).any(axis=0) | (most.sum(axis=0) < counts) | (least.sum(axis=0) > counts)
    if len(parts) == 2:
        least, most, unexplained = _refined(prefixes, least, most, counts, kept)
        least, most = _narrowed(least, most, counts)
    else:
        unexplained = _unexplained(prefixes, least, most, kept)
    impossible = falls.copy()
    # what the types said may contradict the order of the results
    impossible[~falls] = wrong | unexplained | (least > most).any(axis=0)
    return Inclusion(_spread(least, ~falls), _spread(most, ~falls), impossible)


def included(parts: Sequence[CellEvents], results: CellResults) -> tuple[list[Included], int]:
    """The times of inclusion by partition, and how many results are impossible (those are left out)."""
    impossible = 0
    # Without those that are impossible, others may turn out to be: bounds follow from all results together.
    while (found := inclusion(parts, results)).impossible.any():
        impossible += int(found.impossible.sum())
        results = _chosen(results, ~found.impossible)
    # Times never fall within a partition of the results; several partitions of them are put in order here.
    written_us = np.maximum.accumulate(results.written_us) if len(results.written_us) else results.written_us
    times = [
        _times(part, least, most, written_us) for part, least, most in zip(parts, found.least, found.most, strict=True)
    ]
    return times, impossible


def _falls(results: CellResults) -> Flags:
    """Results with less, or with an older newest event, than one before them."""
    if not len(results.written_us):
        return np.zeros(0, dtype=np.bool_)
    counts, newest = results.by_kind.sum(axis=1), results.max_produce_ms
    falls: Flags = (counts < np.maximum.accumulate(counts)) | (newest < np.maximum.accumulate(newest))
    return falls


def _chosen(results: CellResults, which: Flags) -> CellResults:
    return CellResults(results.written_us[which], results.by_kind[which], results.max_produce_ms[which])


def _spread(values: Integers, places: Flags) -> Integers:
    """The columns put back where they were; 0 in between."""
    spread = np.zeros((len(values), len(places)), dtype=np.int64)
    spread[:, places] = values
    return spread


class _Prefixes:
    """What the first k events of a part add up to, for every k from 0 on."""

    def __init__(self, part: CellEvents) -> None:
        size = len(part.kinds)
        self.by_kind = np.zeros((size + 1, len(EVENT_TYPES)), dtype=np.int64)
        for kind in range(len(EVENT_TYPES)):
            np.cumsum(part.kinds == kind, out=self.by_kind[1:, kind])
        self.newest_ms = np.zeros(size + 1, dtype=np.int64)
        if size:
            np.maximum.accumulate(part.produce_ms, out=self.newest_ms[1:])

    def sent_by(self, times_ms: Integers) -> Integers:
        """The longest prefix without an event sent after each time."""
        return np.searchsorted(self.newest_ms[1:], times_ms, side="right").astype(np.int64)


def _narrowed(least: Integers, most: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """Bounds that the sum and the order of the results imply."""
    if not len(counts):
        return least, most
    for _ in range(2):
        most = np.minimum(most, counts - (least.sum(axis=0) - least))
        most = np.minimum.accumulate(most[:, ::-1], axis=1)[:, ::-1]
        least = np.maximum(least, counts - (most.sum(axis=0) - most))
        least = np.maximum.accumulate(least, axis=1)
    return least, most


def _refined(
    prefixes: Sequence[_Prefixes], least: Integers, most: Integers, counts: Integers, results: CellResults
) -> tuple[Integers, Integers, Flags]:
    """Of two partitions: every split between the bounds is tried against the types and the newest time."""
    low, high = least[0], most[0]
    open_ = (high >= low) & (high - low <= MAX_WIDTH)
    new_low, new_high = np.full_like(low, -1), np.full_like(high, -1)
    for step in range(int((high - low)[open_].max()) + 1 if open_.any() else 0):
        tried = np.flatnonzero(open_ & (low + step <= high))
        first = low[tried] + step
        second = counts[tried] - first
        inside = (second >= 0) & (second < len(prefixes[1].newest_ms))
        tried, first, second = tried[inside], first[inside], second[inside]
        fits = _fits(prefixes, np.stack([first, second]), results, tried)
        tried, first = tried[fits], first[fits]
        new_high[tried] = first
        new_low[tried] = np.where(new_low[tried] < 0, first, new_low[tried])
    solved = new_low >= 0
    least, most = least.copy(), most.copy()
    least[0][solved], most[0][solved] = new_low[solved], new_high[solved]
    least[1][solved], most[1][solved] = (counts - new_high)[solved], (counts - new_low)[solved]
    return least, most, open_ & ~solved


def _unexplained(prefixes: Sequence[_Prefixes], least: Integers, most: Integers, results: CellResults) -> Flags:
    """Results whose prefixes are known, and do not add up."""
    known = np.flatnonzero((least == most).all(axis=0))
    wrong = np.zeros(len(results.written_us), dtype=np.bool_)
    wrong[known] = ~_fits(prefixes, least[:, known], results, known)
    return wrong


def _fits(prefixes: Sequence[_Prefixes], lengths: Integers, results: CellResults, which: Integers) -> Flags:
    by_kind = sum(
        (prefix.by_kind[length] for prefix, length in zip(prefixes, lengths, strict=True)),
        np.zeros((len(which), len(EVENT_TYPES)), dtype=np.int64),
    )
    newest = np.zeros(len(which), dtype=np.int64)
    for prefix, length in zip(prefixes, lengths, strict=True):
        newest = np.maximum(newest, prefix.newest_ms[length])
    fits: Flags = (by_kind == results.by_kind[which]).all(axis=1) & (newest == results.max_produce_ms[which])
    return fits


def _times(part: CellEvents, least: Integers, most: Integers, written_us: Integers) -> Included:
    ranks = np.arange(1, len(part.intended_us) + 1)
    latest, earliest = np.searchsorted(least, ranks), np.searchsorted(most, ranks)
    there = latest < len(written_us)
    return Included(part.intended_us[there], written_us[earliest[there]], written_us[latest[there]])
