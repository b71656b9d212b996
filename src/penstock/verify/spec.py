"""What the job and the oracle of a verification are told, as plain data in files.

The two run in processes of their own. What the planner knows and the oracle must (what a view's text means once it is
definite, which windows make rows late) comes to it as data in here; it imports nothing that computes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from penstock.errors import Error


@dataclass(frozen=True)
class SourceSpec:
    """A source to read again. event_time, checks: SQL with parameters filled in."""

    name: str
    url: str
    event_time: str | None
    checks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LateSpec:
    """Rows of `stream` are late where `end_of_event` (SQL over `_ps_event`) is at or before their watermark."""

    stream: str
    end_of_event: str
    counted: bool


@dataclass(frozen=True)
class ViewSpec:
    """A view as one batch. late: what it leaves out; scoped: the views below it that must be read without late rows.

    kind: `batch`; or one that the epochs decide, made epoch by epoch: `answered` (rows of a transient stream, by the
    state of their epoch), `frozen` (windows, by the state of the epoch that closed them; end: SQL over its columns),
    `step` (a fold; time: SQL over the input's columns). streams: whose watermark closes windows or fires timers.
    marked: streams of which it reads rows on time and late ones, as `_ps.h_NAME` with `_ps_wm`.
    skipped: why it is not compared, empty where it is.
    """

    name: str
    sql: str
    key: tuple[str, ...]
    late: tuple[LateSpec, ...] = ()
    scoped: tuple[str, ...] = ()
    skipped: str = ""
    kind: Literal["batch", "answered", "frozen", "step"] = "batch"
    end: str = ""
    time: str = ""
    streams: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()


@dataclass(frozen=True)
class OracleSpec:
    """One batch over everything that the journal says was read. answer: the DuckDB file that the oracle writes."""

    pipeline: str
    values: Mapping[str, str]
    sources: tuple[SourceSpec, ...]
    views: tuple[ViewSpec, ...]
    journal: str
    answer: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> OracleSpec:
        raw = json.loads(path.read_text(encoding="utf-8"))
        sources = tuple(SourceSpec(**(s | {"checks": tuple(map(tuple, s["checks"]))})) for s in raw.pop("sources"))
        return cls(sources=sources, views=tuple(_view(v) for v in raw.pop("views")), **raw)


def _view(raw: dict[str, Any]) -> ViewSpec:
    late = tuple(LateSpec(**rule) for rule in raw.pop("late"))
    for name in ("key", "scoped", "streams", "marked"):
        raw[name] = tuple(raw[name])
    return ViewSpec(late=late, **raw)


@dataclass(frozen=True)
class JobSpec:
    """One start of the job.

    sources: name -> URL. sinks: the folder that gets a file per view. upto: source -> partition -> the offset at
    which this start sees the end of the source. report: where to write journal and ledgers at the end, if given.
    """

    pipeline: str
    values: Mapping[str, str]
    sources: Mapping[str, str]
    sinks: str
    state: str
    upto: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    max_rows: int = 250_000
    flush: bool = True
    report: str = ""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> JobSpec:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class JobReport:
    """What a finished job says of itself. dead: (source, partition, offset, rule); late: (view, source, partition,
    offset); counts: per source."""

    epochs: int
    dead: tuple[tuple[str, int, int, str], ...]
    late: tuple[tuple[str, str, int, int], ...]
    counts: Mapping[str, Mapping[str, int]]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> JobReport:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(raw["epochs"], tuple(map(tuple, raw["dead"])), tuple(map(tuple, raw["late"])), raw["counts"])


def obey(arguments: list[str], run: Callable[[Path], None]) -> int:
    """Do what the file named says; the exit code. An error is told as JSON on stderr, to whoever started this."""
    try:
        run(Path(arguments[0]))
    except Error as problem:
        sys.stderr.write(json.dumps(problem.to_dict()) + "\n")
        return 1
    return 0
