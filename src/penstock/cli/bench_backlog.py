"""What `penstock bench ads --backlog` found, on the terminal; with `--report` or `--profile` as JSON and a page too."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from penstock.apps.ads.backlog import Found
from penstock.bench.profile import profile_table
from penstock.bench.report import Judgement, Report, now, this_machine
from penstock.bench.report_html import write_html
from penstock.cli.ads_report import new_report, whole_table
from penstock.cli.options import Output


def show_backlog(found: Found, report: Path | None, output: Output) -> None:
    """Print the figures; write the report where one was asked for."""
    path = report or (new_report("ads-backlog") if found.profile is not None else None)
    if path is not None:
        whole = _report(found)
        whole.write_json(path.with_suffix(".json"))
        write_html(whole, path.with_suffix(".html"))
    if output == "json":
        profile = {"profile": asdict(found.profile)} if found.profile is not None else {}
        click.echo(json.dumps({"figures": found.figures, "profile_s": found.seconds} | profile, indent=2))
        return
    console = Console(file=sys.stdout)
    console.print(_figures(found))
    if found.profile is not None:
        console.print(whole_table(profile_table(found.profile)))
    if path is not None:
        click.echo(f"{path.with_suffix('.json')}\n{path.with_suffix('.html')}")


def _report(found: Found) -> Report:
    numbers = {name: float(value) for name, value in found.figures.items() if isinstance(value, int | float)}
    spent = {f"in_{block.replace(' ', '_').replace(',', '')}_s": seconds for block, seconds in found.seconds.items()}
    return Report(
        "Ad campaigns: a backlog",
        now(),
        Judgement("right", f"{found.figures['events']:,} events, each counted exactly once in every drain."),
        this_machine(),
        {"emit": found.figures["emit"]},
        {},
        numbers | spent,
        tables=(profile_table(found.profile),) if found.profile is not None else (),
    )


def _figures(found: Found) -> Table:
    table = Table(title="penstock bench ads")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in found.figures.items():
        table.add_row(name, _readable(value))
    for name, seconds in sorted(found.seconds.items(), key=lambda item: -item[1]):
        table.add_row(f"time in {name}, s", f"{seconds:.3f}")
    return table


def _readable(value: float | int | str) -> str:
    match value:
        case float():
            return f"{value:,.0f}" if value >= 1_000 else f"{value:,.3f}"
        case int():
            return f"{value:,}"
        case _:
            return value
