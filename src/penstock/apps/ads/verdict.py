"""Three counts of the same events, compared: the producers' ledgers, the recount of the topic, and the job's results.

Nothing is lost between producer and topic when ledgers and recount agree, nothing between topic and result when
recount and results agree. Events are compared cell by cell, so that a loss and a doubling never cancel out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from penstock.apps.ads.counts import Cell, Counts, Difference, differences, total
from penstock.apps.ads.ledger import Ledger, sound_counts
from penstock.apps.ads.recount import Recount
from penstock.apps.ads.results import Fold


@dataclass(frozen=True)
class Verdict:
    """What the comparison found; `right` only if nothing differs anywhere.

    lost, doubled: events that the job counted too few or too often. unsent: what producers know to be durable, and the
    topic does not hold (or, from producers that came to their end, the reverse). impossible: cells with results on the
    way to the last one that no events explain (see `inclusion`), and how many.
    """

    records: int
    accepted: int
    late: int
    dead: Mapping[str, int]
    lost: int
    doubled: int
    job_differences: tuple[Difference, ...]
    unsent: tuple[Difference, ...]
    dead_differ: bool
    mistakes: tuple[str, ...]
    impossible: Mapping[Cell, int] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return not (self.job_differences or self.unsent or self.dead_differ or self.mistakes or self.impossible)

    def reasons(self, most: int = 20) -> list[str]:
        """What is wrong, one line each, every cell by its name; at most `most` lines and one that counts the others."""
        lines = [f"job: {_named(each)}" for each in self.job_differences]
        lines += [f"producers and topic: {_named(each)}" for each in self.unsent]
        lines += ["the number of dead letters is not that of the broken records"] if self.dead_differ else []
        lines += [f"{_cell(cell)}: {count:,} results that no events explain" for cell, count in self.impossible.items()]
        lines += list(self.mistakes)
        return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most:,} more"]

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return {
            "right": self.right,
            "records": self.records,
            "accepted": self.accepted,
            "late": self.late,
            "dead": dict(self.dead),
            "lost": self.lost,
            "doubled": self.doubled,
            "job_differences": [_plain(difference) for difference in self.job_differences],
            "producer_differences": [_plain(difference) for difference in self.unsent],
            "dead_letters_differ": self.dead_differ,
            "mistakes": list(self.mistakes),
            "impossible": [[*cell, count] for cell, count in self.impossible.items()],
        }


def compare(
    ledgers: list[Ledger], counted: Recount, results: Fold, impossible: Mapping[Cell, int] | None = None
) -> Verdict:
    """The verdict over a run that has come to its end."""
    wrong = differences(counted.accepted, results.cells)
    gaps = [_count(difference.got) - _count(difference.expected) for difference in wrong]
    broken = sum(sum(ledger.broken.values()) for ledger in ledgers)
    dead = sum(counted.dead.values())
    complete = all(ledger.complete for ledger in ledgers)
    return Verdict(
        counted.records,
        total(counted.accepted).count,
        total(counted.late).count,
        counted.dead,
        -sum(gap for gap in gaps if gap < 0),
        sum(gap for gap in gaps if gap > 0),
        tuple(wrong),
        tuple(_unsent(sound_counts(ledgers), counted.sound, complete)),
        bool(ledgers) and (broken != dead if complete else broken > dead),
        tuple(results.mistakes),
        impossible or {},
    )


def _unsent(ledger: Mapping[Cell, Counts], topic: Mapping[Cell, Counts], complete: bool) -> list[Difference]:
    """Exact where all producers ended by themselves; a killed producer may have sent more than it had counted."""
    wrong = differences(ledger, topic)
    return wrong if complete and ledger else [each for each in wrong if _count(each.expected) > _count(each.got)]


def _count(counts: Counts | None) -> int:
    return counts.count if counts else 0


def _named(difference: Difference) -> str:
    expected, got = difference.expected, difference.got
    if expected and got and expected.count == got.count:
        return f"{_cell(difference.cell)}: {expected} expected, {got} found"
    return f"{_cell(difference.cell)}: {_count(expected):,} events expected, {_count(got):,} found"


def _cell(cell: Cell) -> str:
    start = datetime.fromtimestamp(cell[1] / 1e6, UTC)
    return f"campaign {cell[0]}, window {start:%Y-%m-%d %H:%M:%S}"


def _plain(difference: Difference) -> dict[str, object]:
    return {
        "campaign_id": difference.cell[0],
        "window_start_us": difference.cell[1],
        "expected": _count(difference.expected),
        "got": _count(difference.got),
    }
