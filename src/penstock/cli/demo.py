"""`penstock demo`: producers and job together for half a minute, and every event accounted for at the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.apps.ads.faults import Disturbance
from penstock.apps.ads.producer import Production
from penstock.apps.ads.trial import Moment, Outcome, Trial, clear_workplace
from penstock.cli.load_options import LoadDefaults, Seconds, load_options
from penstock.cli.options import Output, output_option
from penstock.errors import RunError

STAGES = {
    "start": "starting the job",
    "load": "events flow",
    "drain": "stopping the job, then draining what is left",
    "check": "counting every record of the topic again",
    "done": "done",
}
DEFAULTS = LoadDefaults(rate=20_000.0, duration_s=30.0, disturbance=Disturbance(broken=0.001, late=0.0005))


@click.command()
@click.argument("application", type=click.Choice(["ads"]), default="ads")
@load_options(DEFAULTS)
@click.option("--watermark", type=Seconds(), default="5s", show_default=True, help="How long windows wait.")
@click.option("--partitions", type=click.IntRange(1), default=2, show_default=True, help="Of the topic events.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".penstock/demo"), show_default=True)
@output_option
def demo(
    production: Production, application: str, watermark: float, partitions: int, folder: Path, output: Output
) -> int:
    """Run producers and the ads job together for half a minute, then check every event.

    A few broken and late events are among them. Exit code 1 if one event is lost or doubled.
    """
    console = Console(stderr=True)
    try:
        place = clear_workplace(folder)
    except FileExistsError as problem:
        raise click.UsageError(str(problem)) from None
    trial = Trial(place, production, partitions=partitions, watermark_s=watermark, pipeline=application)
    with _bar(console) as bar:
        task = bar.add_task(STAGES["start"], total=production.expected_events, facts="")
        outcome = trial.run(lambda moment: _show(bar, task, moment))
    if output == "json":
        click.echo(json.dumps(outcome.verdict.to_dict(), indent=2))
    else:
        _report(Console(), outcome, folder)
    if not outcome.verdict.right:
        raise RunError(
            "PS-BENCH-001",
            "the counts disagree",
            expected="every event counted exactly once",
            got=f"{outcome.verdict.lost:,} lost, {outcome.verdict.doubled:,} doubled, see above",
            hint=f"topics, state and ledgers are kept in {folder}",
        )
    return 0


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _show(bar: Progress, task: TaskID, moment: Moment) -> None:
    bar.update(task, description=STAGES[moment.stage])
    if moment.stage == "load":
        facts = f"sent {moment.sent:,}  counted {moment.counted:,}  epoch {moment.epoch:,}"
        bar.update(task, completed=moment.sent, facts=facts)


def _report(console: Console, outcome: Outcome, folder: Path) -> None:
    verdict = outcome.verdict
    console.print(_table(outcome))
    console.print(
        f"records {verdict.records:,} = accepted {verdict.accepted:,} + late {verdict.late:,}"
        f" + dead {sum(verdict.dead.values()):,}"
    )
    if verdict.dead:
        console.print("dead letters by rule: " + ", ".join(f"{rule} {n:,}" for rule, n in sorted(verdict.dead.items())))
    sent = sum(ledger.durable for ledger in outcome.ledgers)
    console.print(
        f"{sent:,} events sent in {outcome.load_s:.1f} s, intended to actual send:"
        f" P50 {outcome.lag.percentile(50) / 1e3:.1f} ms, P99 {outcome.lag.percentile(99) / 1e3:.1f} ms"
    )
    console.print(f"results: {outcome.results.records:,} changes in {outcome.results.epoch + 1:,} epochs")
    if verdict.right:
        console.print(f"[green]Right:[/green] every event counted exactly once ({folder}).")
    else:
        console.print(f"[red]WRONG:[/red] lost {verdict.lost:,}, doubled {verdict.doubled:,}.")
        for difference in verdict.job_differences[:10]:
            console.print(f"  job and topic: {difference}")
        for difference in verdict.unsent[:10]:
            console.print(f"  producers and topic: {difference}")
        for mistake in verdict.mistakes[:10]:
            console.print(f"  {mistake}")


def _table(outcome: Outcome) -> Table:
    """Events per campaign (rows) and window (columns): the job's count, and the right one where it differs."""
    cells = {**outcome.counted.accepted, **outcome.results.cells}
    windows = sorted({start for _, start in cells})
    table = Table(title="events per campaign and window (start of the window, UTC)")
    table.add_column("campaign", justify="right")
    for start in windows:
        table.add_column(f"{datetime.fromtimestamp(start / 1e6, UTC):%H:%M:%S}", justify="right")
    for campaign in sorted({campaign for campaign, _ in cells}):
        table.add_row(str(campaign), *(_cell(outcome, campaign, start) for start in windows))
    return table


def _cell(outcome: Outcome, campaign: int, start: int) -> str:
    got = outcome.results.cells.get((campaign, start))
    expected = outcome.counted.accepted.get((campaign, start))
    if got == expected:
        return f"{got.count:,}" if got else ""
    return f"[red]{got.count if got else 0:,} (not {expected.count if expected else 0:,})[/red]"
