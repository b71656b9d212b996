"""`penstock ls`: what a pipeline declares, and what each source and sink is bound to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import click

from penstock.cli.options import Job, PipelineOptions, pipeline_options


@dataclass(frozen=True)
class Entry:
    """One declaration."""

    kind: str
    name: str
    detail: str
    binding: str
    where: str


@click.command()
@pipeline_options
def ls(options: PipelineOptions) -> None:
    """List the sources, views, steps, sinks and parameters of PIPELINE, with bindings and places."""
    job = options.load()
    entries = _entries(job)
    if options.output == "json":
        click.echo(json.dumps([asdict(entry) for entry in entries]))
        return
    rows = [(e.kind, e.name, e.detail, e.binding, e.where) for e in entries]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    for *columns, where in rows:
        cells = [text.ljust(width) for text, width in zip(columns, widths, strict=True)]
        click.echo("  ".join([*cells, where]).rstrip())


def _entries(job: Job) -> list[Entry]:
    graph, shown = job.graph, job.target.shown
    entries = [
        Entry(s.kind if s.clock is None else "clock", s.name, _key(s.key), shown[f"source:{s.name}"], str(s.where))
        for s in graph.sources
    ]
    entries += [Entry("view", v.name, f"emit {v.emit}", "", str(v.where)) for v in graph.views]
    entries += [Entry("step", s.name, f"from {s.input}", "", str(s.where)) for s in graph.steps]
    entries += [Entry("sink", s.name, f"from {s.view}", shown[f"sink:{s.name}"], str(s.where)) for s in graph.sinks]
    entries += [
        Entry("parameter", p.name, f"{p.type} = {graph.values[p.name]}", "", str(p.where)) for p in graph.parameters
    ]
    return entries


def _key(columns: tuple[str, ...]) -> str:
    return f"key {', '.join(columns)}" if columns else ""
