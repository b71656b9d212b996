"""The ladder outside the pipeline: margin rows in, at least once and in any order; each action out once by its id.

Order of every step: one conditional write takes the row and keeps the action in the item's outbox; then the action is
sent; then the outbox is emptied. Whatever is killed in between is made up for when the row comes again, or by `wake`.
Rows at or before the position that an item has are old, or were taken already: they lead to no step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from penstock.apps.margin.ladder import Action, Facts, Limits, Standing
from penstock.apps.margin.ladder_item import Item, decimal_or_none
from penstock.apps.margin.ladder_store import Outlet, Store


class Enforcer:
    """Takes margin rows and time to a store, and actions to an outlet."""

    def __init__(self, store: Store, outlet: Outlet, limits: Limits | None = None) -> None:
        self._store = store
        self._outlet = outlet
        self._limits = limits or Limits()

    def take(self, record: Mapping[str, Any], origin: Mapping[str, object]) -> list[Action]:
        """One change record of `margin_calculations`; the actions that are new.

        Args:
            origin: where it was read (topic, partition, offset), for the action's chain of causes.

        Raises:
            KeyError, ValueError: it is no such record.
        """
        if record.get("_op", "+I") not in ("+I", "+U"):
            return []
        account = str(record["account_id"])
        position = (int(record["_epoch"]), int(record["_seq"]))
        facts = _facts(record, origin, self._limits)
        at = datetime.fromisoformat(record["as_of"])
        while True:
            item = self._store.load(account) or Item(Standing(account))
            if position <= item.position:
                return self._send(item)
            after = self._saved(item, item.after(facts, at, position))
            if after is not None:
                return self._send(after)

    def wake(self, now: datetime) -> list[Action]:
        """Calls of the ladder that are due by `now` (UTC, naive), and actions that were not sent."""
        new: list[Action] = []
        for account in self._store.due(now):
            while (item := self._store.load(account)) is not None:
                woken = item.woken(now)
                after = item if woken == item else self._saved(item, woken)
                if after is not None:
                    new += self._send(after)
                    break
        return new

    def _saved(self, before: Item, after: Item) -> Item | None:
        """The item as it is stored, None when somebody else was faster."""
        stored = replace(after, version=before.version + 1)
        return stored if self._store.save(stored, before.version) else None

    def _send(self, item: Item) -> list[Action]:
        new = [action for action in item.outbox if self._outlet.send(action)]
        if item.outbox:
            # if somebody else was faster, the actions are in the newer item too and are sent again: ids tell
            self._saved(item, item.sent())
        return new


def _facts(record: Mapping[str, Any], origin: Mapping[str, object], limits: Limits) -> Facts:
    causes = {
        **origin,
        "as_of": record["as_of"],
        "cash": record["cash"],
        "epoch": record["_epoch"],
        "lmv": record["lmv"],
        "requirement": record["requirement"],
        "sequence": record["_seq"],
        "smv": record["smv"],
    }
    if not isinstance(record["stale"], bool):
        raise ValueError(f"stale is {record['stale']!r}")
    return Facts(
        Decimal(record["gross"] or 0),
        decimal_or_none(record["excess"]),
        decimal_or_none(record["requirement"]),
        decimal_or_none(record["sale_needed"]),
        decimal_or_none(record["worst_equity"]),
        record["stale"],
        limits,
        json.dumps(causes, separators=(",", ":"), sort_keys=True),
    )
