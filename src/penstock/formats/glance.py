"""What is right about a column's value at a glance: the quick way past what `verdict` says at length.

`glance(column)` is a function from the JSON value to the column's value, or `UNSURE`. It says nothing against a value:
what it is not sure of is looked at closely. What it gives is what `verdict` would give, which then finds no fault with
its type nor with a rule. Most fields of a broken record are sound, and a dead letter has to say which one is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from penstock.contract import patterns
from penstock.contract.schema import Column
from penstock.contract.types import IntegerType, parse_type
from penstock.formats.jsontext import Json, Number
from penstock.formats.provable import bounds

UNSURE: Final = object()
Glance = Callable[[Json], object]
# As many as an integer of 64 bits may have.
_MOST_DIGITS = 19
# compiling a pattern takes RE2 a hundred times as long as matching it, and Arrow does not keep what it compiled
KNOWN = {pattern: re.compile(pattern.removeprefix("^").removesuffix("$")) for pattern in (patterns.UUID, patterns.IP)}


def glance(column: Column) -> Glance:
    """The quick look at values of a column."""
    if isinstance(parse_type(column.type), IntegerType):
        return _integer(column)
    if column.type == "VARCHAR":
        return _text(column)
    if column.type == "BOOLEAN" and not column.rules:
        return lambda value: value if isinstance(value, bool) else UNSURE
    return _closely


def _closely(_: Json) -> object:
    return UNSURE


def _integer(column: Column) -> Glance:
    if any(rule.name not in ("ge", "gt", "le", "lt") or not isinstance(rule.argument, int) for rule in column.rules):
        return _closely
    low, high = bounds(column)

    def integer(value: Json) -> object:
        if isinstance(value, Number):
            text = value.text
            if len(text) <= _MOST_DIGITS and text.isdigit() and text.isascii():
                number = int(text)
                if low <= number <= high:
                    return number
        return UNSURE

    return integer


def _text(column: Column) -> Glance:
    if not column.rules:
        return lambda value: value if isinstance(value, str) and "\0" not in value else UNSURE
    (rule, *more), known = column.rules, KNOWN.get(str(column.rules[0].argument))
    if more:
        return _closely
    if rule.name == "pattern" and known is not None:
        matches = known.fullmatch
        return lambda value: value if isinstance(value, str) and matches(value) else UNSURE
    if rule.name == "one_of" and isinstance(rule.argument, tuple):
        choices = {choice for choice in rule.argument if isinstance(choice, str) and "\0" not in choice}
        return lambda value: value if isinstance(value, str) and value in choices else UNSURE
    return _closely
