"""What `penstock test --faults` runs and shows."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.cli.options import PipelineOptions
from penstock.errors import RunError, VerificationError
from penstock.verify.fold import Difference
from penstock.verify.simulation.run import Course
from penstock.verify.simulation.simulate import Findings, SimulatedSpec, simulate, told


def run_simulation(options: PipelineOptions, files: Sequence[Path], *, seed: int, runs: int, jobs: int) -> None:
    """Simulate, show what came of it, and raise the first failure.

    Raises:
        VerificationError: PS-VERIFY-001 where a sink's content and the batch differ, PS-VERIFY-002 without anything
            to compare.
        RunError: PS-RUN-001 where the job fails by itself.
    """
    text = options.output == "text"
    subject = SimulatedSpec(options.pipeline, options.parameters(), tuple(files)).load()
    if text:
        click.echo(f"seed {seed}", err=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (text and sys.stderr.isatty())) as progress:
        bar = progress.add_task("without faults first", total=runs)

        def advance(_: Course) -> None:
            progress.update(bar, description="schedules", advance=1)

        findings = simulate(subject, seed=seed, runs=runs, jobs=jobs, watch=advance)
    click.echo(json.dumps(_plain(findings)) if not text else report(findings))
    if findings.failed is not None:
        raise _failure(options, findings.failed)


def report(findings: Findings) -> str:
    """What was simulated and seen, as text."""
    count = sum(findings.faults.values())
    lines = [
        f"{findings.runs} schedules in {findings.seconds:.1f} s: {count} faults, {findings.epochs} epochs, "
        f"{findings.rows} records, {findings.changes} changes folded",
        *(f"  {times}x {fault}" for fault, times in sorted(findings.faults.items())),
        "inputs: " + ", ".join(findings.cases),
    ]
    if findings.ungenerated:
        lines.append(f"no records were generated: {findings.ungenerated}")
    passed = sorted((times, point) for point, times in findings.hits.items() if times)
    lines.append(
        f"fail points passed: {len(passed)} of {len(findings.hits)}"
        + (f", from {passed[0][0]}x {passed[0][1]} to {passed[-1][0]}x {passed[-1][1]}" if passed else "")
    )
    if findings.unreached:
        lines.append(f"never passed: {', '.join(findings.unreached)}")
    lines += [f"{view}: not compared, {reason}" for view, reason in findings.skipped.items()]
    verdict = "equal to the batch" if findings.failed is None else "compared"
    lines += [f"{view}: {rows} rows, {verdict}" for view, rows in sorted(findings.compared.items())]
    if findings.failed is not None:
        lines += ["", f"seed {findings.failed.schedule.seed} FAILED", *told(findings.failed.schedule, findings.failed)]
    return "\n".join(lines)


def _failure(options: PipelineOptions, course: Course) -> VerificationError | RunError:
    again = f"again with: penstock test {options.pipeline} --faults --seed {course.schedule.seed} --runs 1"
    if course.difference is None:
        return RunError(
            "PS-RUN-001",
            "the job failed by itself",
            expected="a job that only the injected faults stop",
            got=course.failure,
            hint=again,
        )
    found = course.difference
    place = f"epoch {found.epoch}, " if found.epoch is not None else ""
    key = ", ".join(f"{name} = {value!r}" for name, value in found.key.items())
    return VerificationError(
        "PS-VERIFY-001",
        f"the sinks and the batch disagree: {place}{found.view}, {key}" + (f" ({found.what})" if found.what else ""),
        expected=f"batch: {_row(found.batch)}",
        got=f"job:   {_row(found.job)}",
        hint=again,
    )


def _row(row: Mapping[str, object] | None) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in row.items()) if row is not None else "no such row"


def _plain(findings: Findings) -> dict[str, object]:
    failed = findings.failed
    return {
        "seed": findings.seed,
        "runs": findings.runs,
        "seconds": round(findings.seconds, 3),
        "faults": dict(sorted(findings.faults.items())),
        "epochs": findings.epochs,
        "records": findings.rows,
        "changes": findings.changes,
        "inputs": list(findings.cases),
        "compared": dict(findings.compared),
        "skipped": findings.skipped,
        "passed": dict(sorted(findings.hits.items())),
        "never_passed": list(findings.unreached),
        "failed": None if failed is None else _failed(failed),
    }


def _failed(course: Course) -> dict[str, object]:
    return {
        "seed": course.schedule.seed,
        "schedule": told(course.schedule, course),
        "failure": course.failure,
        "difference": _difference(course.difference),
    }


def _difference(found: Difference | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        "view": found.view,
        "epoch": found.epoch,
        "key": {name: str(value) for name, value in found.key.items()},
        "job": _row(found.job),
        "batch": _row(found.batch),
        "what": found.what,
    }
