"""The ladder's store in DynamoDB, against DynamoDB Local: the promises of a store, and the handler on top."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import boto3
import pytest

from penstock.apps.margin.dynamodb_store import DynamoLadder
from penstock.apps.margin.enforcer import Enforcer
from penstock.apps.margin.ladder import Standing
from penstock.apps.margin.ladder_item import Item
from penstock.apps.margin.lambda_handler import handler
from tests.apps.dynamodb_local import dynamodb
from tests.apps.test_margin_enforcer import Crash, Machine, origin, row
from tests.apps.test_margin_lambda import event, message

pytestmark = pytest.mark.slow
NOON = datetime(2026, 1, 5, 12)
NUMBERS = count()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with dynamodb() as url, pytest.MonkeyPatch.context() as patch:
        settings = {
            "REGION": "eu-west-1",
            "DEFAULT_REGION": "eu-west-1",
            "ACCESS_KEY_ID": "x",
            "SECRET_ACCESS_KEY": "x",
        }
        for name, value in {**settings, "ENDPOINT_URL": url}.items():
            patch.setenv(f"AWS_{name}", value)
        yield boto3.client("dynamodb")


def tables(client: Any) -> tuple[str, str]:
    """Two new tables."""
    made = []
    number = next(NUMBERS)
    for name, key in (("items", "account_id"), ("actions", "action_id")):
        client.create_table(
            TableName=f"{name}{number}",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        made.append(f"{name}{number}")
    return made[0], made[1]


@pytest.fixture
def ladder(client: Any) -> DynamoLadder:
    return DynamoLadder(client, *tables(client))


def kept(client: Any, table: str) -> list[dict[str, str]]:
    found = client.scan(TableName=table, ConsistentRead=True)["Items"]
    return sorted(({k: v["S"] for k, v in item.items()} for item in found), key=lambda action: action["at"])


def test_an_item_is_written_only_over_the_one_that_was_read(ladder: DynamoLadder) -> None:
    first = Item(Standing("A"), version=1)
    assert ladder.load("A") is None
    assert not ladder.save(first, 3)
    assert ladder.save(first, 0)
    assert not ladder.save(first, 0)
    second = replace(first, version=2, wake_at=NOON)
    assert ladder.save(second, 1)
    assert not ladder.save(replace(first, version=2), 1)
    assert ladder.load("A") == second
    assert ladder.due(NOON - timedelta(microseconds=1)) == []
    assert ladder.due(NOON) == ["A"]


def test_repeats_crashes_and_grace(client: Any) -> None:
    items, actions = tables(client)
    ladder = DynamoLadder(client, items, actions)
    rows = [row("A", 0, "-1", 0), row("A", 1, "4000", 1), row("A", 2, "-1250.5", 2)]
    for offset, record in enumerate(rows):
        for calls in range(8):
            machine = Machine(ladder, ladder, calls)
            try:
                Enforcer(machine, machine).take(record, origin(offset))
            except Crash:
                continue
        Enforcer(ladder, ladder).take(rows[0], origin(0))
    assert [a["state"] for a in kept(client, actions)] == ["MARGIN_CALL", "ACTIVE", "LIQUIDATION"]
    assert ladder.due(NOON) == []
    Enforcer(ladder, ladder).take(row("B", 0, "-1", 3), origin(3))
    (restricted,) = Enforcer(ladder, ladder).wake(NOON + timedelta(minutes=33))
    assert (restricted.account_id, restricted.state) == ("B", "RESTRICTED")


def test_rivals_take_each_step_once(client: Any) -> None:
    items, actions = tables(client)
    rows = [row("A", n, "-1" if n % 2 else "4000", n) for n in range(12)]

    def work() -> None:
        own = DynamoLadder(boto3.client("dynamodb"), items, actions)
        for offset, record in enumerate(rows):
            Enforcer(own, own).take(record, origin(offset))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [a["state"] for a in kept(client, actions)]
    assert states == ["MARGIN_CALL", "ACTIVE"] * 5 + ["MARGIN_CALL"]


def test_the_handler(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items, actions = tables(client)
    monkeypatch.setenv("PENSTOCK_LADDER", f"dynamodb:{items},{actions}")
    given = event(
        message(0, 1, row("A", 0, "-1", 0)), message(0, 2, row("A", 1, None, 1)), message(1, 5, row("B", 0, "9", 0))
    )
    for _ in range(2):
        assert handler(given, None) == {"batchItemFailures": []}
    found = kept(client, actions)
    assert sorted((a["account_id"], a["state"]) for a in found) == [("A", "MARGIN_CALL"), ("B", "WARNING")]
