"""`penstock reset`: start a pipeline again from its sources."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.engines.duckdb.engine import DATABASE
from penstock.errors import StateError
from penstock.runtime.reset import Reset, reset_state


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@pipeline_options
def reset(options: PipelineOptions, yes: bool) -> None:
    """Start PIPELINE again from its sources. Dead letters and late rows come along; the old state is kept aside."""
    job = options.load()
    folder = job.target.state
    if not (folder / DATABASE).exists():
        raise StateError("PS-STATE-007", "there is no state here", expected=str(folder / DATABASE), got="nothing")
    if not yes:
        click.confirm(f"drop the state in {folder}?", abort=True, err=True)
    done = reset_state(job.graph, folder)
    if options.output == "json":
        carried = asdict(done.carried) | {"left": dict(done.carried.left)} if done.carried else None
        click.echo(json.dumps({"kept": str(done.kept), "carried": carried}))
        return
    click.echo(f"{job.graph.name} starts again from its sources at the next run; the old state is kept as {done.kept}")
    for line in _told(done):
        click.echo(line)


def _told(done: Reset) -> list[str]:
    if done.carried is None:
        return ["the old state could not be read: its dead letters and late rows are in that file alone"]
    lines = [f"{done.carried.dead} dead letters and {done.carried.late} late rows came along"]
    return lines + [
        f"{count} late rows of {stream} are in the old file alone: the contract has other columns now"
        for stream, count in done.carried.left
    ]
