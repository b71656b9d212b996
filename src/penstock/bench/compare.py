"""Two reports side by side: ratios, and a verdict for each figure and for all.

Figures compare only where all else is the same: the machine, the settings, and a run that counts. What differs there is
named, and whoever compares all the same must say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.bench.report import Report

Verdict = Literal["better", "worse", "same", ""]
TOLERANCE = 0.1
_LESS_IS_BETTER = ("_ms", "_mb", "_s")
_MORE_IS_BETTER = "_per_s"
_MACHINE = ("cores", "architecture", "system", "memory_mb")


@dataclass(frozen=True)
class Compared:
    """One figure of both. ratio: second over first, None where that has no meaning; verdict: on the second."""

    name: str
    first: float
    second: float
    ratio: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """obstacles: why the two should not be compared; notes: what else differs."""

    figures: tuple[Compared, ...]
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One line about the second report."""
        found = [each.verdict for each in self.figures]
        better, worse = found.count("better"), found.count("worse")
        if not any(found):
            return "nothing to compare: the reports have no figure in common"
        if better and worse:
            return f"mixed: {better} figures better, {worse} worse"
        if better or worse:
            return f"the second is {'better' if better else 'worse'}: {better or worse} of {len(found)} figures"
        return "the same"


def compare_reports(first: Report, second: Report, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compare the second report with the first.

    tolerance: figures whose ratio is closer to 1 than this count as the same.
    """
    before, after = _figures(first), _figures(second)
    figures = tuple(_compared(name, before[name], after[name], tolerance) for name in before if name in after)
    return Comparison(figures, tuple(_obstacles(first, second)), tuple(_notes(first, second)))


def _figures(report: Report) -> dict[str, float]:
    found: dict[str, float] = {}
    for latency in report.latencies:
        for name in ("mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms"):
            found[f"{latency.name}_{name}"] = float(getattr(latency, name))
    return found | dict(report.figures)


def _compared(name: str, first: float, second: float, tolerance: float) -> Compared:
    ratio = second / first if first else None
    return Compared(name, first, second, ratio, _verdict(name, first, second, tolerance))


def _verdict(name: str, first: float, second: float, tolerance: float) -> Verdict:
    more = name.endswith(_MORE_IS_BETTER)
    if not more and not name.endswith(_LESS_IS_BETTER):
        return ""
    if first == second or (first and abs(second / first - 1) <= tolerance):
        return "same"
    return "better" if (second > first) == more else "worse"


def _obstacles(first: Report, second: Report) -> list[str]:
    found = []
    for report, which in ((first, "first"), (second, "second")):
        if report.judgement.status != "right":
            found.append(f"the {which} report is {report.judgement.status}: {report.judgement.headline}")
    for name in _MACHINE:
        before, after = getattr(first.machine, name), getattr(second.machine, name)
        if before != after:
            found.append(f"machine {name}: {before} and {after}")
    for name in dict.fromkeys([*first.settings, *second.settings]):
        given, other = first.settings.get(name), second.settings.get(name)
        if given != other:
            found.append(f"setting {name}: {given} and {other}")
    return found


def _notes(first: Report, second: Report) -> list[str]:
    versions = {"python": (first.machine.python, second.machine.python)}
    for name in dict.fromkeys([*first.machine.packages, *second.machine.packages]):
        versions[name] = (first.machine.packages.get(name, "none"), second.machine.packages.get(name, "none"))
    notes = [f"{name}: {before} and {after}" for name, (before, after) in versions.items() if before != after]
    loads = (first.machine.load, second.machine.load)
    if max(loads) > first.machine.cores / 2:
        notes.append(f"the machine was busy when a run began: load {loads[0]} and {loads[1]}")
    return notes
