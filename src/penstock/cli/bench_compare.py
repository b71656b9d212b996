"""`penstock bench compare`: two reports, their ratios and a verdict."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from penstock.bench.compare import TOLERANCE, Comparison, compare_reports
from penstock.bench.report import read_report
from penstock.bench.report_chart import number
from penstock.cli.options import Output, output_option
from penstock.errors import DeclarationError

COLOURS = {"better": "green", "worse": "red"}
Existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("first", type=Existing)
@click.argument("second", type=Existing)
@click.option("--force", is_flag=True, help="Compare different machines, settings or runs that do not count.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=TOLERANCE,
    show_default=True,
    help="What counts as the same.",
)
@output_option
def compare(first: Path, second: Path, force: bool, tolerance: float, output: Output) -> None:
    """Compare the report SECOND with FIRST: the ratio of each figure, and whether it is better or worse.

    Refuses (exit code 2) reports of different machines or settings, and runs that do not count; --force compares them.
    """
    found = compare_reports(read_report(first), read_report(second), tolerance=tolerance)
    if found.obstacles and not force:
        raise DeclarationError(
            "PS-BENCH-006",
            "the two reports are not of the same thing",
            expected="the same machine and settings, and runs that count",
            got="\n       ".join(found.obstacles),
            hint="--force compares them all the same",
        )
    if output == "json":
        click.echo(json.dumps(asdict(found) | {"verdict": found.verdict}, indent=1))
        return
    Console().print(_table(found))
    for obstacle in found.obstacles:
        click.echo(f"not the same: {obstacle}")
    for note in found.notes:
        click.echo(f"note: {note}")
    click.echo(found.verdict)


def _table(found: Comparison) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("figure")
    for name in ("first", "second", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("second is")
    for each in found.figures:
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else ""
        colour = COLOURS.get(each.verdict)
        table.add_row(each.name, number(each.first), number(each.second), ratio, each.verdict, style=colour)
    return table
