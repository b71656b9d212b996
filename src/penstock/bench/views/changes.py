"""What an epoch of a benchmark brings: rows that are new or replace others by key, and keys that go."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Change:
    """One source's part of an epoch. deleted: keys, for tables only."""

    source: str
    rows: pa.Table | None = None
    deleted: pa.Table | None = None

    @property
    def size(self) -> int:
        """How many rows come or go."""
        return sum(t.num_rows for t in (self.rows, self.deleted) if t is not None)
