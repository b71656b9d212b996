"""The ladder as a step of the pipeline: margin rows in, actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import cast

from penstock.apps.margin.ladder import Facts, Limits, Standing, climb
from penstock.contract.model import Contract, Field
from penstock.steps import Change, Step, Timer


class Enforcement(Contract):
    """One step up or down the ladder. at: event time. causes: JSON, what led to it."""

    action_id: str
    account_id: str
    episode: str
    previous_state: str
    state: str
    reason: str
    amount: Decimal = Field(max_digits=38, decimal_places=4)
    at: datetime
    causes: str


def enforce(standing: Standing | None, changes: Sequence[Change], timers: Sequence[Timer]) -> Step[Standing]:
    """Take an account up or down the ladder, by its newest row or because time has passed."""
    rows: list[Mapping[str, object]] = []
    alarms: list[Timer] = []
    events: list[tuple[datetime, Facts | None, str]] = [
        (c.time, facts_of(c.row), str(c.row["account_id"])) for c in changes if c.op == "+I"
    ]
    events += [(timer.at, None, standing.account_id) for timer in timers if standing is not None]
    for at, facts, account in events:
        climbed = climb(standing or Standing(account), facts, at)
        standing = climbed.standing
        if climbed.action is not None:
            rows.append(asdict(climbed.action))
        if climbed.wake_at is not None:
            alarms.append(Timer(climbed.wake_at, "grace"))
    return Step(standing, rows, alarms)


def facts_of(row: Mapping[str, object]) -> Facts:
    """What a row of the view `standings` says."""

    def number(name: str) -> Decimal | None:
        return cast("Decimal | None", row[name])

    limits = Limits(
        cast("Decimal", row["warning_share"]),
        timedelta(minutes=float(cast("Decimal", row["grace_minutes"]))),
        cast("Decimal", row["liquidation_share"]),
    )
    return Facts(
        cast("Decimal", row["gross"]),
        number("excess"),
        number("requirement"),
        number("sale_needed"),
        number("worst_equity"),
        bool(row["stale"]),
        limits,
        str(row["causes"]),
    )
