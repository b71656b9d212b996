"""The accounting of a run against the oracle's own verdicts: counts, and which records exactly (semantics T2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from penstock.verify.fold import Difference
from penstock.verify.spec import JobReport, ViewSpec

COUNTED = ("rows", "accepted", "duplicate", "dead")
VERSIONS = "versions"


@dataclass(frozen=True)
class Ledgers:
    """counts: per source as the oracle has them; late: rows per view."""

    counts: Mapping[str, Mapping[str, int]]
    late: Mapping[str, int]
    difference: Difference | None


def compare_ledgers(connection: duckdb.DuckDBPyConnection, report: JobReport, views: Sequence[ViewSpec]) -> Ledgers:
    """Compare dead letters, late rows and counts; rows in = accepted + duplicate + dead for every source."""
    counts: dict[str, dict[str, int]] = {}
    for source, what, n in connection.execute("SELECT source, what, n FROM counts ORDER BY ALL").fetchall():
        counts.setdefault(source, dict.fromkeys(COUNTED, 0))[what] = n
    dead = connection.execute("SELECT source, p, o FROM dead").fetchall()
    late = connection.execute("SELECT view, source, p, o FROM late").fetchall()
    per_view = dict(Counter(str(view) for view, *_ in late))
    counted = {v.name for v in views if not v.skipped and v.late and all(rule.counted for rule in v.late)}
    difference = _dead(report, set(dead)) or _late(report, set(late), counted) or _counts(report, counts)
    return Ledgers(counts, per_view, difference)


def _dead(report: JobReport, oracle: set[tuple[str, int, int]]) -> Difference | None:
    rules = {(source, p, o): rule for source, p, o, rule in report.dead}
    wrong = sorted(oracle ^ set(rules))
    if not wrong:
        return None
    source, partition, offset = first = wrong[0]
    return Difference(
        f"dead letters of {source}",
        None,
        {"partition": partition, "offset": offset},
        {"dead": rules[first]} if first in rules else None,
        {"dead": True} if first in oracle else None,
        f"{len(wrong)} records differ in all",
    )


def _late(report: JobReport, oracle: set[tuple[str, str, int, int]], counted: set[str]) -> Difference | None:
    job = {entry for entry in report.late if entry[0] in counted}
    wrong = sorted((oracle ^ job) if counted else set())
    wrong = [entry for entry in wrong if entry[0] in counted]
    if not wrong:
        return None
    view, source, partition, offset = first = wrong[0]
    return Difference(
        f"late rows of {view}",
        None,
        {"source": source, "partition": partition, "offset": offset},
        {"late": True} if first in job else None,
        {"late": True} if first in oracle else None,
        f"{len(wrong)} records differ in all",
    )


def _counts(report: JobReport, oracle: Mapping[str, Mapping[str, int]]) -> Difference | None:
    for source, told in report.counts.items():
        job = {what: told[what] for what in COUNTED}
        wanted = {what: oracle[source][what] for what in COUNTED}
        if oracle[source].get(VERSIONS, 1) > 1:
            # The job counts the rows of all versions that a reference had; only the last one can be read again.
            wanted = job
        if job != wanted or job["rows"] != job["accepted"] + job["duplicate"] + job["dead"]:
            return Difference(f"counts of {source}", None, {"source": source}, job, wanted)
    return None
