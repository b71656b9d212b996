"""What a benchmark has to say, as plain frozen data that is written as JSON and read back without loss.

A report is complete by itself: `report_html.write_html` and `penstock bench compare` need nothing else. Latencies are
in milliseconds (their bins in microseconds), rates in events per second. A report that is not `right` has no figures
to boast of: every reader shows the judgement first.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from penstock.bench.latency import LatencyHistogram
from penstock.errors import RunError
from penstock.storage.files import write_atomic

FORMAT = "penstock-bench-report"
VERSION = 1

Value = str | int | float | bool | None
Status = Literal["right", "wrong", "void"]
PACKAGES = ("penstock", "duckdb", "pyarrow", "numpy")


@dataclass(frozen=True)
class Judgement:
    """Whether the figures count. `wrong`: an event was lost or doubled; `void`: the measurement itself was not sound.

    headline: one line. reasons: what exactly was found, one line each (which cell, which limit).
    """

    status: Status
    headline: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """Where it was measured. load: the load average over one minute when the run began (0 where unknown)."""

    cores: int
    architecture: str
    system: str
    memory_mb: int
    load: float
    python: str
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """One distribution of latencies.

    name: for programs, such as `event`. title, definition: for people; the definition says from when to when, and how
    exact it is. bins: lowest and highest value (microseconds, both included) and how many fell between them;
    without bins no histogram is drawn.
    """

    name: str
    title: str
    definition: str
    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    bins: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, name: str, title: str, definition: str, histogram: LatencyHistogram) -> Latency:
        """The figures of a histogram of microseconds.

        Example:
            >>> import numpy as np
            >>> histogram = LatencyHistogram()
            >>> histogram.add(np.array([1_000, 3_000]))
            >>> Latency.of("event", "Event latency", "from send to result", histogram).mean_ms
            2.0
        """
        p50, p90, p99, p999 = (histogram.percentile(percent) / 1e3 for percent in (50, 90, 99, 99.9))
        mean, largest = histogram.mean / 1e3, histogram.largest / 1e3
        bins = tuple(histogram.bins())
        return cls(name, title, definition, histogram.count, mean, p50, p90, p99, p999, largest, bins)


@dataclass(frozen=True)
class Line:
    """One line of a chart over time: a value per step, None where there is nothing."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Series:
    """One chart over time. All lines have a value for each step of `step_s` seconds, from the start of the run on.

    unit: of the values, such as `events/s`. scale: of the vertical axis. note: what to know when reading it.
    """

    name: str
    title: str
    unit: str
    step_s: float
    lines: tuple[Line, ...]
    scale: Literal["linear", "log"] = "linear"
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows for reading, such as one per window. marked: rows in which something is wrong, by their index."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    marked: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A run of a benchmark.

    settings: what was asked for. counts: events as they were accounted for. figures: what was measured besides
    latencies, by name with its unit last (`events_per_s`). latencies: the first one is shown as the main one.
    """

    title: str
    created: str
    judgement: Judgement
    machine: Machine
    settings: Mapping[str, Value] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    latencies: tuple[Latency, ...] = ()
    series: tuple[Series, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def latency(self, name: str) -> Latency | None:
        """The distribution of that name."""
        return next((latency for latency in self.latencies if latency.name == name), None)

    def to_dict(self) -> dict[str, object]:
        """As plain data, with `format` and `version` first."""
        return {"format": FORMAT, "version": VERSION} | asdict(self)

    def write_json(self, path: Path) -> None:
        """Write the report to a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(self.to_dict(), indent=1, allow_nan=False).encode())


def read_report(path: Path) -> Report:
    """The report in a file.

    Raises:
        RunError: PS-BENCH-004, the file is no report of this version.
    """
    try:
        data = json.loads(path.read_bytes())
        if (data.pop("format"), data.pop("version")) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        return _report(data)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as problem:
        raise RunError(
            "PS-BENCH-004",
            f"{path} is not a benchmark report",
            expected=f"the JSON that penstock bench writes, version {VERSION}",
            got=str(problem),
        ) from problem


def now() -> str:
    """The time of a report, in UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def this_machine() -> Machine:
    """The machine that this process runs on; call it when a run begins, for the load average."""
    return Machine(
        os.cpu_count() or 0,
        platform.machine(),
        platform.system(),
        _memory_mb(),
        round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        f"{platform.python_implementation()} {platform.python_version()}",
        {name: found for name in PACKAGES if (found := _version(name))},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _memory_mb() -> int:
    if sys.platform == "win32":
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000


def _report(data: dict[str, Any]) -> Report:
    judgement = data.pop("judgement")
    return Report(
        judgement=Judgement(judgement["status"], judgement["headline"], tuple(judgement["reasons"])),
        machine=Machine(**data.pop("machine")),
        latencies=tuple(
            Latency(**{**each, "bins": tuple((low, high, n) for low, high, n in each["bins"])})
            for each in data.pop("latencies")
        ),
        series=tuple(
            Series(**{**each, "lines": tuple(Line(line["name"], tuple(line["values"])) for line in each["lines"])})
            for each in data.pop("series")
        ),
        tables=tuple(
            Table(
                **{
                    **each,
                    "columns": tuple(each["columns"]),
                    "rows": tuple(tuple(row) for row in each["rows"]),
                    "marked": tuple(each["marked"]),
                }
            )
            for each in data.pop("tables")
        ),
        notes=tuple(data.pop("notes")),
        **data,
    )
