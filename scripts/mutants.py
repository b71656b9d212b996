"""Seeds the faults of tests/mutants.toml, one at a time, into a copy of the sources; each must fail its tests.

`python scripts/mutants.py [NAME ...]` runs all, or those named, as many at a time as there are cores. Writes
docs/generated/mutants.md when all were run. Exits with 1 when a fault survives, or when its place in the sources is no
longer there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "tests/mutants.toml"
PAGE = ROOT / "docs/generated/mutants.md"
COPIED = ("src", "tests", "scripts", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
# Tests that take so much longer than they do without a fault hang.
LEAST_TIMEOUT_S = 300.0
TIMES_LONGER = 8
LONGEST_S = 3_600.0
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


def verdict_of(mutant: Mutant, copy: Path, timeout_s: float) -> str:
    """`killed`, or what is wrong."""
    file = copy / mutant.file
    original = file.read_text(encoding="utf-8")
    if original.count(mutant.old) != 1:
        return f"its place is found {original.count(mutant.old)} times in {mutant.file}"
    file.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code = run_tests(mutant.tests, copy, timeout_s)
    finally:
        file.write_text(original, encoding="utf-8")
    # pytest: 1 is failed tests; other codes mean that the tests did not run as they should, unless it crashed.
    return "killed" if code in CRASHES else {0: "SURVIVED", 1: "killed"}.get(code, f"pytest ended with {code}")


def run_tests(tests: str, copy: Path, timeout_s: float) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=timeout_s).returncode
    except subprocess.TimeoutExpired:
        return 1  # a fault that makes the tests hang is noticed too


class Copies:
    """Copies of the sources, each used by one thread at a time."""

    def __init__(self, home: Path, count: int) -> None:
        self._free: Queue[Path] = Queue()
        for number in range(count):
            copy = home / str(number)
            for name in COPIED:
                source = ROOT / name
                ignore = shutil.ignore_patterns("__pycache__")
                copy.mkdir(exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, copy / name, ignore=ignore)
                else:
                    shutil.copy(source, copy / name)
            self._free.put(copy)

    @contextmanager
    def one(self) -> Iterator[Path]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)

    def limit_of(self, tests: str) -> float:
        """How long the tests may take with a fault; raises SystemExit where they fail without one."""
        began = time.monotonic()
        with self.one() as copy:
            if run_tests(tests, copy, LONGEST_S) != 0:
                raise SystemExit(f"{tests} fails without any fault; nothing can be shown by it")
        return max(LEAST_TIMEOUT_S, TIMES_LONGER * (time.monotonic() - began))

    def verdict(self, mutant: Mutant, timeout_s: float) -> tuple[Mutant, str]:
        with self.one() as copy:
            found = verdict_of(mutant, copy, timeout_s)
        print(f"{found:10} {mutant.name}", flush=True)
        return mutant, found


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
    count = os.cpu_count() or 1
    suites = sorted({mutant.tests for mutant in mutants})
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(count) as pool:
        copies = Copies(Path(folder), count)
        limits = dict(zip(suites, pool.map(copies.limit_of, suites), strict=True))
        verdicts = list(pool.map(lambda mutant: copies.verdict(mutant, limits[mutant.tests]), mutants))
    if not wanted:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(verdicts), encoding="utf-8")
    alive = [mutant.name for mutant, verdict in verdicts if verdict != "killed"]
    print(f"{len(verdicts) - len(alive)} of {len(verdicts)} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
