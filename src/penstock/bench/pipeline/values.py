"""Values of one column, valid by construction: whole arrays at a time, of the Arrow type that its JSON text needs.

Texts, bytes and choices come from a pool of distinct values that is made once (slowly, from the pattern), UUIDs are
fresh. `column_sequence` never repeats a value: for keys, versions and `unique` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.bench.pipeline.numbers import (
    POOL,
    SPAN,
    Draw,
    array_of,
    counted_draw,
    float_draw,
    moment_number,
    number_draw,
    pool_draw,
    whole_numbers,
)
from penstock.bench.pipeline.texts import NoText, matching
from penstock.contract.patterns import UUID
from penstock.contract.schema import Column, Rule
from penstock.contract.types import DecimalType, IntegerType, ListType, MapType, PlainType, StructType, parse_type
from penstock.formats.types_sql import children

NULL_SHARE = 0.1
LEAST_SEQUENCE = 100
LONGEST_TEXT = 200
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)


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
    return counted_draw(numbers, array_of(column), start, stride)


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
            return number_draw(column)
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
            return float_draw(column)
        case "UUID":
            return _uuids
        case "BLOB":
            return pool_draw(_bytes_pool(column, rng))
        case "VARCHAR":
            return _uuids if _patterns(column) == [UUID] else pool_draw(_text_pool(column, POOL))
    return number_draw(column)


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


@lru_cache(maxsize=64)
def _matching_pool(pattern: str, count: int, shortest: int, longest: int) -> pa.Array:
    """Texts that follow from the pattern alone, for they take a while: a seed decides which of them comes when."""
    rng = np.random.default_rng(list(pattern.encode()))
    return pa.array(matching(pattern, rng, count, shortest=shortest, longest=longest))


def _text_pool(column: Column, count: int) -> pa.Array:
    shortest, longest = _lengths(column, LONGEST_TEXT)
    patterns = _patterns(column)
    if patterns:
        pool = _matching_pool(patterns[0], count, shortest, longest)
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
        return Decimal(moment_number(column.type, text)), Decimal(moment_number(column.type, str(argument)))
    return Decimal(str(value)), Decimal(str(argument))
