"""What each Python annotation of a contract means as a column.

Everything that is not in the table of docs/reference/types.md is `Refused`, with what to write instead.
"""

from __future__ import annotations

import base64
import json
import types
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, StringConstraints

from penstock.contract.schema import Column, Literal_, Rule
from penstock.contract.types import DecimalType, IntegerType, parse_type, quote

_SCALARS: dict[object, str] = {
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    str: "VARCHAR",
    bytes: "BLOB",
    datetime: "TIMESTAMP",
    date: "DATE",
    time: "TIME",
    timedelta: "INTERVAL",
    uuid.UUID: "UUID",
}
_SUPPORTED = "int, float, bool, str, bytes, Decimal, datetime, date, time, timedelta, UUID, Literal, Enum, list, dict"
_ORDERED = ("ge", "gt", "le", "lt")
_IGNORED_METADATA = frozenset({"Strict", "AllowInfNan"})

Nested = Callable[[type[BaseModel]], tuple[Column, ...]]


class Refused(Exception):
    """Why an annotation cannot be a column; the contract's own error adds class, field and line."""

    def __init__(self, what: str, expected: str, got: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.got = got
        self.hint = hint


@dataclass(frozen=True)
class SqlType:
    """Names the DuckDB type of a column: `Annotated[int, SqlType("INTEGER")]`."""

    name: str


def column_of(name: str, annotation: object, metadata: Sequence[object], nested: Nested) -> Column:
    """The column that an annotation with its constraints declares; raises Refused."""
    annotation, metadata = _unwrap(annotation, metadata)
    inner, nullable = _optional(annotation)
    inner, metadata = _unwrap(inner, metadata)
    options = _options(metadata)
    sql_type = next((item.name for item in metadata if isinstance(item, SqlType)), "")
    column = _typed(name, inner, options, nested)
    if sql_type:
        column = Column(name, _checked_type(sql_type, column.type))
    rules = (*column.rules, *_rules(options, column))
    return Column(name, column.type, nullable, rules, children=column.children)


def json_text(value: object, column: Column) -> str:
    """A default as the JSON text that a record would carry."""

    def plain(item: object) -> object:
        match item:
            case bool() | int() | float() | str() | None:
                return item.value if isinstance(item, Enum) else item
            case Enum():
                return plain(item.value)
            case Decimal() | uuid.UUID():
                return str(item)
            case datetime() | date() | time():
                return item.isoformat()
            case bytes():
                return base64.b64encode(item).decode()
            case list() | tuple():
                return [plain(element) for element in item]
            case dict():
                return {str(key): plain(element) for key, element in item.items()}
        raise Refused("default", "a value that JSON can carry", repr(item))

    try:
        return json.dumps(plain(value), allow_nan=False)
    except ValueError:
        raise Refused("default", "a finite number", repr(value)) from None


def _unwrap(annotation: object, metadata: Sequence[object]) -> tuple[object, tuple[object, ...]]:
    found = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for item in more:
            found.extend(getattr(item, "metadata", None) or [item])
    return annotation, tuple(found)


def _optional(annotation: object) -> tuple[object, bool]:
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    inner = [argument for argument in get_args(annotation) if argument is not type(None)]
    if len(inner) != 1:
        raise Refused(
            "a union",
            "one type, optionally with None",
            str(annotation),
            "declare one optional field each",
        )
    return inner[0], len(inner) < len(get_args(annotation))


def _typed(name: str, annotation: object, options: dict[str, object], nested: Nested) -> Column:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _choice(name, arguments)
    if origin is list or annotation is list:
        element = column_of("element", _one(arguments, annotation), (), nested)
        return Column(name, f"{element.type}[]", children=(element,))
    if origin is dict or annotation is dict:
        if len(arguments) != 2 or arguments[0] is not str:
            raise Refused("a dict", "dict[str, T]", str(annotation))
        value = column_of("value", arguments[1], (), nested)
        return Column(name, f"MAP(VARCHAR, {value.type})", children=(value,))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choice(name, tuple(member.value for member in annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        children = nested(annotation)
        fields = ", ".join(f"{quote(child.name)} {child.type}" for child in children)
        return Column(name, f"STRUCT({fields})", children=children)
    if annotation is Decimal:
        return Column(name, _decimal(options))
    scalar = _SCALARS.get(annotation)
    if scalar is None:
        got = getattr(annotation, "__name__", str(annotation))
        raise Refused("its type", _SUPPORTED, got, "see docs/reference/types.md")
    return Column(name, scalar)


def _one(arguments: tuple[object, ...], annotation: object) -> object:
    if len(arguments) != 1:
        raise Refused("a list", "list[T]", str(annotation))
    return arguments[0]


def _decimal(options: dict[str, object]) -> str:
    digits, places = (
        options.pop("max_digits", None),
        options.pop("decimal_places", None),
    )
    if not isinstance(digits, int) or not isinstance(places, int) or not 1 <= digits <= 38 or not 0 <= places <= digits:
        got = f"max_digits={digits}, decimal_places={places}"
        raise Refused(
            "a Decimal's digits",
            "max_digits from 1 to 38 and decimal_places",
            got,
            _DECIMAL_HINT,
        )
    return f"DECIMAL({digits},{places})"


_DECIMAL_HINT = "for example ps.Field(max_digits=18, decimal_places=2)"


def _choice(name: str, values: tuple[object, ...]) -> Column:
    plain = tuple(value.value if isinstance(value, Enum) else value for value in values)
    if plain and all(isinstance(value, str) for value in plain):
        return Column(
            name,
            "VARCHAR",
            rules=(Rule("one_of", tuple(str(value) for value in plain)),),
        )
    if plain and all(isinstance(value, int) and not isinstance(value, bool) for value in plain):
        return Column(
            name,
            "BIGINT",
            rules=(Rule("one_of", tuple(v for v in plain if isinstance(v, int))),),
        )
    raise Refused("its values", "all texts or all integers", repr(plain))


def _checked_type(text: str, base: str) -> str:
    try:
        kind, own = parse_type(text), parse_type(base)
    except ValueError as problem:
        raise Refused("SqlType", "a DuckDB type", str(problem)) from None
    same = type(kind) is type(own) or (isinstance(kind, DecimalType) and isinstance(own, IntegerType))
    if not same:
        raise Refused("SqlType", f"a type like {base}", text)
    return kind.name


def _options(metadata: Sequence[object]) -> dict[str, object]:
    options: dict[str, object] = {}
    for item in metadata:
        if isinstance(item, SqlType) or type(item).__name__ in _IGNORED_METADATA:
            continue
        options.update(_one_option(item))
    return {name: value for name, value in options.items() if value is not None}


def _one_option(item: object) -> dict[str, object]:
    match item:
        case annotated_types.Ge():
            return {"ge": item.ge}
        case annotated_types.Gt():
            return {"gt": item.gt}
        case annotated_types.Le():
            return {"le": item.le}
        case annotated_types.Lt():
            return {"lt": item.lt}
        case annotated_types.Interval():
            return {"ge": item.ge, "gt": item.gt, "le": item.le, "lt": item.lt}
        case annotated_types.MultipleOf():
            return {"multiple_of": item.multiple_of}
        case annotated_types.MinLen():
            return {"min_length": item.min_length}
        case annotated_types.MaxLen():
            return {"max_length": item.max_length}
        case annotated_types.Len():
            return {"min_length": item.min_length, "max_length": item.max_length}
        case StringConstraints():
            return {name: getattr(item, name) for name in ("min_length", "max_length", "pattern")} | _no_rewrite(item)
    if type(item).__name__ == "_PydanticGeneralMetadata":
        return {name: value for name, value in vars(item).items() if name not in ("strict", "allow_inf_nan")}
    raise Refused(
        type(item).__name__,
        "constraints that SQL can check: ge, gt, le, lt, multiple_of, min_length, max_length, pattern",
        repr(item),
        'write __checks__ = {"name": "SQL condition"} on the class',
    )


def _no_rewrite(item: StringConstraints) -> dict[str, object]:
    for name in ("strip_whitespace", "to_upper", "to_lower"):
        if getattr(item, name):
            raise Refused(
                name,
                "a constraint that only checks",
                name,
                "change the value in a view",
            )
    return {}


def _rules(options: dict[str, object], column: Column) -> tuple[Rule, ...]:
    kind = parse_type(column.type)
    numeric = isinstance(kind, IntegerType | DecimalType) or kind.name in (
        "DOUBLE",
        "FLOAT",
    )
    sized = kind.name in ("VARCHAR", "BLOB") or bool(column.children)
    temporal = kind.name in ("TIMESTAMP", "DATE", "TIME")
    rules = []
    for name, value in options.items():
        fits = (
            (name in _ORDERED and (numeric or temporal))
            or (name == "multiple_of" and numeric and kind.name not in ("DOUBLE", "FLOAT"))
            or (name in ("min_length", "max_length") and sized)
            or (name == "pattern" and kind.name == "VARCHAR")
        )
        if not fits:
            raise Refused(name, f"a constraint for {column.type}", f"{name}={value!r}")
        rules.append(Rule(name, _argument(name, value)))
    return tuple(rules)


def _argument(name: str, value: object) -> Literal_:
    if name == "pattern":
        text = str(getattr(value, "pattern", value))
        if problem := _not_re2(text):
            raise Refused("pattern", "a regular expression of RE2", problem, "no look-around, no back-references")
        return text
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise Refused(name, "a number or ISO text", repr(value))
    return value


def _not_re2(pattern: str) -> str:
    """Why RE2 does not take the pattern; empty where it does."""
    # Only here: Arrow takes longer to import than all else that a declaration needs.
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as problem:
        return str(problem)
    return ""
