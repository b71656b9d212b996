"""Why a record is dead: the slow twin of the vectorised check, one record at a time, in plain Python.

It says None exactly where `judge_sql` says true. Only the row checks and the event-time expression, which are the
user's SQL, are asked of DuckDB here too.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contract.schema import Column, Rule, Verdict
from penstock.contract.types import DecimalType, IntegerType, ListType, MapType, PlainType, StructType, parse_type
from penstock.formats import types_sql
from penstock.formats.glance import KNOWN, UNSURE, glance
from penstock.formats.jsontext import Json, NotJson, Number, Object, read_json
from penstock.formats.judge_sql import CHANGE_FIELDS, OPERATIONS, Judgement
from penstock.formats.rules_sql import exact_step, tolerance
from penstock.formats.types_sql import children

_INTEGER = re.compile(types_sql.INTEGER)
_DECIMAL = re.compile(types_sql.DECIMAL)
_WIDE = Context(prec=400)

Value = object
Explained = tuple[datetime | None, bool, tuple[bool | None, ...]]


class _Dead(Exception):
    def __init__(self, rule: str, field: str, got: object, reason: str) -> None:
        text = got if isinstance(got, str) else str(got)
        self.verdict = Verdict(rule, field, text[:200], reason)


def parse_record(text: str | None) -> Object | Verdict:
    """The record as an object, or why it is none."""
    if text is None:
        return Verdict("empty", "", "", "the record has no value")
    if not text.strip(" \t\r\n"):
        return Verdict("empty", "", text[:200], "the record is empty")
    try:
        value = read_json(text)
    except NotJson as problem:
        return Verdict("not_json", "", text[:200], f"the record is not JSON: {problem}")
    if not isinstance(value, Object):
        return Verdict("not_object", "", text[:200], "the record is JSON, but not an object")
    return value


@dataclass(frozen=True)
class Examined:
    """A record whose shape, types and rules are right: its operation, its values in the contract's order, and whether
    it has fields that the contract does not know."""

    operation: str
    values: tuple[Value | None, ...]
    extra: bool


class Judge:
    """Judges records by one contract."""

    def __init__(self, judgement: Judgement) -> None:
        self._judgement = judgement
        self._columns = [(column, column.name, glance(column)) for column in judgement.schema.columns]
        self._known = frozenset((*judgement.schema.names, *CHANGE_FIELDS))

    def examine(self, record: Object, operation: str | None) -> Examined | Verdict:
        """Everything but the user's SQL (row checks and event time), without a database. `operation` is None where the
        record itself says it."""
        try:
            return self._examined(record, operation)
        except _Dead as dead:
            return dead.verdict

    @property
    def has_expressions(self) -> bool:
        """Whether the user's SQL has a say in verdicts."""
        return self._judgement.event_time is not None or bool(self._judgement.schema.checks)

    def explained(self, examined: Examined, text: str, answer: Explained) -> Verdict | None:
        """What the user's SQL makes of a record that was examined and found right."""
        try:
            _expressions(self._judgement, text, examined, answer)
        except _Dead as dead:
            return dead.verdict
        return None

    def _examined(self, record: Object, operation: str | None) -> Examined:
        judgement, given = self._judgement, dict(record.pairs)
        if len(given) < len(record.pairs):
            repeated = record.repeated() or ""
            raise _Dead("duplicate_key", repeated, repeated, f"the field {repeated!r} occurs more than once")
        op = _operation(judgement, given.get("_op"), operation)
        by_key = op == "-D" and judgement.kind == "table" and bool(judgement.key)
        values: list[Value | None] = []
        for column, name, at_a_glance in self._columns:
            value = at_a_glance(given.get(name))
            if value is UNSURE:
                value = _column_value(column, given)
                if value is None:
                    _absent(judgement, column, given, by_key=by_key)
                else:
                    for rule in column.rules:
                        _rule(column, rule, value)
            values.append(value)
        unknown = next((name for name in given if name not in self._known), None)
        if unknown is not None and judgement.schema.extra == "dead":
            raise _Dead("extra", unknown, unknown, f"the contract has no field {unknown!r}")
        return Examined(op, tuple(values), unknown is not None)


def _operation(judgement: Judgement, own: Json, operation: str | None) -> str:
    if own is not None and not isinstance(own, str):
        raise _Dead("type", "_op", _shown(own), "_op must be a text")
    op = operation if operation is not None else own if isinstance(own, str) else "+I"
    allowed = OPERATIONS if judgement.kind == "table" else ("+I", "+U")
    if op not in allowed:
        what = f"a {judgement.kind} takes {', '.join(allowed)}"
        raise _Dead("op_not_allowed", "_op", op, what)
    return op


def _absent(judgement: Judgement, column: Column, given: Mapping[str, Json], *, by_key: bool) -> None:
    if column.name in judgement.key:
        raise _Dead("key_null", column.name, "null", f"{column.name} is part of the key and must have a value")
    if column.nullable or by_key:
        return
    if column.name in given:
        raise _Dead("null", column.name, "null", f"{column.name} must not be null")
    raise _Dead("missing", column.name, "", f"the field {column.name} is missing")


def _column_value(column: Column, given: Mapping[str, Json]) -> Value | None:
    value = given.get(column.name)
    if value is None and column.default and column.name not in given:
        value = read_json(column.default)
    return None if value is None else _typed(column, value, column.name)


def _expressions(judgement: Judgement, text: str, examined: Examined, answer: Explained) -> None:
    by_key = examined.operation == "-D" and judgement.kind == "table" and bool(judgement.key)
    at, near, checks = answer
    for row_check, passed in zip(judgement.schema.checks, checks, strict=True):
        if not passed:
            raise _Dead(row_check.name, "", text, f"the check {row_check.name} does not hold: {row_check.sql}")
    if judgement.event_time is not None and at is None and not by_key:
        raise _Dead("event_time", "", text, f"the event time {judgement.event_time} is null or out of range")
    if not near:
        limit = f"more than {judgement.max_ahead} after the time of arrival"
        raise _Dead("future", "", str(at), f"the event time is {limit}")


# -- types -------------------------------------------------------------------------------------------------------------


def _shown(value: Json) -> str:
    match value:
        case Number():
            return value.text
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case Object():
            return "an object"
    return "a list"


def _typed(column: Column, value: Json, path: str) -> Value:
    kind = parse_type(column.type)
    found = _parse(column, value, path)
    if found is None:
        raise _Dead("type", path, _shown(value), f"{path} must be {_EXPECTED.get(kind.name, kind.name)}")
    return found


_EXPECTED = {
    "BIGINT": "an integer of 64 bits",
    "VARCHAR": "a text without NUL characters",
    "DOUBLE": "a finite number",
    "BOOLEAN": "true or false",
    "TIMESTAMP": "a text like 2026-01-31T12:00:00.000000Z",
    "DATE": "a text like 2026-01-31",
    "TIME": "a text like 12:00:00.000000",
    "INTERVAL": "a text like P1DT2H or PT1.500000S",
    "UUID": "a UUID as text",
    "BLOB": "bytes as base64 text",
}


def _parse(column: Column, value: Json, path: str) -> Value | None:
    kind = parse_type(column.type)
    match kind:
        case IntegerType():
            if not isinstance(value, Number) or not _INTEGER.fullmatch(value.text) or len(value.text) > 60:
                return None
            number = int(value.text)
            return number if kind.lowest <= number <= kind.highest else None
        case DecimalType():
            return _decimal(kind, value)
        case PlainType():
            return _plain(kind, value)
        case ListType():
            if not isinstance(value, list):
                return None
            return [_inner(children(column)[0], item, f"{path}[{n}]") for n, item in enumerate(value)]
        case MapType():
            if not isinstance(value, Object):
                return None
            _no_repeats(value, path)
            return {name: _inner(children(column)[0], item, f"{path}.{name}") for name, item in value.pairs}
        case StructType():
            if not isinstance(value, Object):
                return None
            _no_repeats(value, path)
            return {c.name: _inner(c, value.get(c.name), f"{path}.{c.name}") for c in children(column)}


def _inner(column: Column, value: Json, path: str) -> Value | None:
    if value is not None:
        return _typed(column, value, path)
    if column.nullable:
        return None
    raise _Dead("null", path, "null", f"{path} must not be missing or null")


def _no_repeats(value: Object, path: str) -> None:
    repeated = value.repeated()
    if repeated is not None:
        raise _Dead("duplicate_key", f"{path}.{repeated}", repeated, f"{path} has {repeated!r} more than once")


def _decimal(kind: DecimalType, value: Json) -> Decimal | None:
    if isinstance(value, str) or (isinstance(value, Number) and _INTEGER.fullmatch(value.text)):
        text = value if isinstance(value, str) else value.text
        if not _DECIMAL.fullmatch(text) or len(text.partition(".")[2]) > kind.scale:
            return None
        number = Decimal(text)
        return number if abs(number) < Decimal(10) ** (kind.precision - kind.scale) else None
    if not isinstance(value, Number):
        return None
    double = float(value.text)
    if not math.isfinite(double):
        return None
    try:
        number = Decimal(repr(double)).quantize(Decimal(1).scaleb(-kind.scale), ROUND_HALF_UP, _WIDE)
    except InvalidOperation:
        return None
    if float(number) != double or abs(number.scaleb(kind.scale, _WIDE)) >= types_sql.MAX_EXACT:
        return None
    return number if abs(number) < Decimal(10) ** (kind.precision - kind.scale) else None


def _plain(kind: PlainType, value: Json) -> Value | None:
    match kind.name:
        case "BOOLEAN":
            return value if isinstance(value, bool) else None
        case "DOUBLE" | "FLOAT":
            return _float(kind.name, value)
    if not isinstance(value, str):
        return None
    match kind.name:
        case "VARCHAR":
            return value if "\0" not in value else None
        case "UUID":
            return UUID(value) if re.fullmatch(types_sql.UUID, value) else None
        case "BLOB":
            return _bytes(value)
        case "INTERVAL":
            return _interval(value)
    return _moment(kind.name, value)


def _float(name: str, value: Json) -> float | None:
    if not isinstance(value, Number):
        return None
    # an integer to DuckDB, whose zero has no sign
    number = 0.0 if value.text == "-0" else float(value.text)
    if name == "FLOAT" and math.isfinite(number):
        try:
            number = float(struct.unpack("f", struct.pack("f", number))[0])
        except OverflowError:
            return None
    return number if math.isfinite(number) else None


def _bytes(value: str) -> bytes | None:
    if not re.fullmatch(types_sql.BASE64, value):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return None


def _interval(value: str) -> timedelta | None:
    match = re.fullmatch(types_sql.DURATION, value)
    if match is None or value[-1] in "PT":
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.group(2, 3, 4, 5))
    us = int((match[6] or "").ljust(6, "0"))
    span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=us)
    return -span if match[1] else span


def _moment(name: str, value: str) -> datetime | date | time | None:
    pattern = {"TIMESTAMP": types_sql.TIMESTAMP, "DATE": types_sql.DATE, "TIME": types_sql.CLOCK}[name]
    if not re.fullmatch(pattern, value):
        return None
    try:
        if name == "DATE":
            return date.fromisoformat(value)
        if name == "TIME":
            return time.fromisoformat(value)
        moment = datetime.fromisoformat(value)
        offset = moment.utcoffset()
        return moment.replace(tzinfo=None) - offset if offset is not None else moment
    except (ValueError, OverflowError):
        return None


# -- rules -------------------------------------------------------------------------------------------------------------


def _rule(column: Column, rule: Rule, value: Value) -> None:
    if not _holds(column, rule, value):
        reason = f"{column.name} must keep {rule.name} = {rule.argument!r}"
        raise _Dead(rule.name, column.name, value, reason)


def _holds(column: Column, rule: Rule, value: Value) -> bool:
    argument = rule.argument
    if isinstance(argument, tuple):
        return value in argument
    match rule.name:
        case "min_length":
            return len(value) >= int(argument)  # type: ignore[arg-type]
        case "max_length":
            return len(value) <= int(argument)  # type: ignore[arg-type]
        case "pattern":
            return _matches(str(argument), str(value))
        case "multiple_of":
            return _is_multiple(column, value, argument)
    bound: object = argument
    if column.type in ("TIMESTAMP", "DATE", "TIME"):
        bound = _moment(column.type, str(argument))
    elif isinstance(value, Decimal) and isinstance(argument, float):
        value = float(value)
    return bool(_COMPARE[rule.name](value, bound))


def _is_multiple(column: Column, value: Value, argument: object) -> bool:
    step = exact_step(column, argument)
    if step is not None:
        return _WIDE.remainder(Decimal(str(value)), step) == 0
    number, width = float(str(value)), abs(float(str(argument)))
    near = abs(number) * tolerance(column)
    rest = abs(math.fmod(number, width))
    return rest <= near or abs(rest - width) <= near


def _matches(pattern: str, text: str) -> bool:
    known = KNOWN.get(pattern)
    if known is not None:
        return known.fullmatch(text) is not None
    return bool(pc.match_substring_regex(pa.array([text]), pattern)[0].as_py())


_COMPARE: dict[str, Callable[..., bool]] = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}
