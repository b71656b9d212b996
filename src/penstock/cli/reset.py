"""`penstock reset`: forget a pipeline's state and start again from its sources."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.engines.duckdb.engine import DATABASE
from penstock.errors import StateError
from penstock.runtime.lock import StateLock


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@pipeline_options
def reset(options: PipelineOptions, yes: bool) -> None:
    """Drop the state of PIPELINE. Its dead letters and late rows stay in the old file, kept beside the new one."""
    job = options.load()
    folder = job.target.state
    if not (folder / DATABASE).exists():
        raise StateError("PS-STATE-007", "there is no state here", expected=str(folder / DATABASE), got="nothing")
    if not yes:
        click.confirm(f"drop the state in {folder}?", abort=True, err=True)
    lock = StateLock.take(folder)
    try:
        kept = _free_name(folder)
        shutil.move(folder / DATABASE, kept)
        wal = folder / f"{DATABASE}.wal"
        if wal.exists():
            shutil.move(wal, kept.with_name(f"{kept.name}.wal"))
        (folder / "mark").unlink(missing_ok=True)
    finally:
        lock.release()
    click.echo(f"{job.graph.name} starts again from its sources at the next run; the old state is kept as {kept}")


def _free_name(folder: Path) -> Path:
    """A second reset keeps what the first one kept."""
    return next(name for n in itertools.count(1) if not (name := folder / f"{DATABASE}.before-reset-{n}").exists())
