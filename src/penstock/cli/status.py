"""`penstock status`: where a pipeline stands, running or not."""

from __future__ import annotations

import json
from typing import Any, cast

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.cli.tables import show_table
from penstock.runtime.access import ask_state
from penstock.runtime.answers import LAST_EPOCHS


@click.command()
@pipeline_options
def status(options: PipelineOptions) -> None:
    """Show rows in, accepted, duplicate, dead and late of PIPELINE, its offsets, watermarks and lag."""
    job = options.load()
    reply = cast(dict[str, Any], ask_state(job.graph, job.target.state, {"do": "status"}, typed=options.pipeline))
    if options.output == "json":
        click.echo(json.dumps(reply, indent=2))
        return
    state = (
        f"running, pid {reply['pid']}, {reply['rows_per_s']} rows/s, lag {reply['lag']}"
        if reply["running"]
        else "not running"
    )
    click.echo(f"{reply['pipeline']}: {state}; epoch {reply['epoch']}; state {job.target.state}")
    columns = ["source", "kind", "rows in", "accepted", "duplicate", "dead", "unknown fields", "watermark", "offsets"]
    rows = [
        [
            name,
            s["kind"],
            s["rows"],
            s["accepted"],
            s["duplicate"],
            s["dead"],
            s["unknown_fields"],
            s["watermark"] or s["version"],
            " ".join(f"{p}:{x['next_offset']}{'(idle)' if x['idle'] else ''}" for p, x in s["partitions"].items()),
        ]
        for name, s in reply["sources"].items()
    ]
    show_table(columns, rows)
    for view, streams in reply["views"].items():
        for stream, v in streams.items():
            click.echo(
                f"view {view}: {v['rows']} rows of {stream} = {v['accepted']} accepted + {v['duplicate']} duplicate "
                f"+ {v['dead']} dead + {v['late']} late"
            )
    for view, epochs in reply["computed_again"].items():
        click.echo(f"view {view}: computed again as a whole in {epochs} of the last {LAST_EPOCHS} epochs")
    if reply["open_dead_letters"]:
        click.echo(f"open dead letters: {reply['open_dead_letters']} (penstock dlq ls {options.pipeline})")
    for name, sink in reply.get("sinks", {}).items():
        click.echo(
            f"sink {name}: {sink['delivered_rows']} rows delivered, {sink['waiting_epochs']} epochs waiting, "
            f"{sink['guarantee']}"
        )
    for alert in reply.get("alerts", [])[-5:]:
        click.secho(f"alert: {alert}", fg="yellow")
