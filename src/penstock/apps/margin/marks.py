"""What depends on an account's past: SMA and the day's largest deficit, sampled on a grid of event time.

An account is looked at once a minute, when the watermark passes the mark, and only if something has changed since the
last one; so neither figure depends on how epochs are cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import cast

from penstock.contract.model import Contract, Field
from penstock.steps import Change, Step, Timer

GRID = timedelta(minutes=1)
DAY = timedelta(days=1)


class Mark(Contract):
    """An account at one mark of the grid."""

    account_id: str
    mark: datetime
    sma: Decimal = Field(max_digits=38, decimal_places=4)
    intraday_deficit: Decimal = Field(max_digits=38, decimal_places=4)


@dataclass
class Sampled:
    """An account between two marks.

    deficit, initial_excess, flow: as the newest row has them (None: a position has no price). sma, day_deficit: as of
    the last mark; flow_marked: the flow that they hold; marked_at: when that was.
    """

    account_id: str
    deficit: Decimal | None = None
    initial_excess: Decimal | None = None
    flow: Decimal = Decimal(0)
    sma: Decimal | None = None
    day_deficit: Decimal = Decimal(0)
    flow_marked: Decimal = Decimal(0)
    marked_at: datetime | None = None


def sample(state: Sampled | None, changes: Sequence[Change], timers: Sequence[Timer]) -> Step[Sampled]:
    """Take what has changed, or a mark that has come."""
    if changes:
        newest = [change for change in changes if change.op == "+I"]
        if not newest:
            return Step(state)
        row = newest[-1].row
        state = state or Sampled(str(row["account_id"]))
        state = Sampled(
            state.account_id,
            cast("Decimal | None", row["deficit"]),
            cast("Decimal | None", row["initial_excess"]),
            cast("Decimal", row["flow"]),
            state.sma,
            state.day_deficit,
            state.flow_marked,
            state.marked_at,
        )
        return Step(state, timers=[Timer(next_mark(newest[-1].time))])
    if state is None:
        return Step(state)
    return _mark(state, max(timer.at for timer in timers))


def _mark(state: Sampled, mark: datetime) -> Step[Sampled]:
    new_day = state.marked_at is None or state.marked_at.date() != mark.date()
    before = Decimal(0) if new_day else state.day_deficit
    deficit = max(before, state.deficit or Decimal(0))
    carried = [] if state.sma is None else [state.sma + state.flow - state.flow_marked]
    sma = max([*carried, *([] if state.initial_excess is None else [state.initial_excess])], default=Decimal(0))
    after = Sampled(state.account_id, state.deficit, state.initial_excess, state.flow, sma, deficit, state.flow, mark)
    rows: list[Mapping[str, object]] = []
    if sma != state.sma or deficit != state.day_deficit:
        rows = [{"account_id": state.account_id, "mark": mark, "sma": sma, "intraday_deficit": deficit}]
    # a day's deficit ends with the day, also where nothing happens any more
    midnight = datetime(mark.year, mark.month, mark.day) + DAY
    return Step(after, rows, [Timer(midnight)] if deficit > 0 else [])


def next_mark(at: datetime) -> datetime:
    """The first mark of the grid after a time.

    Example:
        >>> next_mark(datetime(2026, 1, 5, 12, 0, 0)), next_mark(datetime(2026, 1, 5, 12, 0, 59, 1))
        (datetime.datetime(2026, 1, 5, 12, 1), datetime.datetime(2026, 1, 5, 12, 1))
    """
    start = datetime(at.year, at.month, at.day, at.hour, at.minute)
    return start + GRID
