"""Values of one column, valid by construction: whole arrays at a time, of the Arrow type that its JSON text needs.

Integers, decimals, times: uniform over what the rules leave; where a bound is missing, a thousand or so values beside
the other one, so that groups and keys meet. Texts, bytes and choices come from a pool of distinct values that is made
once (slowly, from the pattern), UUIDs are fresh. `sequence` never repeats a value: for keys and `unique` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import ceil, floor, isfinite, lcm

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.bench.pipeline.texts import NoText, matching
from penstock.contract.patterns import UUID
from penstock.contract.schema import Column, Rule
from penstock.contract.types import DecimalType, IntegerType, ListType, MapType, PlainType, StructType, parse_type
from penstock.formats.types_sql import children

POOL = 500
SPAN = 1_000
NULL_SHARE = 0.1
LEAST_SEQUENCE = 100
LONGEST_TEXT = 200
EPOCH_US = 1_767_225_600_000_000  # 2026-01-01: where times that follow nothing begin
DAY_US = 86_400_000_000
MONTH_US = 30 * DAY_US
_INT64 = (-(1 << 63), (1 << 63) - 1)
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)

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


def column_draw(column: Column, rng: np.random.Generator) -> Draw:
    """How to draw values of a column; nullable columns are null in a tenth of the rows.

    Raises:
        NoText: no value keeps all rules of the column.
    """
    draw = _plain_draw(column, rng)
    return _with_nulls(draw) if column.nullable else draw


def present_draw(column: Column, rng: np.random.Generator) -> Draw:
    """The same without nulls."""
    return _plain_draw(column, rng)


def column_sequence(column: Column, rng: np.random.Generator, start: int, stride: int) -> Draw | None:
    """Values of which none comes twice: number `start`, `start + stride`, ... None where the column has too few."""
    kind = parse_type(column.type)
    one_of = any(rule.name == "one_of" for rule in column.rules)
    if one_of or isinstance(kind, ListType | MapType | StructType):
        return None
    if column.type == "UUID" or (column.type == "VARCHAR" and _patterns(column) == [UUID]):
        return _uuids
    if column.type == "VARCHAR":
        return _text_sequence(column, rng, start, stride)
    numbers = whole_numbers(column, wide=True)
    if numbers is None or numbers.count < LEAST_SEQUENCE:
        return None
    return _counted(numbers, _array_of(column), start, stride)


def pool_draw(pool: pa.Array) -> Draw:
    """Draws from given values, each as often."""

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        return pool.take(pa.array(rng.integers(0, len(pool), count)))

    return draw


def _with_nulls(draw: Draw) -> Draw:
    def with_nulls(rng: np.random.Generator, count: int) -> pa.Array:
        values = draw(rng, count)
        return pc.if_else(pa.array(rng.random(count) < NULL_SHARE), pa.scalar(None, values.type), values)

    return with_nulls


def _plain_draw(column: Column, rng: np.random.Generator) -> Draw:
    kind = parse_type(column.type)
    choices = _choices(column)
    if choices is not None:
        return pool_draw(choices)
    match kind:
        case IntegerType() | DecimalType():
            return _number_draw(column)
        case ListType():
            return _list_draw(column, rng)
        case MapType():
            return _map_draw(column, rng)
        case StructType():
            return _struct_draw(column, rng)
        case PlainType():
            return _scalar_draw(column, rng)


def _scalar_draw(column: Column, rng: np.random.Generator) -> Draw:
    match column.type:
        case "BOOLEAN":
            return lambda rng, count: pa.array(rng.random(count) < 0.5)
        case "DOUBLE" | "FLOAT":
            return _float_draw(column)
        case "UUID":
            return _uuids
        case "BLOB":
            return pool_draw(_bytes_pool(column, rng))
        case "VARCHAR":
            return _uuids if _patterns(column) == [UUID] else pool_draw(_text_pool(column, rng, POOL))
    return _number_draw(column)


# -- numbers and times -------------------------------------------------------------------------------------------------


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
        return Decimal(_moment_number(column.type, argument))
    if isinstance(argument, int | float | Decimal) and not isinstance(argument, bool):
        value = Decimal(str(argument))
        return value.scaleb(scale) if value.is_finite() else None
    return None


def _moment_number(type_name: str, text: str) -> int:
    match type_name:
        case "DATE":
            return date.fromisoformat(text).toordinal() - 719_163
        case "TIME":
            moment = time.fromisoformat(text)
            return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=None) - (at.utcoffset() or at - at)
    return round((at - datetime(1970, 1, 1)).total_seconds()) * 1_000_000 + at.microsecond


def _number_draw(column: Column) -> Draw:
    numbers = whole_numbers(column)
    if numbers is None:
        raise NoText(f"{column.name}: values of type {column.type} cannot be generated")
    make = _array_of(column)
    lowest, step, count = numbers.lowest, numbers.step, min(numbers.count, 1 << 62)
    if _INT64[0] <= lowest and lowest + count * step <= _INT64[1]:
        return lambda rng, rows: make(lowest + rng.integers(0, count, rows) * step)
    exact = [lowest + step * (count * n // POOL) for n in range(POOL)]
    return pool_draw(make(np.array(sorted(set(exact)), object)))


def _counted(numbers: Numbers, make: Callable[[NDArray[np.int64]], pa.Array], start: int, stride: int) -> Draw:
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


def _array_of(column: Column) -> Callable[[NDArray[np.int64]], pa.Array]:
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


def _float_draw(column: Column) -> Draw:
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


# -- texts and bytes ---------------------------------------------------------------------------------------------------


def _patterns(column: Column) -> list[str]:
    return [str(rule.argument) for rule in column.rules if rule.name == "pattern"]


def _lengths(column: Column, usual: int) -> tuple[int, int]:
    shortest, longest = 0, -1
    for rule in column.rules:
        if rule.name == "min_length":
            shortest = max(shortest, int(str(rule.argument)))
        elif rule.name == "max_length":
            longest = int(str(rule.argument)) if longest < 0 else min(longest, int(str(rule.argument)))
    longest = longest if longest >= 0 else shortest + usual
    if shortest > longest:
        raise NoText(f"no length of {column.name} keeps its rules")
    return shortest, longest


def _choices(column: Column) -> pa.Array | None:
    """The values of `one_of` that keep the other rules; None without such a rule."""
    given = [rule.argument for rule in column.rules if isinstance(rule.argument, tuple)]
    if not given:
        return None
    kept = [value for value in given[0] if all(holds(column, rule, value) for rule in column.rules)]
    if not kept:
        raise NoText(f"no value of {column.name} keeps its rules")
    return pa.array(kept)


def _text_pool(column: Column, rng: np.random.Generator, count: int) -> pa.Array:
    shortest, longest = _lengths(column, LONGEST_TEXT)
    patterns = _patterns(column)
    if patterns:
        texts = matching(patterns[0], rng, count, shortest=shortest, longest=longest)
        pool = pa.array(texts)
        for pattern in patterns[1:]:
            pool = pool.filter(pc.match_substring_regex(pool, pattern))
        if not len(pool):
            raise NoText(f"no text that matches all patterns of {column.name} was found")
        return pool
    return pa.array([_word(number, shortest, longest) for number in range(min(SPAN, _words(longest)))])


def _words(longest: int) -> int:
    """How many different texts of up to so many characters there are to choose from."""
    return 1 if longest == 0 else 26 if longest == 1 else 676 if longest < 4 else 1 << 62


def _word(number: int, shortest: int, longest: int) -> str:
    """The text of a number: a letter or two, then digits if there is room, filled up to the length."""
    if longest < 4:
        letters = chr(97 + number // 26 % 26) + chr(97 + number % 26)
        text = letters[-min(longest, 2) :] if longest else ""
    else:
        text = f"w{number}"
        if len(text) > longest:
            raise NoText(f"there are not so many different texts of {longest} characters")
    return text + "x" * (shortest - len(text))


def _text_sequence(column: Column, rng: np.random.Generator, start: int, stride: int) -> Draw | None:
    shortest, longest = _lengths(column, LONGEST_TEXT)
    patterns = _patterns(column)
    if not patterns and longest >= 12:
        position = start

        def words(rng: np.random.Generator, count: int) -> pa.Array:
            nonlocal position
            texts = [_word(position + n * stride, shortest, longest) for n in range(count)]
            position += count * stride
            return pa.array(texts)

        return words
    if not patterns or stride > 1:
        return None
    seen: set[str] = set()

    def unseen(rng: np.random.Generator, count: int) -> pa.Array:
        found: list[str] = []
        for _ in range(20):
            for text in matching(patterns[0], rng, count, shortest=shortest, longest=longest):
                if text not in seen and len(found) < count:
                    seen.add(text)
                    found.append(text)
            if len(found) == count:
                return pa.array(found)
        raise NoText(f"there are only about {len(seen)} different texts of {column.name}")

    return unseen


def _uuids(rng: np.random.Generator, count: int) -> pa.Array:
    """Fresh UUIDs as text, version 4."""
    raw = rng.integers(0, 256, (count, 16), np.uint8)
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x40
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    text = np.full((count, 36), ord("-"), np.uint8)
    for start, column, length in ((0, 0, 4), (4, 9, 2), (6, 14, 2), (8, 19, 2), (10, 24, 6)):
        text[:, column : column + 2 * length] = _HEX[raw[:, start : start + length]].reshape(count, 2 * length)
    offsets = np.arange(count + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))


def _bytes_pool(column: Column, rng: np.random.Generator) -> pa.Array:
    shortest, longest = _lengths(column, 16)
    longest = min(longest, shortest + 64)
    return pa.array([rng.bytes(int(rng.integers(shortest, longest + 1))) for _ in range(SPAN)], pa.binary())


# -- nested ------------------------------------------------------------------------------------------------------------


def _sizes(column: Column) -> Callable[[np.random.Generator, int], NDArray[np.int32]]:
    shortest, longest = _lengths(column, 3)
    longest = min(longest, shortest + 3)

    def offsets(rng: np.random.Generator, count: int) -> NDArray[np.int32]:
        sizes = rng.integers(shortest, longest + 1, count)
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

    return offsets


def _list_draw(column: Column, rng: np.random.Generator) -> Draw:
    inner, sizes = column_draw(children(column)[0], rng), _sizes(column)

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        offsets = sizes(rng, count)
        return pa.ListArray.from_arrays(pa.array(offsets), inner(rng, int(offsets[-1])))

    return draw


def _map_draw(column: Column, rng: np.random.Generator) -> Draw:
    inner, sizes = column_draw(children(column)[0], rng), _sizes(column)

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        offsets = sizes(rng, count)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
        keys = pa.array([f"k{number}" for number in within.tolist()], pa.string())
        return pa.MapArray.from_arrays(pa.array(offsets), keys, inner(rng, int(offsets[-1])))

    return draw


def _struct_draw(column: Column, rng: np.random.Generator) -> Draw:
    inner = children(column)
    draws = [column_draw(child, rng) for child in inner]

    def draw(rng: np.random.Generator, count: int) -> pa.Array:
        return pa.StructArray.from_arrays([each(rng, count) for each in draws], [child.name for child in inner])

    return draw


# -- rules -------------------------------------------------------------------------------------------------------------


def holds(column: Column, rule: Rule, value: object) -> bool:
    """Whether a value (of Python, times as datetime) keeps a rule of its column."""
    argument = rule.argument
    if isinstance(argument, tuple):
        return value in argument
    match rule.name:
        case "min_length":
            return len(value) >= int(str(argument))  # type: ignore[arg-type]
        case "max_length":
            return len(value) <= int(str(argument))  # type: ignore[arg-type]
        case "pattern":
            return bool(pc.match_substring_regex(pa.array([str(value)]), str(argument))[0].as_py())
        case "multiple_of":
            return Decimal(str(value)) % Decimal(str(argument)) == 0
    left, right = _comparable(column, value, argument)
    match rule.name:
        case "ge":
            return left >= right
        case "gt":
            return left > right
        case "le":
            return left <= right
    return left < right


def _comparable(column: Column, value: object, argument: object) -> tuple[Decimal, Decimal]:
    if column.type in ("TIMESTAMP", "DATE", "TIME"):
        text = value.isoformat() if isinstance(value, datetime | date | time) else str(value)
        return Decimal(_moment_number(column.type, text)), Decimal(_moment_number(column.type, str(argument)))
    return Decimal(str(value)), Decimal(str(argument))
