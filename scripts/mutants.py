"""Seeds the faults of tests/mutants.toml, one at a time, into a copy of the sources; each must fail its tests.

`python scripts/mutants.py [NAME ...]` runs all, or those named. Writes docs/generated/mutants.md when all were run.
Exits with 1 when a fault survives, or when its place in the sources is no longer there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "tests/mutants.toml"
PAGE = ROOT / "docs/generated/mutants.md"
COPIED = ("src", "tests", "scripts", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
TIMEOUT_S = 300
# Not SIGKILL: that one is sent when memory runs out, whosever it is.
CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` (found exactly once in `file`) becomes `new`, and `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


def read_mutants() -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutant"]]


def verdict_of(mutant: Mutant, copy: Path) -> str:
    """`killed`, or what is wrong."""
    file = copy / mutant.file
    original = file.read_text(encoding="utf-8")
    if original.count(mutant.old) != 1:
        return f"its place is found {original.count(mutant.old)} times in {mutant.file}"
    file.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code = run_tests(mutant.tests, copy)
    finally:
        file.write_text(original, encoding="utf-8")
    # pytest: 1 is failed tests; other codes mean that the tests did not run as they should, unless it crashed.
    return "killed" if code in CRASHES else {0: "SURVIVED", 1: "killed"}.get(code, f"pytest ended with {code}")


def run_tests(tests: str, copy: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        return 1  # a fault that makes the tests hang is noticed too


def page(verdicts: list[tuple[Mutant, str]]) -> str:
    lines = [
        "# Seeded faults",
        "",
        "Each fault is put into the sources, and the tests named must fail: `make mutants`.",
        "",
    ]
    lines += ["| fault | file | tests | verdict |", "|---|---|---|---|"]
    lines += [f"| {m.name} | {m.file} | {m.tests} | {verdict} |" for m, verdict in verdicts]
    return "\n".join(lines) + "\n"


def main() -> int:
    wanted = sys.argv[1:]
    mutants = [mutant for mutant in read_mutants() if not wanted or mutant.name in wanted]
    if not mutants:
        print("no mutant of that name", file=sys.stderr)
        return 2
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / name, ignore=ignore) if source.is_dir() else shutil.copy(source, copy / name)
        for tests in sorted({mutant.tests for mutant in mutants}):
            if run_tests(tests, copy) != 0:
                print(f"{tests} fails without any fault; nothing can be shown by it", file=sys.stderr)
                return 1
        for mutant in mutants:
            verdicts.append((mutant, verdict_of(mutant, copy)))
            print(f"{verdicts[-1][1]:10} {mutant.name}", flush=True)
    if not wanted:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(verdicts), encoding="utf-8")
    alive = [mutant.name for mutant, verdict in verdicts if verdict != "killed"]
    print(f"{len(verdicts) - len(alive)} of {len(verdicts)} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
