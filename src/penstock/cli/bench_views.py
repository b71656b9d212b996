"""`penstock bench views`: what an epoch of an incremental view costs, against computing it again."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from penstock.bench.report import Report, this_machine
from penstock.bench.report_html import write_html
from penstock.bench.views.measure import Load, ViewCost, measure
from penstock.bench.views.outcome import views_report
from penstock.bench.views.suite import SUITES, suite
from penstock.cli.ads_report import fail_unless_right, new_report, say_judgement
from penstock.cli.options import Output, output_option


@click.command()
@click.argument("names", metavar="[VIEW]...", nargs=-1)
@click.option("--suite", "suite_name", type=click.Choice(SUITES), default="tpch", show_default=True)
@click.option(
    "--scale", type=click.FloatRange(0.001), default=0.1, show_default=True, help="1: 6 M lines, or 1 M events."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of each side. [default: all]")
@click.option("--report", "to", type=click.Path(path_type=Path), help="Where the report goes (.json, .html are added).")
@output_option
def views(
    names: tuple[str, ...],
    suite_name: str,
    scale: float,
    seed: int,
    threads: int | None,
    to: Path | None,
    output: Output,
) -> None:
    """Measure epochs of 1 row, 100 rows and 0.1% of the rows, for each VIEW of TPC-H or Nexmark (default: all).

    Each epoch is followed by the recompute and comparison of the same view in the same process. Exit code 1 if a view
    ends with other rows than its batch.
    """
    known = [view.name for view in suite(suite_name).views]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no view {', '.join(unknown)} in {suite_name}; there are {', '.join(known)}")
    load = Load(suite_name, scale, seed, threads)
    machine = this_machine()
    costs: list[ViewCost] = []
    progress = Console(stderr=True)
    for name in names or known:
        costs.append(measure(load, name))
        progress.print(_line(costs[-1]), highlight=False)
    report = views_report(load, costs, machine)
    path = to or new_report(f"views-{suite_name}")
    report.write_json(path.with_suffix(".json"))
    write_html(report, path.with_suffix(".html"))
    if output == "json":
        click.echo(json.dumps(report.to_dict(), indent=1))
    else:
        _show(report)
        click.echo(f"{path.with_suffix('.json')}\n{path.with_suffix('.html')}")
    fail_unless_right(report, path.with_suffix(".html"), path.parent, void_is_failure=False)


def _line(cost: ViewCost) -> str:
    sizes = ", ".join(f"{each.size} {each.ratio:.2f}" for each in cost.costs)
    return f"{cost.view}: {cost.source_rows:,} rows of {cost.source}; {sizes}"


def _show(report: Report) -> None:
    console = Console()
    (table,) = report.tables
    shown = Table(title=table.title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    # The strategies are in the files.
    for place, name in enumerate(table.columns[:-1]):
        shown.add_column(name, justify="left" if place < 2 else "right")
    for row in table.rows:
        shown.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row[:-1]))
    console.print(shown)
    for name, value in report.figures.items():
        console.print(f"{name:32} {value:.3f}", highlight=False)
    say_judgement(console, report)
