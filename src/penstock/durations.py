"""Durations as people write them: `5 seconds`, `10s`, `1 day`, `250ms`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS_US = {
    "us": 1,
    "microsecond": 1,
    "ms": 1_000,
    "millisecond": 1_000,
    "s": 1_000_000,
    "sec": 1_000_000,
    "second": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "minute": 60_000_000,
    "h": 3_600_000_000,
    "hour": 3_600_000_000,
    "d": 86_400_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def parse_duration(value: str | timedelta) -> timedelta:
    """The duration that `value` says.

    Raises:
        ValueError: it is not a number with a unit, is negative, or has a unit without a fixed length (month, year).

    Example:
        >>> parse_duration("1 minute 30s")
        datetime.timedelta(seconds=90)
    """
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(f"{value} is negative")
        return value
    text = value.strip().lower()
    total_us = 0.0
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        unit = match[2] if match else ""
        factor = _UNITS_US.get(unit) or _UNITS_US.get(unit.removesuffix("s"))
        if match is None or factor is None:
            raise ValueError(f"{value!r} is not a duration")
        total_us += float(match[1]) * factor
        position = match.end()
    if not text:
        raise ValueError("an empty text is not a duration")
    return timedelta(microseconds=round(total_us))


def format_duration(value: timedelta) -> str:
    """The shortest exact way to write `value`, as `parse_duration` reads it."""
    us = round(value.total_seconds() * 1_000_000)
    for unit, factor in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        if us and us % factor == 0:
            return f"{us // factor}{unit}"
    return f"{us // 1_000}ms" if us % 1_000 == 0 else f"{us}us"
