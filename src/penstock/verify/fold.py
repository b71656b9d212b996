"""The job's answer and the oracle's, side by side.

The job's answer is what its change records fold to, read from the files that the sinks wrote. Folding is strict: a
retraction must take away a row that is there at that moment, and `_seq` must count from 0 in each epoch. Both sides are
compared as multisets, NULL being equal to NULL and floats at 1e-9 relative (semantics V3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

TOLERANCE = 1e-9
_META = {"_op": "VARCHAR", "_epoch": "BIGINT", "_seq": "BIGINT"}
_SIGN = "CASE WHEN _op IN ('+I', '+U') THEN 1 WHEN _op IN ('-U', '-D') THEN -1 END"
# Records that are larger than DuckDB's own limit are rare, and a larger one makes every file slower.
_OBJECT_SIZES = ("", ", maximum_object_size = 67108864")
_PLAIN = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DOUBLE", "FLOAT", "VARCHAR"}
Row = tuple[object, ...]


@dataclass(frozen=True)
class Difference:
    """One row on which the two sides disagree. epoch: the job's last change of it, None if it never had it.

    job, batch: the row on either side with the number of copies, None where it is not there.
    """

    view: str
    epoch: int | None
    key: Mapping[str, object]
    job: Mapping[str, object] | None
    batch: Mapping[str, object] | None
    what: str = ""


@dataclass(frozen=True)
class Compared:
    """A view that was compared. changes: change records folded; rows: of the answer."""

    view: str
    changes: int
    rows: int
    difference: Difference | None


def compare_view(answer: Path, view: str, key: Sequence[str], file: Path) -> Compared:
    """Fold the file of a view and compare it with the oracle's table."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
        connection.execute(f"ATTACH '{answer}' AS answer (READ_ONLY)")
        return _View(connection, view, tuple(key), file).compare()


@dataclass
class _Left:
    """A row of which one side has more copies: above 0 the job, below 0 the batch."""

    surplus: int
    values: Row


class _View:
    def __init__(self, connection: duckdb.DuckDBPyConnection, view: str, key: tuple[str, ...], file: Path) -> None:
        self._connection = connection
        self._view = view
        self._oracle = f"answer.views.{_quote(view)}"
        described = connection.execute(f"DESCRIBE {self._oracle}").fetchall()
        self._types = {str(row[0]): str(row[1]) for row in described}
        self._key = tuple(name for name in self._types if name.lower() in {k.lower() for k in key})
        self._file = file

    def compare(self) -> Compared:
        changes = self._read()
        problem = self._strictness()
        if problem is None:
            problem = self._rows()
        count = self._connection.execute("SELECT coalesce(sum(_ps_n), 0) FROM want").fetchone()
        return Compared(self._view, changes, int(count[0]) if count else 0, problem)

    def _read(self) -> int:
        """The change records as the table `changes`, the oracle's rows as `want`; both in the oracle's types.

        The row ids of `changes` are the order of the file.
        """
        typed = ", ".join(f"{_from_json(_quote(n), kind)} AS {_quote(n)}" for n, kind in self._types.items())
        exists = self._file.exists() and self._file.stat().st_size > 0
        for more in _OBJECT_SIZES:
            try:
                self._connection.execute(
                    f"CREATE TABLE changes AS SELECT {typed}, _op, _epoch, _seq "
                    f"FROM {self._records(more) if exists else self._no_records()}"
                )
                break
            except duckdb.InvalidInputException:
                if more == _OBJECT_SIZES[-1] or not exists:
                    raise
        wanted = ", ".join(f"{_as_written(_quote(n), kind)} AS {_quote(n)}" for n, kind in self._types.items())
        self._connection.execute(
            f"CREATE TABLE want AS SELECT {wanted}, count(*) AS _ps_n FROM {self._oracle} GROUP BY ALL"
        )
        row = self._connection.execute("SELECT count(*) FROM changes").fetchone()
        return int(row[0]) if row else 0

    def _records(self, more: str) -> str:
        names = ", ".join(f"{_quote(n)}: '{kind}'" for n, kind in self._read_as())
        return f"read_json('{self._file}', format = 'newline_delimited', columns = {{{names}}}{more})"

    def _no_records(self) -> str:
        names = ", ".join(f"NULL::{kind} AS {_quote(n)}" for n, kind in self._read_as())
        return f"(SELECT {names} LIMIT 0)"

    def _read_as(self) -> list[tuple[str, str]]:
        return [(n, _read_kind(kind)) for n, kind in self._types.items()] + list(_META.items())

    def _strictness(self) -> Difference | None:
        columns = self._columns()
        problem = self._sequence()
        if problem is not None:
            return problem
        # By sets: a row whose additions all come before its removals, and that ends at none or more, was never missed.
        last_added = f"max(CASE WHEN {_SIGN} > 0 THEN rowid END)"
        first_removed = f"min(CASE WHEN {_SIGN} < 0 THEN rowid END)"
        self._connection.execute(
            f"CREATE TABLE held AS SELECT {columns}, sum({_SIGN})::BIGINT AS _ps_n, "
            f"{first_removed} IS NOT NULL AND NOT coalesce({last_added} < {first_removed}, false) AS _ps_mixed "
            "FROM changes GROUP BY ALL HAVING _ps_n <> 0 OR _ps_mixed"
        )
        # The few that came again after they had gone are followed change by change.
        same = " AND ".join(f"c.{_quote(n)} IS NOT DISTINCT FROM h.{_quote(n)}" for n in self._types)
        below = self._connection.execute(
            f"SELECT _epoch, {columns} FROM (SELECT *, sum({_SIGN}) OVER (PARTITION BY {columns} ORDER BY _epoch, _seq "
            f"ROWS UNBOUNDED PRECEDING) AS _ps_held FROM (SELECT * FROM changes AS c SEMI JOIN "
            f"(SELECT * FROM held WHERE _ps_mixed OR _ps_n < 0) AS h ON {same})) WHERE _ps_held < 0 "
            f"ORDER BY _epoch, _seq LIMIT 1"
        ).fetchone()
        if below is not None:
            return self._told(below[0], below[1:], "job", "a row is retracted that is not there")
        return None

    def _sequence(self) -> Difference | None:
        """Changes are numbered from 0 in each epoch, and known operations; `changes` is in their order then."""
        if self._in_order():
            return None
        wrong = self._connection.execute(
            f"SELECT _epoch, _seq, {self._columns()} FROM (SELECT *, row_number() OVER (PARTITION BY _epoch "
            f"ORDER BY _seq) - 1 AS _ps_due FROM changes) WHERE _seq IS DISTINCT FROM _ps_due OR {_SIGN} IS NULL "
            f"ORDER BY _epoch, _seq LIMIT 1"
        ).fetchone()
        if wrong is not None:
            what = f"_seq {wrong[1]} is out of place: a change is missing or doubled"
            return self._told(wrong[0], wrong[2:], "job", what)
        self._connection.execute("CREATE OR REPLACE TABLE changes AS SELECT * FROM changes ORDER BY _epoch, _seq")
        return None

    def _in_order(self) -> bool:
        """Whether the file's own order is that of (epoch, seq), without a gap: one look at each record."""
        unknown = self._connection.execute(
            f"SELECT count(*) FROM changes WHERE {_SIGN} IS NULL OR _epoch IS NULL OR _seq IS NULL"
        ).fetchone()
        if unknown is None or unknown[0]:
            return False
        found = self._connection.execute("SELECT _epoch, _seq FROM changes ORDER BY rowid").fetchnumpy()
        epochs, seqs = found["_epoch"], found["_seq"]
        if not len(seqs):
            return True
        epoch_steps, seq_steps = np.diff(epochs), np.diff(seqs)
        follows = (epoch_steps == 0) & (seq_steps == 1)
        begins = (epoch_steps > 0) & (seqs[1:] == 0)
        return bool(seqs[0] == 0 and (follows | begins).all())

    def _rows(self) -> Difference | None:
        """The first difference by key, after floats that are close enough have been paired."""
        columns = self._columns()
        found = self._connection.execute(
            f"SELECT sum(_ps_n)::BIGINT, {columns} FROM (SELECT {columns}, _ps_n FROM held "
            f"UNION ALL SELECT {columns}, -_ps_n FROM want) GROUP BY ALL HAVING sum(_ps_n) <> 0 ORDER BY {columns}"
        ).fetchall()
        left = self._pair_floats([_Left(int(row[0]), tuple(row[1:])) for row in found])
        return self._describe(left) if left else None

    def _pair_floats(self, left: list[_Left]) -> list[_Left]:
        kinds = list(self._types.values())
        if not any(_floats(kind) for kind in kinds):
            return left
        exact = [n for n, kind in enumerate(kinds) if not _floats(kind)]
        missing: dict[str, list[_Left]] = {}
        for row in left:
            if row.surplus < 0:
                missing.setdefault(repr([row.values[n] for n in exact]), []).append(row)
        for row in left:
            if row.surplus <= 0:
                continue
            for other in missing.get(repr([row.values[n] for n in exact]), []):
                pairs = min(row.surplus, -other.surplus)
                if pairs > 0 and all(close(a, b) for a, b in zip(row.values, other.values, strict=True)):
                    row.surplus -= pairs
                    other.surplus += pairs
        return [row for row in left if row.surplus]

    def _describe(self, left: list[_Left]) -> Difference:
        names = list(self._types)
        places = [names.index(k) for k in self._key]
        if not places:
            first = left[0]
            side, other = ("job", "batch") if first.surplus > 0 else ("batch", "job")
            what = f"{abs(first.surplus)} more in the {side} than in the {other}"
            return self._told(self._last_epoch(names, first.values), first.values, side, what)

        def key_of(row: _Left) -> list[object]:
            return [row.values[n] for n in places]

        first = min(left, key=lambda row: [_sortable(value) for value in key_of(row)])
        same = [row for row in left if key_of(row) == key_of(first)]
        job = next((row.values for row in same if row.surplus > 0), None)
        batch = next((row.values for row in same if row.surplus < 0), None)
        epoch = self._last_epoch(names, job) if job is not None else self._last_epoch(self._key, key_of(first))
        return Difference(
            self._view,
            epoch,
            dict(zip(self._key, key_of(first), strict=True)),
            dict(zip(names, job, strict=True)) if job else None,
            dict(zip(names, batch, strict=True)) if batch else None,
            f"{len(left)} rows differ in all",
        )

    def _told(self, epoch: object, row: Sequence[object], side: str, what: str) -> Difference:
        named = dict(zip(self._types, row, strict=True))
        key = {k: named[k] for k in self._key} or named
        number = int(epoch) if isinstance(epoch, int) else None
        return Difference(
            self._view, number, key, named if side == "job" else None, named if side == "batch" else None, what
        )

    def _last_epoch(self, names: Sequence[str], values: Sequence[object]) -> int | None:
        condition = " AND ".join(f"{_quote(n)} IS NOT DISTINCT FROM ?" for n in names) or "TRUE"
        found = self._connection.execute(f"SELECT max(_epoch) FROM changes WHERE {condition}", list(values)).fetchone()
        return found[0] if found else None

    def _columns(self) -> str:
        return ", ".join(_quote(n) for n in self._types)


def close(left: object, right: object) -> bool:
    """Equal, or floats within 1e-9 of each other, also inside of lists and structs."""
    match left, right:
        case float(), float():
            return left == right or math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=0.0)
        case list(), list():
            return len(left) == len(right) and all(close(a, b) for a, b in zip(left, right, strict=True))
        case dict(), dict():
            return left.keys() == right.keys() and all(close(left[k], right[k]) for k in left)
    return left == right


def _sortable(value: object) -> tuple[bool, str, object]:
    return (value is not None, type(value).__name__, value if value is not None else 0)


# -- what a record's JSON means in the oracle's types ------------------------------------------------------------------


def _nested(kind: str) -> bool:
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP("))


def _floats(kind: str) -> bool:
    return kind in ("DOUBLE", "FLOAT") or (_nested(kind) and ("DOUBLE" in kind or "FLOAT" in kind))


def _read_kind(kind: str) -> str:
    """As what a member of a record is read: itself where JSON has such values, else text."""
    if _nested(kind):
        return "JSON"
    return kind if kind in _PLAIN else "VARCHAR"


def _from_json(text: str, kind: str) -> str:
    """SQL: the value that a member of a change record stands for."""
    if kind in _PLAIN:
        return text
    if _nested(kind):
        return f"CAST({text} AS {kind})"
    if kind == "BLOB":
        return f"from_base64({text})"
    if kind == "INTERVAL":
        seconds = f"regexp_extract({text}, '^-?PT([0-9]+)[.]([0-9]+)S$', 1)::BIGINT * 1000000"
        fraction = f"regexp_extract({text}, '[.]([0-9]+)S$', 1)::BIGINT"
        return f"CASE WHEN starts_with({text}, '-') THEN -1 ELSE 1 END * ({seconds} + {fraction})"
    if kind.startswith("TIMESTAMP"):
        return f"CAST({text} AS TIMESTAMP)"
    if kind.startswith("ENUM") or kind == "UUID":
        return text
    return f"CAST({text} AS {kind})"


def _as_written(column: str, kind: str) -> str:
    """SQL: the oracle's value with what a change record cannot say left out (NaN, nanoseconds)."""
    if kind in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isfinite({column}) THEN {column} END"
    if kind == "INTERVAL":
        return f"epoch_us({column})"
    if kind.startswith("TIMESTAMP"):
        return f"CAST({column} AS TIMESTAMP)"
    if kind.startswith("ENUM") or kind == "UUID":
        return f"{column}::VARCHAR"
    return column


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
