"""`penstock margin`: the parts of the margin application that are not the job."""

from __future__ import annotations

import json

import click

from penstock.apps.margin.feeder import TOPICS, feed, prepare_topics
from penstock.apps.margin.market import Market
from penstock.cli.ads import log_folder
from penstock.cli.load_options import Seconds
from penstock.cli.options import Output, output_option


@click.group()
def margin() -> None:
    """The parts of the margin application, each on its own; the job itself is `penstock run margin`."""


@margin.command()
@click.option("--accounts", type=click.IntRange(1), default=1_000, show_default=True)
@click.option("--symbols", type=click.IntRange(1), default=200, show_default=True)
@click.option("--positions", type=click.IntRange(1), default=10, show_default=True, help="Of each account, at first.")
@click.option("--ticks", type=click.FloatRange(0), default=200.0, show_default=True, help="Prices per second.")
@click.option("--fills", type=click.FloatRange(0), default=20.0, show_default=True, help="Fills per second.")
@click.option("--duration", type=Seconds(), default="60s", show_default=True, help="Of market time.")
@click.option("--speed", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Of market time.")
@click.option("--crash-at", type=Seconds(), help="When the index falls, after the start.")
@click.option("--crash", type=click.FloatRange(0, 0.99), default=0.25, show_default=True, help="By which part.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--partitions", type=click.IntRange(1), default=2, show_default=True, help="Of fills and cash.")
@click.option("--topics", default="log:.penstock/log/{topic}", show_default=True, help="Where they go.")
@output_option
def simulate(
    accounts: int,
    symbols: int,
    positions: int,
    ticks: float,
    fills: float,
    duration: float,
    speed: float,
    crash_at: float | None,
    crash: float,
    seed: int,
    partitions: int,
    topics: str,
    output: Output,
) -> None:
    """Send a simulated market to the topics fills, prices, betas and cash of the embedded log."""
    market = Market(accounts, symbols, ticks, fills, positions, seed, crash_at, crash)
    folders = {topic: log_folder(topics.replace("{topic}", topic)) for topic in TOPICS}
    prepare_topics(folders, partitions)
    counts = feed(market, folders, seconds=duration, speed=speed)
    if output == "json":
        click.echo(json.dumps(counts, indent=2))
    else:
        click.echo("  ".join(f"{topic} {count:,}" for topic, count in counts.items()))
