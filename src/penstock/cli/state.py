"""`penstock state`: what a state remembers, for other runs."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.runtime.access import ask_state
from penstock.storage.files import write_atomic


@click.group()
def state() -> None:
    """Look into the state of a pipeline."""


@state.command("journal")
@click.option("--to", "file", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
@pipeline_options
def journal(options: PipelineOptions, file: Path | None) -> None:
    """Write the journal of PIPELINE, an object an epoch.

    `penstock run --journal FILE` runs the same epochs again.
    """
    job = options.load()
    reply = ask_state(job.graph, job.target.state, {"do": "journal"}, typed=options.pipeline)
    rows = reply["rows"]
    assert isinstance(rows, list)
    text = "".join(f"{row[0]}\n" for row in rows)
    if file is None:
        click.echo(text, nl=False)
    else:
        write_atomic(file, text.encode())
        click.echo(f"{len(rows)} epochs in {file}", err=True)
