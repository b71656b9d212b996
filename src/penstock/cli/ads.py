"""`penstock ads`: the parts of the ads application that are not the job, each on its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.apps.ads.calculator import Sight, calculate
from penstock.apps.ads.counts import total
from penstock.apps.ads.fleet import Fleet, Pace
from penstock.apps.ads.ledger import Ledger, read_ledgers
from penstock.apps.ads.mapping import ADS_PER_CAMPAIGN, CAMPAIGNS, create_ad_campaign_mappings, write_mapping
from penstock.apps.ads.producer import Production
from penstock.apps.ads.recount import recount
from penstock.apps.ads.report import ads_report
from penstock.apps.ads.results import read_results
from penstock.apps.ads.trial import ended
from penstock.apps.ads.verdict import compare
from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import Value, this_machine
from penstock.cli.ads_report import fail_unless_right, new_report, publish
from penstock.cli.load_options import LoadDefaults, Seconds, load_options
from penstock.cli.options import Output, output_option
from penstock.cli.topics import topic_url
from penstock.connectors.log import LogTopic, LogVersions
from penstock.errors import DeclarationError, RunError

LEDGER = ".penstock/ads/ledger"


_RUN_OPTIONS = (
    click.option("--events", default="events", show_default=True, help="A name or log:FOLDER."),
    click.option("--results", default="results", show_default=True, help="A name or log:FOLDER."),
    click.option("--ledger", type=click.Path(path_type=Path), default=Path(LEDGER), show_default=True),
    click.option("--window", type=Seconds(), default="10s", show_default=True),
    click.option("--watermark", type=Seconds(), default="5s", show_default=True),
    click.option("--campaigns", type=click.IntRange(1), default=CAMPAIGNS, show_default=True),
    click.option("--ads", "ads_each", type=click.IntRange(1), default=ADS_PER_CAMPAIGN, show_default=True),
)


def _run_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that say where a run that has ended left its topics and ledgers, and what it ran with."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


@click.group()
def ads() -> None:
    """The parts of the ads application, each on its own; the job itself is `penstock run ads`."""


@ads.command()
@load_options(LoadDefaults())
@click.option("--topic", default="events", show_default=True, help="Where the events go: a name or log:FOLDER.")
@click.option("--mapping-topic", default="campaigns", show_default=True, help="Where the campaigns go if not there.")
@click.option("--partitions", type=click.IntRange(1), default=2, show_default=True, help="Of a topic that is missing.")
@click.option("--ledger", type=click.Path(path_type=Path), default=Path(LEDGER), show_default=True)
@click.option("--backlog", type=click.IntRange(1), metavar="N", help="Write about N events as fast as can be instead.")
@output_option
def produce(
    production: Production,
    topic: str,
    mapping_topic: str,
    partitions: int,
    ledger: Path,
    backlog: int | None,
    output: Output,
) -> None:
    """Send events on schedule, by several processes, and count what became durable."""
    production = replace(production, topic=_open_topic(topic, partitions), ledger=str(ledger))
    pace: Pace = "paced"
    if backlog is not None:
        pace = "backlog"
        production = replace(production, duration_s=backlog / production.producers / production.load.rate)
    _write_campaigns(mapping_topic, production.campaigns, production.ads_per_campaign)
    for old in ledger.glob("producer-*.json"):
        old.unlink()
    with _progress() as bar, Fleet(production, pace) as fleet:
        task = bar.add_task("events sent", total=round(production.expected_events))
        ledgers = fleet.run(lambda fleet: bar.update(task, completed=fleet.sent))
    _report(ledgers, output)
    if any(each.failed for each in ledgers):
        raise RunError("PS-BENCH-004", "events could not be sent", expected="none", got=str(_sum(ledgers, "failed")))


@ads.command()
@click.option("--topic", default="campaigns", show_default=True, help="A name or log:FOLDER.")
@click.option("--campaigns", type=click.IntRange(1), default=CAMPAIGNS, show_default=True)
@click.option("--ads", "ads_each", type=click.IntRange(1), default=ADS_PER_CAMPAIGN, show_default=True)
def mapping(topic: str, campaigns: int, ads_each: int) -> None:
    """Write which ad belongs to which campaign, unless it is there already."""
    wrote = _write_campaigns(topic, campaigns, ads_each)
    click.echo(f"{topic_url(topic)}: {campaigns * ads_each} ads {'written' if wrote else 'are there already'}")


@ads.command()
@_run_options
@output_option
def check(
    events: str,
    results: str,
    ledger: Path,
    window: float,
    watermark: float,
    campaigns: int,
    ads_each: int,
    output: Output,
) -> int:
    """Compare the job's results with a recount of the topic and with the producers' ledgers.

    The job must have read all events. Exit code 1 when an event is lost or doubled.
    """
    relation = create_ad_campaign_mappings(campaigns, ads_each)
    counted = recount(log_folder(events), relation, window_s=window, watermark_s=watermark)
    verdict = compare(read_ledgers(ledger), counted, read_results(log_folder(results), window))
    if output == "json":
        click.echo(json.dumps(verdict.to_dict(), indent=2))
    else:
        click.echo(
            f"records {verdict.records:,} = accepted {verdict.accepted:,} + late {verdict.late:,}"
            f" + dead {sum(verdict.dead.values()):,}"
        )
        click.echo(f"lost {verdict.lost:,}  doubled {verdict.doubled:,}  {'right' if verdict.right else 'WRONG'}")
    return 0 if verdict.right else 1


@ads.command()
@_run_options
@click.option("--report", type=click.Path(path_type=Path), help="Where the report goes (.json and .html are added).")
@output_option
def latency(
    events: str,
    results: str,
    ledger: Path,
    window: float,
    watermark: float,
    campaigns: int,
    ads_each: int,
    report: Path | None,
    output: Output,
) -> None:
    """Measure the latencies of a run that has ended, from its topics, and write the report.

    The producers' ledgers say when each event was meant to be sent; without them the event time is taken for it. Exit
    code 1 when an event is lost or doubled, or when the producers lagged.
    """
    sight = Sight(log_folder(events), log_folder(results), str(ledger), window, watermark, campaigns, ads_each)
    outcome = ended(this_machine(), calculate(sight))
    settings: dict[str, Value] = {"events": events, "results": results, "window_s": window, "watermark_s": watermark}
    found = ads_report(outcome, settings, "Ad campaigns")
    page = publish(found, report or new_report("latency"), output)
    fail_unless_right(found, page, Path(log_folder(events)).parent, void_is_failure=True)


def log_folder(topic: str) -> str:
    """The folder of a topic of the embedded log. Raises DeclarationError PS-BENCH-003 for another connector."""
    url = topic_url(topic)
    if url.scheme != "log":
        raise DeclarationError(
            "PS-BENCH-003", "producers write to the embedded log", expected="log:FOLDER", got=str(url)
        )
    return url.path


def _open_topic(topic: str, partitions: int) -> str:
    folder = log_folder(topic)
    if not LogTopic.exists(folder):
        LogTopic.create(folder, partitions)
    return folder


def _write_campaigns(topic: str, campaigns: int, ads_each: int) -> bool:
    opened = LogTopic.open(_open_topic(topic, 1))
    versions = LogVersions(opened)
    try:
        missing = versions.poll(None) is None
    finally:
        versions.close()
    if missing:
        write_mapping(opened, create_ad_campaign_mappings(campaigns, ads_each))
    return missing


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _sum(ledgers: list[Ledger], name: str) -> int:
    return sum(getattr(ledger, name) for ledger in ledgers)


def _report(ledgers: list[Ledger], output: Output) -> None:
    lag = LatencyHistogram()
    for ledger in ledgers:
        lag.merge(LatencyHistogram.from_dict(ledger.lag_us))
    facts: dict[str, object] = {
        "durable": _sum(ledgers, "durable"),
        "sound": sum(total(ledger.sound).count for ledger in ledgers),
        "broken": sum(sum(ledger.broken.values()) for ledger in ledgers),
        "failed": _sum(ledgers, "failed"),
        "retries": _sum(ledgers, "retries"),
        "lag_p50_ms": lag.percentile(50) / 1e3,
        "lag_p99_ms": lag.percentile(99) / 1e3,
        "lag_max_ms": lag.largest / 1e3,
    }
    if output == "json":
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo("  ".join(f"{name} {value:,}" for name, value in facts.items()))
