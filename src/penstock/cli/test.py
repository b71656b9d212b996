"""`penstock test`: the fixtures of a pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import click

from penstock.cli.options import PipelineOptions, pipeline_options
from penstock.errors import DeclarationError, RunError
from penstock.load import load_pipeline
from penstock.runtime.mistakes import checked_graph
from penstock.verify.fixtures import Outcome, read_fixtures, run_fixture


@click.command()
@pipeline_options
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
def test(options: PipelineOptions, files: tuple[Path, ...]) -> None:
    """Run the tests of PIPELINE in FILES (default: tests/*.toml beside it): rows in, rows expected.

    Exits with 1 when a test fails. docs/tutorial/first-pipeline.md shows a test file.
    """
    pipeline = load_pipeline(options.pipeline)
    checked_graph(pipeline, options.parameters())
    found = files or tuple(sorted((Path(pipeline.where.file).parent / "tests").glob("*.toml")))
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
