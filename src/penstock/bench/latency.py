"""Latencies counted in buckets: exact below 256, within 1/128 above, whatever the range; histograms can be added.

The layout is that of HdrHistogram (log-linear): a value's bucket is its exponent and its seven leading bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

_BITS = 7
_LINEAR = 1 << (_BITS + 1)


class LatencyHistogram:
    """Counts non-negative integers (negative ones count as 0).

    Example:
        >>> histogram = LatencyHistogram()
        >>> histogram.add(np.array([1, 2, 3, 4, 1000]))
        >>> histogram.count, histogram.percentile(50), histogram.largest
        (5, 3, 1000)
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.largest = 0

    def add(self, values: NDArray[np.int64]) -> None:
        """Count every value of an array."""
        if not len(values):
            return
        values = np.maximum(values, 0)
        buckets, counts = np.unique(_bucket(values), return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += len(values)
        self.total += int(values.sum())
        self.largest = max(self.largest, int(values.max()))

    def merge(self, other: LatencyHistogram) -> None:
        """Add what another histogram counted."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    @property
    def mean(self) -> float:
        """The exact mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The smallest value that `percent` of all values do not exceed (the upper edge of its bucket)."""
        wanted = max(1, int(np.ceil(self.count * percent / 100)))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(_upper(bucket), self.largest)
        return 0

    def bins(self) -> Iterator[tuple[int, int, int]]:
        """What was counted: the lowest and the highest value of a bucket (both included) and its count, ascending."""
        for bucket in sorted(self._counts):
            yield _lower(bucket), _upper(bucket), self._counts[bucket]

    def to_dict(self) -> dict[str, int]:
        """As plain data: the buckets by number, and `total` and `largest`."""
        return {str(bucket): count for bucket, count in self._counts.items()} | {
            "total": self.total,
            "largest": self.largest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, int]) -> LatencyHistogram:
        """What `to_dict` gave."""
        histogram = cls()
        histogram._counts = {int(key): count for key, count in data.items() if key.isdigit()}
        histogram.count = sum(histogram._counts.values())
        histogram.total = data.get("total", 0)
        histogram.largest = data.get("largest", 0)
        return histogram


def _bucket(values: NDArray[np.int64]) -> NDArray[np.int64]:
    exponents = np.maximum(np.frexp(values.astype(np.float64))[1].astype(np.int64) - (_BITS + 1), 0)
    # A value that rounds up to the next power of two as a float has an exponent one too high, never two.
    exponents -= (exponents > 0) & ((values >> exponents) < (1 << _BITS))
    buckets: NDArray[np.int64] = (exponents << _BITS) + (values >> exponents)
    return buckets


def _lower(bucket: int) -> int:
    return _upper(bucket - 1) + 1 if bucket else 0


def _upper(bucket: int) -> int:
    if bucket < _LINEAR:
        return bucket
    exponent = (bucket >> _BITS) - 1
    return ((bucket - (exponent << _BITS)) + 1 << exponent) - 1
