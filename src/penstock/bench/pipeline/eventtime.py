"""From the time at which an event happens to the column that says so: the event-time expression, turned round.

The expression is the user's SQL. It is asked, with one moment in every spelling that a column may have, which column
and spelling give that moment back; nothing else of it needs to be understood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bench.pipeline.numbers import decimals
from penstock.contract.schema import Column, Schema
from penstock.contract.types import DecimalType, IntegerType, parse_type, quote
from penstock.formats.scratch import scratch

Micros = NDArray[np.int64]
Spell = Callable[[Micros], pa.Array]

_PROBES = (1_767_326_706_000_000, 1_772_539_200_000_000)


@dataclass(frozen=True)
class EventColumn:
    """The column that carries the event time, and its values for given times (microseconds since 1970, UTC)."""

    name: str
    spell: Spell


def event_column(schema: Schema, expression: str) -> EventColumn | None:
    """The column behind an event-time expression; None if no single column decides it."""
    connection = scratch()
    try:
        plain = schema.column(expression)
        text = quote(plain.name) if plain else expression
        for column in schema.columns:
            for spell in _spellings(column):
                if all(_gives(connection, schema, text, column, spell, us) for us in _PROBES):
                    return EventColumn(column.name, spell)
    finally:
        connection.close()
    return None


def _gives(
    connection: duckdb.DuckDBPyConnection, schema: Schema, expression: str, column: Column, spell: Spell, us: int
) -> bool:
    # A date knows days alone: the moment of the probe is then its midnight.
    wanted = us // 86_400_000_000 * 86_400_000_000 if column.type == "DATE" else us
    others = [f"NULL::{c.type} AS {quote(c.name)}" for c in schema.columns if c.name != column.name]
    connection.register("given", pa.table({"v": spell(np.array([us], np.int64))}))
    row = f"SELECT {', '.join([f'v::{column.type} AS {quote(column.name)}', *others])} FROM given"
    try:
        found = connection.execute(f"SELECT epoch_us(CAST(({expression}) AS TIMESTAMP)) FROM ({row})").fetchall()
    except duckdb.Error:
        return False
    finally:
        connection.unregister("given")
    return bool(found[0][0] == wanted)


def _spellings(column: Column) -> list[Spell]:
    kind = parse_type(column.type)
    if column.type == "TIMESTAMP":
        return [lambda us: pa.array(us).cast(pa.timestamp("us"))]
    if column.type == "DATE":
        return [lambda us: pa.array((us // 86_400_000_000).astype(np.int32)).cast(pa.date32())]
    if column.type == "DOUBLE":
        return [lambda us: pa.array(us / 1e6), lambda us: pa.array(us / 1e3)]
    if column.type == "VARCHAR":
        return [_iso]
    if isinstance(kind, IntegerType):
        return [
            lambda us: pa.array(us * 1_000),
            lambda us: pa.array(us),
            lambda us: pa.array(us // 1_000),
            lambda us: pa.array(us // 1_000_000),
        ]
    if isinstance(kind, DecimalType):
        return [lambda us: decimals(us // 10 ** max(0, 6 - kind.scale), kind.precision, kind.scale)]
    return []


def _iso(us: Micros) -> pa.Array:
    texts = [datetime.fromtimestamp(n / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") for n in us.tolist()]
    return pa.array(texts)
