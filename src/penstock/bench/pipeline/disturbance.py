"""What is wrong with a load on purpose: shares of broken, late and repeated records, and disorder."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import DeclarationError


@dataclass(frozen=True)
class Disturbance:
    """Shares of all records between 0 and 1, and times in seconds.

    broken: records that break their contract, each way equally often. late: records whose event time lies `late_by_s`
    back. duplicate: records that are sent once more. deleted: of a keyed table, records that delete a key.
    disorder_s: every event time is moved back by a random time of up to this.
    """

    broken: float = 0.0
    late: float = 0.0
    duplicate: float = 0.0
    deleted: float = 0.0
    late_by_s: float = 60.0
    disorder_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("broken", "late", "duplicate", "deleted"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise DeclarationError(
                    "PS-BENCH-003", f"the share of {name} records is invalid", expected="from 0 to 1", got=str(share)
                )
        for name, seconds in (("late_by", self.late_by_s), ("disorder", self.disorder_s)):
            if not 0.0 <= seconds < 1e9:
                raise DeclarationError(
                    "PS-BENCH-003", f"{name} is invalid", expected="seconds from 0 up", got=str(seconds)
                )
