"""`penstock bench peers`: Penstock beside other engines over one backlog, in one run on one machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from penstock.apps.ads.peers.contest import ENVIRONMENTS, OWN, PEERS, contenders, shape, write_material
from penstock.apps.ads.trial import clear_workplace
from penstock.bench.peers.environments import SETUP, Environment
from penstock.bench.peers.runner import Outcome, measure
from penstock.cli.options import Output, output_option
from penstock.errors import DeclarationError


@click.group(invoke_without_command=True)
@click.option("--setup", "to_set_up", is_flag=False, flag_value=",".join(ENVIRONMENTS), metavar="[NAMES]",
              help="Make the environments (all, or those named with commas), then end.")  # fmt: skip
@click.pass_context
def peers(context: click.Context, to_set_up: str | None) -> None:
    """Compare Penstock with other engines. Alone it shows which environments are there."""
    if to_set_up is not None:
        for name in _names(to_set_up, tuple(ENVIRONMENTS)):
            _set_up(ENVIRONMENTS[name])
        context.exit(0)
    if context.invoked_subcommand is None:
        for name, environment in ENVIRONMENTS.items():
            _tell(name, environment)


@peers.command()
@click.option("--events", type=click.IntRange(1_000), default=2_000_000, show_default=True, help="Size of the backlog.")
@click.option("--peers", "names", default=",".join(PEERS), show_default=True, help="Which, separated by commas.")
@click.option(
    "--repeat", type=click.IntRange(1), default=3, show_default=True, help="Warm runs of each; the best counts."
)
@click.option("--seed", type=click.IntRange(0), default=20_000, show_default=True, help="Of the backlog.")
@click.option("--broken", type=click.FloatRange(0.0, 1.0), default=0.0, show_default=True, help="Share of bad records.")
@click.option("--defaults/--no-defaults", default=True, show_default=True, help="Also the engines as they come.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".penstock/peers"), show_default=True)
@output_option
def ads(
    events: int, names: str, repeat: int, seed: int, broken: float, defaults: bool, folder: Path, output: Output
) -> int:
    """The ads job: counts per campaign and window over one backlog, by Penstock and by its peers.

    Every result of every run is compared with an independent recount; an engine with one wrong count gets no figure.
    Exit code 1 when one has none.
    """
    everyone = contenders(_names(names, PEERS))
    taking_part = [contender for contender in everyone if defaults or contender.variant != "default"]
    for contender in taking_part:
        if contender.environment is not None:
            contender.environment.demand()
    console = Console(stderr=True)
    try:
        place = clear_workplace(folder)
    except FileExistsError as problem:
        raise click.UsageError(str(problem)) from None
    outcomes: list[Outcome] = []
    with console.status("") as status:
        status.update(f"writing {events:,} events, and counting them independently")
        material = write_material(place, events, seed=seed, broken=broken)
        for contender in taking_part:
            status.update(f"{contender.name}, {contender.variant}: {1 + repeat} runs")
            run_folder = place.folder.absolute() / "runs" / f"{contender.name}-{contender.variant}"
            outcomes.append(measure(contender, material.inputs, run_folder, shape(repeat), material.check))
            console.print(_line(outcomes[-1], material.events))
    if output == "json":
        click.echo(json.dumps(_facts(outcomes, material.events, broken), indent=2))
    else:
        _show(outcomes, material.events)
    return 0 if all(outcome.figures for outcome in outcomes) else 1


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise DeclarationError("PS-BENCH-003", "a peer is unknown", expected=", ".join(known), got=name)
    return names


def _set_up(environment: Environment) -> None:
    console = Console(stderr=True)
    if not environment.ready:
        with console.status(environment.name) as status:
            environment.set_up(lambda line: status.update(line[: console.width - 4]))
    _tell(environment.name, environment)


def _tell(name: str, environment: Environment) -> None:
    state = "ok" if environment.ready else "missing"
    click.echo(f"{state:9} {name:10} {', '.join(environment.requirements)}  {environment.folder}")
    if environment.ready:
        return
    needs = " and a Java" if environment.java else ""
    click.echo(f"{'':9} -> {SETUP} {name}  (about {environment.megabytes} MB to download{needs})")


def _line(outcome: Outcome, events: int) -> str:
    name = f"{outcome.name}, {outcome.variant}"
    if outcome.figures is None:
        return f"{name}: no figure: {outcome.wrong}"
    return f"{name}: {events / outcome.figures.warm_s:,.0f} events/s warm"


def _facts(outcomes: Sequence[Outcome], events: int, broken: float) -> dict[str, object]:
    own = _own(outcomes)
    return {
        "events": events,
        "broken": broken,
        "machine": {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "load_average": list(os.getloadavg()),
        },
        "outcomes": [outcome.to_dict() | _rates(outcome, own, events) for outcome in outcomes],
    }


def _rates(outcome: Outcome, own: Outcome | None, events: int) -> dict[str, float | None]:
    figures = outcome.figures
    if figures is None:
        names = ("warm_events_per_s", "cold_events_per_s", "penstock_is_times_faster", "times_the_cpu_of_penstock")
        return dict.fromkeys(names)
    ours = own.figures if own else None
    cpu = figures.warm_cpu_s / ours.warm_cpu_s if ours and ours.warm_cpu_s and figures.warm_cpu_s else None
    return {
        "warm_events_per_s": events / figures.warm_s,
        "cold_events_per_s": events / figures.cold_s,
        "penstock_is_times_faster": figures.warm_s / ours.warm_s if ours else None,
        "times_the_cpu_of_penstock": cpu,
    }


def _own(outcomes: Sequence[Outcome]) -> Outcome | None:
    return next((outcome for outcome in outcomes if outcome.name == OWN), None)


def _show(outcomes: Sequence[Outcome], events: int) -> None:
    table = Table(title=f"{events:,} ad events, 2 cores; times: how often faster Penstock is")
    table.add_column("engine")
    for name in ("events/s", "cold", "times", "CPU us/event", "times CPU", "MB"):
        table.add_column(name, justify="right")
    for outcome in outcomes:
        table.add_row(*_cells(outcome, _own(outcomes), events))
    Console(file=sys.stdout).print(table)
    for outcome in outcomes:
        versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
        click.echo(f"{outcome.name}, {outcome.variant}: {versions}" if outcome.figures else _line(outcome, events))


def _cells(outcome: Outcome, own: Outcome | None, events: int) -> list[str]:
    figures, rates = outcome.figures, _rates(outcome, own, events)
    name = f"{outcome.name}, {outcome.variant}"
    if figures is None:
        return [name, *["-"] * 6]
    times, cpu = rates["penstock_is_times_faster"], rates["times_the_cpu_of_penstock"]
    return [
        name,
        f"{rates['warm_events_per_s']:,.0f}",
        f"{rates['cold_events_per_s']:,.0f}",
        "-" if times is None else f"{times:.2f}",
        "-" if figures.warm_cpu_s is None else f"{figures.warm_cpu_s / events * 1e6:.2f}",
        "-" if cpu is None else f"{cpu:.2f}",
        "-" if figures.memory_mb is None else f"{figures.memory_mb:,.0f}",
    ]
