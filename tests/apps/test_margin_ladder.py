"""The ladder against its rules, over random histories (a model that keeps the whole history, not a state)."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.apps.margin.ladder import STATES, Action, Facts, Standing, climb

NOON = datetime(2026, 1, 5, 12)
GRACE = timedelta(minutes=30)
SOUND = Facts(Decimal(10000), Decimal(4000), Decimal(2500))
LOW = Facts(Decimal(10000), Decimal(499), Decimal(2500))
CALLED = Facts(Decimal(10000), Decimal(-1), Decimal(2500))
DEEP = Facts(Decimal(10000), Decimal("-1250.0001"), Decimal(2500), sale_needed=Decimal("5000.0004"))
FRAIL = Facts(Decimal(10000), Decimal(600), Decimal(2500), worst_equity=Decimal("-0.0001"))
UNPRICED = Facts(Decimal(10000), None, None, stale=True)
STALE = Facts(Decimal(10000), Decimal(4000), Decimal(2500), stale=True)
STALE_CALLED = Facts(Decimal(10000), Decimal(-1), Decimal(2500), stale=True)

EVENTS = st.lists(
    st.tuples(
        st.sampled_from([None, SOUND, LOW, CALLED, DEEP, FRAIL, UNPRICED, STALE, STALE_CALLED]),
        st.sampled_from([0, 1, 600, 1799, 1800, 4000]),
    ),
    max_size=25,
)


def run(events: list[tuple[Facts | None, int]]) -> tuple[Standing, list[Action], datetime]:
    """Fold events in order of time, waking as asked in between."""
    standing, actions, at, wake = Standing("A"), [], NOON, None
    for facts, seconds in events:
        later = at + timedelta(seconds=seconds)
        while wake is not None and wake <= later:
            climbed = climb(standing, None, wake)
            standing, at, wake = climbed.standing, wake, climbed.wake_at
            actions += [climbed.action] if climbed.action else []
        at = later
        climbed = climb(standing, facts, at)
        standing, wake = climbed.standing, climbed.wake_at
        actions += [climbed.action] if climbed.action else []
    return standing, actions, at


@given(EVENTS)
def test_actions_are_a_chain_without_a_repetition_in_an_episode(events: list[tuple[Facts | None, int]]) -> None:
    standing, actions, _ = run(events)
    states = ["ACTIVE", *(action.state for action in actions)]
    assert [action.previous_state for action in actions] == states[:-1]
    assert standing.state == states[-1]
    assert all(action.state != action.previous_state for action in actions)
    raised = [(a.episode, a.state) for a in actions if STATES.index(a.state) > STATES.index(a.previous_state)]
    assert len(set(raised)) == len(raised)
    assert len({action.action_id for action in actions}) == len(actions)


@given(EVENTS)
def test_the_state_is_what_the_whole_history_says(events: list[tuple[Facts | None, int]]) -> None:
    standing, _, _ = run(events)
    assert standing.state == expected_state([(facts, s) for facts, s in events])


def expected_state(events: list[tuple[Facts | None, int]]) -> str:
    """From the rules, over the history as a list of instants, one for each second that matters."""
    at, since, known, state = 0, None, None, "ACTIVE"
    for facts, seconds in events:
        for moment in sorted(
            {at + seconds} | ({since + 1800} if since is not None and at < since + 1800 <= at + seconds else set())
        ):
            if moment == at + seconds and facts is not None:
                last_chance = since is not None and moment >= since + 1800
                if last_chance and known is not None:
                    state = rung(known, since, moment, state)
                known = facts
            if known is None:
                continue
            breach = known.excess is None or known.excess < 0
            held = state != "ACTIVE" and known.stale
            if breach:
                since = moment if since is None else since
            elif not held:
                since = None
            state = rung(known, since, moment, state)
        at += seconds
    return state


def rung(known: Facts, since: int | None, now: int, state: str) -> str:
    breach = known.excess is None or known.excess < 0
    overdue = breach and since is not None and now - since >= 1800
    if known.excess is not None and known.excess < Decimal(-1250):
        found = "LIQUIDATION"
    elif (known.excess is not None and known.worst_equity is not None and known.worst_equity < 0) or overdue:
        found = "RESTRICTED"
    elif breach:
        found = "MARGIN_CALL"
    elif known.excess < 500:
        found = "WARNING"
    else:
        found = "ACTIVE"
    order = list(STATES)
    return state if order.index(found) < order.index(state) and (known.stale or known.excess is None) else found


@given(EVENTS, st.integers(1, 3))
def test_facts_that_are_told_again_change_nothing(events: list[tuple[Facts | None, int]], times: int) -> None:
    standing, _, at = run(events)
    for _ in range(times):
        again = climb(standing, standing.facts, at)
        assert (again.standing, again.action) == (standing, None)


@pytest.mark.parametrize("way_up", [[LOW], [CALLED], [CALLED, DEEP], [FRAIL], [UNPRICED], [LOW, CALLED, DEEP]])
def test_every_state_has_a_way_back(way_up: list[Facts]) -> None:
    standing, actions, _ = run([(facts, 60) for facts in way_up] + [(None, 4000), (STALE, 10)])
    assert standing.state != "ACTIVE"
    standing, actions, _ = run([(facts, 60) for facts in way_up] + [(None, 4000), (SOUND, 10)])
    assert standing.state == "ACTIVE"
    assert actions[-1].state == "ACTIVE"
    assert actions[-1].amount == 0


def test_grace_runs_on_event_time_and_from_the_first_breach() -> None:
    _, actions, _ = run([(CALLED, 0), (CALLED, 1799), (SOUND, 1)])
    assert [a.state for a in actions] == ["MARGIN_CALL", "RESTRICTED", "ACTIVE"]
    assert actions[1].at == NOON + GRACE
    _, actions, _ = run([(CALLED, 0), (SOUND, 1799), (CALLED, 1), (None, 1799)])
    assert [a.state for a in actions] == ["MARGIN_CALL", "ACTIVE", "MARGIN_CALL"]


def test_amounts() -> None:
    _, actions, _ = run([(LOW, 0), (CALLED, 1), (DEEP, 1), (SOUND, 1)])
    assert [(a.state, a.amount) for a in actions] == [
        ("WARNING", Decimal(1)),
        ("MARGIN_CALL", Decimal(1)),
        ("LIQUIDATION", Decimal("5000.0004")),
        ("ACTIVE", Decimal(0)),
    ]
    assert len({a.episode for a in actions}) == 1
