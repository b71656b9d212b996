"""Where the ladder outside the pipeline keeps its items, and where its actions go: the two interfaces, and SQLite.

A store writes an item only if nobody has written it since it was read. An outlet takes an action any number of times
and keeps it once, by its id. SQLite does both in one file, for one machine; every write is durable when it returns.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Protocol

from penstock.apps.margin.ladder import Action
from penstock.apps.margin.ladder_item import Item, action_said, item_from, item_text


class Store(Protocol):
    """Items by account."""

    def load(self, account_id: str) -> Item | None:
        """The newest item, None where there is none."""
        ...

    def save(self, item: Item, expected: int) -> bool:
        """Write the item if the one that is there has the version `expected` (0: none is there); whether it was."""
        ...

    def due(self, now: datetime) -> list[str]:
        """Accounts to be woken by now, and those with actions that are not known to be sent."""
        ...


class Outlet(Protocol):
    """Where actions go."""

    def send(self, action: Action) -> bool:
        """Keep the action durably; whether it was new."""
        ...


class SqliteLadder:
    """Store and outlet in one SQLite file. Processes may share it; a thread has its own object."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS items (account_id TEXT PRIMARY KEY, version INTEGER NOT NULL, wake_at TEXT,"
            " pending INTEGER NOT NULL, body TEXT NOT NULL)"
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS actions (number INTEGER PRIMARY KEY, action_id TEXT NOT NULL UNIQUE,"
            " body TEXT NOT NULL)"
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS offsets (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL)"
        )

    def load(self, account_id: str) -> Item | None:
        row = self._connection.execute("SELECT body FROM items WHERE account_id = ?", [account_id]).fetchone()
        return item_from(row[0]) if row is not None else None

    def save(self, item: Item, expected: int) -> bool:
        wake_at = item.wake_at.isoformat(timespec="microseconds") if item.wake_at is not None else None
        values = [item.version, wake_at, bool(item.outbox), item_text(item), item.standing.account_id]
        if expected == 0:
            done = self._connection.execute(
                "INSERT OR IGNORE INTO items (version, wake_at, pending, body, account_id) VALUES (?, ?, ?, ?, ?)",
                values,
            )
        else:
            done = self._connection.execute(
                "UPDATE items SET version = ?, wake_at = ?, pending = ?, body = ? WHERE account_id = ? AND version = ?",
                [*values, expected],
            )
        return done.rowcount == 1

    def due(self, now: datetime) -> list[str]:
        rows = self._connection.execute(
            "SELECT account_id FROM items WHERE pending OR wake_at <= ? ORDER BY account_id",
            [now.isoformat(timespec="microseconds")],
        )
        return [str(row[0]) for row in rows.fetchall()]

    def send(self, action: Action) -> bool:
        done = self._connection.execute(
            "INSERT OR IGNORE INTO actions (action_id, body) VALUES (?, ?)",
            [action.action_id, json.dumps(action_said(action), separators=(",", ":"))],
        )
        return done.rowcount == 1

    def actions(self) -> list[dict[str, str]]:
        """All actions, in the order in which they came."""
        rows = self._connection.execute("SELECT body FROM actions ORDER BY number").fetchall()
        return [json.loads(row[0]) for row in rows]

    def offset(self, partition: int) -> int | None:
        """Where a reader of a topic left off, None where it has not begun."""
        row = self._connection.execute("SELECT next_offset FROM offsets WHERE partition = ?", [partition]).fetchone()
        return int(row[0]) if row is not None else None

    def read_to(self, partition: int, offset: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?)", [partition, offset])

    def close(self) -> None:
        self._connection.close()
