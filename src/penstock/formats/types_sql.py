"""What each type accepts, as SQL over the JSON text of one value, and the typed value that it stands for.

DuckDB's own casts are lenient (" 1", 1.7 and true are integers to them), so every check is a grammar first and a cast
second. Both functions take an SQL expression of type JSON that is never the JSON null; `formats/verdict.py` says the
same once more in Python, and the tests hold the two together.
"""

from __future__ import annotations

from typing import assert_never

from penstock.contract.schema import Column
from penstock.contract.types import (
    DecimalType,
    IntegerType,
    ListType,
    MapType,
    PlainType,
    SqlKind,
    StructType,
    parse_type,
)

DATE = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?"
ZONE = "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
TIMESTAMP = f"{DATE}[T ]{CLOCK}{ZONE}?"
UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
BASE64 = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
DURATION = "(-?)P(?:([0-9]{1,6})D)?(?:T(?:([0-9]{1,6})H)?(?:([0-9]{1,8})M)?(?:([0-9]{1,11})(?:\\.([0-9]{1,6}))?S)?)?"
INTEGER = "-?(0|[1-9][0-9]*)"
DECIMAL = "-?(0|[1-9][0-9]*)(\\.[0-9]+)?"
MAX_EXACT = 10**15


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def children(column: Column) -> tuple[Column, ...]:
    """The columns inside a nested column; where the contract names none, everything inside may be null."""
    if column.children:
        return column.children
    match parse_type(column.type):
        case ListType(element=kind) | MapType(value=kind):
            return (Column("element", kind.name, nullable=True),)
        case StructType(fields=fields):
            return tuple(Column(name, kind.name, nullable=True) for name, kind in fields)
        case IntegerType() | DecimalType() | PlainType():
            return ()


def json_struct(columns: tuple[Column, ...]) -> str:
    """The structure text that makes `from_json` give every column as JSON."""
    import json

    return literal(json.dumps({column.name: "JSON" for column in columns}, ensure_ascii=False))


def unquoted(value: str) -> str:
    return f"(({value})::JSON->>'$')"


def check(column: Column, value: str, depth: int = 0) -> str:
    """An SQL condition: the JSON value is strictly of the column's type."""
    text = f"({value})::VARCHAR"
    kind = parse_type(column.type)
    match kind:
        case IntegerType():
            return f"(regexp_full_match({text}, '{INTEGER}') AND try_cast({text} AS {kind.name}) IS NOT NULL)"
        case DecimalType():
            return _decimal_check(kind, value)
        case PlainType():
            return _plain_check(kind, value)
        case ListType() | MapType() | StructType():
            return _nested_check(kind, column, value, depth)
    assert_never(kind)


def typed(column: Column, value: str, depth: int = 0) -> str:
    """The typed value of a JSON value that `check` accepts (NULL or anything for others, never an error)."""
    text = f"({value})::VARCHAR"
    kind = parse_type(column.type)
    match kind:
        case IntegerType():
            return f"try_cast({text} AS {kind.name})"
        case DecimalType():
            plain = f"CASE WHEN starts_with({text}, '\"') THEN {unquoted(value)} ELSE {text} END"
            return f"try_cast({plain} AS {kind.name})"
        case PlainType():
            return _plain_value(kind, value)
        case ListType() | MapType() | StructType():
            return _nested_value(kind, column, value, depth)
    assert_never(kind)


def _decimal_check(kind: DecimalType, value: str) -> str:
    text = f"({value})::VARCHAR"
    plain = f"CASE WHEN starts_with({text}, '\"') THEN {unquoted(value)} ELSE {text} END"
    fraction = f"(\\.[0-9]{{1,{kind.scale}}})?" if kind.scale else ""
    cast = f"try_cast({text} AS {kind.name})"
    whole = f"(starts_with({text}, '\"') OR regexp_full_match({text}, '{INTEGER}'))"
    exact = (
        f"regexp_full_match({plain}, '-?(0|[1-9][0-9]*){fraction}') AND try_cast({plain} AS {kind.name}) IS NOT NULL"
    )
    # a fractional JSON number is a double to DuckDB's parser: it stands for a decimal only where the double does
    limit = f"abs({cast}::DOUBLE) < {MAX_EXACT // 10**kind.scale if kind.scale <= 15 else f'1e{15 - kind.scale}'}"
    number = f"regexp_matches({text}, '^-?[0-9]') AND {cast}::DOUBLE = try_cast({text} AS DOUBLE) AND {limit}"
    return f"(CASE WHEN {whole} THEN {exact} ELSE coalesce({number}, false) END)"


def _plain_check(kind: PlainType, value: str) -> str:
    text = f"({value})::VARCHAR"
    string = f"starts_with({text}, '\"')"
    match kind.name:
        case "BOOLEAN":
            return f"({text} IN ('true', 'false'))"
        case "VARCHAR":
            return f"({string} AND NOT contains({unquoted(value)}, chr(0)))"
        case "DOUBLE" | "FLOAT":
            return (
                f"(regexp_matches({text}, '^-?[0-9]') AND coalesce(isfinite(try_cast({text} AS {kind.name})), false))"
            )
    pattern = {
        "TIMESTAMP": TIMESTAMP,
        "DATE": DATE,
        "TIME": CLOCK,
        "UUID": UUID,
        "BLOB": BASE64,
        "INTERVAL": DURATION,
    }[kind.name]
    grammar = f"{string} AND regexp_full_match({unquoted(value)}, '{pattern}')"
    if kind.name == "INTERVAL":
        grammar += f" AND NOT regexp_matches({unquoted(value)}, '[PT]$')"
    return f"(CASE WHEN {grammar} THEN {_plain_value(kind, value)} IS NOT NULL ELSE false END)"


def _plain_value(kind: PlainType, value: str) -> str:
    text, plain = f"({value})::VARCHAR", unquoted(value)
    match kind.name:
        case "VARCHAR":
            return plain
        case "TIMESTAMP":
            return timestamp_value(plain)
        case "DATE":
            grammar = f"regexp_full_match({plain}, '{DATE}') AND NOT starts_with({plain}, '0000')"
            return f"CASE WHEN {grammar} THEN try_cast({plain} AS DATE) END"
        case "BLOB":
            return f"CASE WHEN regexp_full_match({plain}, '{BASE64}') THEN from_base64({plain}) END"
        case "INTERVAL":
            return _duration_value(plain)
        case "DOUBLE" | "FLOAT" | "BOOLEAN":
            return f"try_cast({text} AS {kind.name})"
    return f"try_cast({plain} AS {kind.name})"


def timestamp_value(plain: str) -> str:
    """ISO 8601 text as TIMESTAMP in UTC: a text without a zone is UTC, whatever the session's zone."""
    local = f"try_cast(left({plain}, length({plain}) - length(regexp_extract({plain}, '{ZONE}$'))) AS TIMESTAMP)"
    zone = f"regexp_extract({plain}, '[+-][0-9]{{2}}:[0-9]{{2}}$')"
    # try_cast: DuckDB 2.0 works out all branches over a constant, also those that its CASE does not take
    minutes = f"(try_cast(substr({zone}, 2, 2) AS INTEGER) * 60 + try_cast(substr({zone}, 5, 2) AS INTEGER))"
    signed = f"CASE WHEN {zone} = '' THEN 0 WHEN starts_with({zone}, '+') THEN -{minutes} ELSE {minutes} END"
    moved = f"({local} + to_minutes({signed}))"
    inside = f"{moved} >= TIMESTAMP '0001-01-01' AND {moved} < TIMESTAMP '10000-01-01'"
    grammar = f"regexp_full_match({plain}, '{TIMESTAMP}') AND NOT starts_with({plain}, '0000')"
    return f"CASE WHEN {grammar} THEN CASE WHEN {inside} THEN {moved} END END"


def _duration_value(plain: str) -> str:
    def part(group: int, us: int) -> str:
        return f"coalesce(try_cast(regexp_extract({plain}, '{DURATION}', {group}) AS BIGINT), 0) * {us}"

    whole = " + ".join(
        part(g, us) for g, us in ((2, 86_400_000_000), (3, 3_600_000_000), (4, 60_000_000), (5, 1_000_000))
    )
    fraction = f"coalesce(try_cast(rpad(regexp_extract({plain}, '{DURATION}', 6), 6, '0') AS BIGINT), 0)"
    sign = f"CASE WHEN starts_with({plain}, '-') THEN -1 ELSE 1 END"
    return (
        f"CASE WHEN regexp_full_match({plain}, '{DURATION}') THEN to_microseconds({sign} * ({whole} + {fraction})) END"
    )


def distinct_keys(value: str) -> str:
    keys = f"json_keys({value})"
    return f"len({keys}) = len(list_distinct({keys}))"


def _nested_check(kind: SqlKind, column: Column, value: str, depth: int) -> str:
    text, item = f"({value})::VARCHAR", f"_ps_x{depth}"
    inside = children(column)
    if isinstance(kind, StructType):
        fields = f"from_json({value}, {json_struct(inside)})"
        parts = [_inside(c, f"struct_extract({fields}, {literal(c.name)})", depth) for c in inside]
        body = " AND ".join([distinct_keys(value), *parts])
        return f"(CASE WHEN starts_with({text}, '{{') THEN {body} ELSE false END)"
    bad = f"NOT {_inside(inside[0], item, depth)}"
    if isinstance(kind, ListType):
        elements = f"from_json({value}, '[\"JSON\"]')"
        body = f"len(list_filter({elements}, lambda {item}: {bad})) = 0"
        return f"(CASE WHEN starts_with({text}, '[') THEN {body} ELSE false END)"
    elements = f"map_values(TRY_CAST(({value})::JSON AS MAP(VARCHAR, JSON)))"
    body = (
        f"CASE WHEN {distinct_keys(value)} THEN len(list_filter({elements}, lambda {item}: {bad})) = 0 ELSE false END"
    )
    return f"(CASE WHEN starts_with({text}, '{{') THEN {body} ELSE false END)"


def _inside(column: Column, value: str, depth: int) -> str:
    nullable = "true" if column.nullable else "false"
    return f"(CASE WHEN {value} IS NULL THEN {nullable} ELSE coalesce({check(column, value, depth + 1)}, false) END)"


def _nested_value(kind: SqlKind, column: Column, value: str, depth: int) -> str:
    text, item = f"({value})::VARCHAR", f"_ps_x{depth}"
    inside = children(column)
    if isinstance(kind, StructType):
        fields = f"from_json({value}, {json_struct(inside)})"
        parts = ", ".join(
            f'"{c.name}" := {typed(c, f"struct_extract({fields}, {literal(c.name)})", depth + 1)}' for c in inside
        )
        return f"CASE WHEN starts_with({text}, '{{') THEN struct_pack({parts}) END"
    inner = typed(inside[0], item, depth + 1)
    if isinstance(kind, ListType):
        return (
            f"CASE WHEN starts_with({text}, '[') THEN "
            f"list_transform(from_json({value}, '[\"JSON\"]'), lambda {item}: {inner}) END"
        )
    mapped = f"TRY_CAST(({value})::JSON AS MAP(VARCHAR, JSON))"
    return (
        f"CASE WHEN starts_with({text}, '{{') THEN CASE WHEN {distinct_keys(value)} THEN "
        f"map(map_keys({mapped}), list_transform(map_values({mapped}), lambda {item}: {inner})) END END"
    )
