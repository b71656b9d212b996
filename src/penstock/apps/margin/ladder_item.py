"""What a store keeps of an account that the ladder runs for outside the pipeline, and its text.

State, position and the actions that are not known to be sent are one item, written by one conditional write: there is
no moment in which a step is taken and its action can be lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from penstock.apps.margin.ladder import FOUR_PLACES, STATES, Action, Facts, Limits, Standing, State, climb

VERSION = 1


@dataclass(frozen=True)
class Item:
    """position: (epoch, sequence) of the newest margin row taken; version: how often it was written.

    wake_at: when the ladder must be called again though no row comes; outbox: actions, oldest first.
    """

    standing: Standing
    position: tuple[int, int] = (-1, -1)
    version: int = 0
    wake_at: datetime | None = None
    outbox: tuple[Action, ...] = ()

    def woken(self, now: datetime) -> Item:
        """After the time `now`, if the account was to be woken by then."""
        if self.wake_at is None or self.wake_at > now:
            return self
        return self._climbed(None, self.wake_at)

    def after(self, facts: Facts, at: datetime, position: tuple[int, int]) -> Item:
        """After one more margin row: what was due before it comes first."""
        woken = self.woken(at)
        return replace(woken._climbed(facts, at), position=position)

    def sent(self) -> Item:
        return replace(self, outbox=())

    def _climbed(self, facts: Facts | None, at: datetime) -> Item:
        climbed = climb(self.standing, facts, at)
        outbox = (*self.outbox, climbed.action) if climbed.action is not None else self.outbox
        return replace(self, standing=climbed.standing, wake_at=climbed.wake_at, outbox=outbox)


def item_text(item: Item) -> str:
    """The item as JSON; decimals are text, durations seconds.

    Example:
        >>> item_from(item_text(Item(Standing("A")))) == Item(Standing("A"))
        True
    """
    standing = item.standing
    facts = standing.facts
    said = {
        "format": VERSION,
        "account_id": standing.account_id,
        "state": standing.state,
        "episodes": standing.episodes,
        "rising": standing.rising,
        "called_at": _time_text(standing.called_at),
        "facts": None if facts is None else _facts_said(facts),
        "position": list(item.position),
        "version": item.version,
        "wake_at": _time_text(item.wake_at),
        "outbox": [action_said(action) for action in item.outbox],
    }
    return json.dumps(said, separators=(",", ":"), sort_keys=True)


def item_from(text: str) -> Item:
    """The item of a text. Raises ValueError where it is of a newer format."""
    said = json.loads(text)
    if said["format"] != VERSION:
        raise ValueError(f"a ladder item of format {said['format']}: this software knows {VERSION}")
    standing = Standing(
        said["account_id"],
        _state(said["state"]),
        said["episodes"],
        said["rising"],
        _time(said["called_at"]),
        None if said["facts"] is None else _facts(said["facts"]),
    )
    outbox = tuple(_action(action) for action in said["outbox"])
    epoch, sequence = said["position"]
    return Item(standing, (epoch, sequence), said["version"], _time(said["wake_at"]), outbox)


def action_said(action: Action) -> dict[str, str]:
    """An action as the topic `enforcement` has it; its amount rounded as the column is."""
    amount = action.amount.quantize(FOUR_PLACES, ROUND_HALF_UP)
    return vars(action) | {"amount": str(amount), "at": action.at.isoformat()}


def _action(said: Mapping[str, Any]) -> Action:
    return Action(**{**said, "amount": Decimal(said["amount"]), "at": datetime.fromisoformat(said["at"])})


def _facts_said(facts: Facts) -> dict[str, object]:
    names = ("gross", "excess", "requirement", "sale_needed", "worst_equity")
    return {
        **{name: _decimal_text(getattr(facts, name)) for name in names},
        "stale": facts.stale,
        "causes": facts.causes,
        "warning_share": str(facts.limits.warning_share),
        "grace_s": facts.limits.grace.total_seconds(),
        "liquidation_share": str(facts.limits.liquidation_share),
    }


def _facts(said: Mapping[str, Any]) -> Facts:
    limits = Limits(
        Decimal(said["warning_share"]), timedelta(seconds=said["grace_s"]), Decimal(said["liquidation_share"])
    )
    return Facts(
        Decimal(said["gross"]),
        decimal_or_none(said["excess"]),
        decimal_or_none(said["requirement"]),
        decimal_or_none(said["sale_needed"]),
        decimal_or_none(said["worst_equity"]),
        said["stale"],
        limits,
        said["causes"],
    )


def decimal_or_none(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _decimal_text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _state(text: str) -> State:
    if text not in STATES:
        raise ValueError(f"{text} is no state of the ladder")
    return text


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _time_text(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
