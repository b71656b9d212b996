"""`penstock bench margin`: what a tick of the margin monitor costs, against a script and arrays that do the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from penstock.apps.margin.speed.contest import Load, Result, contest
from penstock.apps.margin.speed.portfolio import Size
from penstock.bench.folders import emptied
from penstock.bench.report import Judgement, Machine, Report, Table, now, this_machine
from penstock.bench.report_html import write_html
from penstock.cli.ads_report import fail_unless_right, new_report, say_judgement, whole_table
from penstock.cli.options import Output, output_option

MARK = ".penstock-bench"
COLUMNS = (
    *("symbols", "changes", "tick ms", "script ms", "arrays ms", "ratio"),
    *("tick CPU ms", "script CPU ms", "CPU ratio"),
)
NOTE = (
    "Medians. changes: records of all sinks. ratio: the tick over the script, which writes all positions and margins "
    "in one transaction; the pipeline writes stress results, too, and follows the ladder. The arrays store nothing."
)


@click.command()
@click.option("--accounts", type=click.IntRange(1), default=2_000, show_default=True)
@click.option("--symbols", type=click.IntRange(1), default=1_000, show_default=True)
@click.option(
    "--positions", type=click.IntRange(1), default=20_000, show_default=True, help="Of all accounts together."
)
@click.option("--ticks", type=click.IntRange(1), default=5, show_default=True, help="Measured of each size.")
@click.option(
    "--rate", "rates", type=click.IntRange(1), multiple=True, help="Also offer ticks at this rate per second."
)
@click.option("--duration", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds, of each rate.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".penstock/bench/margin"), show_default=True)
@click.option("--report", "to", type=click.Path(path_type=Path), help="Where the report goes (.json, .html are added).")
@output_option
def margin(
    accounts: int,
    symbols: int,
    positions: int,
    ticks: int,
    rates: tuple[int, ...],
    duration: float,
    seed: int,
    folder: Path,
    to: Path | None,
    output: Output,
) -> None:
    """Measure a tick of 1, of 100 and of all symbols, from the price to committed rows.

    The same ticks go to a hand-written DuckDB script and to NumPy arrays, in turn in one process. Exit code 1 if not
    all positions and margins of the three are equal after the ticks of each size. FOLDER is emptied if it is of an
    earlier run.
    """
    if not accounts <= positions <= accounts * symbols:
        raise click.UsageError("an account has at least one position, and at most one in each symbol")
    size, machine = Size(accounts, symbols, positions, seed), this_machine()
    try:
        emptied(folder, MARK, "benchmark")
    except FileExistsError as problem:
        raise click.UsageError(str(problem)) from None
    progress = Console(stderr=True)
    load = Load(ticks, rates, duration)
    result = contest(size, folder, load, lambda text: progress.print(text, highlight=False))
    report = margin_report(size, load, result, machine)
    path = to or new_report("margin")
    report.write_json(path.with_suffix(".json"))
    write_html(report, path.with_suffix(".html"))
    if output == "json":
        click.echo(json.dumps(report.to_dict(), indent=1))
    else:
        console = Console()
        for table in report.tables:
            console.print(whole_table(table))
        for name, value in report.figures.items():
            console.print(f"{name:32} {value:,.1f}", highlight=False)
        say_judgement(console, report)
        click.echo(f"{path.with_suffix('.json')}\n{path.with_suffix('.html')}")
    fail_unless_right(report, path.with_suffix(".html"), folder, void_is_failure=False)


def margin_report(size: Size, load: Load, result: Result, machine: Machine) -> Report:
    """The report; it is wrong where the three disagree."""
    wrong = (result.difference,) if result.difference else ()
    headline = "the three disagree" if wrong else f"all rows of {size.positions:,} positions are equal"
    rows = tuple(
        (
            *(cost.symbols, cost.changes, cost.pipeline.wall_ms, cost.script.wall_ms, cost.arrays.wall_ms, cost.ratio),
            *(cost.pipeline.cpu_ms, cost.script.cpu_ms, cost.cpu_ratio),
        )
        for cost in result.costs
    )
    figures = {
        "load_s": result.load.wall_ms / 1e3,
        "load_cpu_s": result.load.cpu_ms / 1e3,
        "reopen_s": result.reopen.wall_ms / 1e3,
        "clock_tick_ms": result.clock.wall_ms,
        "loaded_memory_mb": float(result.loaded_mb),
        "peak_memory_mb": float(result.peak_mb),
        "state_mb": float(result.state_mb),
    }
    return Report(
        "a tick of the margin monitor",
        now(),
        Judgement("wrong" if wrong else "right", headline, wrong),
        machine,
        {**asdict(size), "ticks": load.ticks, "seconds of each rate": load.seconds},
        figures=figures,
        tables=(Table("ticks", "from a price to committed rows", COLUMNS, rows, note=NOTE), *_curve(result)),
    )


def _curve(result: Result) -> tuple[Table, ...]:
    rows = tuple((c.rate, c.ticks, c.epochs, c.changes, c.p50_ms, c.p99_ms) for c in result.curve)
    columns = ("ticks/s", "ticks", "epochs", "changes", "P50 ms", "P99 ms")
    note = "From when a tick was due to the commit with its price or a newer one of the symbol."
    return (Table("curve", "latency of ticks that are offered at a rate", columns, rows, note=note),) if rows else ()
