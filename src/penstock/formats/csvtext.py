"""CSV records as JSON text, so that one judge serves both.

A field is taken as the JSON value that its column's type asks for: numbers and booleans as they are written, nested
columns as JSON, all else as text. An empty field is null, `""` is the empty text. A record with another number of
fields than the header, or with broken quotes, has no JSON text: it is dead (`fields`).
"""

from __future__ import annotations

import json
import re

from penstock.contract.schema import Column, Schema
from penstock.contract.types import IntegerType, parse_type
from penstock.formats.jsontext import NotJson, read_json
from penstock.formats.types_sql import children

_FIELD = re.compile(r'"((?:[^"]|"")*)"|([^",\r\n]*)')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")


def csv_fields(text: str) -> list[str | None] | None:
    """The fields of one record (None: empty), or None where the quotes are broken."""
    text = text.removesuffix("\n").removesuffix("\r")
    if '"' not in text:
        return [field or None for field in text.split(",")] if not set(text) & set("\r\n") else None
    fields: list[str | None] = []
    position = 0
    while True:
        match = _FIELD.match(text, position)
        if match is None:
            return None
        quoted = match[1]
        fields.append(quoted.replace('""', '"') if quoted is not None else match[2] or None)
        position = match.end()
        if position == len(text):
            return fields
        if text[position] != ",":
            return None
        position += 1


def csv_json(text: str, schema: Schema, header: tuple[str, ...]) -> str | None:
    """The record as a JSON object, or None where it does not have the header's fields."""
    names = header or schema.names
    fields = csv_fields(text)
    if fields is None or len(fields) != len(names):
        return None
    columns = {column.name: column for column in schema.columns}
    pairs = (
        f"{json.dumps(name, ensure_ascii=False)}:{_json(field, columns.get(name))}"
        for name, field in zip(names, fields, strict=True)
    )
    return "{" + ",".join(pairs) + "}"


def _json(field: str | None, column: Column | None) -> str:
    if field is None:
        return "null"
    if column is not None and _is_bare(field, column):
        return field
    return json.dumps(field, ensure_ascii=False)


def _is_bare(field: str, column: Column) -> bool:
    kind = parse_type(column.type)
    if isinstance(kind, IntegerType) or kind.name in ("DOUBLE", "FLOAT"):
        return _NUMBER.match(field) is not None
    if kind.name == "BOOLEAN":
        return field in ("true", "false")
    if children(column):
        try:
            read_json(field)
        except NotJson:
            return False
        return True
    return False
