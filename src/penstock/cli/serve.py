"""`penstock serve`: the live page of a pipeline, whether a job runs on its state or not."""

from __future__ import annotations

import importlib.util
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.options import Job, PipelineOptions, pipeline_options
from penstock.engines.duckdb.engine import DATABASE, compile_for_duckdb
from penstock.errors import Unsupported
from penstock.plan.plan import Plan
from penstock.runtime.access import Asker, no_state
from penstock.runtime.lock import StateLock

if TYPE_CHECKING:
    from penstock.page.server import Page


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address asks for a token.")
@click.option("--reveal", is_flag=True, help="Show personal data in the clear.")
@pipeline_options
def serve(options: PipelineOptions, port: int, host: str, reveal: bool) -> None:
    """Show PIPELINE in a browser until Ctrl-C: its graph, tables, dead letters, late rows and figures."""
    job = options.load()
    _check_state(job.target.state, options.pipeline)
    plan = compile_for_duckdb(job.graph, in_memory=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with open_page(job, plan, host=host, port=port, reveal=reveal) as page:
        click.echo(f"{job.graph.name}: {page.url}")
        stop.wait()


def open_page(job: Job, plan: Plan, *, host: str = "127.0.0.1", port: int = 0, reveal: bool = False) -> Page:
    """Serve the page of a job.

    Raises:
        Unsupported: PS-PLAN-001 when the libraries that serve it are not installed.
        RunError: PS-RUN-005 when the port cannot be used.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise Unsupported(
            "PS-PLAN-001",
            "the page needs libraries that are not installed",
            expected="starlette and uvicorn",
            got=f"no {' and no '.join(missing)}",
            hint="pip install 'penstock[page]'",
        )
    from penstock.page.picture import picture
    from penstock.page.server import Page

    folder = job.target.state
    shown = picture(plan, reveal=reveal)
    return Page(job.graph, shown, Asker(plan, folder), folder, host=host, port=port, reveal=reveal)


def _check_state(folder: Path, typed: str) -> None:
    if StateLock.holder(folder) is None and not (folder / DATABASE).exists():
        raise no_state(folder, f"penstock run {typed} --ui makes it and shows it")
