"""`penstock explain`: how each view is kept up to date, and why so."""

from __future__ import annotations

import dataclasses
import json

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationError
from penstock.plan.explain import BlockReport, ViewReport
from penstock.plan.explain import explain as explain_plan


@click.command()
@click.option("--view", metavar="NAME", help="Only this view or source.")
@click.option("--sql/--no-sql", "show_sql", default=True, help="Show the generated SQL.")
@pipeline_options
def explain(options: PipelineOptions, view: str | None, show_sql: bool) -> None:
    """Show strategy, reason, state, bound and SQL of each block of PIPELINE."""
    job = options.load()
    reports = explain_plan(compile_for_duckdb(job.graph, in_memory=False), view)
    if view is not None and not reports:
        names = ", ".join([s.name for s in job.graph.sources] + [v.name for v in job.graph.views])
        raise DeclarationError("PS-DECL-003", f"there is no view {view}", expected=names, got=view)
    if options.output == "json":
        click.echo(json.dumps([dataclasses.asdict(r) for r in reports], indent=2))
        return
    for report in reports:
        _show(report, show_sql=show_sql)


def _show(report: ViewReport, *, show_sql: bool) -> None:
    key = f"  key {', '.join(report.key)}" if report.key else ""
    emit = f"  emit {report.emit}" if report.emit else ""
    click.secho(f"{report.kind} {report.name}{key}{emit}", bold=True)
    for block in report.blocks:
        _show_block(block, show_sql=show_sql)
    click.echo()


def _show_block(block: BlockReport, *, show_sql: bool) -> None:
    reads = f"  reads {', '.join(block.inputs)}" if block.inputs else ""
    click.echo(f"  {block.kind} {block.name}: {block.strategy} ({block.reason}){reads}")
    for state in block.state:
        click.echo(f"    state {state}")
    if not block.state:
        click.echo("    no state")
    if block.late:
        click.echo(f"    late  {block.late}")
    for note in block.notes:
        click.echo(f"    note  {note}")
    if show_sql and block.sql:
        for number, line in enumerate(block.sql.splitlines()):
            click.echo(f"    {'sql   ' if number == 0 else '      '}{line}")
