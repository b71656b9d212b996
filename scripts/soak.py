"""The full counts, at random: `python scripts/soak.py [--seed N] [--share 0.01]`; writes docs/generated/soak.md.

Kills with power losses, random queries, simulated faults and the fuzzing of formats, on all cores. The seed is printed
and gives the same run again (but for the moments of kills). A soak that was stopped goes on with the same seed, as long
as nothing was changed since: what has passed is not run again. With a share of the counts the page goes to the terminal
alone. Exits with 1 where a test fails, or where fewer cases ran, or ran incrementally, than were asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/generated/soak.md"
# What is counted of each part, and how much of it the full soak has.
WANTED = {
    "kills: shop": ("kills", 250),
    "kills: ads": ("kills", 250),
    "kills: margin": ("kills", 60),
    "random queries": ("cases", 20_000),
    "simulated schedules": ("runs", 300),
}
FORMATS = "formats: every property with four times its examples"
# Pytest's own, for a run in which all tests had passed before.
NOTHING_LEFT = 5
# Kills wait for disks and for the moment to come, so that one process more than there are cores is not too many.
WORKERS = (os.cpu_count() or 1) + 1
LEAST_INCREMENTAL = 0.9
# Of a feature that came up in fewer cases the share says nothing.
FEW = 200
RECOMPUTED = "window over all rows, ahead"


@dataclass
class Part:
    """The records of one part, added up. shares: of random queries, cases and incremental ones by feature."""

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    incremental: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, entry: dict[str, object]) -> None:
        self.seconds += float(str(entry.pop("seconds")))
        for name, value in entry.items():
            match name, value:
                case "problems", list():
                    self.problems += [str(problem) for problem in value]
                case "checked", dict():
                    self.counts.update(value)
                case "cases", dict():
                    self.cases.update(value)
                    self.counts["cases"] += value.get("all", 0) + value.get(RECOMPUTED, 0)
                case "incremental", dict():
                    self.incremental.update(value)
                case _, int():
                    self.counts[name] += value


def read_parts(folder: Path) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for file in sorted(folder.glob("*.json")):
        entry = json.loads(file.read_text(encoding="utf-8"))
        parts.setdefault(entry.pop("part"), Part()).add(entry)
    return parts


def missing(parts: dict[str, Part], share: float) -> Iterator[str]:
    """What was asked for and did not happen."""
    for name, (what, full) in WANTED.items():
        part = parts.get(name, Part())
        tried = part.counts[what] + part.counts["refused"]
        if tried < full * share:
            yield f"{name}: {tried} of {full * share:.0f} {what}"
        yield from (f"{name}: {problem}" for problem in part.problems)
    queries = parts.get("random queries", Part())
    for feature, cases in queries.cases.items():
        if feature != RECOMPUTED and cases >= FEW and queries.incremental[feature] < LEAST_INCREMENTAL * cases:
            yield f"{feature}: {queries.incremental[feature]} of {cases} cases ran without a refresh"


def page(parts: dict[str, Part], heading: list[str], wrong: list[str]) -> str:
    lines = ["# The soak", "", *heading, ""]
    lines += ["| part | seconds, of all its processes | what happened |", "|---|---|---|"]
    for name, part in sorted(parts.items()):
        counts = ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in part.counts.items())
        lines.append(f"| {name} | {part.seconds:,.0f} | {counts} |")
    queries = parts.get("random queries")
    if queries is not None:
        lines += ["", "Random queries by what they consist of, and how many of them ran without a refresh:", ""]
        lines += ["| feature | cases | without a refresh |", "|---|---|---|"]
        for feature, cases in queries.cases.most_common():
            lines.append(f"| {feature} | {cases:,} | {queries.incremental[feature] / cases:.1%} |")
    lines += ["", *([f"- WRONG: {problem}" for problem in wrong] or ["Nothing lost, nothing doubled, no difference."])]
    return "\n".join(lines) + "\n"


def pytest(environment: dict[str, str], *options: str) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(WORKERS), "--dist", "worksteal", *options]
    return subprocess.run(
        [*command, "--hypothesis-profile=soak"], cwd=ROOT, env={**os.environ, **environment}, check=False
    ).returncode


def git(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def records(seed: int, share: float) -> Iterator[Path]:
    """The folder of this soak's records: it stays, where a commit says what ran."""
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".", f":!{PAGE}")
    if not commit or changed:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    place = ROOT / ".penstock/soak" / f"{commit[:12]}-{seed}-{share:g}"
    place.mkdir(parents=True, exist_ok=True)
    yield place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts, to try it out")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    with records(given.seed, given.share) as folder:
        environment = {"SOAK_SEED": str(given.seed), "SOAK_SHARE": str(given.share), "SOAK_RECORDS": str(folder)}
        wrong = [] if pytest(environment, "-m", "soak") in (0, NOTHING_LEFT) else ["a soak test failed: see above"]
        fuzzed = folder / "formats.json"
        if given.share >= 1 and not fuzzed.exists():
            fuzzing = time.monotonic()
            if pytest(environment, "-m", "not slow and not soak", "tests/formats") == 0:
                entry = {"part": FORMATS, "seconds": time.monotonic() - fuzzing}
                fuzzed.write_text(json.dumps(entry), encoding="utf-8")
            else:
                wrong.append("a test of the formats failed: see above")
        parts = read_parts(folder)
    wrong += missing(parts, given.share)
    heading = [
        f"`make soak SEED={given.seed}` at {git('rev-parse', '--short', 'HEAD') or 'an unknown commit'}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}: {(time.monotonic() - began) / 60:.0f} minutes (of the last "
        f"sitting, where there were several) on {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"DuckDB {version('duckdb')}."
    ]
    text = page(parts, heading, wrong)
    print(text)
    if given.share >= 1:
        PAGE.write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
