"""The ladder as an AWS Lambda function for MSK events; this module and what it imports are all of its package.

Set in the environment: `PENSTOCK_LADDER` (`dynamodb:ITEMS,ACTIONS`, two tables, or `sqlite:FILE`), and, where they
differ from the defaults, `PENSTOCK_WARNING_SHARE`, `PENSTOCK_GRACE_MINUTES` and `PENSTOCK_LIQUIDATION_SHARE`. Event
source mapping: topic `margin_calculations`, `ReportBatchItemFailures`. A scheduled event wakes accounts whose grace
is over.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from penstock.apps.margin import dynamodb_store
from penstock.apps.margin.enforcer import Enforcer
from penstock.apps.margin.ladder import Limits
from penstock.apps.margin.ladder_store import SqliteLadder

Response = dict[str, list[dict[str, dict[str, object]]]]
_log = logging.getLogger(__name__)


def handler(event: Mapping[str, Any], context: object) -> Response:
    """What Lambda calls."""
    return handle(event, configured(tuple(sorted(_own(os.environ).items()))))


def handle(event: Mapping[str, Any], enforcer: Enforcer) -> Response:
    """Take the records of an event, or its time. A record that fails ends its partition: Lambda sends it again.

    Raises:
        ValueError: the event is neither of MSK nor of a schedule.
    """
    failures: list[dict[str, dict[str, object]]] = []
    if "records" in event:
        for partition, records in event["records"].items():
            failed = _failing_offset(records, enforcer)
            if failed is not None:
                failures.append({"itemIdentifier": {"partition": partition, "offset": failed}})
    elif event.get("detail-type") == "Scheduled Event":
        now = datetime.fromisoformat(event["time"]).astimezone(UTC).replace(tzinfo=None)
        enforcer.wake(now)
    else:
        raise ValueError("the event is neither of MSK nor of a schedule")
    return {"batchItemFailures": failures}


def _failing_offset(records: list[Mapping[str, Any]], enforcer: Enforcer) -> int | None:
    """Take one partition's records in order; the offset of the first that could not be taken."""
    for record in sorted(records, key=lambda record: int(record["offset"])):
        try:
            _take(record, enforcer)
        except Exception:  # noqa: BLE001 - whatever it was, Lambda is told and sends the record again
            _log.exception("%s-%s@%s failed", record["topic"], record["partition"], record["offset"])
            return int(record["offset"])
    return None


def _take(record: Mapping[str, Any], enforcer: Enforcer) -> None:
    if record.get("value") is None:
        return  # a tombstone
    row = json.loads(base64.b64decode(record["value"], validate=True))
    if record.get("key") is not None:
        key = json.loads(base64.b64decode(record["key"], validate=True))
        if key != {"account_id": row["account_id"]}:
            raise ValueError("the key is of another account")
    enforcer.take(row, {name: record[name] for name in ("topic", "partition", "offset")})


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("PENSTOCK_")}


@cache
def configured(settings: tuple[tuple[str, str], ...]) -> Enforcer:
    """The enforcer that the environment asks for; kept while the function is warm."""
    given = dict(settings)
    scheme, _, place = given.get("PENSTOCK_LADDER", "").partition(":")
    limits = limits_from(given)
    match scheme:
        case "sqlite":
            embedded = SqliteLadder(Path(place))
            return Enforcer(embedded, embedded, limits)
        case "dynamodb":
            items, _, actions = place.partition(",")
            tables = dynamodb_store.connect(items, actions)
            return Enforcer(tables, tables, limits)
        case _:
            raise ValueError("PENSTOCK_LADDER is dynamodb:ITEMS,ACTIONS or sqlite:FILE")


def limits_from(given: Mapping[str, str]) -> Limits:
    """The house rules of the ladder, as they are set."""
    usual = Limits()
    grace = given.get("PENSTOCK_GRACE_MINUTES")
    return Limits(
        Decimal(given.get("PENSTOCK_WARNING_SHARE", usual.warning_share)),
        timedelta(minutes=float(grace)) if grace is not None else usual.grace,
        Decimal(given.get("PENSTOCK_LIQUIDATION_SHARE", usual.liquidation_share)),
    )
