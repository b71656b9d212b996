"""A profile as a table of a report: the same on the terminal, in JSON and on the page."""

from __future__ import annotations

from penstock.bench.report import Table, Value
from penstock.observe.timing import Name
from penstock.runtime.profiling import Profile

MEANING: dict[Name, str] = {
    "start": "before the loop",
    "wait": "for records",
    "read": "reading sources",
    "parse": "the kernel's pass, diagnosis",
    "check": "contract, references",
    "merge": "the views",
    "outbox": "change records",
    "commit": "journal, commit",
    "mark": "durable mark",
    "deliver": "to the sinks' threads",
    "maintain": "checkpoints",
    "rest": "none of these",
}
COLUMNS = ("part", "what", "seconds", "share, %", "ns/event", "ms/epoch, P50")


def profile_table(profile: Profile) -> Table:
    """One row per part and their sum; waiting is no part of the shares and of the sum."""
    rows = [_row(profile, name) for name in profile.parts if name != "wait"]
    total: tuple[Value, ...] = (
        *("whole", "all but waiting", profile.busy_s, 100.0),
        *(_per_event(profile, profile.busy_s), profile.epoch_p50_ms),
    )
    cost_ms, cost_share = profile.profiling_s * 1e3, _share(profile, profile.profiling_s)
    beside = "; ".join(f"{name} {seconds:.3f} s" for name, seconds in profile.beside_s.items())
    waited = profile.whole_s - profile.busy_s
    note = (
        f"{profile.rows:,} rows in {profile.epochs:,} epochs. The parts add up to the whole; medians do not. Without"
        f" the kernel one statement parses and checks, and all of it is `check`. Waited for records: {waited:.3f} s."
        f" The sinks' own threads, beside the loop: {beside or 'none'}. Measuring itself cost"
        f" {cost_ms:.2f} ms ({cost_share:.2f} %), which is in the figures."
    )
    return Table("profile", "Where the time goes", COLUMNS, (*rows, total), note=note)


def _row(profile: Profile, name: Name) -> tuple[Value, ...]:
    part = profile.parts[name]
    return (
        *(name, MEANING[name], part.total_s, _share(profile, part.total_s)),
        *(_per_event(profile, part.total_s), part.epoch_p50_ms),
    )


def _share(profile: Profile, seconds: float) -> float:
    return 100 * seconds / profile.busy_s if profile.busy_s else 0.0


def _per_event(profile: Profile, seconds: float) -> float:
    return seconds * 1e9 / profile.rows if profile.rows else 0.0
