"""How far apart in time the rows of two streams may be that a join's conditions let meet.

Read are comparisons that are linear in both event times, as in `b.at BETWEEN a.at AND a.at + INTERVAL 1 HOUR` and
`a.at - b.at < INTERVAL 5 SECONDS`. Everything else bounds nothing: it can only let fewer rows meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from penstock.durations import parse_duration
from penstock.plan.parse import DIALECT


@dataclass(frozen=True)
class Distance:
    """The time of a row of b less that of the row of a that it meets, in microseconds; None where nothing bounds it."""

    low_us: int | None = None
    high_us: int | None = None

    def __and__(self, other: Distance) -> Distance:
        lows = [x.low_us for x in (self, other) if x.low_us is not None]
        highs = [x.high_us for x in (self, other) if x.high_us is not None]
        return Distance(max(lows, default=None), min(highs, default=None))


def distance(conditions: Sequence[exp.Expr], a: exp.Expr, b: exp.Expr) -> Distance:
    """What the conditions say of the distance. a, b: the event times as the conditions write them."""
    found = Distance()
    for condition in conditions:
        found &= _of(condition.unnest(), a, b)
    return found


def _of(condition: exp.Expr, a: exp.Expr, b: exp.Expr) -> Distance:
    match condition:
        case exp.Between() if not condition.args.get("symmetric"):
            low = _less(condition.args["low"], condition.this, a, b)
            return low & _less(condition.this, condition.args["high"], a, b)
        case exp.LTE() | exp.LT():
            return _less(condition.this, condition.expression, a, b)
        case exp.GTE() | exp.GT():
            return _less(condition.expression, condition.this, a, b)
        case exp.EQ():
            forth = _less(condition.this, condition.expression, a, b)
            return forth & _less(condition.expression, condition.this, a, b)
        case _:
            return Distance()


def _less(small: exp.Expr, large: exp.Expr, a: exp.Expr, b: exp.Expr) -> Distance:
    """What `small <= large` says."""
    left, right = _Linear.of(small, a, b), _Linear.of(large, a, b)
    if left is None or right is None:
        return Distance()
    # large - small = of_a * a + of_b * b + us >= 0
    of_a, of_b, us = right.of_a - left.of_a, right.of_b - left.of_b, right.us - left.us
    if (of_a, of_b) == (-1, 1):
        return Distance(low_us=-us)
    if (of_a, of_b) == (1, -1):
        return Distance(high_us=us)
    return Distance()


@dataclass(frozen=True)
class _Linear:
    """of_a * a + of_b * b + us."""

    of_a: int = 0
    of_b: int = 0
    us: int = 0

    @classmethod
    def of(cls, node: exp.Expr, a: exp.Expr, b: exp.Expr) -> _Linear | None:
        """The expression as a linear one; None where it is none."""
        node = node.unnest()
        written = node.sql(DIALECT).lower()
        if written == a.sql(DIALECT).lower():
            return cls(of_a=1)
        if written == b.sql(DIALECT).lower():
            return cls(of_b=1)
        match node:
            case exp.Interval():
                us = fixed_us(node)
                return cls(us=us) if us is not None else None
            case exp.Neg():
                return cls().plus(cls.of(node.this, a, b), -1)
            case exp.Add() | exp.Sub():
                left, right = cls.of(node.this, a, b), cls.of(node.expression, a, b)
                return left.plus(right, 1 if isinstance(node, exp.Add) else -1) if left is not None else None
            case _:
                return None

    def plus(self, other: _Linear | None, sign: int) -> _Linear | None:
        if other is None:
            return None
        return _Linear(self.of_a + sign * other.of_a, self.of_b + sign * other.of_b, self.us + sign * other.us)


def fixed_us(interval: exp.Interval) -> int | None:
    """The length of an interval that is the same everywhere, in microseconds; None for months, and what is no literal.

    Example:
        >>> import sqlglot
        >>> [fixed_us(sqlglot.parse_one(s, dialect="duckdb")) for s in ("INTERVAL 2 MINUTES", "INTERVAL '1 month'")]
        [120000000, None]
    """
    number = interval.this
    if isinstance(number, exp.Neg):
        us = fixed_us(exp.Interval(this=number.this, unit=interval.args.get("unit")))
        return -us if us is not None else None
    if not isinstance(number, exp.Literal):
        return None
    sign, text = (-1, number.name[1:]) if number.name.startswith("-") else (1, number.name)
    if "." in text or (sign < 0 and not text.isdigit()):
        return None  # DuckDB rounds some fractions, and a sign is that of the first part alone.
    try:
        length = parse_duration(f"{text} {interval.text('unit')}")
    except ValueError:
        return None
    return sign * round(length.total_seconds() * 1_000_000)
