"""The enforcement ladder: ACTIVE, WARNING, MARGIN_CALL, RESTRICTED, LIQUIDATION, as one pure function.

`climb(standing, facts, at)` is all of it: the account's standing so far, the newest margin row (None when only time has
passed), the event time of the call. It reads no clock, keeps nothing, and is the same code in the pipeline (as a step),
in a consumer of `margin_calculations` and in a Lambda handler. Invariants:

- The state follows from the facts and from how long the call has been open, so that nobody can be stuck on a rung.
- An episode is one way up: it begins when an account leaves a rung upwards after having come down (or from ACTIVE), and
  ends with the first step down. Within it a state is entered at most once, so no action is repeated.
- What is stale or unpriced never lets an account down: a step down needs numbers that can be trusted.
- Every id is the SHA-256 of what caused it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

State = Literal["ACTIVE", "WARNING", "MARGIN_CALL", "RESTRICTED", "LIQUIDATION"]
STATES: tuple[State, ...] = ("ACTIVE", "WARNING", "MARGIN_CALL", "RESTRICTED", "LIQUIDATION")
RULE_VERSION = "1"
FOUR_PLACES = Decimal("0.0001")


@dataclass(frozen=True)
class Limits:
    """The house rules of the ladder. warning_share: of gross; liquidation_share: of the requirement."""

    warning_share: Decimal = Decimal("0.05")
    grace: timedelta = timedelta(minutes=30)
    liquidation_share: Decimal = Decimal("0.5")


@dataclass(frozen=True)
class Facts:
    """What a margin row says of an account.

    excess, requirement: None while a position has no price. sale_needed: what has to be sold to cure a deficit.
    worst_equity: the least equity in any index scenario of at most 6% either way, None where there is none.
    stale: a price is missing or too old. causes: what the row was made of, for the action's chain of causes.
    """

    gross: Decimal
    excess: Decimal | None
    requirement: Decimal | None
    sale_needed: Decimal | None = None
    worst_equity: Decimal | None = None
    stale: bool = False
    limits: Limits = Limits()
    causes: str = ""


@dataclass(frozen=True)
class Standing:
    """Where an account stands. called_at: since when a call is open; episodes: how many have begun."""

    account_id: str
    state: State = "ACTIVE"
    episodes: int = 0
    rising: bool = False
    called_at: datetime | None = None
    facts: Facts | None = None


@dataclass(frozen=True)
class Action:
    """One step up or down the ladder, as the topic `enforcement` has it. amount: money, 0 for a step down."""

    action_id: str
    account_id: str
    episode: str
    previous_state: State
    state: State
    reason: str
    amount: Decimal
    at: datetime
    causes: str


@dataclass(frozen=True)
class Climbed:
    """What a call of the ladder leads to. wake_at: when it must be called again though nothing new is known."""

    standing: Standing
    action: Action | None = None
    wake_at: datetime | None = None


def climb(standing: Standing, facts: Facts | None, at: datetime) -> Climbed:
    """The account's standing after its newest facts (or none: time has passed), the action that this is, if any.

    Example:
        >>> noon = datetime(2026, 1, 5, 12)
        >>> row = Facts(Decimal(10000), Decimal(-500), Decimal(2500), sale_needed=Decimal(2000))
        >>> climbed = climb(Standing("A"), row, noon)
        >>> climbed.action.state, climbed.action.reason, climbed.action.amount, climbed.wake_at
        ('MARGIN_CALL', 'excess below zero', Decimal('500'), datetime.datetime(2026, 1, 5, 12, 30))
        >>> climb(climbed.standing, None, climbed.wake_at).action.state
        'RESTRICTED'
    """
    known = facts or standing.facts
    if known is None:
        return Climbed(standing)
    breached = known.excess is None or known.excess < 0
    called_at = (standing.called_at or at) if breached else None
    state, reason = _wanted(known, called_at, at)
    if STATES.index(state) < STATES.index(standing.state) and (known.stale or known.excess is None):
        # numbers that cannot be trusted let nobody down
        state, called_at = standing.state, standing.called_at or called_at
    wake_at = called_at + known.limits.grace if called_at is not None else None
    if wake_at is not None and wake_at <= at:
        wake_at = None
    after = replace(standing, facts=known, called_at=called_at)
    if state == standing.state:
        return Climbed(after, None, wake_at)
    up = STATES.index(state) > STATES.index(standing.state)
    episodes = standing.episodes + (1 if up and not standing.rising else 0)
    after = replace(after, state=state, episodes=episodes, rising=up)
    return Climbed(after, _action(standing, after, known, reason, at), wake_at)


def _wanted(facts: Facts, called_at: datetime | None, at: datetime) -> tuple[State, str]:
    """The rung that the facts ask for, and why."""
    limits = facts.limits
    if facts.excess is not None and facts.requirement is not None:
        if -facts.excess > facts.requirement * limits.liquidation_share:
            return "LIQUIDATION", "deficit above the liquidation share of the requirement"
        if facts.worst_equity is not None and facts.worst_equity < 0:
            return "RESTRICTED", "equity below zero under an index shock of 6% or less"
    if called_at is not None and at >= called_at + limits.grace:
        return "RESTRICTED", "call open beyond the grace period"
    if facts.excess is None:
        return "MARGIN_CALL", "a position has no price"
    if facts.excess < 0:
        return "MARGIN_CALL", "excess below zero"
    if facts.excess < facts.gross * limits.warning_share:
        return "WARNING", "excess below the warning share of gross"
    return "ACTIVE", "excess restored"


def _action(before: Standing, after: Standing, facts: Facts, reason: str, at: datetime) -> Action:
    """The record of one step; its ids follow from its causes alone."""
    episode = digest(after.account_id, after.episodes)
    chain = json.dumps(
        {
            "account_id": after.account_id,
            "at": at.isoformat(),
            "episode": after.episodes,
            "from": before.state,
            "inputs": facts.causes,
            "rule_version": RULE_VERSION,
            "to": after.state,
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    amount = Decimal(0)
    if after.rising:
        match after.state:
            case "WARNING":
                amount = facts.gross * facts.limits.warning_share - (facts.excess or Decimal(0))
            case "LIQUIDATION":
                amount = facts.sale_needed or Decimal(0)
            case _:
                amount = max(-(facts.excess or Decimal(0)), Decimal(0))
    return Action(digest(chain), after.account_id, episode, before.state, after.state, reason, amount, at, chain)


def digest(*causes: object) -> str:
    """The SHA-256 of causes, in hex.

    Example:
        >>> digest("A", 1) == digest("A", 1) != digest("A", 2)
        True
    """
    text = json.dumps([str(cause) for cause in causes], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
