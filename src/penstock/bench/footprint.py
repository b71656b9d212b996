"""What a running job takes: memory of its process, and bytes on the disk, once a second.

The rule for `flat`: the first third of the run is warming up; of what follows, the median of the second half is above
that of the first by no more than 5%, or 16 MB where that is more. A run of less than a minute is too short to tell.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from penstock.bench.report import Line, Series, Table, Value

EVERY_S = 1.0
LEAST_S = 60.0
GROWTH = 0.05
GROWTH_MB = 16.0
MEMORY = "memory of the job"
Verdict = Literal["flat", "grows", "too short to tell"]
COLUMNS = ("megabytes", "least", "P50", "most", "at the end", "slope, MB/min", "verdict")


@dataclass(frozen=True)
class Footprint:
    """Megabytes over time, by what they are; every line has one value per step."""

    step_s: float = EVERY_S
    lines_mb: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def verdict(self, name: str) -> Verdict:
        """Whether a line is flat, by the rule above."""
        values = np.array(self.lines_mb[name])
        if len(values) * self.step_s < LEAST_S:
            return "too short to tell"
        warm = values[len(values) // 3 :]
        before, after = np.median(warm[: len(warm) // 2]), np.median(warm[len(warm) // 2 :])
        return "flat" if after <= before + max(GROWTH * before, GROWTH_MB) else "grows"

    def slope(self, name: str) -> float:
        """Megabytes per minute after the first third: the straight line with the least squares."""
        warm = np.array(self.lines_mb[name])[len(self.lines_mb[name]) // 3 :]
        if len(warm) < 2:
            return 0.0
        return float(np.polyfit(np.arange(len(warm)) * self.step_s / 60.0, warm, 1)[0])

    def table(self, note: str = "") -> Table:
        """One row per line."""
        rows: list[tuple[Value, ...]] = []
        for name, values in self.lines_mb.items():
            if values:
                spread = (min(values), float(np.median(values)), max(values), values[-1])
                rows.append((name, *spread, self.slope(name), self.verdict(name)))
        rule = (
            "flat: after the first third, the median of the later half is at most 5% (or 16 MB) above that of the"
            " earlier half."
        )
        return Table("footprint", "Memory and disk", COLUMNS, tuple(rows), note=f"{rule} {note}".strip())

    def series(self) -> tuple[Series, ...]:
        """Memory alone, and the rest: their sizes have nothing to do with each other."""
        memory = {name: values for name, values in self.lines_mb.items() if name == MEMORY}
        disk = {name: values for name, values in self.lines_mb.items() if name != MEMORY}
        note = "From the start of the job's process on."
        return tuple(
            Series(name, title, "MB", self.step_s, tuple(Line(n, v) for n, v in lines.items()), note=note)
            for name, title, lines in (("memory", "Memory of the job", memory), ("disk", "Bytes on the disk", disk))
            if any(lines.values())
        )


class Sampler:
    """Looks at a process and at folders until the block is left. Use it in a `with` block."""

    def __init__(self, pid: int, folders: Mapping[str, Path], every_s: float = EVERY_S) -> None:
        self._pid = pid
        self._folders = dict(folders)
        self._every_s = every_s
        self._lines: dict[str, list[float]] = {MEMORY: [], **{name: [] for name in folders}}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="footprint", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def footprint(self) -> Footprint:
        """What was seen so far."""
        return Footprint(self._every_s, {name: tuple(values) for name, values in self._lines.items()})

    def _work(self) -> None:
        due = time.monotonic()
        while (memory := memory_mb(self._pid)) is not None:
            self._lines[MEMORY].append(memory)
            for name, folder in self._folders.items():
                self._lines[name].append(size_mb(folder))
            due += self._every_s
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return


def memory_mb(pid: int) -> float | None:
    """The resident memory of a process; None when it has ended."""
    if sys.platform == "linux":
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else None
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return int(told) / 1e3 if told.strip() else None


def size_mb(folder: Path) -> float:
    """The bytes of all files below a folder, some of which may go meanwhile; 0 while it is not there."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total / 1e6
