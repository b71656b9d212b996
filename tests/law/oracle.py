"""The batch answer: the user's own SQL over the model's rows, in a DuckDB connection that Penstock has never seen."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import duckdb

from tests.law.world import COLUMNS, TYPES, World

Values = tuple[object, ...]
WINDOWS: Mapping[str, timedelta] = {
    "10s": timedelta(seconds=10),
    "1m": timedelta(minutes=1),
    "4s": timedelta(seconds=4),
}


def window_end(at: datetime, length: timedelta) -> datetime:
    """The end of the tumbling window that holds `at`; windows are aligned to midnight (and so to 2000-01-03)."""
    midnight = datetime(at.year, at.month, at.day)
    return midnight + ((at - midnight) // length + 1) * length


class Oracle:
    """Evaluates views in order, each over the sources and the views before it."""

    def __init__(self, sources: Iterable[str]) -> None:
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        self._sources = sorted(sources)
        self._window: str | None = None
        self._made: dict[str, set[str]] = {"TABLE": set(), "VIEW": set()}
        for name in self._sources:
            columns = ", ".join(f'"{c}" {t}' for c, t in zip(COLUMNS[name], TYPES[name], strict=True))
            late = ", _late_for VARCHAR[]" if name in ("s", "s2") else ""
            self._connection.execute(f'CREATE TABLE "all_{name}" ({columns}{late})')

    def load(self, world: World) -> None:
        """Replace the sources' rows by the model's."""
        for name in self._sources:
            self._connection.execute(f'DELETE FROM "all_{name}"')
            if name in ("s", "s2"):
                rows = [
                    (
                        *(row[c] for c in COLUMNS[name]),
                        [] if (name, number) in world.applied else late_for(row["at"], before),
                    )
                    for number, (row, before) in enumerate(world.streams[name])
                ]
            else:
                rows = [tuple(row[c] for c in COLUMNS[name]) for row in world.content(name)]
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                # Backwards, so that an answer which follows the order of the rows is seen.
                self._connection.executemany(f'INSERT INTO "all_{name}" VALUES ({marks})', rows[::-1])

    def view(self, name: str, sql: str, window: str = "") -> list[Values]:
        """The rows of a view; later views can read it."""
        self._use(window)
        # DuckDB takes a bare `at` for the start of AT (VERSION => ...).
        sql = re.sub(r'(?<!")\bat\b(?!")', '"at"', sql)
        # A view over streams stays a view: what reads it through a window must not see that window's late rows.
        for kind in ("TABLE", "VIEW"):
            if name in self._made[kind]:
                self._connection.execute(f'DROP {kind} "{name}"')
                self._made[kind].discard(name)
        kind = "TABLE" if window else "VIEW"
        self._made[kind].add(name)
        self._connection.execute(f'CREATE {kind} "{name}" AS {sql}')
        return self._connection.execute(f'SELECT * FROM "{name}"').fetchall()

    def put(self, name: str, sql: str, rows: list[Values]) -> None:
        """Give a view these rows (a final view holds what was frozen) with the columns of `sql`."""
        self._use("")
        sql = re.sub(r'(?<!")\bat\b(?!")', '"at"', sql)
        self._connection.execute(f'CREATE OR REPLACE TABLE "{name}" AS SELECT * FROM ({sql}) LIMIT 0')
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self._connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)

    def _use(self, window: str) -> None:
        if window == self._window:
            return
        self._window = window
        for name in self._sources:
            columns = ", ".join(f'"{c}"' for c in COLUMNS[name])
            late = f" WHERE NOT list_contains(_late_for, '{window}')" if window and name in ("s", "s2") else ""
            self._connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS SELECT {columns} FROM "all_{name}"{late}')

    def close(self) -> None:
        self._connection.close()


def late_for(at: object, before: datetime | None) -> list[str]:
    assert isinstance(at, datetime)
    behind = ["behind"] if before is not None and at < before else []
    return behind + [n for n, length in WINDOWS.items() if before is not None and window_end(at, length) <= before]


# -- comparing ---------------------------------------------------------------------------------------------------------


def _rough(value: object) -> object:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.5e}" if value else "0"
    if isinstance(value, list):
        return tuple(_rough(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _rough(v)) for k, v in value.items())
    return value


def _key(row: Values) -> str:
    return repr(tuple(_rough(v) for v in row))


def _close(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_close(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def difference(got: Iterable[Values], expected: Iterable[Values]) -> str:
    """What is wrong with `got` as a multiset, floats at 1e-9; empty where nothing is."""
    left, right = sorted(got, key=_key), sorted(expected, key=_key)
    if len(left) == len(right) and all(
        len(a) == len(b) and all(_close(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(left, right, strict=True)
    ):
        return ""
    mine, theirs = Counter(map(_key, left)), Counter(map(_key, right))
    return f"too much {list((mine - theirs).elements())}, missing {list((theirs - mine).elements())}"
