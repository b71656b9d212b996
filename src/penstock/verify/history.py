"""When each row of a source was there: from which epoch, until which one (for views that epochs decide).

The rules are those of `accept`, applied epoch by epoch: R1 for tables, R4 for retention.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from penstock.graph import SourceDecl

ALWAYS = (1 << 62) - 1
Place = tuple[int, int]


def history_name(source: str) -> str:
    """The table with all rows that a source ever held: its columns, `_ps_p`, `_ps_o`, `_ps_from`, `_ps_until`."""
    return quote(f"_h_{source}")


def late_name(view: str, stream: str) -> str:
    """The table with the places (p, o) of a stream's rows that are late for a view."""
    return quote(f"_l_{view}_{stream}")


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def keep_history(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    typed: str,
    watermarks: Mapping[int, datetime | None],
) -> None:
    """Make the table `history_name`, in the order of (partition, offset)."""
    if source.kind == "table":
        spans = _keyed_spans(connection, source, typed) if source.key else _multiset_spans(connection, source, typed)
        columns = {
            "p": pa.array([p for (p, _), _, _ in spans], pa.int32()),
            "o": pa.array([o for (_, o), _, _ in spans], pa.int64()),
            "f": pa.array([start for _, start, _ in spans], pa.int64()),
            "u": pa.array([end for _, _, end in spans], pa.int64()),
        }
        connection.register("_spans", pa.table(columns))
        chosen = (
            f"SELECT t.*, x.f AS _ps_from, x.u AS _ps_until FROM {typed} AS t "
            "JOIN _spans AS x ON t._ps_p = x.p AND t._ps_o = x.o"
        )
    else:
        first = "_ps_e" if source.kind == "stream" else "-1::BIGINT"
        chosen = f"SELECT *, {first} AS _ps_from, {ALWAYS}::BIGINT AS _ps_until FROM {typed}"
    name = history_name(source.name)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM ({chosen}) ORDER BY _ps_p, _ps_o")
    if source.kind == "table":
        connection.unregister("_spans")
    if source.retention is not None:
        _expire(connection, name, source.retention, watermarks)


def _expire(
    connection: duckdb.DuckDBPyConnection, name: str, retention: timedelta, watermarks: Mapping[int, datetime | None]
) -> None:
    for epoch, watermark in sorted(watermarks.items()):
        if watermark is not None:
            connection.execute(
                f"UPDATE {name} SET _ps_until = greatest(_ps_from, ?) WHERE _ps_until = {ALWAYS} AND _ps_at < ? "
                f"AND _ps_from <= ?",
                [epoch, watermark - retention, epoch],
            )


def _keyed_spans(connection: duckdb.DuckDBPyConnection, source: SourceDecl, typed: str) -> list[tuple[Place, int, int]]:
    """The newest row of each key at the end of each epoch (R1)."""
    keys = ", ".join(quote(c) for c in source.key)
    version = quote(source.version) if source.version else "NULL"
    rows = connection.execute(
        f"SELECT {keys}, {version}, _ps_e, _ps_p, _ps_o, _ps_op FROM {typed} ORDER BY _ps_e"
    ).fetchall()
    newest: dict[tuple[object, ...], tuple[tuple[object, ...], Place, bool]] = {}
    shown: dict[tuple[object, ...], tuple[Place, int]] = {}
    spans: list[tuple[Place, int, int]] = []

    def settle(keys: set[tuple[object, ...]], epoch: int) -> None:
        for key in keys:
            _, place, there = newest[key]
            old = shown.get(key)
            if old is not None and (old[0] != place or not there):
                spans.append((*shown.pop(key), epoch))
            if there and key not in shown:
                shown[key] = (place, epoch)

    touched: set[tuple[object, ...]] = set()
    current = -1
    for row in rows:
        key, (stamp, epoch, partition, offset, op) = row[:-5], row[-5:]
        if epoch != current:
            settle(touched, current)
            touched, current = set(), epoch
        order = (stamp is not None, *([stamp] if stamp is not None else []), partition, offset)
        held = newest.get(key)
        if held is None or order > held[0]:
            newest[key] = (order, (partition, offset), op in ("+I", "+U"))
            touched.add(key)
    settle(touched, current)
    return spans + [(place, start, ALWAYS) for place, start in shown.values()]


def _multiset_spans(
    connection: duckdb.DuckDBPyConnection, source: SourceDecl, typed: str
) -> list[tuple[Place, int, int]]:
    """Copies come and go; which of equal rows goes makes no difference."""
    columns = ", ".join(quote(c) for c in source.schema.names)
    rows = connection.execute(
        f"SELECT _ps_e, _ps_p, _ps_o, _ps_op, {columns} FROM {typed} ORDER BY _ps_e, _ps_p, _ps_o"
    ).fetchall()
    held: dict[str, list[tuple[Place, int]]] = {}
    spans: list[tuple[Place, int, int]] = []
    for epoch, partition, offset, op, *values in rows:
        copies = held.setdefault(repr(values), [])
        if op in ("+I", "+U"):
            copies.append(((partition, offset), epoch))
        elif copies:
            place, start = copies.pop()
            spans.append((place, start, epoch))
    return spans + [(place, start, ALWAYS) for copies in held.values() for place, start in copies]
