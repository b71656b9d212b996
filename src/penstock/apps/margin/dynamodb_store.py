"""The ladder's store and outlet in two DynamoDB tables, by conditional writes (extra `aws`: boto3).

Tables have the keys `account_id` and `action_id` (text) and need nothing else. `due` scans the table of items: call it
on a schedule of minutes, not of seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from penstock.apps.margin.ladder import Action
from penstock.apps.margin.ladder_item import Item, action_said, item_from, item_text


class DynamoLadder:
    """Store and outlet. client: a boto3 client of `dynamodb`."""

    def __init__(self, client: Any, items: str, actions: str) -> None:
        self._client = client
        self._items = items
        self._actions = actions

    def load(self, account_id: str) -> Item | None:
        found = self._client.get_item(
            TableName=self._items, Key={"account_id": {"S": account_id}}, ConsistentRead=True
        ).get("Item")
        return item_from(found["body"]["S"]) if found is not None else None

    def save(self, item: Item, expected: int) -> bool:
        stored: dict[str, object] = {
            "account_id": {"S": item.standing.account_id},
            "version": {"N": str(item.version)},
            "pending": {"BOOL": bool(item.outbox)},
            "body": {"S": item_text(item)},
        }
        if item.wake_at is not None:
            stored["wake_at"] = {"S": item.wake_at.isoformat(timespec="microseconds")}
        condition: dict[str, object] = {"ConditionExpression": "attribute_not_exists(account_id)"}
        if expected:
            condition = {
                "ConditionExpression": "version = :expected",
                "ExpressionAttributeValues": {":expected": {"N": str(expected)}},
            }
        return self._put(lambda: self._client.put_item(TableName=self._items, Item=stored, **condition))

    def due(self, now: datetime) -> list[str]:
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._items,
            ConsistentRead=True,
            ProjectionExpression="account_id",
            FilterExpression="pending = :yes OR wake_at <= :now",
            ExpressionAttributeValues={
                ":yes": {"BOOL": True},
                ":now": {"S": now.isoformat(timespec="microseconds")},
            },
        )
        return sorted(item["account_id"]["S"] for page in pages for item in page["Items"])

    def send(self, action: Action) -> bool:
        stored = {name: {"S": value} for name, value in action_said(action).items()}
        return self._put(
            lambda: self._client.put_item(
                TableName=self._actions, Item=stored, ConditionExpression="attribute_not_exists(action_id)"
            )
        )

    def _put(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def connect(items: str, actions: str) -> DynamoLadder:
    """With boto3's own configuration (region, credentials, AWS_ENDPOINT_URL)."""
    import boto3

    return DynamoLadder(boto3.client("dynamodb"), items, actions)
