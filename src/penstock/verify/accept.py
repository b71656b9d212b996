"""Which records count: the rules of semantics R1, R3, R4 and T1 in plain Python, one record after the other.

Nothing here is shared with the engine: not the vectorised check, not the statements that keep its state. SQL is asked
for what is the user's SQL (row checks, event time) and to move rows about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from penstock.graph import SourceDecl
from penstock.verify.history import keep_history, quote
from penstock.verify.records import Examined, Journaled, sql_columns
from penstock.verify.watermarks import watermarks

Place = tuple[int, int]
Rule = str


@dataclass
class Accepted:
    """What became of a source's records. dead: place -> rule; watermarks: place -> the watermark before the row.

    after: epoch -> the watermark after it.
    """

    dead: dict[Place, Rule] = field(default_factory=dict)
    duplicate: set[Place] = field(default_factory=set)
    watermarks: dict[Place, datetime | None] = field(default_factory=dict)
    final_watermark: datetime | None = None
    after: Mapping[int, datetime | None] = field(default_factory=dict)


def accept(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    examined: Examined,
    *,
    event_time: str | None,
    checks: Sequence[tuple[str, str]],
    journal: Sequence[Journaled],
    history: bool = False,
) -> Accepted:
    """Judge a source's records; leaves the table `source.name` with what it holds, and `_s_NAME` with places.

    journal: which partitions there are, for one without rows holds the watermark back, and which of them were idle.
    history: whether the source's history is wanted too.
    """
    result = Accepted({(d.position.partition, d.position.offset): d.rule for d in examined.dead})
    typed = quote(f"_t_{source.name}")
    _type_rows(connection, source, examined, event_time, typed)
    _ask_sql(connection, source, checks, event_time, typed, result)
    _ask_references(connection, source, typed, result)
    _watermarks(connection, source, typed, journal, result)
    _duplicates(connection, source, typed, result)
    if history:
        keep_history(connection, source, typed, result.after)
    kept = _keyed(connection, source, typed) if source.kind == "table" and source.key else None
    if source.kind == "table" and not source.key:
        kept = _multiset(connection, source, typed, result)
    _leave(connection, source, typed, kept, event_time, result)
    return result


def _type_rows(
    connection: duckdb.DuckDBPyConnection, source: SourceDecl, examined: Examined, event_time: str | None, typed: str
) -> None:
    connection.register("_given", examined.rows)
    columns = sql_columns(source.schema.columns, "g")
    connection.execute(
        f"CREATE TABLE {typed} AS SELECT {columns}, g._ps_p, g._ps_o, g._ps_e, g._ps_op, g._ps_t FROM _given AS g"
    )
    connection.unregister("_given")
    at = f"TRY(CAST(({event_time}) AS TIMESTAMP))" if event_time else "NULL::TIMESTAMP"
    connection.execute(f"CREATE OR REPLACE TABLE {typed} AS SELECT *, {at} AS _ps_at FROM {typed}")


# -- verdicts that need SQL --------------------------------------------------------------------------------------------


def _ask_sql(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    checks: Sequence[tuple[str, str]],
    event_time: str | None,
    typed: str,
    result: Accepted,
) -> None:
    rules: list[tuple[str, str]] = [(name, f"TRY(coalesce(({sql})::BOOLEAN, true))") for name, sql in checks]
    if event_time is not None:
        deletes = source.kind == "table" and bool(source.key)
        known = "(_ps_at IS NOT NULL OR _ps_op = '-D')" if deletes else "_ps_at IS NOT NULL"
        ahead_us = source.max_ahead // timedelta(microseconds=1)
        rules += [
            ("event_time", known),
            ("future", f"coalesce(epoch_us(_ps_at) - epoch_us(_ps_t) <= {ahead_us}, true)"),
        ]
    for name, condition in rules:
        _condemn(connection, typed, f"NOT coalesce({condition}, false)", name, result)


def _ask_references(connection: duckdb.DuckDBPyConnection, source: SourceDecl, typed: str, result: Accepted) -> None:
    for key in source.schema.foreign_keys:
        mine = [quote(c) for c in key.columns]
        theirs = [quote(c) for c in key.reference_columns]
        whole = " AND ".join(f"t.{c} IS NOT NULL" for c in mine)
        match = " AND ".join(f"r.{b} = t.{a}" for a, b in zip(mine, theirs, strict=True))
        absent = f"{whole} AND NOT EXISTS (SELECT 1 FROM {quote(key.reference)} AS r WHERE {match})"
        _condemn(connection, typed, absent, "references", result)


def _condemn(connection: duckdb.DuckDBPyConnection, typed: str, condition: str, rule: Rule, result: Accepted) -> None:
    broken = connection.execute(f"SELECT _ps_p, _ps_o FROM {typed} AS t WHERE {condition}").fetchall()
    result.dead |= dict.fromkeys(broken, rule)
    if broken:
        connection.execute(f"DELETE FROM {typed} AS t WHERE {condition}")


# -- watermarks and duplicates -----------------------------------------------------------------------------------------


def _watermarks(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    typed: str,
    journal: Sequence[Journaled],
    result: Accepted,
) -> None:
    if source.kind != "stream" or source.watermark is None:
        return
    rows = connection.execute(f"SELECT _ps_e, _ps_p, _ps_o, _ps_at FROM {typed} ORDER BY _ps_p, _ps_o").fetchall()
    found = watermarks(source.name, source.watermark, rows, journal)
    result.watermarks, result.after = found.before, found.after
    result.final_watermark = found.after[journal[-1].epoch] if journal else None


def _duplicates(connection: duckdb.DuckDBPyConnection, source: SourceDecl, typed: str, result: Accepted) -> None:
    """The first of a key within the span wins; the same body again is a duplicate, another one is dead (R3)."""
    if not source.unique or source.within is None:
        return
    keys = ", ".join(quote(c) for c in source.unique)
    columns = ", ".join(quote(c) for c in source.schema.names)
    width = len(source.unique)
    rows = connection.execute(
        f"SELECT {keys}, _ps_p, _ps_o, _ps_at, {columns} FROM {typed} ORDER BY _ps_e, _ps_p, _ps_o"
    ).fetchall()
    known: dict[tuple[object, ...], list[tuple[datetime, str]]] = {}
    rejected: list[Place] = []
    for row in rows:
        key, (partition, offset, at), body = row[:width], row[width : width + 3], repr(row[width + 3 :])
        watermark = result.watermarks.get((partition, offset))
        earlier = [
            b
            for first, b in known.get(key, [])
            if abs(at - first) <= source.within and (watermark is None or first + source.within > watermark)
        ]
        if not earlier:
            known.setdefault(key, []).append((at, body))
            continue
        rejected.append((partition, offset))
        if body in earlier:
            result.duplicate.add((partition, offset))
        else:
            result.dead[partition, offset] = "key_conflict"
    _forget(connection, typed, rejected)


# -- tables ------------------------------------------------------------------------------------------------------------


def _keyed(connection: duckdb.DuckDBPyConnection, source: SourceDecl, typed: str) -> list[Place]:
    """The newest row of each key by (version, partition, offset), unless it is a delete (R1)."""
    keys = ", ".join(quote(c) for c in source.key)
    version = quote(source.version) if source.version else "NULL"
    newest: dict[tuple[object, ...], tuple[tuple[object, ...], Place, str]] = {}
    rows = connection.execute(f"SELECT {keys}, {version}, _ps_p, _ps_o, _ps_op FROM {typed}").fetchall()
    for row in rows:
        key, (stamp, partition, offset, op) = row[:-4], row[-4:]
        order = (stamp is not None, *([stamp] if stamp is not None else []), partition, offset)
        held = newest.get(key)
        if held is None or order > held[0]:
            newest[key] = (order, (partition, offset), op)
    return [place for _, place, op in newest.values() if op in ("+I", "+U")]


def _multiset(connection: duckdb.DuckDBPyConnection, source: SourceDecl, typed: str, result: Accepted) -> list[Place]:
    """Whole rows come and go; deleting one that is not there is dead."""
    columns = ", ".join(quote(c) for c in source.schema.names)
    rows = connection.execute(
        f"SELECT _ps_p, _ps_o, _ps_op, {columns} FROM {typed} ORDER BY _ps_e, _ps_p, _ps_o"
    ).fetchall()
    held: dict[str, list[Place]] = {}
    for partition, offset, op, *values in rows:
        copies = held.setdefault(repr(values), [])
        if op in ("+I", "+U"):
            copies.append((partition, offset))
        elif copies:
            copies.pop()
        else:
            result.dead[partition, offset] = "delete_without_row"
    return [place for copies in held.values() for place in copies]


# -- what remains ------------------------------------------------------------------------------------------------------


def _forget(connection: duckdb.DuckDBPyConnection, typed: str, places: Sequence[Place]) -> None:
    if places:
        _register_places(connection, places)
        connection.execute(f"DELETE FROM {typed} AS t USING _places AS x WHERE t._ps_p = x.p AND t._ps_o = x.o")
        connection.unregister("_places")


def _register_places(connection: duckdb.DuckDBPyConnection, places: Sequence[Place]) -> None:
    columns = {"p": pa.array([p for p, _ in places], pa.int32()), "o": pa.array([o for _, o in places], pa.int64())}
    connection.register("_places", pa.table(columns))


def _leave(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    typed: str,
    kept: Sequence[Place] | None,
    event_time: str | None,
    result: Accepted,
) -> None:
    columns = ", ".join(quote(c) for c in source.schema.names)
    chosen = f"SELECT * FROM {typed} AS t"
    if kept is not None:
        _register_places(connection, kept)
        chosen = f"SELECT t.* FROM {typed} AS t JOIN _places AS x ON t._ps_p = x.p AND t._ps_o = x.o"
    places = quote(f"_s_{source.name}")
    connection.execute(f"CREATE TABLE {places} AS {chosen}")
    if kept is not None:
        connection.unregister("_places")
    if source.retention is not None and event_time is not None and result.final_watermark is not None:
        connection.execute(f"DELETE FROM {places} WHERE _ps_at < ?", [result.final_watermark - source.retention])
    connection.execute(f"CREATE TABLE {quote(source.name)} AS SELECT {columns} FROM {places}")


def counts(examined: Examined, accepted: Accepted) -> Mapping[str, int]:
    """The accounting of a source: rows = accepted + duplicate + dead."""
    rows, dead, duplicate = examined.count, len(accepted.dead), len(accepted.duplicate)
    return Counter(rows=rows, accepted=rows - dead - duplicate, duplicate=duplicate, dead=dead)
