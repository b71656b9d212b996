"""Which part of a contract the compiled kernel sees to: kinds of columns and the rules of each."""

from __future__ import annotations

from typing import Literal

from penstock.contract.patterns import IP, UUID
from penstock.contract.schema import Column, Rule
from penstock.contract.types import IntegerType, parse_type

Kind = Literal["text", "integer", "boolean", "token"]
LONGEST_CHOICE = 16
MOST_CHOICES = 2**15  # their places are 16-bit integers
LIMITS = (-(2**63), 2**63 - 1)


def proven_rules(column: Column) -> tuple[Rule, ...]:
    """The column's rules that the kernel has seen to."""
    kind = kind_of(column)
    if kind == "integer":
        return tuple(r for r in column.rules if r.name in ("ge", "gt", "le", "lt") and isinstance(r.argument, int))
    if kind == "text":
        return tuple(r for r in column.rules if text_rule(r) is not None)[:1]
    return ()


def kind_of(column: Column) -> Kind:
    """How the kernel reads a column; a token is kept as JSON text, for SQL to check and cast."""
    kind = parse_type(column.type)
    if isinstance(kind, IntegerType) and kind.lowest >= LIMITS[0] and kind.highest <= LIMITS[1]:
        return "integer"
    if column.type == "VARCHAR":
        return "text"
    return "boolean" if column.type == "BOOLEAN" else "token"


def is_token(column: Column) -> bool:
    """Whether the kernel gives the column's JSON text, for SQL to check and cast."""
    return kind_of(column) == "token"


def bounds(column: Column) -> tuple[int, int]:
    """What an integer may be by its type and its rules of comparison with integers."""
    kind = parse_type(column.type)
    assert isinstance(kind, IntegerType)
    low, high = kind.lowest, kind.highest
    for rule in column.rules:
        if isinstance(rule.argument, int):
            match rule.name:
                case "ge":
                    low = max(low, rule.argument)
                case "gt":
                    low = max(low, rule.argument + 1)
                case "le":
                    high = min(high, rule.argument)
                case "lt":
                    high = min(high, rule.argument - 1)
    return low, high


def text_rule(rule: Rule) -> str | None:
    """The name of the check that says the same as a rule over text; None where there is none."""
    if rule.name == "pattern":
        return {UUID: "UUID", IP: "IP"}.get(str(rule.argument))
    if rule.name == "one_of" and isinstance(rule.argument, tuple):
        few = len(rule.argument) <= MOST_CHOICES
        return "CHOICE" if few and all(map(_is_short, rule.argument)) else None
    return None


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value.encode()) <= LONGEST_CHOICE
