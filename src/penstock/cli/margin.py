"""`penstock margin`: the parts of the margin application that are not the job."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from penstock.apps.margin.consumer import drain, follow
from penstock.apps.margin.feeder import TOPICS, feed, prepare_topics
from penstock.apps.margin.history import History, Replay
from penstock.apps.margin.ladder_item import action_said
from penstock.apps.margin.ladder_store import SqliteLadder
from penstock.apps.margin.lambda_handler import limits_from
from penstock.apps.margin.market import Market, Simulation, Topic
from penstock.apps.margin.orders import Order
from penstock.apps.margin.package import HANDLER
from penstock.apps.margin.package import package_lambda as make_package
from penstock.apps.margin.what_if import Query, WhatIf
from penstock.apps.margin.what_if import what_if as work_out
from penstock.cli.ads import log_folder
from penstock.cli.load_options import Seconds
from penstock.cli.options import Output, PipelineOptions, output_option
from penstock.cli.tables import show_table
from penstock.connectors.base import Url
from penstock.connectors.registry import open_source
from penstock.graph import Graph
from penstock.runtime.access import ask_state
from penstock.runtime.answers import plain


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
    folders = _prepared(topics, partitions)
    counts = feed(lambda start: Simulation(market, start), folders, seconds=duration, speed=speed)
    _show_counts(counts, output)


@margin.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), default="2008-01-02", show_default=True)
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), default="2009-06-30", show_default=True)
@click.option("--speed", type=click.FloatRange(0.01), default=10.0, show_default=True, help="Days per second.")
@click.option("--accounts", type=click.IntRange(1), default=200, show_default=True)
@click.option("--positions", type=click.IntRange(1), default=3, show_default=True, help="Of each account, at first.")
@click.option("--fills", type=click.FloatRange(0), default=5.0, show_default=True, help="Fills per second.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--partitions", type=click.IntRange(1), default=2, show_default=True, help="Of fills and cash.")
@click.option("--topics", default="log:.penstock/log/{topic}", show_default=True, help="Where they go.")
@output_option
def replay(
    first: datetime,
    last: datetime,
    speed: float,
    accounts: int,
    positions: int,
    fills: float,
    seed: int,
    partitions: int,
    topics: str,
    output: Output,
) -> None:
    """Send real daily prices of AAPL, GOOG, IBM and MSFT, 2004 to 2013, with accounts that trade at random.

    Times are those of the replay. Needs the extra demo.
    """
    history = History.shipped(first.date(), last.date())
    market = Market(accounts, fills=fills, positions=positions, seed=seed)
    folders = _prepared(topics, partitions)
    seconds = len(history.days) / speed
    _show_counts(feed(lambda start: Replay(history, market, start, speed), folders, seconds=seconds), output)


def _prepared(topics: str, partitions: int) -> dict[Topic, str]:
    folders = {topic: log_folder(topics.replace("{topic}", topic)) for topic in TOPICS}
    prepare_topics(folders, partitions)
    return folders


def _show_counts(counts: Mapping[str, int], output: Output) -> None:
    if output == "json":
        click.echo(json.dumps(counts, indent=2))
    else:
        click.echo("  ".join(f"{topic} {count:,}" for topic, count in counts.items()))


@margin.command("what-if")
@click.option("--account", required=True, help="The account.")
@click.option("--order", "orders", required=True, multiple=True, help='"BUY 100 AAPL @ 190", or without a price.')
@click.option("--target", metavar="NAME", help="Target of penstock.toml (default: local).")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Override the state folder.")
@output_option
def what_if(account: str, orders: tuple[str, ...], target: str | None, state: Path | None, output: Output) -> None:
    """Show an account's margin before and after orders, against the live state, changing nothing.

    An order without a price is filled at the latest one. With several orders, all of them are filled.
    """
    wanted = [Order.parse(order) for order in orders]
    graph, query = _live(target, state)
    found = work_out(graph, query, account, wanted)
    if output == "json":
        told = plain(asdict(found) | {"orders": [str(order) for order in found.orders]})
        click.echo(json.dumps(told, indent=2))
    else:
        _show_what_if(found)


def ask_margin(state: Path) -> Query:
    """What asks the state of a margin job, whether it runs or not."""
    return _live(None, state)[1]


def _live(target: str | None, state: Path | None) -> tuple[Graph, Query]:
    job = PipelineOptions("margin", target, None, (), (), state, "text").load()

    def query(sql: str) -> list[dict[str, object]]:
        reply = ask_state(job.graph, job.target.state, {"do": "sql", "query": sql}, typed="margin")
        columns, rows = reply["columns"], reply["rows"]
        assert isinstance(columns, list)
        assert isinstance(rows, list)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    return job.graph, query


def _show_what_if(found: WhatIf) -> None:
    click.echo(f"{found.account_id}: {'; '.join(str(order) for order in found.orders)}")
    before, after = asdict(found.before), asdict(found.after)
    show_table(["", "before", "after"], [[name, before[name], after[name]] for name in before])
    click.echo("BREACH" if found.breach else "no breach")
    step = f"{found.state} -> {found.next_state}: {found.reason}, {found.amount}"
    click.echo(step if found.reason else f"{found.state} as before")


@margin.command("package-lambda")
@click.option("--to", "file", type=click.Path(path_type=Path), default=Path("ladder.zip"), show_default=True)
def package_lambda(file: Path) -> None:
    """Write the zip of the enforcement ladder as an AWS Lambda function for MSK events."""
    modules = make_package(file)
    click.echo(f"{file}: {len(modules)} modules, handler {HANDLER}")


@margin.command()
@click.option("--topic", default="log:.penstock/log/margin_calculations", show_default=True, help="What is read.")
@click.option("--store", type=click.Path(path_type=Path), default=Path(".penstock/ladder.sqlite"), show_default=True)
@click.option("--once", is_flag=True, help="Take what is there, and stop.")
def enforce(topic: str, store: Path, once: bool) -> None:
    """Run the enforcement ladder over the topic margin_calculations, outside the pipeline.

    Each action is printed as a line of JSON when it is new, and kept in the store. The house rules of the ladder are
    those of the environment, as for the Lambda function.
    """
    ladder = SqliteLadder(store)
    source = open_source(Url.parse(topic), "margin_calculations")
    try:
        limits = limits_from(os.environ)
        for action in drain(source, ladder, limits) if once else follow(source, ladder, limits):
            click.echo(json.dumps(action_said(action)))
    finally:
        source.close()
        ladder.close()
