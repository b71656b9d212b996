"""Changes as records: JSON text with the columns in their order, integers as numbers, decimals as text.

JSON has no NaN and no infinity: they are written as null. Times are UTC, ISO 8601 with microseconds. What is written
here is read back by `formats/decode.py` to the same values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from penstock.contract.types import quote
from penstock.errors import ConnectorError
from penstock.formats.arrow_result import ArrowResult
from penstock.formats.scratch import scratch
from penstock.formats.types_sql import literal

FORMATS = ("changelog", "upsert", "debezium", "json", "csv")
_META = ("_op", "_epoch", "_seq", "_correction")


@dataclass(frozen=True)
class Encoded:
    """values: binary, null for a tombstone; keys: binary, or None for a format or view without one."""

    values: pa.BinaryArray
    keys: pa.BinaryArray | None


class Encoder:
    """Encodes the epochs of one sink over one DuckDB connection, by one statement that stays prepared.

    Planning it takes longer than encoding a small epoch. (What Python registers has no statistics, so a prepared plan
    cannot go wrong by them.)

    Used by one thread. Raises as `encode`.
    """

    def __init__(self, format: str, key: tuple[str, ...]) -> None:
        if format not in FORMATS:
            raise ConnectorError("PS-CONN-008", "the format is unknown", expected=", ".join(FORMATS), got=format)
        if format == "upsert" and not key:
            raise ConnectorError("PS-DECL-011", "format=upsert needs a key", expected="a view with a key", got="none")
        self._format = format
        self._key = key
        self._keyed = bool(key) and format != "csv"
        self._current = _Current()
        self._prepared: pa.Schema | None = None
        self._connection = scratch()
        self._connection.register("changes", self._current)

    def encode(self, changes: pa.Table) -> Encoded:
        """Records for the changes of one epoch."""
        self._current.table = changes
        try:
            if self._prepared is None or not self._prepared.equals(changes.schema):
                self._prepare(changes)
            table = ArrowResult(self._connection, "EXECUTE encoded").table()
        finally:
            self._current.table = changes.schema.empty_table()
        return Encoded(_binary(table.column("v")), _binary(table.column("k")) if self._keyed else None)

    def close(self) -> None:
        self._connection.close()

    def _prepare(self, changes: pa.Table) -> None:
        if self._prepared is not None:
            self._prepared = None
            self._connection.execute("DEALLOCATE encoded")
        query = _query(changes, self._format, self._key if self._keyed else ())
        self._connection.execute(f"PREPARE encoded AS {query}")
        self._prepared = changes.schema


class _Current:
    """What DuckDB reads under one registered name: the table that is being encoded."""

    def __init__(self) -> None:
        self.table = pa.table({"nothing": pa.array([], pa.int64())})

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def encode(changes: pa.Table, format: str, key: tuple[str, ...]) -> Encoded:
    """Records for changes: the view's columns, then `_op`, `_epoch`, `_seq`, `_correction` (all optional).

    Args:
        format: `changelog` (every change), `upsert` (key and row; a tombstone for `-D`, nothing for `-U`),
            `debezium` (before, after, op), `json` (the columns alone) or `csv` (as text, no header).
        key: the view's key columns; needed by `upsert`.

    Raises:
        ConnectorError: PS-CONN-008 for an unknown format, PS-DECL-011 for `upsert` without a key.
    """
    encoder = Encoder(format, key)
    try:
        return encoder.encode(changes)
    finally:
        encoder.close()


def _query(changes: pa.Table, format: str, key: tuple[str, ...]) -> str:
    """The SELECT that gives `v` and `k` for each record of the relation `changes`."""
    names = [name for name in changes.column_names if name not in _META]
    row = json_object(changes, names)
    keys = json_object(changes, list(key)) if key else "NULL::VARCHAR"
    has_op = "_op" in changes.column_names
    where = ""
    match format:
        case "changelog":
            value = json_object(changes, changes.column_names)
        case "upsert":
            value = f"CASE WHEN _op = '-D' THEN NULL ELSE {row} END" if has_op else row
            where = "WHERE _op <> '-U'" if has_op else ""
        case "debezium":
            value = _envelope(row, has_op=has_op)
            where = "WHERE _op <> '-U'" if has_op else ""
        case "json":
            value = row
        case _:
            value = " || ',' || ".join(_csv_field(changes, name) for name in changes.column_names)
    return f"SELECT {value} AS v, {keys} AS k FROM changes {where}"


def csv_names(changes: pa.Table) -> list[str]:
    """The header of the CSV that `encode` writes, quoted where it must be."""
    return [f'"{n.replace(chr(34), chr(34) * 2)}"' if set(n) & set(',"\r\n') else n for n in changes.column_names]


def json_object(table: pa.Table, names: list[str], texts: Mapping[str, str] | None = None) -> str:
    """SQL for the JSON text of an object with these columns of an Arrow table.

    texts: SQL for the text of some columns' values, in place of what their types ask for.
    """
    given = texts or {}
    parts = []
    for position, name in enumerate(names):
        label = ("," if position else "") + json.dumps(name, ensure_ascii=False) + ":"
        value = given.get(name) or _text(table.schema.field(name).type, quote(name))
        parts.append(f"{literal(label)}, coalesce({value}, 'null')")
    # One call: a chain of operators copies what stands before it once more for every part.
    return f"concat('{{', {', '.join(parts)}, '}}')" if parts else "'{}'"


def _text(kind: pa.DataType, value: str, depth: int = 0) -> str:
    """SQL for the JSON text of one value, NULL for NULL."""
    item = f"_ps_e{depth}"
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return f"{value}::VARCHAR"
    if pa.types.is_decimal(kind):
        return f"{value}::VARCHAR" if kind.scale == 0 else f"'\"' || {_decimal(kind, value)} || '\"'"
    if pa.types.is_floating(kind):
        return f"CASE WHEN isfinite({value}) THEN to_json({value})::VARCHAR END"
    if pa.types.is_timestamp(kind):
        return f"'\"' || strftime({value}::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%f') || '\"'"
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return f"'\"' || {value}::{'DATE' if pa.types.is_date(kind) else 'TIME'}::VARCHAR || '\"'"
    if pa.types.is_duration(kind) or pa.types.is_interval(kind):
        return _duration(f"epoch_us({value}::INTERVAL)")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return f"'\"' || base64({value}::BLOB) || '\"'"
    if pa.types.is_map(kind):
        inner = f"coalesce({_text(kind.item_type, f'{item}.value', depth + 1)}, 'null')"
        entry = f"to_json({item}.key::VARCHAR)::VARCHAR || ':' || {inner}"
        entries = f"list_transform(map_entries({value}), lambda {item}: {entry})"
        return f"'{{' || array_to_string({entries}, ',') || '}}'"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = f"coalesce({_text(kind.value_type, item, depth + 1)}, 'null')"
        return f"'[' || array_to_string(list_transform({value}, lambda {item}: {inner}), ',') || ']'"
    if pa.types.is_struct(kind):
        return _struct(kind, value, depth)
    return f"to_json({value}::VARCHAR)::VARCHAR"


def _decimal(kind: pa.DataType, value: str) -> str:
    # DuckDB writes a decimal that is all fraction without the zero before its point, which no reader takes
    return (
        f"{value}::VARCHAR" if kind.scale < kind.precision else f"regexp_replace({value}::VARCHAR, '^(-?)[.]', '\\10.')"
    )


def _struct(kind: pa.StructType, value: str, depth: int) -> str:
    parts = []
    for position in range(kind.num_fields):
        field = kind.field(position)
        label = ("," if position else "") + json.dumps(field.name, ensure_ascii=False) + ":"
        inner = _text(field.type, f"struct_extract({value}, {literal(field.name)})", depth + 1)
        parts.append(f"{literal(label)} || coalesce({inner}, 'null')")
    return f"CASE WHEN {value} IS NOT NULL THEN '{{' || {' || '.join([*parts, literal('}')])} END"


def _duration(us: str) -> str:
    sign = f"CASE WHEN {us} < 0 THEN '-' ELSE '' END"
    seconds = f"(abs({us}) // 1000000)::VARCHAR || '.' || lpad((abs({us}) % 1000000)::VARCHAR, 6, '0')"
    return f"'\"' || {sign} || 'PT' || {seconds} || 'S\"'"


def _envelope(row: str, *, has_op: bool) -> str:
    if not has_op:
        return f'\'{{"before":null,"after":\' || {row} || \',"op":"c"}}\''
    gone = f'\'{{"before":\' || {row} || \',"after":null,"op":"d"}}\''
    letter = "CASE WHEN _op = '+U' THEN 'u' ELSE 'c' END"
    there = f'\'{{"before":null,"after":\' || {row} || \',"op":"\' || {letter} || \'"}}\''
    return f"CASE WHEN _op IN ('-D', '-U') THEN {gone} ELSE {there} END"


def _csv_field(table: pa.Table, name: str) -> str:
    kind, value = table.schema.field(name).type, quote(name)
    text = f"({_text(kind, value)})"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_nested(kind):
        plain = text if pa.types.is_nested(kind) else value
        quoted = f"'\"' || replace({plain}, '\"', '\"\"') || '\"'"
        needs = f"{plain} = '' OR regexp_matches({plain}, '[\",\\r\\n]')"
        return f"coalesce(CASE WHEN {needs} THEN {quoted} ELSE {plain} END, '')"
    return f"coalesce(trim({text}, '\"'), '')"


def _binary(column: pa.ChunkedArray) -> pa.BinaryArray:
    return column.cast(pa.binary()).combine_chunks() if column.num_chunks != 1 else column.chunk(0).cast(pa.binary())
