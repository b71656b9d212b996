"""Numbers and times of one column that keep its rules, drawn as whole arrays.

Every such value stands for a whole number (a decimal for its digits, a time for its microseconds), so that bounds and
steps are exact. Where a bound is missing, a thousand or so values beside the other one are drawn, so that groups and
keys meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import ceil, floor, isfinite, lcm

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bench.pipeline.texts import NoText
from penstock.contract.schema import Column, Rule
from penstock.contract.types import DecimalType, IntegerType, parse_type

SPAN = 1_000
POOL = 500
EPOCH_US = 1_767_225_600_000_000  # 2026-01-01: where times that follow nothing begin
DAY_US = 86_400_000_000
MONTH_US = 30 * DAY_US
_INT64 = (-(1 << 63), (1 << 63) - 1)

Draw = Callable[[np.random.Generator, int], pa.Array]


@dataclass(frozen=True)
class Numbers:
    """The whole numbers lowest, lowest + step, ... up to highest, which stand for the values of a column."""

    lowest: int
    highest: int
    step: int

    @property
    def count(self) -> int:
        return max(0, (self.highest - self.lowest) // self.step + 1)


def pool_draw(pool: pa.Array) -> Draw:
    """Draws from given values, each as often."""

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        return pool.take(pa.array(rng.integers(0, len(pool), count)))

    return draw


def whole_numbers(column: Column, *, wide: bool = False) -> Numbers | None:
    """The numbers behind the column's values that keep its rules; None for what is no number.

    wide: all of them, not only a thousand or so beside the bound.
    """
    kind = parse_type(column.type)
    match kind:
        case IntegerType():
            return _bounded(column, kind.lowest, kind.highest, 0, 0, wide)
        case DecimalType():
            most = 10**kind.precision - 1
            return _bounded(column, -most, most, kind.scale, 0, wide)
    match column.type:
        case "TIMESTAMP":
            return _bounded(column, -62_135_596_800_000_000, 253_402_300_799_999_999, 0, EPOCH_US, wide)
        case "DATE":
            return _bounded(column, -719_162, 2_932_896, 0, EPOCH_US // DAY_US, wide)
        case "TIME":
            return _bounded(column, 0, DAY_US - 1, 0, 0, wide)
        case "INTERVAL":
            return Numbers(0, 3_600_000_000, 1)
    return None


def _bounded(column: Column, lowest: int, highest: int, scale: int, base: int, wide: bool) -> Numbers:
    """lowest, highest: of the type; base: where to begin when nothing is bounded."""
    type_lowest, type_highest, step, least, most = lowest, highest, 1, False, False
    for rule in column.rules:
        if rule.name == "multiple_of":
            step = _step(rule, scale, step)
            continue
        bound = _scaled(column, rule, scale)
        if bound is None:
            continue
        match rule.name:
            case "ge":
                lowest, least = max(lowest, ceil(bound)), True
            case "gt":
                lowest, least = max(lowest, floor(bound) + 1), True
            case "le":
                highest, most = min(highest, floor(bound)), True
            case "lt":
                highest, most = min(highest, ceil(bound) - 1), True
    span = SPAN * step * 10**scale
    if column.type in ("TIMESTAMP", "DATE"):
        span = MONTH_US if column.type == "TIMESTAMP" else 365
    if wide:
        lowest = lowest if least or highest < base else base
    elif not least and not most:
        lowest, highest = max(type_lowest, base), min(type_highest, base + span)
    elif not most:
        highest = min(highest, lowest + span)
    elif not least:
        lowest = max(lowest, highest - span)
    lowest = -(-lowest // step) * step
    if lowest > highest:
        raise NoText(f"no value of {column.name} keeps its rules")
    return Numbers(lowest, highest, step)


def _step(rule: Rule, scale: int, step: int) -> int:
    """A number of which every multiple is one of the rule's argument, and of `step`."""
    scaled = Decimal(str(rule.argument)).scaleb(scale)
    return lcm(step, abs(scaled.as_integer_ratio()[0]))


def _scaled(column: Column, rule: Rule, scale: int) -> Decimal | None:
    argument = rule.argument
    if isinstance(argument, str):
        return Decimal(moment_number(column.type, argument))
    if isinstance(argument, int | float | Decimal) and not isinstance(argument, bool):
        value = Decimal(str(argument))
        return value.scaleb(scale) if value.is_finite() else None
    return None


def moment_number(type_name: str, text: str) -> int:
    """The number that an ISO text of a DATE, TIME or TIMESTAMP stands for."""
    match type_name:
        case "DATE":
            return date.fromisoformat(text).toordinal() - 719_163
        case "TIME":
            moment = time.fromisoformat(text)
            return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=None) - (at.utcoffset() or at - at)
    return round((at - datetime(1970, 1, 1)).total_seconds()) * 1_000_000 + at.microsecond


def number_draw(column: Column) -> Draw:
    """Draws among the column's whole numbers."""
    numbers = whole_numbers(column)
    if numbers is None:
        raise NoText(f"{column.name}: values of type {column.type} cannot be generated")
    make = array_of(column)
    lowest, step, count = numbers.lowest, numbers.step, min(numbers.count, 1 << 62)
    if _INT64[0] <= lowest and lowest + count * step <= _INT64[1]:
        return lambda rng, rows: make(lowest + rng.integers(0, count, rows) * step)
    exact = [lowest + step * (count * n // POOL) for n in range(POOL)]
    return pool_draw(make(np.array(sorted(set(exact)), object)))


def counted_draw(numbers: Numbers, make: Callable[[NDArray[np.int64]], pa.Array], start: int, stride: int) -> Draw:
    """Number `start`, `start + stride`, ... of the column's: none comes twice."""
    position = start

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        nonlocal position
        last = numbers.lowest + (position + count * stride) * numbers.step
        if last > numbers.highest or last > _INT64[1] or numbers.lowest < _INT64[0]:
            raise NoText(f"there are only {numbers.count} different values")
        values = numbers.lowest + (position + np.arange(count, dtype=np.int64) * stride) * numbers.step
        position += count * stride
        return make(values)

    return draw


def array_of(column: Column) -> Callable[[NDArray[np.int64]], pa.Array]:
    """From whole numbers to the values that they stand for."""
    kind = parse_type(column.type)
    if isinstance(kind, DecimalType):
        return lambda numbers: decimals(numbers, kind.precision, kind.scale)
    if isinstance(kind, IntegerType):
        return lambda numbers: decimals(numbers, 38, 0) if numbers.dtype == object else pa.array(numbers)
    arrow = _ARROW[column.type]
    width = pa.int32() if column.type == "DATE" else pa.int64()
    return lambda numbers: pa.array(numbers).cast(width).cast(arrow)


_ARROW = {
    "TIMESTAMP": pa.timestamp("us"),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "INTERVAL": pa.duration("us"),
}


def decimals(numbers: NDArray[np.int64], precision: int, scale: int) -> pa.Array:
    """Decimals from their digits without the point: two little-endian words each."""
    if numbers.dtype == object:
        return pa.array([Decimal(int(n)).scaleb(-scale) for n in numbers], pa.decimal128(precision, scale))
    words = np.empty((len(numbers), 2), np.int64)
    words[:, 0] = numbers
    words[:, 1] = numbers >> 63
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(numbers), [None, pa.py_buffer(words)])


def float_draw(column: Column) -> Draw:
    """Draws uniformly between the bounds of a DOUBLE or FLOAT."""
    lowest, highest = _float_bounds(column)
    narrow = column.type == "FLOAT"
    kind: type[np.float32] | type[np.float64] = np.float32 if narrow else np.float64
    low, high = kind(lowest), kind(highest)
    if low < lowest:
        low = np.nextafter(low, kind(np.inf))
    if high > highest:
        high = np.nextafter(high, kind(-np.inf))
    if not (isfinite(low) and isfinite(high)) or low > high:
        raise NoText(f"no value of {column.name} keeps its rules")

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        # Halves first: the distance between two finite doubles may be none.
        shares = rng.random(count)
        values = (float(low) * (1.0 - shares) + float(high) * shares).astype(kind)
        return pa.array(np.clip(values, low, high))

    return draw


def _float_bounds(column: Column) -> tuple[float, float]:
    low = high = None
    for rule in column.rules:
        if isinstance(rule.argument, bool) or not isinstance(rule.argument, int | float | Decimal):
            continue
        bound = float(rule.argument)
        match rule.name:
            case "ge" | "gt":
                bound = bound if rule.name == "ge" else float(np.nextafter(bound, np.inf))
                low = bound if low is None else max(low, bound)
            case "le" | "lt":
                bound = bound if rule.name == "le" else float(np.nextafter(bound, -np.inf))
                high = bound if high is None else min(high, bound)
    if low is None:
        low = 0.0 if high is None or high > 0 else high - SPAN
    return low, high if high is not None else max(low + SPAN, low)
