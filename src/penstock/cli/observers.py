"""Who watches a run from the command line: the log and the live line."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from penstock.engines.base import EpochResult
from penstock.errors import Error
from penstock.observe.logging import RunContext, configure, current_user
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
