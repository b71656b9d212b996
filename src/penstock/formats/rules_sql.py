"""One rule of a contract as an SQL condition; `formats/verdict.py` says the same in Python."""

from __future__ import annotations

import json
from decimal import Decimal

from penstock.contract.schema import Column, Rule
from penstock.contract.types import DecimalType, IntegerType, parse_type, quote
from penstock.formats.types_sql import literal, typed


def rule_sql(column: Column, rule: Rule) -> str:
    """One rule as a condition over its column (NULL where the column is)."""
    name = quote(column.name)
    argument = rule.argument
    if isinstance(argument, tuple):
        return f"{name} IN ({', '.join(_argument(column, value) for value in argument)})"
    match rule.name:
        case "ge" | "gt" | "le" | "lt":
            operator = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}[rule.name]
            return f"{name} {operator} {_argument(column, argument)}"
        case "multiple_of":
            return _multiple_of(column, argument)
        case "min_length":
            return f"{_size(column)} >= {argument}"
        case "max_length":
            return f"{_size(column)} <= {argument}"
    return f"regexp_matches({name}, {literal(str(argument))})"


def exact_step(column: Column, argument: object) -> Decimal | None:
    """What a value is to be a multiple of, where that can be told exactly; None where it is told of doubles."""
    step = Decimal(str(argument))
    digits = max(0, -int(step.normalize().as_tuple().exponent))
    match parse_type(column.type):
        case IntegerType():
            return step if not digits else None
        case DecimalType(precision=precision, scale=scale) if precision - scale + max(scale, digits) <= 38:
            return step
    return None


def tolerance(column: Column) -> float:
    """Which share of a value its distance from a multiple may be; pydantic's, wider for FLOAT."""
    return 1e-6 if column.type == "FLOAT" else 1e-9


def _multiple_of(column: Column, argument: object) -> str:
    name = quote(column.name)
    step = exact_step(column, argument)
    if step is not None:
        return f"{name} % {step:f} = 0"
    value, near = f"{name}::DOUBLE", f"abs({name}::DOUBLE) * {tolerance(column)!r}::DOUBLE"
    width = f"{abs(float(str(argument)))!r}::DOUBLE"
    rest = f"abs({value} % {width})"
    return f"({rest} <= {near} OR abs({rest} - {width}) <= {near})"


def _size(column: Column) -> str:
    name = quote(column.name)
    if column.type == "BLOB":
        return f"octet_length({name})"
    if column.type.startswith("MAP("):
        return f"cardinality({name})"
    return f"len({name})"


def _argument(column: Column, value: object) -> str:
    if column.type in ("TIMESTAMP", "DATE", "TIME"):
        return typed(column, f"{literal(json.dumps(str(value)))}::JSON")
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, float) or (isinstance(value, Decimal) and column.type in ("DOUBLE", "FLOAT")):
        return f"{float(value)!r}::DOUBLE"
    return str(value)
