"""`penstock demo`: producers and job together for half a minute, and every event accounted for at the end."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.apps.ads.faults import Disturbance
from penstock.apps.ads.job import shipped_job
from penstock.apps.ads.producer import Production
from penstock.apps.ads.report import ads_report, load_settings
from penstock.apps.ads.trial import Trial, clear_workplace
from penstock.cli.ads_report import fail_unless_right, new_report, publish, watched
from penstock.cli.load_options import LoadDefaults, Seconds, load_options
from penstock.cli.margin_demo import demo_margin
from penstock.cli.options import Output, output_option

DEFAULTS = LoadDefaults(rate=20_000.0, duration_s=20.0, disturbance=Disturbance(broken=0.001, late=0.0005))


class _Applications(click.Group):
    """The applications that have a demo; ads where none is named."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in context.help_option_names):
            args = ["ads", *args]
        return super().parse_args(context, args)


@click.group(cls=_Applications, commands=[demo_margin])
def demo() -> None:
    """Run an application with its load for half a minute, and check what it did: ads (the default) or margin."""


@demo.command()
@load_options(DEFAULTS)
@click.option("--watermark", type=Seconds(), default="5s", show_default=True, help="How long windows wait.")
@click.option("--partitions", type=click.IntRange(1), default=2, show_default=True, help="Of the topic events.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".penstock/demo"), show_default=True)
@click.option("--report", type=click.Path(path_type=Path), help="Where the report goes (.json and .html are added).")
@output_option
def ads(
    production: Production,
    watermark: float,
    partitions: int,
    folder: Path,
    report: Path | None,
    output: Output,
) -> None:
    """Run producers and the ads job together, check every event, and end with the path of a report.

    A few broken and late events are among them. Exit code 1 if one event is lost or doubled; a machine that is too busy
    for honest latencies only makes the report say so.
    """
    try:
        place = clear_workplace(folder)
    except FileExistsError as problem:
        raise click.UsageError(str(problem)) from None
    job = shipped_job(place, window_s=production.window_s, watermark_s=watermark, pipeline="ads")
    trial = Trial(place, production, job, partitions=partitions, watermark_s=watermark)
    outcome = watched(trial, production.expected_events)
    settings = load_settings(production, job.name, watermark) | {"partitions": partitions}
    found = ads_report(outcome, settings, "Ad campaigns: demo")
    page = publish(found, report or new_report("demo"), output)
    fail_unless_right(found, page, folder, void_is_failure=False)
