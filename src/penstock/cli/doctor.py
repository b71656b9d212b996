"""`penstock doctor`: what is installed, what is missing, and what to type about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import click

from penstock.cli.options import Output, output_option
from penstock.errors import Error
from penstock.settings import FILE, load_settings

_NEEDED = ("duckdb", "sqlglot", "pydantic", "pyarrow", "click", "rich", "google-crc32c", "numpy", "prometheus_client")
_OPTIONAL = {
    "numba": ("judging plain JSON at several times the speed", "pip install 'penstock[fast]'"),
    "starlette": ("the live page", "pip install 'penstock[page]'"),
    "ibis-framework": ("views as Ibis expressions", "pip install 'penstock[ibis]'"),
}
_SPACE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. hint: what to type, empty where nothing is to be done."""

    what: str
    state: Literal["ok", "missing", "optional", "wrong"]
    got: str
    hint: str = ""


@click.command()
@output_option
@click.pass_context
def doctor(context: click.Context, output: Output) -> None:
    """Show what is installed, what is missing and what to type. Exits with 1 when something needed is missing."""
    findings = examine()
    if output == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{finding.state:9} {finding.what:20} {finding.got}")
            if finding.hint:
                click.echo(f"{'':9} -> {finding.hint}")
    if any(finding.state in ("missing", "wrong") for finding in findings):
        context.exit(1)


def examine() -> list[Finding]:
    """Look at everything, in a fixed order."""
    checks: list[Callable[[], Finding]] = [_python, _state_folder, _space, _settings]
    return [*(check() for check in checks[:1]), *_packages(), *(check() for check in checks[1:])]


def _python() -> Finding:
    found = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", "ok", found)
    return Finding("python", "wrong", found, "make PYTHON=python3.12 setup")


def _packages() -> list[Finding]:
    findings = []
    for package in _NEEDED:
        try:
            findings.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            findings.append(Finding(package, "missing", "not installed", "pip install penstock"))
    for package, (purpose, hint) in _OPTIONAL.items():
        try:
            findings.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            findings.append(Finding(package, "optional", f"not installed; for {purpose}", hint))
    return findings


def _state_folder() -> Finding:
    folder = Path(".penstock")
    nearest = folder if folder.exists() else Path()
    if os.access(nearest, os.W_OK):
        return Finding("state folder", "ok", str(folder.absolute()))
    return Finding("state folder", "wrong", f"{nearest.absolute()} is read-only", "choose another one with --state DIR")


def _space() -> Finding:
    free = shutil.disk_usage(".").free
    got = f"{free / (1 << 30):.1f} GiB free"
    if free >= _SPACE_BYTES:
        return Finding("disk", "ok", got)
    return Finding("disk", "wrong", got, "free some space, or choose another disk with --state DIR")


def _settings() -> Finding:
    try:
        settings = load_settings(Path())
    except Error as error:
        return Finding(FILE, "wrong", error.render().splitlines()[0], "penstock ls PIPELINE shows all mistakes")
    if not settings.targets:
        return Finding(FILE, "ok", "none here; the built-in target local is used")
    return Finding(FILE, "ok", f"targets: {', '.join(settings.targets)}")
