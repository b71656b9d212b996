"""`penstock sql`: read-only queries over a pipeline's views, also while it runs."""

from __future__ import annotations

import json
import sys

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.cli.tables import show_table
from penstock.runtime.access import ask_state


@click.command()
@pipeline_options
@click.argument("query", required=False)
def sql(options: PipelineOptions, query: str | None) -> None:
    """Run QUERY (or what stands on standard input) over the views of PIPELINE; it cannot change anything."""
    job = options.load()
    text = query if query is not None else sys.stdin.read()
    reply = ask_state(job.graph, job.target.state, {"do": "sql", "query": text}, typed=options.pipeline)
    columns, rows = reply["columns"], reply["rows"]
    assert isinstance(columns, list)
    assert isinstance(rows, list)
    if options.output == "json":
        for row in rows:
            click.echo(json.dumps(dict(zip(columns, row, strict=True))))
        return
    total = reply["total"]
    show_table(columns, rows, total=total if isinstance(total, int) else None)
