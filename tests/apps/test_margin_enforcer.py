"""The ladder outside the pipeline: repeats, reorders, crashes and rivals lead to each action exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.apps.margin.enforcer import Enforcer
from penstock.apps.margin.ladder import STATES, Action
from penstock.apps.margin.ladder_item import Item, action_said, item_from, item_text
from penstock.apps.margin.ladder_store import Outlet, SqliteLadder, Store

NOON = datetime(2026, 1, 5, 12)
GROSS = Decimal(10000)
NUMBERS = count()


def row(account: str, epoch: int, excess: str | None, minute: int, *, stale: bool = False) -> dict[str, Any]:
    """A change record of margin_calculations."""
    return {
        "account_id": account,
        "cash": "-6500.0000",
        "lmv": "10000.0000",
        "smv": "0.0000",
        "gross": str(GROSS),
        "excess": excess,
        "requirement": None if excess is None else "2500.0000",
        "sale_needed": "0.0000",
        "worst_equity": None if excess is None else "1000.0000",
        "stale": stale,
        "as_of": (NOON + timedelta(minutes=minute)).isoformat(),
        "_op": "+U" if epoch else "+I",
        "_epoch": epoch,
        "_seq": epoch % 3,
        "_correction": False,
    }


def origin(offset: int) -> dict[str, object]:
    return {"topic": "margin_calculations", "partition": 0, "offset": offset}


class Crash(Exception):
    """The process is gone."""


@dataclass
class Machine:
    """A store and an outlet that stop working after some calls."""

    store: Store
    outlet: Outlet
    calls_left: int | None = None
    said: list[Action] = field(default_factory=list)

    def _call(self) -> None:
        if self.calls_left == 0:
            raise Crash
        if self.calls_left is not None:
            self.calls_left -= 1

    def load(self, account_id: str) -> Item | None:
        self._call()
        return self.store.load(account_id)

    def save(self, item: Item, expected: int) -> bool:
        self._call()
        done = self.store.save(item, expected)
        self._call()
        return done

    def due(self, now: datetime) -> list[str]:
        self._call()
        return self.store.due(now)

    def send(self, action: Action) -> bool:
        self._call()
        self.said.append(action)
        done = self.outlet.send(action)
        self._call()
        return done


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLadder]:
    found = SqliteLadder(tmp_path_factory.mktemp("ladder") / "ladder.sqlite")
    yield found
    found.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[SqliteLadder]:
    found = SqliteLadder(tmp_path / "fresh.sqlite")
    yield found
    found.close()


EXCESS = st.sampled_from(["4000", "499", "-1", "-1250.0001", None])
ROWS = st.lists(st.tuples(EXCESS, st.sampled_from([0, 1, 20, 40]), st.booleans()), min_size=1, max_size=10)
# for each delivery: which row (of those around it), and after how many calls the process is killed
DELIVERIES = st.lists(st.tuples(st.integers(-3, 3), st.one_of(st.none(), st.integers(0, 8))), max_size=25)


@given(rows=ROWS, deliveries=DELIVERIES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_action_comes_out_once(
    ladder: SqliteLadder, rows: list[tuple[str | None, int, bool]], deliveries: list[tuple[int, int | None]]
) -> None:
    account = f"A{next(NUMBERS)}"
    records, minute = [], 0
    for epoch, (excess, minutes, stale) in enumerate(rows):
        minute += minutes
        records.append(row(account, epoch, excess, minute, stale=stale))
    said: list[Action] = []
    place, taken = 0, [0]
    for step, kill in [*deliveries, *((1, None) for _ in records)]:
        # a delivery never skips a row that was not acknowledged: the log gives it again
        place = min(max(place + step, 0), taken[-1], len(records) - 1)
        machine = Machine(ladder, ladder, kill)
        try:
            Enforcer(machine, machine).take(records[place], origin(place))
        except Crash:
            pass
        else:
            taken.append(max(taken[-1], place + 1))
        said += machine.said
    for offset, record in enumerate(records):
        Enforcer(ladder, ladder).take(record, origin(offset))
    undisturbed = _undisturbed(account, records)
    kept = [action for action in ladder.actions() if action["account_id"] == account]
    assert [action["action_id"] for action in kept] == [action.action_id for action in undisturbed]
    assert {action.action_id for action in said} <= {action.action_id for action in undisturbed}
    assert {repr(action_said(action)) for action in said} <= {repr(action_said(action)) for action in undisturbed}
    raised = [(a["episode"], a["state"]) for a in kept if STATES.index(a["state"]) > STATES.index(a["previous_state"])]
    assert len(set(raised)) == len(raised)
    assert [a["previous_state"] for a in kept] == ["ACTIVE", *(a["state"] for a in kept)][:-1]


def _undisturbed(account: str, records: list[dict[str, Any]]) -> list[Action]:
    """The items alone, in a dictionary, each row once and in order."""
    item: Item | None = None

    class Plain:
        def load(self, account_id: str) -> Item | None:
            return item

        def save(self, new: Item, expected: int) -> bool:
            nonlocal item
            item = new
            return True

        def due(self, now: datetime) -> list[str]:
            return []

        def send(self, action: Action) -> bool:
            sent.append(action)
            return True

    sent: list[Action] = []
    enforcer = Enforcer(Plain(), Plain())
    for offset, record in enumerate(records):
        enforcer.take(record, origin(offset))
    return sent


@given(rows=ROWS, order=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_old_rows_lead_to_nothing(ladder: SqliteLadder, rows: list[tuple[str | None, int, bool]], order: Any) -> None:
    account = f"R{next(NUMBERS)}"
    records = [row(account, epoch, excess, epoch, stale=stale) for epoch, (excess, _, stale) in enumerate(rows)]
    shuffled = [(n, record) for n, record in enumerate(records)] * 2
    order.shuffle(shuffled)
    newest = [pair for n, pair in enumerate(shuffled) if all(pair[0] > other for other, _ in shuffled[:n])]
    for offset, record in shuffled:
        Enforcer(ladder, ladder).take(record, origin(offset))
    kept = [action for action in ladder.actions() if action["account_id"] == account]
    assert [a["state"] for a in kept] == [a.state for a in _undisturbed(account, [record for _, record in newest])]


def test_of_two_rivals_one_is_first_and_both_have_its_action(ladder: SqliteLadder) -> None:
    class Slow:
        """Between reading and writing, somebody else takes the same row."""

        def __init__(self) -> None:
            self.rival = True

        def load(self, account_id: str) -> Item | None:
            found = ladder.load(account_id)
            if self.rival:
                self.rival = False
                for epoch, excess in enumerate(("-1", "4000")):
                    Enforcer(ladder, ladder).take(row("RIVAL", epoch, excess, epoch), origin(epoch))
            return found

        def save(self, item: Item, expected: int) -> bool:
            return ladder.save(item, expected)

        def due(self, now: datetime) -> list[str]:
            return ladder.due(now)

    assert Enforcer(Slow(), ladder).take(row("RIVAL", 0, "-1", 0), origin(0)) == []
    assert [a["state"] for a in ladder.actions() if a["account_id"] == "RIVAL"] == ["MARGIN_CALL", "ACTIVE"]
    item = ladder.load("RIVAL")
    assert item is not None
    assert (item.standing.state, item.position) == ("ACTIVE", (1, 1))


@pytest.mark.parametrize("calls", range(8))
def test_killed_at_every_call_and_told_again(fresh: SqliteLadder, calls: int) -> None:
    machine = Machine(fresh, fresh, calls)
    with contextlib.suppress(Crash):
        Enforcer(machine, machine).take(row("A", 0, "-1", 0), origin(0))
    Enforcer(fresh, fresh).take(row("A", 0, "-1", 0), origin(0))
    assert [a["state"] for a in fresh.actions()] == ["MARGIN_CALL"]
    assert fresh.due(NOON) == []


def test_what_was_due_before_a_row_comes_before_it(fresh: SqliteLadder) -> None:
    for epoch, (excess, minute) in enumerate((("-1", 0), ("4000", 40))):
        Enforcer(fresh, fresh).take(row("A", epoch, excess, minute), origin(epoch))
    found = [(a["state"], a["at"]) for a in fresh.actions()]
    assert found == [
        ("MARGIN_CALL", "2026-01-05T12:00:00"),
        ("RESTRICTED", "2026-01-05T12:30:00"),
        ("ACTIVE", "2026-01-05T12:40:00"),
    ]


def test_grace_ends_without_a_row(fresh: SqliteLadder) -> None:
    enforcer = Enforcer(fresh, fresh)
    (called,) = enforcer.take(row("GRACE", 0, "-1", 0), origin(0))
    assert enforcer.wake(NOON + timedelta(minutes=29, seconds=59)) == []
    (restricted,) = enforcer.wake(NOON + timedelta(hours=9))
    assert (called.state, restricted.state, restricted.at) == (
        "MARGIN_CALL",
        "RESTRICTED",
        NOON + timedelta(minutes=30),
    )
    assert enforcer.wake(NOON + timedelta(hours=10)) == []
    assert called.episode == restricted.episode


def test_what_was_not_sent_is_sent_by_the_next_waking(fresh: SqliteLadder) -> None:
    machine = Machine(fresh, fresh, 3)  # load, save, and then it is gone
    with pytest.raises(Crash):
        Enforcer(machine, machine).take(row("UNSENT", 0, "-1", 0), origin(0))
    assert not [a for a in fresh.actions() if a["account_id"] == "UNSENT"]
    (action,) = Enforcer(fresh, fresh).wake(NOON)
    assert (action.account_id, action.state) == ("UNSENT", "MARGIN_CALL")
    assert fresh.due(NOON) == []


def test_rows_that_go_lead_to_nothing(ladder: SqliteLadder) -> None:
    gone = row("GONE", 0, "-1", 0) | {"_op": "-U"}
    assert Enforcer(ladder, ladder).take(gone, origin(0)) == []
    assert ladder.load("GONE") is None


@pytest.mark.parametrize("broken", [{"as_of": None}, {"excess": "many"}, {"_epoch": None}, {"stale": "false"}])
def test_a_broken_row_is_an_error_and_changes_nothing(ladder: SqliteLadder, broken: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, ArithmeticError)):
        Enforcer(ladder, ladder).take(row("BROKEN", 0, "-1", 0) | broken, origin(0))
    assert ladder.load("BROKEN") is None


def test_an_item_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    ladder = SqliteLadder(tmp_path / "one.sqlite")
    Enforcer(ladder, ladder).take(row("A", 0, "-1", 0), origin(0))
    item = ladder.load("A")
    ladder.close()
    assert item is not None
    assert item_from(item_text(item)) == item
    with pytest.raises(ValueError, match="format 2"):
        item_from(item_text(item).replace('"format":1', '"format":2'))
