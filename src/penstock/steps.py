"""What a step's function gets and gives back (semantics B1).

The function is pure: `function(state, changes, timers) -> Step`. It is called for one key at a time, with changes in
order of (time, key, sequence) or with timers that are due, never both in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Change:
    """One change of the step's input: a row that came (`+I`) or went (`-D`), with all its columns.

    A row that changes is both: `-D` with what it was, at its old time, and `+I` with what it is. At one time and key,
    rows that go are before rows that come. What comes and goes within an epoch is not seen.

    Example:
        >>> Change("-D", datetime(2026, 1, 1), {"account": "A", "amount": 60}).row["amount"]
        60
    """

    op: Literal["+I", "-D"]
    time: datetime
    row: Mapping[str, object]


@dataclass(frozen=True)
class Timer:
    """A call at `at` (UTC, naive), once the watermark has passed it. One timer per (key, at, name)."""

    at: datetime
    name: str = ""


@dataclass(frozen=True)
class Step(Generic[S]):
    """What a call leads to: the key's new state (None forgets the key), rows to emit, timers to set.

    Timers that are not in `timers` stay as they are; `cancel` names those to drop.

    Example:
        >>> Step(state=3, rows=[{"account": "A", "n": 3}])
        Step(state=3, rows=[{'account': 'A', 'n': 3}], timers=(), cancel=())
    """

    state: S | None
    rows: Sequence[Mapping[str, object]] = field(default_factory=tuple)
    timers: Sequence[Timer] = ()
    cancel: Sequence[Timer] = ()
