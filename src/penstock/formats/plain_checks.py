"""Row checks that compare an integer column with a number, as Python sees them: to run a statement for them costs more.

Invariant: a check holds here exactly where its SQL is true or NULL.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as compute

from penstock.contract.schema import RowCheck, Schema
from penstock.contract.types import IntegerType, parse_type

_COMPARISON = re.compile(r'"?([A-Za-z_]\w*)"? (>=|>|<=|<|=|<>) (-?\d{1,18})')
# Names that mean something else in SQL when they are not quoted.
_VALUE = re.compile(r"user$|current_|session_|local|rowid", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
    "<>": operator.ne,
}


@dataclass(frozen=True)
class PlainCheck:
    """`column` `sign` `number`."""

    column: str
    sign: str
    number: int

    def holds(self, value: object) -> bool:
        return value is None or (isinstance(value, int) and _OPERATORS[self.sign](value, self.number))

    def holds_for_all(self, values: pa.ChunkedArray) -> bool:
        """Of integers that are not empty."""
        ends = compute.min_max(values).as_py()
        if ends["min"] is None:
            return True
        match self.sign:
            case ">=" | ">":
                return self.holds(ends["min"])
            case "<=" | "<":
                return self.holds(ends["max"])
            case "=":
                return self.holds(ends["min"]) and self.holds(ends["max"])
        # one in between may be the number
        return not ends["min"] <= self.number <= ends["max"]


def plain_checks(schema: Schema) -> tuple[PlainCheck, ...] | None:
    """The contract's row checks; None where one of them is of another form."""
    found = [_plain(schema, check) for check in schema.checks]
    known = tuple(check for check in found if check is not None)
    return known if len(known) == len(found) else None


def _plain(schema: Schema, check: RowCheck) -> PlainCheck | None:
    parts = _COMPARISON.fullmatch(check.sql)
    column = schema.column(parts[1]) if parts is not None else None
    if (
        parts is None
        or column is None
        or _VALUE.match(column.name)
        or not isinstance(parse_type(column.type), IntegerType)
    ):
        return None
    return PlainCheck(column.name, parts[2], int(parts[3]))
