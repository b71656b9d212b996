"""Ticks as rows: `clock:1s` (semantics T5).

Tick k stands at k x period since 1970 (UTC), so that every reader of the clock sees the same ticks, and any tick can be
read again. A reader starts at the present; a clock that is set back gives no tick twice.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from penstock.connectors.base import TypedBatch, Url
from penstock.durations import parse_duration
from penstock.errors import ConnectorError

SCHEMA = pa.schema([("tick", pa.int64()), ("at", pa.timestamp("us"))])


class ClockSource:
    """One partition; the offset of a tick is its number."""

    OPTIONS = ("format",)

    def __init__(self, period_us: int) -> None:
        self._period_us = period_us

    @classmethod
    def open(cls, url: Url) -> ClockSource:
        """The clock behind `clock:PERIOD`. Raises ConnectorError PS-CONN-008 for what is no duration."""
        try:
            period_us = round(parse_duration(url.path).total_seconds() * 1_000_000)
        except ValueError:
            period_us = 0
        if period_us <= 0:
            raise ConnectorError(
                "PS-CONN-008", "a clock needs a period", expected="clock:1s, clock:500ms, ...", got=str(url)
            )
        return cls(period_us)

    def partitions(self) -> list[int]:
        return [0]

    def start(self, partition: int) -> int:
        return self._now_us() // self._period_us

    def earliest(self, partition: int) -> int:
        return 0

    def latest(self, partition: int) -> int:
        return self._now_us() // self._period_us + 1

    def read(
        self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None
    ) -> TypedBatch | None:
        end = min(self.latest(partition) if to is None else to, offset + max_rows)
        if end <= offset:
            return None
        ticks = np.arange(offset, end, dtype=np.int64)
        at = pa.array(ticks * self._period_us).cast(pa.timestamp("us"))
        table = pa.table([pa.array(ticks), at], schema=SCHEMA)
        return TypedBatch(partition, table, pa.chunked_array([pa.array(ticks)]), end, pa.chunked_array([at]))

    def wait(self, timeout_s: float) -> None:
        left_us = self._period_us - self._now_us() % self._period_us
        time.sleep(min(timeout_s, left_us / 1_000_000))

    def close(self) -> None:
        return

    def _now_us(self) -> int:
        return time.time_ns() // 1_000
