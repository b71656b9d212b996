"""`penstock topics`: create, clear and describe topics."""

from __future__ import annotations

import json

import click

from penstock.cli.options import Output, output_option
from penstock.connectors.registry import topic_admin
from penstock.settings import DEFAULT_BINDING
from penstock.url import Url


@click.group()
def topics() -> None:
    """Create, clear or describe topics.

    A TOPIC is a name, which stands for log:.penstock/log/NAME, or a URL such as log:/data/events.
    """


@topics.command()
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--partitions", type=click.IntRange(1), default=1, show_default=True, help="Partitions of each topic.")
def create(names: tuple[str, ...], partitions: int) -> None:
    """Create topics; one that is there with as many partitions is left as it is."""
    for name in names:
        url = topic_url(name)
        topic_admin(url).create(partitions)
        click.echo(f"{url}: {_count(topic_admin(url).describe())}")


@topics.command()
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
def clear(names: tuple[str, ...]) -> None:
    """Drop all records of topics; the number of partitions stays."""
    for name in names:
        url = topic_url(name)
        topic_admin(url).clear()
        click.echo(f"{url}: cleared, {_count(topic_admin(url).describe())}")


@topics.command()
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@output_option
def describe(names: tuple[str, ...], output: Output) -> None:
    """Show partitions, offsets, bytes and segments of topics."""
    described = {name: topic_admin(topic_url(name)).describe() for name in names}
    if output == "json":
        click.echo(json.dumps(described, indent=2, default=str))
        return
    for name, facts in described.items():
        click.echo(f"{topic_url(name)}: {_count(facts)}")
        details = facts.get("details")
        for part in details if isinstance(details, list) else []:
            click.echo("  " + "  ".join(f"{key} {value}" for key, value in part.items()))


def topic_url(name: str) -> Url:
    """The URL of a topic given by name or URL."""
    return Url.parse(name if ":" in name else DEFAULT_BINDING.format(name=name))


def _count(facts: dict[str, object]) -> str:
    partitions = facts.get("partitions")
    return f"{partitions} partition{'' if partitions == 1 else 's'}"
