"""The line that accounts for the records of a trial adds up."""

from __future__ import annotations

import re

from penstock.cli.ads_report import accounting


def sums_up(line: str) -> bool:
    records, *parts = [int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", line.split(";")[0])]
    return records == sum(parts)


def test_the_ads_events_are_accepted_late_or_dead() -> None:
    line = accounting({"records": 1_100, "accepted": 1_000, "late": 70, "dead": 30, "lost": 0, "doubled": 0})
    assert line == "records 1,100 = accepted 1,000 + late 70 + dead 30"
    assert sums_up(line)


def test_late_records_of_a_pipeline_are_a_part_of_the_accepted() -> None:
    line = accounting({"records": 5_504, "accepted": 5_330, "duplicate": 48, "dead": 126, "late": 89})
    assert sums_up(line)
    assert line.endswith("late for a view, of the accepted: 89")
