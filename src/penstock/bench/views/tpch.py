"""TPC-H as tables that change: the first rows of each, then inserts, updates and deletes, drawn from a seed.

The keys that are there are known here and nowhere else: an insert has a new key, an update and a delete an old one, and
no key occurs twice in one change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from penstock.bench.views.arrays import Integers
from penstock.bench.views.changes import Change
from penstock.bench.views.tpch_rows import KEYS, Scale, draw_rows, first_keys

# Rows of one batch: what is parsed at a time is held in memory as text.
BATCH_ROWS = 500_000


class Tpch:
    """The eight tables at a scale.

    Example:
        >>> tables = Tpch(0.001, seed=1)
        >>> next(tables.load(["nation"])).rows.num_rows
        25
        >>> tables.change("nation", 3).size
        3
    """

    def __init__(self, factor: float, seed: int) -> None:
        self.scale = Scale(factor)
        self._random = np.random.default_rng(seed)
        self._keys = first_keys(self.scale)
        self._turn = 0
        self._fresh = 0

    def rows(self, table: str) -> int:
        """How many rows the table has now."""
        return len(self._keys[table])

    def load(self, tables: Iterable[str]) -> Iterator[Change]:
        """The first rows of the tables, in batches."""
        for table in tables:
            keys = self._keys[table]
            for start in range(0, len(keys), BATCH_ROWS):
                yield Change(table, draw_rows(table, keys[start : start + BATCH_ROWS], self.scale, self._random))

    def change(self, table: str, rows: int) -> Change:
        """Change so many rows of a table: a third each is new, replaced and deleted (of one row: each in turn)."""
        share, rest = divmod(rows, 3)
        counts = [share, share, share]
        for _ in range(rest):
            counts[self._turn % 3] += 1
            self._turn += 1
        replaced, new, deleted = counts
        present = self._keys[table]
        places = self._random.choice(len(present), min(len(present), replaced + deleted), replace=False)
        gone, kept = places[:deleted], present[places[deleted:]]
        removed = present[gone]
        added = self._new_keys(table, new)
        self._keys[table] = np.concatenate([np.delete(present, gone, axis=0), added])
        upserts = np.concatenate([kept, added])
        return Change(
            table,
            draw_rows(table, upserts, self.scale, self._random) if len(upserts) else None,
            key_rows(table, removed) if len(removed) else None,
        )

    def refresh(self, orders: int) -> list[Change]:
        """The refresh functions of the specification: new orders with their lines, and the oldest go with theirs."""
        old, leaving = self.retire(orders)
        added = self._new_keys("orders", orders)
        lines = np.concatenate([np.stack([added[:, 0], np.full(len(added), n)], axis=1) for n in (1, 2, 3)])
        for table, keys in (("orders", added), ("lineitem", lines)):
            self._keys[table] = np.concatenate([self._keys[table], keys])
        return [
            Change("orders", draw_rows("orders", added, self.scale, self._random), old.deleted),
            Change("lineitem", draw_rows("lineitem", lines, self.scale, self._random), leaving.deleted),
        ]

    def retire(self, orders: int) -> tuple[Change, Change]:
        """The oldest orders go, and their lines with them."""
        old, lines = self._keys["orders"][:orders], self._keys["lineitem"]
        leaving = np.isin(lines[:, 0], old[:, 0])
        self._keys["orders"] = self._keys["orders"][orders:]
        self._keys["lineitem"] = lines[~leaving]
        return (
            Change("orders", None, key_rows("orders", old)),
            Change("lineitem", None, key_rows("lineitem", lines[leaving])),
        )

    def _new_keys(self, table: str, count: int) -> Integers:
        present = self._keys[table]
        match table:
            case "lineitem":
                orders = self._random.choice(self._keys["orders"][:, 0], count)
                # Lines of the first load have numbers up to 7.
                numbers = self._fresh + np.arange(count) + 100
                self._fresh += count
                return np.stack([orders, numbers], axis=1)
            case "partsupp":
                return self._new_pairs(count)
            case _:
                start = int(present.max()) + 1 if len(present) else 1
                return np.arange(start, start + count)[:, None]

    def _new_pairs(self, count: int) -> Integers:
        """Pairs of a part and a supplier that are not there; fewer, where few are left."""
        width = self.scale.suppliers + 1
        drawn = self._random.integers(1, self.scale.parts + 1, 4 * count) * width
        drawn = np.unique(drawn + self._random.integers(1, width, 4 * count))
        present = self._keys["partsupp"]
        free = drawn[~np.isin(drawn, present[:, 0] * width + present[:, 1])]
        chosen = self._random.permutation(free)[:count]
        return np.stack([chosen // width, chosen % width], axis=1)


def key_rows(table: str, keys: Integers) -> pa.Table:
    """The keys as rows of the table's key columns."""
    return pa.table({name: keys[:, place] for place, name in enumerate(KEYS[table])})
