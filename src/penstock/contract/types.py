"""DuckDB type names as a closed union, so that decoding can match on them.

The names that a column may have: integers, FLOAT, DOUBLE, BOOLEAN, VARCHAR, BLOB, UUID, DATE, TIME, TIMESTAMP,
INTERVAL, DECIMAL(p, s), `T[]`, `MAP(VARCHAR, T)` and `STRUCT(name T, ...)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_SIGNED = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_UNSIGNED = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
_PLAIN = (
    "FLOAT",
    "DOUBLE",
    "BOOLEAN",
    "VARCHAR",
    "BLOB",
    "UUID",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "INTERVAL",
)
_ALIASES = {
    "INT": "INTEGER",
    "INT4": "INTEGER",
    "INT2": "SMALLINT",
    "INT8": "BIGINT",
    "LONG": "BIGINT",
    "TEXT": "VARCHAR",
    "STRING": "VARCHAR",
    "BOOL": "BOOLEAN",
    "REAL": "FLOAT",
    "FLOAT4": "FLOAT",
    "FLOAT8": "DOUBLE",
    "BYTEA": "BLOB",
    "DATETIME": "TIMESTAMP",
}


@dataclass(frozen=True)
class IntegerType:
    name: str
    lowest: int
    highest: int


@dataclass(frozen=True)
class DecimalType:
    precision: int
    scale: int

    @property
    def name(self) -> str:
        return f"DECIMAL({self.precision},{self.scale})"


@dataclass(frozen=True)
class PlainType:
    name: str


@dataclass(frozen=True)
class ListType:
    element: SqlKind

    @property
    def name(self) -> str:
        return f"{self.element.name}[]"


@dataclass(frozen=True)
class MapType:
    value: SqlKind

    @property
    def name(self) -> str:
        return f"MAP(VARCHAR, {self.value.name})"


@dataclass(frozen=True)
class StructType:
    fields: tuple[tuple[str, SqlKind], ...]

    @property
    def name(self) -> str:
        return f"STRUCT({', '.join(f'{quote(name)} {kind.name}' for name, kind in self.fields)})"


SqlKind = IntegerType | DecimalType | PlainType | ListType | MapType | StructType

KINDS: dict[str, SqlKind] = {
    **{name: IntegerType(name, -(1 << bits - 1), (1 << bits - 1) - 1) for name, bits in _SIGNED.items()},
    **{name: IntegerType(name, 0, (1 << bits) - 1) for name, bits in _UNSIGNED.items()},
    **{name: PlainType(name) for name in _PLAIN},
}


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=4096)
def parse_type(text: str) -> SqlKind:
    """The type that `text` names.

    Raises:
        ValueError: it is not one of the types that a column may have.

    Example:
        >>> parse_type("decimal(18, 2)[]").name
        'DECIMAL(18,2)[]'
    """
    text = text.strip()
    if text.endswith("[]"):
        return ListType(parse_type(text[:-2]))
    head, bracket, rest = text.partition("(")
    name = head.strip().upper()
    if not bracket:
        if name in ("DECIMAL", "NUMERIC"):
            return DecimalType(18, 3)
        kind = KINDS.get(_ALIASES.get(name, name))
        if kind is None:
            raise ValueError(f"{text} is not a type that a column can have")
        return kind
    if not rest.endswith(")"):
        raise ValueError(f"{text} is not a type that a column can have")
    return _with_arguments(name, _split(rest[:-1]), text)


def _with_arguments(name: str, parts: list[str], text: str) -> SqlKind:
    if name in ("DECIMAL", "NUMERIC") and all(part.strip().isdigit() for part in parts) and len(parts) in (1, 2):
        precision, scale = int(parts[0]), int(parts[1]) if len(parts) == 2 else 0
        if 1 <= precision <= 38 and scale <= precision:
            return DecimalType(precision, scale)
    if name == "VARCHAR":
        return KINDS["VARCHAR"]
    if name == "MAP" and len(parts) == 2 and parse_type(parts[0]).name == "VARCHAR":
        return MapType(parse_type(parts[1]))
    if name == "STRUCT":
        return StructType(tuple(_struct_field(part) for part in parts))
    raise ValueError(f"{text} is not a type that a column can have")


def _struct_field(text: str) -> tuple[str, SqlKind]:
    match = re.match(r'\s*(?:"((?:[^"]|"")+)"|(\w+))\s+(.+)\Z', text, re.DOTALL)
    if match is None:
        raise ValueError(f"{text} is not a field of a STRUCT")
    return (match[1].replace('""', '"') if match[1] else match[2]), parse_type(match[3])


def _split(text: str) -> list[str]:
    parts, depth, quoted, start = [], 0, False, 0
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "()":
            depth += 1 if character == "(" else -1
        elif not quoted and character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
