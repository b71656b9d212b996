"""`penstock plan`: what a run of a changed pipeline does to its state, before it does it."""

from __future__ import annotations

import json

import click

from penstock.cli.options import Job, PipelineOptions, pipeline_options
from penstock.connectors.registry import open_source
from penstock.engines.duckdb.engine import DATABASE, compile_for_duckdb
from penstock.plan.plan import Plan
from penstock.runtime.change import Outlook, outlook
from penstock.runtime.lock import StateLock


@click.command()
@pipeline_options
def plan(options: PipelineOptions) -> int:
    """Show what a run of PIPELINE reuses of its state, builds again, adds and drops. Nothing is changed.

    Exit code 1 where a run would refuse, 0 else.
    """
    job = options.load()
    compiled = compile_for_duckdb(job.graph, in_memory=False)
    fresh = not (job.target.state / DATABASE).exists()
    ahead = None if fresh else _ahead(job, compiled)
    if options.output == "json":
        click.echo(json.dumps(_report(compiled, fresh, ahead)))
    else:
        for line in _lines(job, compiled, fresh, ahead):
            click.echo(line)
    return int(ahead is not None and bool(ahead.refused))


def _ahead(job: Job, compiled: Plan) -> Outlook | None:
    lock = StateLock.take(job.target.state)
    try:
        return outlook(compiled, job.target.state, lambda s: open_source(job.target.source(s.name), s.name))
    finally:
        lock.release()


def _lines(job: Job, compiled: Plan, fresh: bool, ahead: Outlook | None) -> list[str]:
    if fresh:
        names = ", ".join(v.name for v in compiled.views)
        return (
            [f"there is no state in {job.target.state}: a run makes it, and reads the sources from their start"]
            + ([f"added    {names}"] if names else [])
            + _kept(compiled)
        )
    if ahead is None:
        return ["nothing has changed: a run goes on where the state stands", *_kept(compiled)]
    return ahead.lines() + _kept(compiled)


def _kept(compiled: Plan) -> list[str]:
    return [f"keeps    {table.name}, bound by {table.bound}" for node in compiled.nodes for table in node.state]


def _report(compiled: Plan, fresh: bool, ahead: Outlook | None) -> dict[str, object]:
    kept = {t.name: str(t.bound) for node in compiled.nodes for t in node.state}
    if ahead is None:
        return {"state": "new" if fresh else "unchanged", "keeps": kept}
    change = ahead.change
    views = {what: change.views(what) for what in ("reused", "rebuilt", "added", "dropped")}
    again = {
        a.source: {"first": a.first, "upto": a.upto, "offsets": a.offsets, "earliest": a.lost} for a in ahead.again
    }
    return {
        "state": "refused" if ahead.refused else "changed",
        **views,
        "contracts": dict(change.contracts),
        "again": again,
        "because": dict(change.again),
        "stored_rows": ahead.stored_rows,
        "asks": ahead.asks,
        "refused": ahead.refused,
        "keeps": kept,
    }
