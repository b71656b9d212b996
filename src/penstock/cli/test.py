"""`penstock test`: the fixtures of a pipeline, and the simulation of faults."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.errors import DeclarationError, RunError
from penstock.load import load_pipeline
from penstock.pipeline import Pipeline
from penstock.runtime.mistakes import checked_graph
from penstock.verify.fixtures import Outcome, read_fixtures, run_fixture

DEFAULT_RUNS = 100


@click.command()
@click.option("--faults", is_flag=True, help="Simulate crashes, torn writes, full disks, failing sinks, clock jumps.")
@click.option("--seed", type=click.IntRange(0), help="Of the first simulated schedule (default: a fresh one, shown).")
@click.option("--runs", type=click.IntRange(1), help=f"Schedules to simulate (default: {DEFAULT_RUNS}).")
@click.option("--jobs", type=click.IntRange(1), help="Processes that simulate (default: one per core, at most 4).")
@pipeline_options
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
def test(
    options: PipelineOptions,
    files: tuple[Path, ...],
    faults: bool,
    seed: int | None,
    runs: int | None,
    jobs: int | None,
) -> None:
    """Run the tests of PIPELINE in FILES (default: tests/*.toml beside it): rows in, rows expected.

    Exits with 1 when a test fails. docs/tutorial/first-pipeline.md shows a test file. With --faults, these rows and
    generated ones go through simulated faults, and what the sinks hold is compared with an independent batch: exit
    code 3 when they differ (docs/guides/fault-simulation.md).
    """
    pipeline = load_pipeline(options.pipeline)
    checked_graph(pipeline, options.parameters())
    found = files or tuple(sorted((Path(pipeline.where.file).parent / "tests").glob("*.toml")))
    if faults:
        from penstock.cli.simulation import run_simulation

        chosen = secrets.randbelow(1_000_000) if seed is None else seed
        workers = jobs or min(4, os.cpu_count() or 1)
        run_simulation(options, found, seed=chosen, runs=runs or DEFAULT_RUNS, jobs=workers)
        return
    if (seed, runs, jobs) != (None, None, None):
        raise click.UsageError("--seed, --runs and --jobs belong to --faults")
    _run_fixtures(options, pipeline, found)


def _run_fixtures(options: PipelineOptions, pipeline: Pipeline, found: tuple[Path, ...]) -> None:
    if not found:
        raise DeclarationError(
            "PS-DECL-014",
            "there are no tests",
            expected="tests/*.toml beside the pipeline",
            got="none",
            hint="penstock test PIPELINE FILE names others",
        )
    fixtures = [fixture for file in found for fixture in read_fixtures(file)]
    outcomes = []
    for fixture in fixtures:
        outcome = run_fixture(pipeline, fixture, options.parameters())
        outcomes.append(outcome)
        if options.output == "text":
            _show(outcome)
    failed = [outcome for outcome in outcomes if outcome.differences]
    if options.output == "json":
        click.echo(json.dumps([_plain(outcome) for outcome in outcomes]))
    else:
        click.echo(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise RunError(
            "PS-TEST-001",
            f"{len(failed)} of {len(outcomes)} tests failed",
            expected="the rows of the test files",
            got=failed[0].differences[0],
        )


def _show(outcome: Outcome) -> None:
    click.echo(f"{'FAILED' if outcome.differences else 'passed'}  {outcome.fixture.name}")
    for line in outcome.differences:
        click.echo(f"    {line}")


def _plain(outcome: Outcome) -> dict[str, object]:
    fixture = outcome.fixture
    return {
        "name": fixture.name,
        "file": str(fixture.file),
        "passed": not outcome.differences,
        "differences": list(outcome.differences),
    }
