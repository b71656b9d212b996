"""The ladder as a consumer of the topic `margin_calculations`, with its state in one SQLite file.

Offsets are written after the rows that they stand for, so a consumer that was killed reads some of them again, which
leads to nothing new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from penstock.apps.margin.enforcer import Enforcer
from penstock.apps.margin.ladder import Action, Limits
from penstock.apps.margin.ladder_store import SqliteLadder
from penstock.connectors.base import RawBatch, Source
from penstock.errors import DataError

MAX_ROWS, MAX_BYTES = 5_000, 8 << 20
WAIT_S = 1.0


def drain(source: Source, ladder: SqliteLadder, limits: Limits) -> Iterator[Action]:
    """The actions that the records which are there now lead to, and those that were due by the newest of them.

    Raises:
        DataError: PS-DATA-001 for a record that is none of `margin_calculations`; it is read again at the next start.
    """
    enforcer = Enforcer(ladder, ladder, limits)
    newest = datetime.min
    for partition in source.partitions():
        offset = ladder.offset(partition)
        offset = source.start(partition) if offset is None else offset
        while (batch := source.read(partition, offset, MAX_ROWS, MAX_BYTES)) is not None:
            assert isinstance(batch, RawBatch)
            for value, at in zip(batch.values.to_pylist(), batch.offsets.to_pylist(), strict=True):
                if value is not None:
                    time, actions = _take(enforcer, value, partition, at)
                    newest = max(newest, time)
                    yield from actions
            offset = batch.next_offset
            ladder.read_to(partition, offset)
    yield from enforcer.wake(newest)


def follow(source: Source, ladder: SqliteLadder, limits: Limits) -> Iterator[Action]:
    """The same for ever. What is due in silence comes by this machine's clock."""
    while True:
        yield from drain(source, ladder, limits)
        yield from Enforcer(ladder, ladder, limits).wake(datetime.now(UTC).replace(tzinfo=None))
        source.wait(WAIT_S)


def _take(enforcer: Enforcer, value: bytes, partition: int, offset: int) -> tuple[datetime, list[Action]]:
    try:
        record = json.loads(value)
        origin = {"topic": "margin_calculations", "partition": partition, "offset": offset}
        return datetime.fromisoformat(record["as_of"]), enforcer.take(record, origin)
    except (ValueError, KeyError, TypeError, ArithmeticError) as problem:
        raise DataError(
            "PS-DATA-001",
            "a record is none of margin_calculations",
            expected="a change of that view, in the format changelog",
            got=f"partition {partition} offset {offset}: {type(problem).__name__}: {problem}",
        ) from problem
