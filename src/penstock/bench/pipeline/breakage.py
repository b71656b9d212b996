"""Records broken on purpose, each in one way whose rule is known beforehand.

A `Breakage` turns a sound record (its fields as JSON texts, in the order of the contract) into one that breaks exactly
the rule it names, or into bytes that are no such record at all. The judge looks at the fields in the contract's order
and at a field's rules in theirs, so a value that breaks several rules is named by the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal

from penstock.bench.pipeline.values import holds
from penstock.contract.schema import Column, Rule, Schema
from penstock.contract.types import DecimalType, IntegerType, ListType, MapType, PlainType, StructType, parse_type

Fields = dict[str, str]


@dataclass(frozen=True)
class Breakage:
    """One way to break a record. rule, field: what the dead letter must name (field: empty for the record)."""

    rule: str
    field: str
    apply: Callable[[Fields], bytes]

    @property
    def name(self) -> str:
        return f"{self.rule} {self.field}".rstrip()


def record_fields(record: bytes) -> Fields:
    """The fields of a sound record as JSON texts."""
    return {name: json.dumps(value, ensure_ascii=False) for name, value in json.loads(record).items()}


def joined(fields: Mapping[str, str]) -> bytes:
    """Fields as a record."""
    return ("{" + ",".join(f"{json.dumps(n, ensure_ascii=False)}:{v}" for n, v in fields.items()) + "}").encode()


def breakages(schema: Schema, kind: str, key: tuple[str, ...]) -> list[Breakage]:
    """Every way in which a record of this contract can be broken, but by row checks, references and time."""
    found = [
        Breakage("not_json", "", lambda fields: joined(fields)[:-1]),
        Breakage("not_object", "", lambda fields: b"[1]"),
        Breakage("empty", "", lambda fields: b" "),
        Breakage("encoding", "", lambda fields: joined(fields)[:-1] + b',"\xff":1}'),
    ]
    for column in schema.columns:
        found += _of_column(column, column.name in key)
    first = schema.columns[0].name
    found.append(Breakage("duplicate_key", first, lambda fields: _twice(fields, first)))
    if kind != "table":
        found.append(Breakage("op_not_allowed", "_op", lambda fields: joined({**fields, "_op": '"-D"'})))
    if schema.extra == "dead":
        found.append(Breakage("extra", "unheard_of", lambda fields: joined({**fields, "unheard_of": "1"})))
    return found


def _twice(fields: Fields, name: str) -> bytes:
    return joined(fields)[:-1] + f",{json.dumps(name, ensure_ascii=False)}:{fields[name]}}}".encode()


def _of_column(column: Column, is_key: bool) -> Iterator[Breakage]:
    name = column.name
    yield Breakage("type", name, replacing(name, _wrong_type(column)))
    if is_key or not column.nullable:
        rule = "key_null" if is_key else "null"
        yield Breakage(rule, name, replacing(name, "null"))
        if not column.default:
            yield Breakage("key_null" if is_key else "missing", name, _without(name))
    for position, rule_ in enumerate(column.rules):
        text = _breaking(column, rule_, column.rules[:position])
        if text is not None:
            yield Breakage(rule_.name, name, replacing(name, text))


def replacing(name: str, text: str) -> Callable[[Fields], bytes]:
    """The record with another value in one field."""
    return lambda fields: joined({**fields, name: text})


def _without(name: str) -> Callable[[Fields], bytes]:
    return lambda fields: joined({field: value for field, value in fields.items() if field != name})


def _wrong_type(column: Column) -> str:
    match parse_type(column.type):
        case PlainType(name="VARCHAR" | "UUID" | "BLOB" | "TIMESTAMP" | "DATE" | "TIME" | "INTERVAL"):
            return "17"
        case PlainType(name="BOOLEAN"):
            return '"true"'
        case DecimalType():
            return '"a lot"'
        case ListType():
            return '"[]"'
        case MapType() | StructType():
            return "[]"
    return '"17"'


def _breaking(column: Column, rule: Rule, before: tuple[Rule, ...]) -> str | None:
    """The JSON text of a value that breaks this rule and keeps those before it; None where there seems to be none."""
    for value in _candidates(column, rule):
        if not holds(column, rule, value) and all(holds(column, other, value) for other in before):
            return _json(value)
    return None


def _candidates(column: Column, rule: Rule) -> Iterator[object]:
    argument, kind = rule.argument, parse_type(column.type)
    if rule.name in ("min_length", "max_length") and column.children:
        count = int(str(argument)) - 1 if rule.name == "min_length" else int(str(argument)) + 1
        if isinstance(kind, ListType) and column.children[0].nullable and 0 <= count <= 10_000:
            yield [None] * count
        elif count == 0:
            yield [] if isinstance(kind, ListType) else {}
        return
    if column.type == "VARCHAR":
        yield from ("", "~", "no such value", "\u00e9" * 3)
        if rule.name in ("min_length", "max_length"):
            longer = int(str(argument)) + (1 if rule.name == "max_length" else -1)
            yield from ("x" * max(longer, 0), "0" * max(longer, 0))
    elif column.type == "BLOB":
        yield b"x" * max(int(str(argument)) + (1 if rule.name == "max_length" else -1), 0)
    elif isinstance(kind, IntegerType):
        yield from (n for n in _near_integers(rule) if kind.lowest <= n <= kind.highest)
    elif isinstance(kind, DecimalType):
        most = Decimal(10) ** (kind.precision - kind.scale)
        unit = Decimal(1).scaleb(-kind.scale)
        yield from (n for n in _near_decimals(rule, unit) if abs(n) < most)
    elif column.type in ("DOUBLE", "FLOAT"):
        yield from (float(n) for n in _near_decimals(rule, Decimal(1)))
    elif column.type in ("TIMESTAMP", "DATE", "TIME"):
        yield from _near_moments(column.type, str(argument))


def _near_integers(rule: Rule) -> Iterator[int]:
    if isinstance(rule.argument, tuple):
        taken = {n for n in rule.argument if isinstance(n, int)}
        yield from (max(taken, default=0) + 1, min(taken, default=0) - 1)
        return
    for number in _near_decimals(rule, Decimal(1)):
        yield int(number.to_integral_value())


def _near_decimals(rule: Rule, unit: Decimal) -> Iterator[Decimal]:
    if isinstance(rule.argument, tuple | str | bool):
        return
    bound = Decimal(str(rule.argument))
    if rule.name == "multiple_of":
        yield from (bound + unit, bound - unit, bound * 3 + unit)
        return
    on = (bound / unit).to_integral_value() * unit
    for distance in (0, 1, 2, 100):
        yield from (on - distance * unit, on + distance * unit)


def _near_moments(type_name: str, text: str) -> Iterator[object]:
    if type_name == "DATE":
        day = date.fromisoformat(text)
        yield from (day, day - timedelta(days=1), day + timedelta(days=1))
    elif type_name == "TIMESTAMP":
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=None) - (at.utcoffset() or timedelta(0))
        yield from (at, at - timedelta(seconds=1), at + timedelta(seconds=1))
    else:
        yield from (clock.fromisoformat(text), clock(0), clock(23, 59, 59))


def _json(value: object) -> str:
    import base64

    match value:
        case Decimal():
            return json.dumps(format(value, "f"))
        case bytes():
            return json.dumps(base64.b64encode(value).decode())
        case datetime():
            return json.dumps(value.isoformat(timespec="microseconds"))
        case date() | clock():
            return json.dumps(value.isoformat())
    return json.dumps(value, ensure_ascii=False)
