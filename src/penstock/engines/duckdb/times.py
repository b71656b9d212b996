"""Microseconds since 1970 (UTC) as SQL and as Python times."""

from __future__ import annotations

from datetime import datetime, timedelta

EPOCH = datetime(1970, 1, 1)


def from_us(us: int | None) -> str:
    """An SQL timestamp (NULL for none)."""
    return "NULL::TIMESTAMP" if us is None else f"make_timestamp({us})"


def to_datetime(us: int | None) -> datetime | None:
    """A naive datetime in UTC, None for none."""
    return None if us is None else EPOCH + timedelta(microseconds=us)
