"""Who watches a run from the command line: the log, the metrics, the live line."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from penstock.engines.base import Counts, EpochResult
from penstock.errors import Error
from penstock.observe.logging import RunContext, configure, current_user
from penstock.observe.metrics import Metrics, SourceCounts
from penstock.runtime.answers import instant
from penstock.runtime.runner import Runner

LINE_EVERY_S = 0.2
LOG_EVERY_S = 5.0


class RunLog:
    """Structured lines on stderr: start, every few seconds, alerts, end."""

    def __init__(
        self, pipeline: str, form: Literal["text", "json"], *, quiet: bool, bindings: Mapping[str, str]
    ) -> None:
        context = RunContext(
            f"{pipeline}-{uuid.uuid4().hex[:12]}",
            current_user(),
            os.environ.get("PENSTOCK_RUN_CONTEXT", "cli"),
            ", ".join(f"{name}={url}" for name, url in bindings.items() if name.startswith("source:")),
        )
        self._log = configure(context, form=form, level=logging.ERROR if quiet else logging.INFO)
        self._told_at = 0.0

    def say(self, message: str) -> None:
        """One line of information."""
        self._log.info(message)

    def started(self, runner: Runner) -> None:
        progress = runner.progress
        self._log.info(
            "loop started",
            pipeline=runner.graph.name,
            epoch=progress.epoch,
            state=str(runner.target.state),
            pid=os.getpid(),
        )
        self._told_at = time.monotonic()

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        now = time.monotonic()
        if now - self._told_at < LOG_EVERY_S or sys.stderr.isatty():
            return
        self._told_at = now
        seen = runner.snapshot
        self._log.info(
            "running",
            epoch=seen.epoch,
            rows=seen.rows,
            rows_per_s=round(seen.rows_per_s),
            lag=seen.lag,
            watermark=instant(seen.watermark_us),
            dead=seen.dead,
            late=seen.late,
        )

    def alert(self, runner: Runner, message: str) -> None:
        self._log.warning(message)

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        if error is not None:
            code = error.code if isinstance(error, Error) else type(error).__name__
            self._log.error("run failed", code=code)
            return
        seen = runner.snapshot
        self._log.info("run ended", epoch=runner.progress.epoch, rows=seen.rows, dead=seen.dead, late=seen.late)


class MetricsObserver:
    """Feeds the Prometheus metrics of a run and serves them on 127.0.0.1."""

    def __init__(self, pipeline: str, port: int) -> None:
        self._metrics = Metrics(pipeline)
        self._server = self._metrics.serve(port)
        self.port = self._server.port
        self._before: dict[str, Counts] = {}
        self._late: dict[str, int] = {}
        self._delivered: dict[str, int] = {}

    def started(self, runner: Runner) -> None:
        self._before = {name: _copy(s.counts) for name, s in runner.progress.sources.items()}

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        metrics = self._metrics
        metrics.epoch(result.epoch, rows=result.rows_in, duration_s=result.seconds, commit_s=result.commit_seconds)
        for name, stood in runner.progress.sources.items():
            before = self._before.get(name, Counts())
            late = sum(n for view, n in result.late.items() if name in _streams(runner, view))
            metrics.source(
                name,
                SourceCounts(
                    max(0, stood.counts.rows - before.rows),
                    max(0, stood.counts.accepted - before.accepted),
                    max(0, stood.counts.duplicate - before.duplicate),
                    max(0, stood.counts.dead - before.dead),
                    late,
                ),
            )
            self._before[name] = _copy(stood.counts)
            if stood.watermark_us is not None:
                metrics.watermark(name, stood.watermark_us)
        for feed in runner.feeds:
            metrics.lag(feed.declared.name, feed.lag)
        for name, delivery in runner.deliveries.items():
            metrics.sink(name, delivery.rows - self._delivered.get(name, 0))
            self._delivered[name] = delivery.rows
        metrics.state_size(_size(runner.target.state))

    def alert(self, runner: Runner, message: str) -> None:
        self._metrics.error("alert")

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        if isinstance(error, Error):
            self._metrics.error(error.code)
        self._server.close()


class LiveLine:
    """One line on a terminal that says where the job is."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def started(self, runner: Runner) -> None:
        self._shown_at = 0.0

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        now = time.monotonic()
        if now - self._shown_at < LINE_EVERY_S:
            return
        self._shown_at = now
        s = runner.snapshot
        text = (
            f"epoch {s.epoch:,}  {s.rows_per_s:,.0f} rows/s  lag {s.lag:,}  "
            f"watermark {_time_of_day(s.watermark_us)}  dead {s.dead:,}  late {s.late:,}"
        )
        sys.stderr.write("\r\x1b[2K" + text[: _terminal_width() - 1])
        sys.stderr.flush()

    def alert(self, runner: Runner, message: str) -> None:
        self._clear()

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        self._clear()

    def _clear(self) -> None:
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()


def _copy(counts: Counts) -> Counts:
    return Counts(**vars(counts))


def _streams(runner: Runner, view: str) -> tuple[str, ...]:
    found = runner.plan.view(view)
    return runner.plan.node(found.node).relation.streams if found else ()


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.glob("state.duckdb*") if f.exists())


def _time_of_day(us: int | None) -> str:
    """The watermark's time in UTC; with its day where that is not today."""
    if us is None:
        return "-"
    moment = datetime.fromtimestamp(us / 1_000_000, UTC)
    today = moment.date() == datetime.now(UTC).date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 120
