"""`penstock late`: rows that came after the watermark had closed their window."""

from __future__ import annotations

import json

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.cli.tables import show_table
from penstock.runtime.access import ask_state
from penstock.runtime.masking import masked_columns, masked_rows


@click.group()
def late() -> None:
    """List late rows, or apply them as corrections."""


@late.command("ls")
@click.option("--source", metavar="NAME", help="The stream (needed where there are several).")
@click.option("--reveal", is_flag=True, help="Show personal data in the clear.")
@pipeline_options
def list_(options: PipelineOptions, source: str | None, reveal: bool) -> None:
    """List the late rows of PIPELINE with window and watermark."""
    job = options.load()
    reply = ask_state(job.graph, job.target.state, {"do": "late.ls", "source": source}, typed=options.pipeline)
    columns, rows = reply["columns"], reply["rows"]
    assert isinstance(columns, list)
    assert isinstance(rows, list)
    if not reveal:
        rows = masked_rows(columns, rows, masked_columns(job.graph, ("stream",)))
    if options.output == "json":
        for row in rows:
            click.echo(json.dumps(dict(zip(columns, row, strict=True))))
        return
    total = reply["total"]
    show_table(columns, rows, total=total if isinstance(total, int) else None)


@late.command("apply")
@click.option("--source", metavar="NAME", help="The stream (needed where there are several).")
@click.option("--view", metavar="NAME", help="Only rows that were late for this view.")
@pipeline_options
def apply(options: PipelineOptions, source: str | None, view: str | None) -> None:
    """Apply the late rows of PIPELINE as corrections, to every view that they were late for."""
    job = options.load()
    reply = ask_state(
        job.graph, job.target.state, {"do": "late.apply", "source": source, "view": view}, typed=options.pipeline
    )
    if options.output == "json":
        click.echo(json.dumps(reply))
        return
    click.echo(f"{reply['requested']} to apply; done between the next two epochs of the job")
