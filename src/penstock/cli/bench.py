"""`penstock bench ads`: the latency of the ads job under load, or its speed over a backlog; every count checked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console

from penstock.apps.ads.backlog import Backlog, bench_backlog
from penstock.apps.ads.job import JobPlan, Workplace, other_job, shipped_job
from penstock.apps.ads.producer import Production
from penstock.apps.ads.report import ads_report, load_settings
from penstock.apps.ads.trial import QUIET_S, Trial, clear_workplace
from penstock.bench.profile import profile_table
from penstock.cli.ads_report import fail_unless_right, new_report, publish, watched
from penstock.cli.bench_backlog import show_backlog
from penstock.cli.bench_compare import compare
from penstock.cli.bench_margin import margin
from penstock.cli.bench_peers import peers
from penstock.cli.bench_pipeline import BenchGroup, pipeline
from penstock.cli.bench_views import views
from penstock.cli.load_options import LoadDefaults, Seconds, load_options
from penstock.cli.options import Output, output_option
from penstock.runtime.profiling import read_profile

BACKLOG_RATE = 50_000.0
PIPELINES = {"changes": "ads", "final": "penstock.apps.ads.pipeline:pipeline_final"}


@click.group(cls=BenchGroup, commands=[peers, pipeline, compare, views, margin])
def bench() -> None:
    """Measure an application, or a pipeline of your own (bench PIPELINE)."""


@bench.command()
@load_options(LoadDefaults())
@click.option("--emit", type=click.Choice(["changes", "final"]), default="changes", show_default=True)
@click.option("--watermark", type=Seconds(), default="5s", show_default=True)
@click.option("--partitions", type=click.IntRange(1), default=2, show_default=True, help="Of the topic events.")
@click.option("--job", metavar="COMMAND", help="Another program that reads events and writes results, instead of ours.")
@click.option("--ready-line", metavar="PATTERN", help="--job: it reads when a line of its output matches.")
@click.option("--quiet", type=Seconds(), default=f"{QUIET_S:g}s", show_default=True, help="Stop after no new results.")
@click.option("--retention", type=Seconds(), help="Of the topic results (all is kept by default).")
@click.option("--backlog", type=click.IntRange(1_000), metavar="N", help="Measure draining N events instead.")
@click.option(
    "--repeat", type=click.IntRange(1), default=3, show_default=True, help="--backlog: drains in one process."
)
@click.option(
    "--epoch-rows", type=click.IntRange(1), default=250_000, show_default=True, help="--backlog: largest epoch."
)
@click.option("--singles", type=click.IntRange(1), default=200, show_default=True, help="--backlog: epochs of one row.")
@click.option("--profile", is_flag=True, help="Show where the loop's time goes: read, parse, check, merge, commit, ...")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".penstock/bench"), show_default=True)
@click.option("--report", type=click.Path(path_type=Path), help="Where the report goes (.json and .html are added).")
@output_option
@click.pass_context
def ads(
    context: click.Context,
    production: Production,
    emit: str,
    watermark: float,
    partitions: int,
    job: str | None,
    ready_line: str | None,
    quiet: float,
    retention: float | None,
    backlog: int | None,
    repeat: int,
    epoch_rows: int,
    singles: int,
    profile: bool,
    folder: Path,
    report: Path | None,
    output: Output,
) -> None:
    """Run the latency calculator, the ads job and its producers, check every count and report.

    Ends with the path of a page with plots. Exit code 1 if a single event is lost or doubled, or if the producers
    lagged so much that the latencies do not count. With --backlog the producers write first, and the job's speed is
    measured.
    """
    try:
        place = clear_workplace(folder)
    except FileExistsError as problem:
        raise click.UsageError(str(problem)) from None
    if backlog is not None:
        if context.get_parameter_source("rate") is ParameterSource.DEFAULT:
            production = replace(production, load=replace(production.load, rate=BACKLOG_RATE))
        wanted = Backlog(backlog, watermark, partitions, emit, repeat, epoch_rows, singles, profile)
        show_backlog(bench_backlog(place, production, wanted, Console(stderr=True).print), report, output)
        return
    plan = _plan(place, production, watermark, emit, job, ready_line, profile=profile)
    kept = timedelta(seconds=retention) if retention is not None else None
    trial = Trial(place, production, plan, partitions=partitions, watermark_s=watermark, quiet_s=quiet, retention=kept)
    outcome = watched(trial, production.expected_events)
    settings = load_settings(production, plan.name, watermark) | {"partitions": partitions, "emit": emit}
    found = ads_report(outcome, settings, f"Ad campaigns: {production.arrivals} arrivals")
    if profile:
        found = replace(found, tables=(*found.tables, profile_table(read_profile(place.profile))))
    page = publish(found, report or new_report("ads"), output)
    fail_unless_right(found, page, folder, void_is_failure=True)


def _plan(
    place: Workplace,
    production: Production,
    watermark_s: float,
    emit: str,
    job: str | None,
    ready_line: str | None,
    *,
    profile: bool,
) -> JobPlan:
    if job is None:
        options = ("--profile", str(place.profile)) if profile else ()
        pipeline = PIPELINES[emit]
        return shipped_job(
            place, window_s=production.window_s, watermark_s=watermark_s, pipeline=pipeline, options=options
        )
    if profile:
        raise click.UsageError("--profile is for our own job, not for --job")
    return other_job(place, job, window_s=production.window_s, watermark_s=watermark_s, ready_line=ready_line)
