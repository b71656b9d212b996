"""`penstock verify`: a pipeline against an independent batch over the same input."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, replace

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.verify.check import Subject, Verified, difference_error
from penstock.verify.check import verify as verify_subject


@click.command()
@click.option(
    "--runs", type=click.IntRange(1), default=3, show_default=True, help="The first is whole, others are cut."
)
@click.option("--kills", type=click.IntRange(0), default=3, show_default=True, help="Kills in each run but the first.")
@click.option("--seed", type=click.IntRange(0), help="Of all cuts, epochs and kills (default: a fresh one, shown).")
@click.option("--input", "inputs", multiple=True, metavar="NAME=URL", help="Read a source from here (repeatable).")
@pipeline_options
def verify(options: PipelineOptions, runs: int, kills: int, seed: int | None, inputs: tuple[str, ...]) -> int:
    """Compare PIPELINE with an independent batch over the same input.

    The input is what the sources are bound to. It is run in random epochs, starts and kills, in a state and sinks of
    its own; nothing of the pipeline's own state and sinks is touched. Exit code 3: a difference was found.
    """
    job = replace(options, binds=(*options.binds, *inputs)).load()
    sources = {s.name: job.target.source(s.name) for s in job.graph.sources}
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    text = options.output == "text"
    if text:
        click.echo(f"seed {chosen}", err=True)
    found = verify_subject(
        Subject(options.pipeline, job.graph, sources),
        runs=runs,
        kills=kills,
        seed=chosen,
        tell=lambda line: click.echo(line, err=True) if text else None,
    )
    click.echo(json.dumps(_plain(asdict(found))) if not text else report(found))
    if found.difference is not None:
        raise difference_error(found)
    return 0


def report(found: Verified) -> str:
    """What was compared and seen, as text."""
    killed = sum(found.kills.values())
    lines = [
        f"{found.runs} runs, {found.starts} starts, {killed} kills, {found.epochs} epochs, "
        f"{found.changes} changes folded",
        *(f"  killed {count}x {point}" for point, count in sorted(found.kills.items())),
    ]
    if found.missed:
        lines.append(f"  {found.missed} kills came to nothing: the job was done before")
    for source, counts in found.counts.items():
        told = ", ".join(f"{counts[what]} {what}" for what in ("accepted", "duplicate", "dead"))
        lines.append(f"{source}: {counts['rows']} rows = {told}")
    lines += [f"{view}: {count} late" for view, count in found.late.items()]
    verdict = "equal to the batch" if found.difference is None else "compared"
    lines += [f"{view}: {rows} rows, {verdict}" for view, rows in found.compared.items()]
    lines += [f"{view}: not compared, {reason}" for view, reason in found.skipped.items()]
    rate = found.rows * found.runs / max(found.oracle_s + found.compare_s, 1e-9)
    lines.append(
        f"job {found.job_s:.1f} s, oracle {found.oracle_s:.1f} s, comparison {found.compare_s:.1f} s "
        f"({rate:,.0f} rows/s checked)"
    )
    return "\n".join(lines)


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case None | bool() | int() | float() | str():
            return value
    return str(value)
