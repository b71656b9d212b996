"""A trial of the ads application on the terminal: the live line, the report, and the files that it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.apps.ads.trial import Moment, Outcome, Trial
from penstock.bench.report import Report, Status, Value
from penstock.bench.report import Table as ReportTable
from penstock.bench.report_chart import number
from penstock.bench.report_html import write_html
from penstock.cli.options import Output
from penstock.errors import RunError

REPORTS = Path(".penstock/reports")
STAGES = {
    "start": "starting calculator, job and producers",
    "load": "events flow",
    "count": "counting every record of the topic again",
    "drain": "waiting for the last results",
    "measure": "measuring latencies",
    "done": "done",
}
COLOURS: dict[Status, str] = {"right": "green", "wrong": "red", "void": "yellow"}
WINDOW_COLUMNS = ("window (UTC)", "expected", "counted", "lost", "doubled", "late", "P50", "P99", "max")


def watched(trial: Trial, expected_events: float) -> Outcome:
    """Run a trial with a progress bar on stderr."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(STAGES["start"], total=expected_events, facts="")
        return trial.run(lambda moment: _show(bar, task, moment))


def _show(bar: Progress, task: TaskID, moment: Moment) -> None:
    bar.update(task, description=STAGES[moment.stage])
    if moment.stage == "load":
        seen = moment.seen
        bar.update(task, completed=moment.sent, facts=f"sent {moment.sent:,}  in results {seen.counted:,}")


def new_report(name: str) -> Path:
    """Where a report goes unless somebody says where: a name that no earlier report has, without its suffix."""
    return REPORTS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def publish(report: Report, path: Path, output: Output) -> Path:
    """Write the report as JSON and HTML beside each other and show it; the path of the page comes last."""
    page = path.with_suffix(".html")
    report.write_json(path.with_suffix(".json"))
    write_html(report, page)
    if output == "json":
        click.echo(json.dumps(report.to_dict(), indent=1))
        return page
    console = Console()
    console.print(_latencies(report))
    for table in report.tables:
        console.print(_rows(table) if table.name == "windows" else whole_table(table))
    counts = report.counts
    console.print(f"{accounting(counts)}\nlost {counts['lost']:,}, doubled {counts['doubled']:,}")
    say_judgement(console, report)
    # Not through rich, which would break a long path into lines.
    click.echo(f"{path.with_suffix('.json')}\n{page}")
    return page


def accounting(counts: Mapping[str, int]) -> str:
    """What became of the records. With `duplicate` they are counted by source, of which late ones are a part."""
    records, accepted, late, dead = (counts[name] for name in ("records", "accepted", "late", "dead"))
    if "duplicate" in counts:
        whole = f"records {records:,} = accepted {accepted:,} + duplicate {counts['duplicate']:,} + dead {dead:,}"
        return f"{whole}; late for a view, of the accepted: {late:,}"
    return f"records {records:,} = accepted {accepted:,} + late {late:,} + dead {dead:,}"


def say_judgement(console: Console, report: Report) -> None:
    """The judgement, and what exactly was found."""
    judgement = report.judgement
    colour = COLOURS[judgement.status]
    console.print(f"[{colour}]{judgement.status.capitalize()}:[/{colour}] {escape(judgement.headline)}")
    for reason in judgement.reasons:
        console.print(f"  {reason}", markup=False, highlight=False)


def fail_unless_right(report: Report, page: Path, kept: Path, *, void_is_failure: bool) -> None:
    """Raise what makes the exit code 1.

    Raises:
        RunError: PS-BENCH-001, an event was lost or doubled; PS-BENCH-007, the measurement is void.
    """
    judgement = report.judgement
    first = judgement.reasons[0] if judgement.reasons else judgement.headline
    match judgement.status:
        case "wrong":
            raise RunError(
                "PS-BENCH-001",
                "the counts disagree",
                expected="every event counted exactly once",
                got=f"{judgement.headline} {first}",
                hint=f"{page}; topics, state and ledgers are kept in {kept}",
            )
        case "void" if void_is_failure:
            raise RunError(
                "PS-BENCH-007",
                "the latencies do not count",
                expected="a load that is sent as it was scheduled",
                got=first,
                hint=f"{page}; run it again on a quiet machine, or with a lower --rate",
            )
        case _:
            return


def _latencies(report: Report) -> Table:
    table = _compact(f"{report.title}, latency in milliseconds")
    table.add_column("latency", no_wrap=True)
    for name in ("mean", "P50", "P90", "P99", "P99.9", "max", "count"):
        table.add_column(name, justify="right")
    for each in report.latencies:
        figures = (each.mean_ms, each.p50_ms, each.p90_ms, each.p99_ms, each.p999_ms, each.max_ms)
        table.add_row(each.name.replace("_", " "), *map(number, figures), f"{each.count:,}")
    return table


def _compact(title: str) -> Table:
    """A table that fits 80 columns."""
    return Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _rows(table: ReportTable) -> Table:
    """The columns that fit a terminal; the page has them all."""
    chosen = [table.columns.index(name) for name in WINDOW_COLUMNS if name in table.columns]
    shown = _compact(f"{table.title}, event latency in milliseconds")
    for index in chosen:
        shown.add_column(table.columns[index], justify="right" if index else "left")
    for place, row in enumerate(table.rows):
        shown.add_row(*(_cell(row[index]) for index in chosen), style="red" if place in table.marked else None)
    return shown


def whole_table(table: ReportTable) -> Table:
    """All of a small table, its note below."""
    shown = _compact(table.title)
    shown.caption, shown.caption_justify = table.note, "left"
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if isinstance(table.rows[0][index], float) else "left")
    for row in table.rows:
        shown.add_row(*map(_cell, row))
    return shown


def _cell(value: Value) -> str:
    match value:
        case None:
            return ""
        case float():
            return number(value)
        case int():
            return f"{value:,}"
        case _:
            return value
