"""A source that is not there: `none:` has no partitions, and as a reference one version without rows.

It is what an optional source is bound to until somebody binds it.
"""

from __future__ import annotations

import time

from penstock.connectors.base import Batch, Url, Version
from penstock.errors import ConnectorError

EMPTY = Version("none", ())


class NoSource:
    """Nothing, for ever."""

    OPTIONS = ("format",)

    @classmethod
    def open(cls, url: Url) -> NoSource:
        """Raises ConnectorError PS-CONN-008 for a path: it would not be read."""
        _check(url)
        return cls()

    def partitions(self) -> list[int]:
        return []

    def start(self, partition: int) -> int:
        return 0

    def earliest(self, partition: int) -> int:
        return 0

    def latest(self, partition: int) -> int:
        return 0

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        return None

    def wait(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def finish(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


class NoVersions:
    """One version, empty; the reference must allow that."""

    OPTIONS = ("format",)

    @classmethod
    def open(cls, url: Url) -> NoVersions:
        """Raises ConnectorError PS-CONN-008 for a path: it would not be read."""
        _check(url)
        return cls()

    def poll(self, previous: str | None) -> Version | None:
        return EMPTY if previous is None else None

    def recall(self, version: str) -> Version | None:
        return EMPTY if version == EMPTY.id else None

    def wait(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def close(self) -> None:
        """Nothing is open."""


def _check(url: Url) -> None:
    if url.path:
        raise ConnectorError("PS-CONN-008", "none: has no path", expected="none:", got=str(url))
