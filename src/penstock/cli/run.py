"""`penstock run`: run a pipeline until it is stopped, drained or idle."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import click

from penstock.cli.observers import LiveLine, RunLog
from penstock.cli.options import Job, PipelineOptions, pipeline_options
from penstock.durations import parse_duration
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationError
from penstock.plan.plan import Plan
from penstock.runtime.control import ControlServer
from penstock.runtime.heap import share_heaps
from penstock.runtime.profiling import Profiler
from penstock.runtime.runner import Observer, Runner, RunOptions, Until


@click.command()
@click.option("--once", is_flag=True, help="Drain what is there, close windows, stop.")
@click.option("--until-idle", is_flag=True, help="Stop when nothing has come for a second, and close windows.")
@click.option("--for", "duration", metavar="DURATION", help="Stop after so long (30s, 5m).")
@click.option("--no-flush", is_flag=True, help="With --once and --until-idle: leave open windows unemitted.")
@click.option("--journal", type=click.Path(path_type=Path, exists=True), help="Run exactly the epochs of this journal.")
@click.option("--max-epoch-rows", type=click.IntRange(1), default=250_000, show_default=True)
@click.option("--accept-changes", is_flag=True, help="A changed pipeline may delete state and read sources again.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve /metrics on 127.0.0.1 (0: a free port).")
@click.option("--ui", is_flag=True, help="Show the pipeline in a browser while it runs.")
@click.option("--ui-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free port.")
@click.option("--reveal", is_flag=True, help="With --ui: show personal data in the clear.")
@click.option("--profile", type=click.Path(path_type=Path), help="Write where the loop's time went, as JSON.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--quiet", is_flag=True, help="No live line, no log but errors.")
@pipeline_options
def run(
    options: PipelineOptions,
    once: bool,
    until_idle: bool,
    duration: str | None,
    no_flush: bool,
    journal: Path | None,
    max_epoch_rows: int,
    accept_changes: bool,
    metrics_port: int | None,
    ui: bool,
    ui_port: int,
    reveal: bool,
    profile: Path | None,
    log_format: str,
    quiet: bool,
) -> int:
    """Run PIPELINE. Ctrl-C and SIGTERM finish the epoch, flush the sinks and stop; a later run goes on from there."""
    share_heaps()
    job = options.load()
    plan = compile_for_duckdb(job.graph, in_memory=False)
    how = RunOptions(
        until=Until.DRAINED if once else Until.IDLE if until_idle else Until.STOPPED,
        flush=not no_flush,
        for_s=_seconds(duration),
        max_rows=max_epoch_rows,
        accept_changes=accept_changes,
        journal=journal,
        threads=_number(job.target.settings.get("threads")),
        memory_limit=_words(job.target.settings.get("memory_limit")),
    )
    log = RunLog(job.graph.name, "json" if log_format == "json" else "text", quiet=quiet, bindings=job.target.shown)
    observers: list[Observer] = [log]
    live = LiveLine() if sys.stderr.isatty() and not quiet and log_format == "text" else None
    if live is not None:
        observers.append(live)
    if metrics_port is not None:
        # Only here: the library that serves them takes as long to import as all else of the command line.
        from penstock.cli.metrics import MetricsObserver

        metrics = MetricsObserver(job.graph.name, metrics_port)
        observers.append(metrics)
        log.say(f"metrics at http://127.0.0.1:{metrics.port}/metrics")
    profiler = Profiler()
    if profile is not None:
        observers.append(profiler)
    with Runner(job.graph, job.target, how, observers=tuple(observers), control=ControlServer, plan=plan) as runner:
        started = time.monotonic()
        with _Signals(runner) as signals, _page(job, plan, ui_port, reveal, log) if ui else nullcontext():
            progress = runner.run()
        summary = {
            "pipeline": job.graph.name,
            "epoch": progress.epoch,
            "rows": runner.snapshot.rows,
            "seconds": round(time.monotonic() - started, 3),
            "dead": sum(s.counts.dead for s in progress.sources.values()),
            "late": sum(progress.late.values()),
            "delivered": {name: d.rows for name, d in runner.deliveries.items()},
            "interrupted": signals.received is not None,
        }
    if profile is not None and profiler.profile is not None:
        profiler.profile.write(profile)
    if options.output == "json":
        click.echo(json.dumps(summary))
    elif not quiet:
        click.echo(
            f"{summary['pipeline']}: {summary['rows']} rows in {summary['seconds']} s, epoch {summary['epoch']}, "
            f"{summary['dead']} dead, {summary['late']} late",
            err=True,
        )
    return signals.exit_code


@contextmanager
def _page(job: Job, plan: Plan, port: int, reveal: bool, log: RunLog) -> Iterator[None]:
    # Only here: what serves it takes as long to import as all else of the command line.
    from penstock.cli.serve import open_page

    with open_page(job, plan, port=port, reveal=reveal) as page:
        log.say(f"page at {page.url}")
        yield


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text).total_seconds()
    except ValueError as problem:
        raise DeclarationError(
            "PS-DECL-005", "--for needs a duration", expected="30s, 5m, 1h", got=str(problem)
        ) from None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _words(value: object) -> str | None:
    return value if isinstance(value, str) else None


class _Signals:
    """Ctrl-C and SIGTERM ask for a clean stop; the second one ends the process at once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.received: int | None = None
        self._before: list[tuple[signal.Signals, Any]] = []

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before.append((number, signal.signal(number, self._handle)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before:
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        self._runner.stop()

    @property
    def exit_code(self) -> int:
        return 0 if self.received is None else 128 + self.received
